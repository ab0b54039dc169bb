"""Documents: collections, uploads, reasons, search, and deletion that can be taken back."""

import re
from pathlib import Path

from playwright.sync_api import FilePayload, Page, expect

from testing.stack import Stack
from testing.waiting import wait_until
from tests.browser.actions import add_documents, assert_focus_shown, drop, violations
from tests.odd_files import locked_pdf, pdf

NASTY_TEXT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> The lighthouse is green."


def test_a_collection_is_created_and_bad_names_are_explained(page: Page, stack: Stack) -> None:
    page.goto("/ui/documents")
    page.get_by_role("button", name="New collection").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("bad name!")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_role("alert")).to_contain_text("letters, digits, dots, dashes and underscores")
    dialog.get_by_label("Name").fill("shelf")
    dialog.get_by_label("Longest chunk (tokens)").fill("64")
    dialog.get_by_role("button", name="Create").click()
    expect(page).to_have_url(re.compile("/ui/documents/shelf$"))
    assert stack.client.get("/collections/shelf").json()["chunk_tokens"] == 64
    page.reload()
    expect(page.get_by_role("heading", name="shelf", level=1)).to_be_visible()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    page.get_by_role("button", name="Settings").click()
    dialog.get_by_label("Longest chunk (tokens)").fill("128")
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(dialog).to_have_count(0)
    assert stack.client.get("/collections/shelf").json()["chunk_tokens"] == 128
    page.get_by_role("button", name="Delete collection").click()
    dialog.get_by_role("button", name="Delete collection").click()
    expect(page.get_by_role("link", name="shelf")).to_have_count(0)
    assert stack.client.get("/collections/shelf").status_code == 404
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("link", name="shelf")).to_be_visible()
    expect(page).to_have_url(re.compile("/ui/documents/shelf$"))
    assert stack.client.get("/collections/shelf").json()["chunk_tokens"] == 128


def test_a_drop_is_one_batch(page: Page, stack: Stack) -> None:
    page.goto("/ui/documents/drops")
    expect(page.locator("#drop")).to_contain_text("Word, PowerPoint, Excel")
    drop(page, "#drop", one_txt="First text.", two_txt="Second text.", three_txt="Third text.")
    expect(page.locator("#upload-words")).to_have_text("3 of 3 ready")
    expect(page.locator(".grid-row .state", has_text="Ready")).to_have_count(3)
    batches = stack.client.get("/jobs?kind=batch").json()["data"]
    assert [batch["counts"]["total"] for batch in batches[:1]] == [3]
    ingests = stack.client.get("/jobs", params={"batch": batches[0]["id"]}).json()["data"]
    assert len(ingests) == 3
    expect(page.locator(".shelf li", has_text="drops")).to_contain_text("3 documents")


def test_folders_are_read_with_their_paths(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    (folder / "deep").mkdir(parents=True)
    (folder / "top.txt").write_text("Top.")
    (folder / "deep" / "down.txt").write_text("Down.")
    page.goto("/ui/documents/folders")
    box = page.locator("#drop").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "x": box["x"] + 30, "y": box["y"] + 20, "data": data})
    expect(page.locator("#upload-words")).to_have_text("2 of 2 ready")
    expect(page.get_by_role("link", name="papers/deep/down.txt")).to_be_visible()
    # The button for folders does the same, and the server knows the bytes already.
    page.locator("#folder").set_input_files(folder)
    expect(page.locator("#upload-words")).to_contain_text("2 already there")


def test_unreadable_documents_show_reasons_and_a_password_is_entered_in_place(page: Page, stack: Stack) -> None:
    page.goto("/ui/documents/odd")
    files: list[FilePayload] = [
        {"name": "nothing.txt", "mimeType": "text/plain", "buffer": b""},
        {"name": "program.bin", "mimeType": "application/octet-stream", "buffer": b"\x7fELF\x02\x01\x01" + bytes(200)},
        {"name": "locked.pdf", "mimeType": "application/pdf", "buffer": locked_pdf("sesame")},
    ]
    page.locator("#files").set_input_files(files)
    expect(page.locator("#upload-words")).to_have_text("0 of 3 ready, 3 failed")
    locked = page.get_by_role("row").filter(has_text="locked.pdf")
    expect(locked.locator(".why")).to_have_text("The file is protected by a password.")
    expect(page.get_by_role("row").filter(has_text="program.bin")).to_contain_text("Unsupported")
    expect(page.get_by_role("row").filter(has_text="nothing.txt")).to_contain_text("No text")
    expect(page.get_by_text("0 ready · 3 need attention")).to_be_visible()
    assert page.get_by_text(re.compile("pdfium|pypdf|field `|Authorization:")).count() == 0
    page.get_by_role("button", name="Need attention 3").click()
    expect(page).to_have_url(re.compile("state=amiss"))
    page.get_by_role("button", name="No text 1").click()
    expect(page.locator(".grid-row")).to_have_count(1)
    page.get_by_role("button", name="Encrypted 1").click()
    locked.get_by_role("button", name="Password").click()
    page.get_by_label("Password of the file").fill("sesame")
    page.get_by_role("button", name="Read the file").click()
    expect(locked).to_have_count(0)
    expect(page.get_by_text("No document matches these filters.")).to_be_visible()
    page.get_by_role("button", name=re.compile("^All")).click()
    expect(locked).to_contain_text("Ready")


