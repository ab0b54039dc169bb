"""All views: accessibility, phones, the first load, the keyboard, operations, webhooks and signing in."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from testing.receiver import Receiver, status
from testing.stack import Stack
from tests.browser.actions import (
    add_documents,
    answered,
    ask,
    assert_focus_shown,
    fits,
    go_to,
    small_targets,
    tab_back_to,
    tab_to,
    violations,
)
from tests.odd_files import pdf

VIEWS = ["/", "/ui/documents/views", "/ui/documents/views?q=harbour", "/ui/jobs", "/ui/operations", "/ui/usage", "/ui/webhooks"]


@pytest.fixture(scope="module")
def furnished(stack: Stack) -> str:
    """A stack with something to see in each view, and the path of a finished job."""
    add_documents(stack, "views", boats_txt="Boats sail at noon from the harbour.", empty_txt="")
    # A queue is listed once it has had a job, and searches are jobs of the queue io.
    assert stack.post("/collections/views/search", {"query": "harbour"}).status_code in (200, 202)
    job = stack.generate("# A title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nx = 1\n```\n\n1. one")["id"]
    stack.ended(job)
    return f"/ui/jobs/{job}"


def show(page: Page, path: str) -> None:
    """Open a view, and wait for what it fetches."""
    page.goto(path)
    expect(page.locator("main :is(h1, .sheet h2)").first).to_be_attached()
    expect(page.get_by_text("Loading…")).to_have_count(0)
    expect(page.get_by_text("Searching…")).to_have_count(0)


def test_axe_finds_nothing_in_any_view(page: Page, stack: Stack, furnished: str, axe: str) -> None:
    found: dict[str, list[str]] = {}
    document = stack.client.get("/collections/views/documents").json()["data"][-1]["id"]
    for path in [*VIEWS, furnished, f"{furnished}?tab=events", f"/ui/documents/views/{document}", "/docs"]:
        if path == "/docs":
            page.goto(path)
            # All calls have one form, as have all schemas, and axe takes a minute for all of them.
            page.evaluate(
                "() => ['article', 'nav li', 'main > h2'].forEach((kind) =>"
                " [...document.querySelectorAll(kind)].slice(5, -3).forEach((one) => one.remove()))"
            )
        else:
            show(page, path)
        found[path] = violations(page, axe)
    page.goto("/")
    answered(ask(page, "Hello"))
    found["answer"] = violations(page, axe)
    page.get_by_role("button", name="More about Hello").first.click()
    found["menu"] = violations(page, axe)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".versions")).to_have_text("2 of 2")
    answered(page.locator(".turn").last)
    page.get_by_role("button", name="Options").click()
    found["versions"] = violations(page, axe)
    page.get_by_role("button", name="Edit the question").click()
    found["edit"] = violations(page, axe)
    assert {path: problems for path, problems in found.items() if problems} == {}


@pytest.mark.usefixtures("furnished")
def test_axe_finds_nothing_in_dialogs_and_sheets(page: Page, provoked_errors: list[str], axe: str) -> None:
    provoked_errors.append("status of 422")
    found = {name: violations(page, axe) for name in each_dialog(page)}
    assert len(found) == 8
    assert {name: problems for name, problems in found.items() if problems} == {}


def each_dialog(page: Page) -> Iterator[str]:
    """Opens one dialog and sheet of the page after the other."""
    show(page, "/ui/documents/views")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("dialog", name="Go to")).to_be_visible()
    yield "palette"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    yield "shortcuts"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("dialog", name="Settings of views")).to_be_visible()
    yield "collection"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Delete collection").click()
    expect(page.get_by_role("dialog", name="Delete collection")).to_be_visible()
    yield "confirmation"
    page.keyboard.press("Escape")
    page.get_by_role("link", name="boats.txt").click()
    expect(page.get_by_role("complementary", name="Details")).to_contain_text("Boats sail at noon")
    yield "document"
    show(page, "/ui/documents/views?q=harbour")
    page.locator(".hit").first.click()
    expect(page.get_by_role("complementary", name="Details").locator("mark")).to_be_visible()
    yield "passage"
    show(page, "/ui/webhooks")
    page.get_by_role("button", name="New webhook").click()
    page.get_by_role("dialog").get_by_label("Address").fill("nonsense")
    page.get_by_role("dialog").get_by_role("button", name="Create").click()
    expect(page.get_by_role("dialog", name="New webhook").get_by_role("alert")).to_be_visible()
    yield "webhook"
    page.keyboard.press("Escape")
    page.goto("/")
    # On a phone, Enter begins a new line.
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Send", exact=True).click()
    answered(page.locator(".turn"))
    if page.get_by_role("button", name="Chats", exact=True).is_visible():
        page.get_by_role("button", name="Chats", exact=True).click()
    page.get_by_role("button", name="More about Hello").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    yield "chat"


PHONES = [{"viewport": {"width": width, "height": 740}, "has_touch": True, "is_mobile": True} for width in (390, 320)]


@pytest.mark.parametrize("context_options", PHONES, ids=["390", "320"])
def test_views_and_dialogs_fit_a_phone_and_have_targets_for_fingers(
    page: Page, furnished: str, provoked_errors: list[str]
) -> None:
    provoked_errors.append("status of 422")
    small: dict[str, list[str]] = {}
    for path in [*VIEWS, furnished, f"{furnished}?tab=events", f"{furnished}?tab=json"]:
        show(page, path)
        # The lamp at its widest, however many things need attention now.
        expect(page.locator("#health")).not_to_have_text("Checking…")
        page.evaluate(
            """() => {
              const lamp = document.querySelector("#health");
              lamp.dataset.state = "attention";
              lamp.lastChild.textContent = "12 need attention";
            }"""
        )
        assert fits(page), path
        small[path] = small_targets(page)
    for name in each_dialog(page):
        assert fits(page), name
        small[name] = small_targets(page)
    assert {path: targets for path, targets in small.items() if targets} == {}


@pytest.mark.parametrize("path", VIEWS)
@pytest.mark.usefixtures("furnished")
def test_the_first_load_of_a_view_is_small(page: Page, path: str) -> None:
    """Few requests and bytes until all is shown. What is fetched again later counts once."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    urls: dict[str, str] = {}
    received: dict[str, float] = {}

    def on_request(event: dict[str, Any]) -> None:
        urls[event["requestId"]] = event["request"]["url"]

    def on_finished(event: dict[str, Any]) -> None:
        received.setdefault(urls[event["requestId"]], event["encodedDataLength"])

    session.on("Network.requestWillBeSent", on_request)
    session.on("Network.loadingFinished", on_finished)
    show(page, path)
    expect(page.locator("#health")).not_to_have_text("Checking…")
    if path == "/":
        expect(page.get_by_label("Model").locator("option:checked")).to_contain_text("echo")
    if path == "/ui/operations":
        expect(page.locator(".tile svg")).to_have_count(5)
    addresses = sorted(url.removeprefix("http://") for url in received)
    assert len(received) <= 12, addresses
    assert sum(received.values()) <= 100_000, received
    shift = page.evaluate(
        """() => new Promise((resolve) => new PerformanceObserver((list) =>
          resolve(list.getEntries().reduce((sum, entry) => sum + entry.value, 0))).observe({ type: "layout-shift", buffered: true })
          || setTimeout(() => resolve(0), 300))"""
    )
    assert shift < 0.05


