"""The web page in a browser: chat, documents, jobs."""

import os
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from testing.stack import Stack

NASTY_NAME = "<img src=x onerror=hacked=1>.txt"
NASTY_TEXT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> The lighthouse is green."


@pytest.fixture
def no_model_worker(stack: Stack) -> Iterator[None]:
    """The gpu worker is suspended, so that jobs stay queued."""
    worker = stack.pid("gpu0")
    os.kill(worker, signal.SIGSTOP)
    yield
    os.kill(worker, signal.SIGCONT)


def ask(page: Page, question: str) -> Locator:
    """Send a question, and return its turn."""
    expect(page.locator("#chat-send")).to_be_enabled()
    page.get_by_label("Message").fill(question)
    page.keyboard.press("Enter")
    return page.locator(".turn").last


def upload(page: Page, collection: str, name: str, text: str) -> Locator:
    """Drop a file into a new collection, and return its entry once it is ready."""
    page.goto("/#documents")
    page.get_by_label("Name of a new collection").fill(collection)
    page.keyboard.press("Enter")
    expect(page.locator("#drop-collection")).to_have_text(collection)
    files = page.evaluate_handle(
        "([name, text]) => { const data = new DataTransfer(); data.items.add(new File([text], name)); return data; }",
        [name, text],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": files})
    entry = page.locator(".document")
    expect(entry.locator(".badge")).to_have_text("Ready", timeout=150_000)
    return entry


def test_an_answered_question_survives_a_reload(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#health")).to_have_text("Ready")
    expect(page.get_by_label("Model").locator("option:checked")).to_have_text("echo")
    expect(page.get_by_label("Model").locator("option:disabled")).to_have_text("not-started (not served by any worker)")
    turn = ask(page, "What is an enginehouse?")
    expect(turn.locator(".answer-text")).to_contain_text("What is an enginehouse?")
    expect(turn.locator(".hint")).to_contain_text("echo")
    page.reload()
    expect(page.locator(".question")).to_have_text("What is an enginehouse?")
    expect(page.locator(".answer-text")).to_contain_text("What is an enginehouse?")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_an_answer_cites_an_uploaded_document(page: Page) -> None:
    upload(page, "ducks", "ducks.txt", "The capital of the ducks is Pondicherry-on-Mud.")
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_label("Answer from").select_option("ducks")
    turn = ask(page, "What is the capital of the ducks?")
    citation = turn.locator(".citation")
    expect(citation.locator("summary")).to_have_text("[1] ducks.txt, page 1")
    expect(citation.locator("blockquote")).to_be_hidden()
    citation.locator("summary").click()
    expect(citation.locator("blockquote")).to_have_text("The capital of the ducks is Pondicherry-on-Mud.")
    page.reload()
    expect(page.locator(".citation summary")).to_have_text("[1] ducks.txt, page 1")


@pytest.mark.usefixtures("no_model_worker")
def test_a_queued_question_shows_its_position_and_can_be_stopped(page: Page) -> None:
    page.goto("/")
    turn = ask(page, "Are you there?")
    expect(turn.locator(".status")).to_have_text("Queued, next in line…")
    page.reload()
    expect(turn.locator(".status")).to_have_text("Queued, next in line…")
    page.get_by_role("button", name="Stop").click()
    expect(turn.locator(".status")).to_have_text("Stopped.")
    expect(page.locator("#chat-send")).to_be_enabled()


@pytest.mark.usefixtures("no_model_worker")
def test_a_job_is_filtered_cancelled_and_deleted(page: Page, stack: Stack) -> None:
    job = stack.generate("Never mind.")["id"]
    page.goto("/#jobs")
    page.get_by_label("Status").select_option("queued")
    row = page.locator("#jobs-rows tr")
    expect(row).to_have_count(1)
    expect(row.locator("td").first).to_have_text("Queued")
    row.get_by_role("link", name="Generate").click()
    expect(page.locator("#job-facts")).to_contain_text(job)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#job-status")).to_have_text("Cancelled")
    page.locator("#job-delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#jobs-index")).to_be_visible()
    assert stack.client.get(f"/jobs/{job}").status_code == 404


def test_the_jobs_table_has_pages(page: Page, stack: Stack) -> None:
    for number in range(21):
        stack.ended(stack.generate(f"number {number}")["id"])
    page.goto("/#jobs")
    page.get_by_label("Kind").select_option("generate")
    rows = page.locator("#jobs-rows tr")
    expect(rows).to_have_count(20)
    newest = rows.first.get_attribute("data-key")
    page.get_by_role("button", name="Older").click()
    expect(page.locator(f"[data-key={newest}]")).to_have_count(0)
    page.get_by_role("button", name="Newer").click()
    expect(rows.first).to_have_attribute("data-key", str(newest))


def test_unreadable_documents_show_the_reason_and_can_be_deleted(page: Page) -> None:
    page.goto("/#documents")
    page.get_by_label("Name of a new collection").fill("odd")
    page.keyboard.press("Enter")
    nothing: FilePayload = {"name": "nothing.txt", "mimeType": "text/plain", "buffer": b""}
    picture: FilePayload = {"name": "picture.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n" + bytes(200)}
    page.locator("#files").set_input_files([nothing, picture])
    expect(page.locator("#uploads-words")).to_have_text("2 files sent.")
    entry = page.locator(".document", has_text="picture.png")
    expect(entry.locator(".badge")).to_have_text("Unsupported")
    expect(entry.locator(".reason")).to_contain_text("Supported formats: PDF")
    expect(page.locator(".document", has_text="nothing.txt").locator(".badge")).to_have_text("No text")
    page.get_by_role("button", name="Delete picture.png").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(entry).to_have_count(0)


def test_markup_in_names_and_texts_stays_text(page: Page) -> None:
    entry = upload(page, "nasty", NASTY_NAME, NASTY_TEXT)
    expect(entry.locator(".name")).to_have_text(NASTY_NAME)
    page.get_by_role("searchbox").fill("Which colour has the lighthouse?")
    page.keyboard.press("Enter")
    expect(page.locator(".hit blockquote")).to_have_text(NASTY_TEXT)
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_label("Answer from").select_option("nasty")
    turn = ask(page, NASTY_TEXT)
    expect(turn.locator(".question")).to_have_text(NASTY_TEXT)
    expect(turn.locator("summary")).to_have_text(f"[1] {NASTY_NAME}, page 1")
    expect(turn.locator("blockquote")).to_have_text(NASTY_TEXT)
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("() => window.hacked") is None


def test_the_page_shows_an_outage_and_recovers(page: Page, browser_errors: list[str]) -> None:
    page.goto("/")
    expect(page.locator("#health")).to_have_text("Ready")
    page.context.set_offline(True)
    expect(page.locator("#health")).to_have_text("Away")
    turn = ask(page, "Hello?")
    expect(turn.locator(".status")).to_have_text("The server does not respond.")
    page.context.set_offline(False)
    expect(page.locator("#health")).to_have_text("Ready")
    turn.get_by_role("button", name="Ask again").click()
    expect(page.locator(".answer-text")).to_contain_text("Hello?")
    assert all("ERR_INTERNET_DISCONNECTED" in error for error in browser_errors)
    browser_errors.clear()


def test_every_view_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 700})
    for view in ("Chat", "Documents", "Jobs"):
        page.goto("/")
        page.get_by_role("link", name=view, exact=True).click()
        expect(page.get_by_role("heading", name=view, level=1)).to_be_attached()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 400


def test_files_have_security_headers_and_are_revalidated(stack: Stack) -> None:
    index = stack.client.get("/")
    policy = index.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert index.headers["x-content-type-options"] == "nosniff"
    for path in ("/", "/static/app.js", "/static/style.css", "/static/mark.svg"):
        answer = stack.client.get(path)
        assert answer.headers["cache-control"] == "no-cache"
        again = stack.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == policy
    for path in ("/static/", "/static/nothing.js", "/static/..%2findex.html", "/static/%2e%2e/index.html"):
        assert stack.client.get(path).status_code == 404