def test_documents_are_filtered_sorted_selected_and_deleted_with_undo(page: Page, stack: Stack) -> None:
    form = [("file", (f"paper-{number:03}.txt", f"Paper {number}.".encode())) for number in range(150)]
    with stack.paused("cpu"):
        batch = stack.client.post("/collections/many/documents", files=form).json()["batch"]["id"]
        page.goto("/ui/documents/many")
        expect(page.get_by_role("button", name="All 150")).to_be_visible()
        # Only the rows in view exist, and a waiting document tells its place.
        assert page.locator(".grid-row").count() < 40
        page.get_by_role("link", name="paper-149.txt").click()
        expect(page.get_by_role("complementary", name="Details")).to_contain_text(re.compile("Waiting: number [0-9]+ in line"))
        page.keyboard.press("Escape")
        stack.client.post(f"/jobs/{batch}/cancel")
    page.get_by_role("button", name=re.compile("^Name")).click()
    expect(page.locator(".grid-row .row-link").first).to_have_text("paper-000.txt")
    expect(page).to_have_url(re.compile("sort=name"))
    page.get_by_label("Filter by name").fill("paper-14")
    expect(page.locator(".grid-row")).to_have_count(10)
    page.reload()
    expect(page.locator(".grid-row")).to_have_count(10)
    page.get_by_label("Select paper-140.txt").check()
    page.get_by_label("Select paper-141.txt").check()
    page.get_by_role("group", name="Selection").get_by_role("button", name="Delete").click()
    expect(page.locator(".grid-row")).to_have_count(8)
    wait_until(lambda: stack.client.get("/collections/many").json()["documents"] == 148, "the server has hidden them")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".grid-row")).to_have_count(10)
    wait_until(lambda: stack.client.get("/collections/many").json()["documents"] == 150, "the server has restored them")
    page.get_by_role("button", name="Delete paper-149.txt").click()
    expect(page.locator(".grid-row")).to_have_count(9)
    # Closing the page does not lose the deletion.
    page.goto("about:blank")
    page.goto("/ui/documents/many?name=paper-149")
    expect(page.get_by_text("paper-149.txt")).to_have_count(0)
    frames = page.evaluate(
        """async () => {
          history.replaceState(null, "", "/ui/documents/many");
          let worst = 0, last = performance.now();
          for (let turn = 0; turn < 40; turn += 1) {
            const body = document.querySelector(".grid-body");
            if (body) body.scrollTop = turn * 150;
            await new Promise(requestAnimationFrame);
            worst = Math.max(worst, performance.now() - last); last = performance.now();
          }
          return worst;
        }"""
    )
    assert frames < 500, "scrolling does not block the page, even on a busy machine"


def test_a_jump_in_a_long_list_keeps_selection_and_focus_with_their_documents(page: Page, stack: Stack) -> None:
    form = [("file", (f"note-{number:03}.txt", f"Note {number}.".encode())) for number in range(150)]
    with stack.paused("cpu"):
        batch = stack.client.post("/collections/notes/documents", files=form).json()["batch"]["id"]
        page.goto("/ui/documents/notes?sort=name")
        expect(page.get_by_role("button", name="All 150")).to_be_visible()
        page.get_by_label("Select note-002.txt").check()
        jump_to(page, 3000)
        assert checked_rows(page) == []
        page.evaluate("() => (window.reused = document.querySelector('.grid-row'))")
        jump_to(page, 0)
        assert page.evaluate("() => window.reused.isConnected"), (
            "reusing the elements of a row takes less time than making new ones"
        )
        assert checked_rows(page) == ["note-002.txt"]
        jump_to(page, 3000)
        assert checked_rows(page) == []
        jump_to(page, 0)
        page.get_by_role("link", name="note-001.txt").focus()
        jump_to(page, 3000)
        # Not in the row of another document, which would be opened by the next Enter.
        expect(page.locator("#main")).to_be_focused()
        stack.client.post(f"/jobs/{batch}/cancel")