def test_a_view_names_all_scripts_that_it_needs(stack: Stack) -> None:
    """Otherwise the browser learns of them only once others have run."""
    named = {
        path: re.findall(r'(?:src|crossorigin href)="(/ui/assets/[^"]+\.js)"', stack.client.get(path).text)
        for path in (*VIEWS, "/ui/jobs/job_1", "/ui/chat/chat-1")
    }
    assert named["/ui/documents/views"] != named["/ui/jobs"]
    assert set(named["/ui/jobs"]) < set(named["/ui/jobs/job_1"])
    assert set(named["/"]) < set(named["/ui/chat/chat-1"])
    for scripts in named.values():
        assert len(set(scripts)) == len(scripts)
        for script in scripts:
            assert stack.client.get(script).headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    ("path", "data", "shown"),
    [("/ui/documents/views", "/collections", ".shelf li a"), ("/ui/jobs", "/jobs/counts?", ".chips .chip b")],
)
@pytest.mark.usefixtures("furnished")
def test_a_view_asks_for_its_data_once_and_before_its_code_has_arrived(
    page: Page, stack: Stack, path: str, data: str, shown: str
) -> None:
    held: list[Route] = []
    asked: list[str] = []
    page.route("**/ui/assets/frame-*.js", lambda route: held.append(route))
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_request("**/ui/assets/frame-*.js"), page.expect_request(f"{stack.url}{data}"):
        page.goto(path, wait_until="commit")
    expect(page.locator(".rail")).to_have_count(0)
    for route in held:
        route.continue_()
    expect(page.locator(shown).first).to_be_visible()
    assert asked.count(f"{stack.url}{data}") == 1


