"""Headers and footers: lines that repeat on most pages are kept on the first one and removed from the others."""

from workers.cpu.parsing.parser import Page
from workers.cpu.repeated_lines import MAX_COUNTED_PAGES, RepeatedLines


def remove(texts: list[str]) -> list[Page]:
    repeated = RepeatedLines()
    pages = [Page(number=number, text=text) for number, text in enumerate(texts, 1)]
    for page in pages:
        repeated.count(page.number, page.text)
    return [repeated.remove(page) for page in pages]


def body(number: int) -> str:
    return "\n".join(f"{word} of chapter {number * 7}." for word in ("Beginning", "Middle", "Detail", "Turn", "End"))


def test_a_header_and_a_footer_stay_on_the_first_page_only() -> None:
    pages = remove([f"Manual of the pump\n{body(number)}\nPage {number} of 9" for number in range(1, 10)])
    assert pages[0].text == f"Manual of the pump\n{body(1)}\nPage 1 of 9"
    assert [page.text.strip() for page in pages[1:]] == [body(number) for number in range(2, 10)]
    assert [page.removed_lines for page in pages] == [0] + [2] * 8


def test_left_and_right_pages_may_have_headers_of_their_own() -> None:
    texts = [f"{'The pump' if number % 2 else 'Manual'}\n{body(number)}\n{number}" for number in range(1, 13)]
    assert [page.text.strip() for page in remove(texts)[2:]] == [body(number) for number in range(3, 13)]


def test_page_numbers_may_begin_anywhere() -> None:
    pages = remove([f"{body(number)}\n- {number + 316} -" for number in range(1, 8)])
    assert all("- 3" not in page.text for page in pages[1:])


def test_the_last_lines_of_invoices_stay() -> None:
    texts = [f"Invoice {1000 + 13 * number}\n{body(number)}\nTotal {number * 37}.50 EUR" for number in range(1, 20)]
    assert [page.text for page in remove(texts)] == texts


def test_a_line_on_a_few_pages_or_in_a_short_document_stays() -> None:
    few = [f"{'Chapter one' if number < 5 else f'Part {number * 3}b'}\n{body(number)}" for number in range(1, 13)]
    short = [f"Manual\n{body(number)}" for number in range(1, 4)]
    assert [page.text for page in remove(few)] == few
    assert [page.text for page in remove(short)] == short


def test_a_page_that_has_nothing_else_keeps_its_lines() -> None:
    texts = [f"Manual\n{body(number)}" for number in range(1, 9)]
    texts[5] = "Manual"
    assert remove(texts)[5].text == "Manual"


def test_lines_in_the_middle_stay_and_headings_move() -> None:
    texts = [f"Manual\n{body(number)}\nManual\n{body(number)}" for number in range(1, 9)]
    pages = remove(texts)
    assert pages[3].text == texts[3].removeprefix("Manual\n")


def test_memory_is_bounded_for_long_documents() -> None:
    texts = [f"Manual\n{body(number)}\n{number}" for number in range(1, MAX_COUNTED_PAGES + 200)]
    assert remove(texts)[-1].text.strip() == body(len(texts))