def jump_to(page: Page, pixels: int) -> None:
    """Scroll the list of notes, and check that the rows are in order and that the window is full of them."""
    page.evaluate("(pixels) => document.querySelector('.grid-body').scrollTo(0, pixels)", pixels)
    expect(page.get_by_role("link", name=f"note-{pixels // 40 + 3:03}.txt")).to_be_in_viewport()
    rows: list[tuple[int, str, float]] = page.evaluate(
        """() => [...document.querySelectorAll(".grid-body .grid-row")].map(
          (row) => [Number(row.ariaRowIndex), row.querySelector(".row-link").textContent, row.getBoundingClientRect().top])"""
    )
    first = rows[0][0]
    assert [(index, name) for index, name, _ in rows] == [
        (number, f"note-{number - 2:03}.txt") for number in range(first, first + len(rows))
    ]
    assert [top - rows[0][2] for _, _, top in rows] == [40 * place for place in range(len(rows))]


def checked_rows(page: Page) -> list[str]:
    """Names of the documents whose row is selected and whose check box is checked."""
    names: list[str] = page.evaluate(
        """() => [...document.querySelectorAll(".grid-body .grid-row")]
          .filter((row) => row.ariaSelected === "true" || row.querySelector("input").checked)
          .map((row) => row.querySelector(".row-link").textContent)"""
    )
    return names


def test_documents_are_renamed_and_moved_and_moved_back(page: Page, stack: Stack, axe: str, provoked_errors: list[str]) -> None:
    provoked_errors.append("status of 409")
    add_documents(stack, "desk", first_txt="The first paper.", second_txt="The second paper.")
    stack.post("/collections", {"name": "cabinet"})
    page.goto("/ui/documents/desk")
    page.get_by_role("button", name="Rename or move first.txt").click()
    dialog = page.get_by_role("dialog")
    assert violations(page, axe) == []
    dialog.get_by_label("Name").fill("second.txt")
    dialog.get_by_role("button", name="Rename").click()
    expect(dialog.get_by_role("alert")).to_contain_text("already has another file under the name")
    dialog.get_by_label("Name").fill("third.txt")
    dialog.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("link", name="third.txt")).to_be_visible()
    page.get_by_label("Select all").check()
    page.get_by_role("button", name="Select nothing").press("Enter")
    # The button is gone with the selection, and the focus is on the view that had it.
    expect(page.locator("#main")).to_be_focused()
    assert_focus_shown(page)
    page.get_by_label("Select all").check()
    page.get_by_role("group", name="Selection").get_by_role("button", name="Move").click()
    dialog.get_by_label("Collection").select_option("cabinet")
    dialog.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator(".shelf li", has_text="cabinet")).to_contain_text("2 documents")
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".grid-row .state", has_text="Ready")).to_have_count(2)
    assert [
        hit["document"] for hit in stack.post("/collections/desk/search", {"query": "first paper", "top_k": 1}).json()["data"]
    ] == ["third.txt"]
    assert stack.client.get("/collections/cabinet").json()["documents"] == 0


def test_search_marks_its_words_and_opens_the_page(page: Page, stack: Stack) -> None:
    add_documents(
        stack,
        "sea",
        lights_txt=NASTY_TEXT,
        boats_txt="Boats sail at noon.\fThe harbour is north of the lighthouse.",
        other_txt="Bread and butter.",
    )
    page.goto("/ui/documents/sea")
    page.get_by_label("Search sea").fill("Which lighthouse is green?")
    page.keyboard.press("Enter")
    hit = page.locator(".hit", has_text="The lighthouse is green.")
    expect(hit).to_be_visible()
    expect(hit.locator("mark").first).to_have_text(re.compile("lighthouse|green"))
    expect(hit).to_contain_text(re.compile("reranker [0-9.]+ · hybrid [0-9.]+"))
    page.get_by_label("Explain").check()
    expect(page).to_have_url(re.compile("explain=1"))
    expect(hit).to_contain_text(re.compile(r"meaning \d\w\w \(.*words \d\w\w \(.*together .*reranker 1st"))
    expect(page.locator(".search-results")).to_contain_text(re.compile("4 chunks in the index.*overlap ranked"))
    page.get_by_label("Explain").uncheck()
    expect(hit.locator(".meter")).to_be_visible()
    page.get_by_label("Kind of search").select_option("keyword")
    page.get_by_label("Number of hits").select_option("5")
    expect(page).to_have_url(re.compile("mode=keyword.*k=5"))
    expect(hit).to_contain_text("keyword")
    page.locator(".hit", has_text="harbour").click()
    sheet = page.get_by_role("complementary", name="Details")
    expect(sheet.locator("mark")).to_have_text("The harbour is north of the lighthouse.")
    expect(sheet).to_contain_text("Page 2 of 2")
    sheet.get_by_role("link", name="Document").click()
    expect(page.get_by_role("complementary", name="Details").last).to_contain_text("2 pages in 2 chunks")
    assert page.evaluate("() => window.hacked") is None