def test_the_keyboard_alone_is_enough(page: Page, stack: Stack) -> None:
    add_documents(stack, "doors", keys_txt="The keys hang behind the door.")
    page.goto("/ui/jobs")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    page.keyboard.press("Control+k")
    expect(page.get_by_label("View, collection or job")).to_be_focused()
    page.keyboard.type("doors")
    expect(page.get_by_role("option", name="Documents: doors")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="doors", level=1)).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Search doors")).to_be_focused()
    page.keyboard.type("Where are the keys?")
    page.keyboard.press("Enter")
    hit = page.locator(".hit").first
    expect(hit).to_be_visible()
    hit.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Details").locator("mark")).to_be_visible()
    page.keyboard.press("Escape")
    expect(hit).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile("/ui/jobs$"))
    page.keyboard.press("n")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    page.locator("body").press("Tab")
    page.goto("/ui/jobs")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()


@pytest.mark.parametrize("way", ["shortcut", "palette"])
def test_a_new_chat_takes_the_focus_when_its_code_arrives_late(page: Page, way: str) -> None:
    page.goto("/ui/jobs")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    link = page.get_by_role("link", name="Jobs")

    def late(route: Route) -> None:
        link.focus()
        route.continue_()

    page.route("**/assets/view-*", late)
    if way == "shortcut":
        page.keyboard.press("n")
    else:
        page.keyboard.press("Control+k")
        expect(page.get_by_label("View, collection or job")).to_be_focused()
        page.keyboard.type("New")
        page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.unroute("**/assets/view-*")


def test_the_palette_has_the_focus_when_it_is_drawn_again_before_it_was_shown(page: Page) -> None:
    page.goto("/ui/jobs")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    # What a list that arrives at that moment does: effects of a component run early when it is drawn again before the browser has painted.
    page.evaluate("""async () => {
        document.dispatchEvent(new KeyboardEvent("keydown", { key: "k", ctrlKey: true }));
        let field = null;
        for (let turn = 0; turn < 1000 && field === null; turn++) {
            await Promise.resolve();
            field = document.querySelector("[aria-controls=palette-list]");
        }
        field.value = "Web";
        field.dispatchEvent(new Event("input", { bubbles: true }));
    }""")
    expect(page.get_by_role("option", name="Webhooks")).to_be_visible()
    expect(page.get_by_label("View, collection or job")).to_be_focused()


def test_the_focus_stays_while_the_lists_load(page: Page, stack: Stack) -> None:
    stack.post("/collections", {"name": "anchors"})
    files = page.locator("#files")

    def late(route: Route) -> None:
        files.focus()
        route.continue_()

    page.route("**/collections", late)
    # The address names no collection, so the list decides which one is shown.
    page.goto("/ui/documents")
    expect(page.get_by_role("heading", level=1)).not_to_have_text("default")
    expect(files).to_be_focused()