DARK_PIXELS = """
(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let dark = 0;
  for (let at = 0; at < data.length; at += 4) dark += data[at] < 100 && data[at + 3] === 255;
  return dark;
}
"""


def add_pdf(stack: Stack, collection: str, *texts: str) -> str:
    """Add a PDF with these pages and return its id once it is ready."""
    file = {"file": ("papers/harbour.pdf", pdf(*texts))}
    upload = stack.client.post(f"/collections/{collection}/documents", files=file).json()
    stack.ended(upload["batch"]["id"])
    return str(upload["data"][0]["id"])


def test_a_pdf_is_shown_with_its_chunks_on_the_page(page: Page, stack: Stack, axe: str) -> None:
    document = add_pdf(stack, "drawn", "A cover page.", "The harbour opens at six.\nThe lighthouse is painted green.")
    page.goto(f"/ui/documents/drawn/{document}")
    sheet = page.get_by_role("complementary", name="Details")
    picture = sheet.get_by_role("img", name="Page 1 of papers/harbour.pdf")
    expect(picture).to_be_visible()
    assert picture.evaluate(DARK_PIXELS) > 100, "the picture has the letters of the page"
    strip = sheet.get_by_role("navigation", name="Pages")
    expect(strip.locator("canvas")).to_have_count(2)
    strip.get_by_role("button", name="Page 2").click()
    expect(sheet.get_by_role("img", name="Page 2 of papers/harbour.pdf")).to_be_visible()
    expect(sheet.locator(".viewer-page .box")).to_have_count(2)
    sheet.locator(".viewer-page .box").first.click()
    chosen = sheet.locator('.viewer-chunks [data-chosen="true"]')
    expect(chosen).to_contain_text("The lighthouse is painted green.")
    expect(chosen.get_by_role("button", name="Chunk 2")).to_have_attribute("aria-pressed", "true")
    assert violations(page, axe) == []
    with page.expect_download() as download:
        sheet.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "harbour.pdf"
    assert download.value.path().read_bytes().startswith(b"%PDF-")


def test_a_hit_is_marked_on_its_page_and_hits_are_filtered(page: Page, stack: Stack) -> None:
    add_pdf(stack, "marked", "The lighthouse of the cover.", "The harbour opens at six. The lighthouse is painted green.")
    page.goto("/ui/documents/marked?q=lighthouse")
    expect(page.locator(".hit")).to_have_count(2)
    field = page.get_by_label("Filter of the search")
    field.fill("lighthouse")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("“lighthouse” is not a condition")
    field = page.get_by_label("Filter of the search")
    field.fill("page>=2")
    field.press("Enter")
    expect(page.locator(".hit")).to_have_count(1)
    expect(page).to_have_url(re.compile("filter=page"))
    page.locator(".hit").click()
    sheet = page.get_by_role("complementary", name="Details")
    expect(sheet.get_by_role("img", name=re.compile("Page 2 of .* marked: .*painted green"))).to_be_visible()
    box = sheet.locator(".box")
    expect(box).to_have_count(1)
    place, frame = box.bounding_box(), sheet.locator(".page-picture").bounding_box()
    assert place is not None
    assert frame is not None
    assert frame["x"] < place["x"] < place["x"] + place["width"] < frame["x"] + frame["width"]
    assert place["y"] - frame["y"] < frame["height"] / 5, "the text is at the top of the page"
    sheet.get_by_role("tab", name="Text").click()
    expect(sheet.locator("mark")).to_have_text("The harbour opens at six. The lighthouse is painted green.")
    sheet.get_by_role("button", name="Previous page").click()
    expect(sheet.locator(".page-text")).to_contain_text("The lighthouse of the cover.")


def test_a_document_that_waits_to_be_read_is_read_after_its_deletion_was_undone(page: Page, stack: Stack) -> None:
    with stack.paused("cpu"):
        form = {"file": ("waiting.txt", b"Read after all.")}
        document = stack.client.post("/collections/undone/documents", files=form).json()["data"][0]
        page.goto("/ui/documents/undone")
        page.get_by_role("button", name="Delete waiting.txt").click()
        wait_until(lambda: stack.client.get(f"/documents/{document['id']}").status_code == 404, "the server has hidden it")
        page.get_by_role("button", name="Undo").click()
        wait_until(lambda: stack.client.get(f"/documents/{document['id']}").status_code == 200, "the server has restored it")
    expect(page.get_by_role("row").filter(has_text="waiting.txt")).to_contain_text("Ready")