def test_the_whole_way_by_keyboard(page: Page, stack: Stack) -> None:
    """Upload, ask, open the page that the answer cites, watch, cancel and retry a job, and pause a queue, without a pointer.

    The focus is visible all the way.
    """
    # With the first listener, Playwright has the browser report choosers. That takes a moment, and a key pressed at once may open one before.
    page.on("filechooser", lambda _: None)
    page.goto("/ui/documents/harbour")
    files = page.locator("#files")
    expect(files).to_be_enabled()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(page, files)
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    text = "The harbour opens at six. The lighthouse is painted green."
    file: FilePayload = {"name": "harbour.pdf", "mimeType": "application/pdf", "buffer": pdf(text)}
    chooser.value.set_files([file])
    # The chooser of the browser has taken the focus of the window.
    page.bring_to_front()
    # The first document waits until the workers have loaded what they read and embed it with.
    expect(page.locator("#upload-words")).to_have_text("1 of 1 ready", timeout=90_000)

    go_to(page, "New chat")
    tab_to(page, page.get_by_label("Answer from"))
    page.keyboard.type("harbour")
    expect(page.get_by_label("Answer from")).to_have_value("harbour")
    tab_back_to(page, page.get_by_label("Message", exact=True))
    page.keyboard.type("When does the harbour open?")
    page.keyboard.press("Enter")
    turn = answered(page.locator(".turn").last)
    source = turn.get_by_role("group", name="Sources").get_by_role("button").first
    tab_back_to(page, source)
    page.keyboard.press("Enter")
    sheet = page.get_by_role("complementary", name="Details")
    expect(sheet.get_by_role("img", name=re.compile("^Page 1 of harbour.pdf, with this passage marked"))).to_be_visible()
    assert_focus_shown(page)
    # The only page is the last one, but its button keeps the focus.
    tab_to(page, sheet.get_by_role("button", name="Next page"))
    page.keyboard.press("Enter")
    assert_focus_shown(page)
    page.keyboard.press("Escape")
    expect(source).to_be_focused()
    assert_focus_shown(page)

    with stack.paused("gpu.echo"):
        tab_to(page, page.get_by_label("Message", exact=True))
        page.keyboard.type("A question to watch")
        page.keyboard.press("Enter")
        expect(page.locator(".turn").last).to_have_attribute("data-state", "queued")
        go_to(page, "Jobs")
        tab_to(page, page.get_by_role("link", name="A question to watch"))
        page.keyboard.press("Enter")
        expect(page.locator("#job-status")).to_have_text("Queued")
        tab_to(page, page.get_by_role("button", name="Cancel"))
        page.keyboard.press("Enter")
        expect(page.locator("#job-status")).to_have_text("Cancelled")
        retry = page.get_by_role("button", name="Retry")
        expect(retry).to_be_focused()
        assert_focus_shown(page)
        cancelled = page.url
        page.keyboard.press("Enter")
        expect(page.locator("#job-status")).to_have_text("Queued")
        assert page.url != cancelled
        assert_focus_shown(page)
    expect(page.locator("#job-status")).to_have_text("Completed")
    assert_focus_shown(page)

    go_to(page, "Operations")
    pause = page.get_by_role("button", name="Pause io")
    tab_to(page, pause)
    page.keyboard.press("Enter")
    resume = page.get_by_role("button", name="Resume io")
    expect(resume).to_be_focused()
    page.keyboard.press("Enter")
    expect(pause).to_be_visible()


def test_operations_show_queues_workers_and_models(page: Page, stack: Stack, furnished: str) -> None:
    page.goto("/ui/operations")
    expect(page.locator(".tile")).to_have_count(5)
    expect(page.locator(".tile svg")).to_have_count(5)
    expect(page.get_by_role("slider", name=re.compile("^Queued, last 1 h: lowest 0, highest [0-9]+, last"))).to_be_visible()
    queues = page.get_by_role("group", name="Table of queues")
    expect(queues).to_contain_text("gpu.echo")
    expect(queues.get_by_role("slider", name=re.compile("^Waiting in gpu.echo, last"))).to_be_visible()
    queues.get_by_role("button", name="Pause io").click()
    expect(queues.get_by_role("button", name="Resume io")).to_be_visible()
    queues.get_by_role("button", name="Resume io").click()
    expect(queues.get_by_role("button", name="Pause io")).to_be_visible()
    workers = page.get_by_role("group", name="Table of workers")
    expect(workers).to_contain_text("cpu@")
    card = page.locator(".cards .card").first
    other = "parrot" if "parrot" not in card.locator("p").first.inner_text() else "echo"
    card.get_by_label(re.compile("Model of gpu0")).select_option(other)
    card.get_by_role("button", name="Load", exact=True).click()
    expect(card.locator("p").first).to_have_text(other)
    expect(card.get_by_text("Ready")).to_be_visible()
    expect(page.get_by_text("None: no job has lost all its workers.")).to_be_visible()


def test_charts_show_their_values_and_other_spans(page: Page, furnished: str) -> None:
    page.goto("/ui/operations")
    chart = page.locator(".tile").first.get_by_role("slider")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r"^[0-9]+, \d\d:\d\d:\d\d$"))
    chart.hover(position={"x": 2, "y": 10})
    expect(chart.locator(".spark-value")).to_have_text(re.compile(r"^(nothing recorded|[0-9]+), \d\d:\d\d:\d\d$"))
    first = chart.get_attribute("aria-valuenow")
    page.mouse.move(0, 0)
    expect(chart.locator(".spark-value")).to_have_count(0)
    # With the keyboard, from the newest value backwards.
    page.get_by_role("group", name="Time range of the charts").get_by_role("button", name="1 day").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"minutes=1440$"))
    expect(chart).to_have_attribute("aria-label", re.compile("^Queued, last 24 h"))
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r", \d\d:\d\d$"))
    page.get_by_role("button", name="15 min").click()
    expect(chart).to_have_attribute("aria-label", re.compile("^Queued, last 15 min"))
    chart.focus()
    page.keyboard.press("Home")
    expect(chart).to_have_attribute("aria-valuenow", "0")
    page.keyboard.press("ArrowRight")
    expect(chart).to_have_attribute("aria-valuenow", "1")
    expect(chart.locator(".spark-value")).to_be_visible()
    assert first is not None


def test_usage_shows_limits_days_models_and_owners(page: Page, stack: Stack, furnished: str) -> None:
    page.goto("/ui/usage")
    tile = page.locator(".tile").filter(has_text="Tokens written")
    expect(tile.locator("b")).to_have_text(re.compile("^[1-9]"))
    limits = page.get_by_role("region", name="Limits of local")
    expect(limits.get_by_role("img", name=re.compile("^Documents: [0-9]+ of "))).to_be_visible()
    expect(page.get_by_role("group", name="Table of models")).to_contain_text("echo")
    expect(page.get_by_role("group", name="Table of owners")).to_contain_text("local")
    expect(page.get_by_role("group", name="Table of days").get_by_role("row")).to_have_count(2)
    page.get_by_role("button", name="Mine").click()
    expect(page).to_have_url(re.compile("owner=me"))
    expect(page.get_by_role("group", name="Table of owners")).to_have_count(0)
    page.get_by_role("button", name="7 days").click()
    expect(page).to_have_url(re.compile("days=7"))
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.path().read_text().startswith("day,model,owner,jobs,prompt_tokens")


def test_the_lamp_is_green_only_when_nothing_wants_attention(page: Page, stack: Stack, axe: str) -> None:
    with Receiver(status(410)) as receiver:
        page.goto("/ui/webhooks")
        expect(page.locator("#health")).to_have_text("Ready")
        page.get_by_role("button", name="New webhook").click()
        page.get_by_label("Address").fill(receiver.url)
        page.get_by_role("dialog").get_by_role("button", name="Create").click()
        expect(page.get_by_role("dialog", name="Secret of the webhook")).to_contain_text("whsec_")
        assert violations(page, axe) == []
        page.keyboard.press("Escape")
        stack.ended(stack.generate("Tell the hook.")["id"])
        card = page.get_by_role("article").filter(has_text=receiver.url).first
        expect(card).to_contain_text("Disabled", timeout=40_000)
    page.reload()
    expect(page.locator("#health")).to_have_text("1 needs attention")
    page.locator("#health").click()
    expect(page.get_by_role("dialog")).to_contain_text("is disabled")
    assert violations(page, axe) == []
    page.keyboard.press("Escape")
    card.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#health")).to_have_text("Ready")


def test_a_webhook_that_fails_stands_out_with_its_deliveries(page: Page, stack: Stack) -> None:
    with Receiver(status(500)) as receiver:
        hook = stack.post("/webhooks", {"url": receiver.url}).json()["id"]
        job = stack.generate("Tell the failing hook.")["id"]
        page.goto("/ui/webhooks")
        expect(page.get_by_role("article", name=receiver.url)).to_contain_text("Failing for")
        line = page.get_by_role("list", name=f"Failed deliveries to {receiver.url}").get_by_role("listitem")
        expect(line).to_contain_text("Retrying")
        expect(line).to_contain_text(re.compile(r"Try \d: 500"))
        line.get_by_role("link").click()
        expect(page).to_have_url(re.compile(rf"/ui/jobs/{job}\?tab=deliveries$"))
        expect(page.get_by_role("list", name="Deliveries of this job")).to_contain_text(receiver.url)
        stack.client.delete(f"/webhooks/{hook}")


def test_files_have_security_headers_and_are_compressed(stack: Stack) -> None:
    index = stack.client.get("/")
    policy = index.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "trusted-types 'none'" in policy
    assert "unsafe" not in policy
    assert index.headers["x-content-type-options"] == "nosniff"
    assert stack.client.get("/ui/jobs/anything").content == stack.client.get("/ui/jobs/job_1").content
    script = re.search(r'src="(/ui/assets/early-[^"]+\.js)"', index.text)
    assert script is not None
    for path, cached in (
        ("/", "no-cache"),
        ("/static/mark.svg", "no-cache"),
        ("/static/reference.css", "no-cache"),
        (script[1], "immutable"),
    ):
        answer = stack.client.get(path)
        assert cached in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        assert stack.client.get(path, headers={"Accept-Encoding": "identity"}).content == answer.content
        again = stack.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == policy
    for path in (
        "/static/",
        "/static/nothing.js",
        "/ui/assets/nothing.js",
        "/ui/assets/..%2findex.html",
        "/static/%2e%2e/index.html",
    ):
        assert stack.client.get(path).status_code in (404, 200 if path.endswith("index.html") else 404)
