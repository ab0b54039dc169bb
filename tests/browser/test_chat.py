"""Chat: streamed answers in Markdown, the list of chats, citations, and what survives a reload."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from shared.redis_connection import connect
from testing.stack import Stack
from tests.browser.actions import add_documents, answered, ask

LONG = "Tell me more about it. " * 20
# Takes longer than a browser on a busy machine needs to find the answer being written. It is stopped then.
VERY_LONG = "Tell me more about it. " * 170
MARKDOWN = """
# Title

A **bold** [link](https://example.com/page), [script](javascript:window.hacked=1) and ![picture](http://evil.example/x.png).

| name | count |
|---|--:|
| lists | 12 |

3. third

```python
def one(): return 1
```

Energy $E = mc^2$ costs $5 or $6. <script>window.hacked = 1</script><img src=x onerror="window.hacked=1">"""


@pytest.fixture
def clean(stack: Stack) -> Stack:
    """The stack without chats: all tests of the page share it, and the list is the server's."""
    for chat in stack.client.get("/chat/sessions?limit=100").json()["data"]:
        stack.client.delete(f"/chat/sessions/{chat['id']}")
    return stack


def test_an_answer_is_streamed_as_it_is_written(page: Page) -> None:
    page.goto("/")
    turn = ask(page, VERY_LONG)
    expect(turn.locator(".prose")).to_contain_text("Tell me more")
    # The text is there while the job runs.
    assert turn.get_attribute("data-state") == "in_progress"
    length = len(turn.locator(".prose").inner_text())
    expect(turn.locator(".prose")).not_to_have_text(re.compile(f"^.{{0,{length}}}$", re.DOTALL))
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(turn.locator(".stopped")).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    turn = answered(ask(page, "A short question"))
    expect(turn.get_by_role("link", name=re.compile("echo · [0-9]+ tokens"))).to_be_visible()
    expect(turn.locator(".details")).to_contain_text("tok/s")
    expect(turn.locator(".details")).to_contain_text("first after")


def test_markdown_is_rendered_and_hostile_output_is_text(page: Page, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/")
    page.get_by_label("Model").select_option("echo")
    prose = answered(ask(page, MARKDOWN)).locator(".prose")
    expect(prose.locator("strong")).to_have_text("bold")
    link = prose.get_by_role("link", name="link", exact=True)
    expect(link).to_have_attribute("href", "https://example.com/page")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    expect(prose.get_by_role("link")).to_have_count(2)
    expect(prose.get_by_role("link", name="picture")).to_have_attribute("href", "http://evil.example/x.png")
    expect(prose.locator("td").first).to_have_text("lists")
    expect(prose.locator("ol")).to_have_attribute("start", "3")
    expect(prose.locator(".code .hljs-keyword").first).to_have_text("def")
    expect(prose.locator("math")).to_have_count(1)
    expect(prose).to_contain_text("<script>window.hacked = 1</script>")
    assert page.locator("#main img, #main script").count() == 0
    assert page.evaluate("() => window.hacked") is None
    prose.get_by_role("button", name="Copy code").click()
    assert page.evaluate("() => navigator.clipboard.readText()") == "def one(): return 1"
    page.get_by_role("button", name="Copy answer").click()
    assert "| lists | 12 |" in page.evaluate("() => navigator.clipboard.readText()")


def test_long_and_odd_output_does_not_block_the_page(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Model").select_option("parrot")
    odd = "\u202egnirts " + "https://example.com/" + "a" * 300 + " data:text/html,<b>"
    turn = answered(ask(page, odd))
    expect(turn.locator(".prose")).to_contain_text("aaaa")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_chats_are_listed_renamed_searched_exported_and_deleted(page: Page, clean: Stack) -> None:
    page.goto("/")
    answered(ask(page, "First question"))
    page.get_by_role("button", name="New chat").click()
    answered(ask(page, "Second question"))
    assert "/ui/chat/" in page.url
    page.reload()
    chats = page.locator(".chats li")
    expect(chats).to_have_count(2)
    expect(page.locator(".question")).to_have_text("Second question")
    page.get_by_role("link", name="First question").click()
    expect(page.locator(".question")).to_have_text("First question")
    expect(page.locator(".prose")).to_contain_text("First question")
    page.go_back()
    expect(page.locator(".question")).to_have_text("Second question")
    page.go_forward()
    expect(page.locator(".question")).to_have_text("First question")

    page.get_by_role("button", name="More about First question").click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title of the chat").fill("Renamed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Renamed")).to_be_visible()
    # The server searches in questions and answers, too.
    page.get_by_label("Search chats").fill("FIRST quest")
    expect(chats).to_have_count(1)
    expect(chats).to_have_text("Renamed")
    page.get_by_label("Search chats").fill("no such words")
    expect(page.get_by_text("No chat has these words.")).to_be_visible()
    page.get_by_label("Search chats").fill("")
    page.reload()
    expect(page.get_by_role("link", name="Renamed")).to_be_visible()

    page.get_by_role("button", name="More about Renamed").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as Markdown").click()
    exported = download.value.path().read_text()
    assert exported.startswith("# Renamed\n\n## First question\n\n")
    assert "user: First question" in exported
    page.get_by_role("button", name="More about Renamed").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as JSON").click()
    assert json.loads(download.value.path().read_text())["data"][0]["message"] == "First question"
    page.get_by_role("button", name="More about Renamed").click()
    page.get_by_role("button", name="Delete").click()
    expect(chats).to_have_count(1)
    expect(page.get_by_role("heading", name="Ask the models of this server")).to_be_visible()
    assert [entry["title"] for entry in clean.client.get("/chat/sessions").json()["data"]] == ["Second question"]
    page.get_by_role("button", name="Undo").click()
    expect(chats).to_have_count(2)
    expect(page.locator(".question")).to_have_text("First question")
    page.reload()
    expect(chats).to_have_count(2)


def test_stop_keeps_what_was_written(page: Page) -> None:
    page.goto("/")
    turn = ask(page, VERY_LONG)
    expect(turn.locator(".prose")).to_contain_text("Tell me")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(turn.locator(".stopped")).to_be_visible()
    expect(turn.locator(".prose")).to_contain_text("Tell me")
    page.get_by_label("Message", exact=True).fill("A draft")
    page.reload()
    # The question, what was written of its answer, and the draft.
    expect(page.locator(".question")).to_have_text(VERY_LONG.strip())
    expect(page.locator(".turn .prose")).to_contain_text("Tell me")
    expect(page.locator(".stopped")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_value("A draft")
    page.get_by_label("Message", exact=True).fill("")
    page.get_by_role("button", name="Edit the question").click()
    page.get_by_role("textbox", name="The question").fill("A short question")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".question")).to_have_text("A short question")
    answered(page.locator(".turn").last)


def test_versions_of_a_question_and_of_an_answer(page: Page) -> None:
    page.goto("/")
    answered(ask(page, "A question"))
    answered(ask(page, "And another"))
    first, second = page.locator(".turn").first, page.locator(".turn").nth(1)
    expect(page.locator(".versions")).to_have_count(0)
    second.get_by_role("button", name="Ask again").click()
    expect(second.locator(".versions")).to_have_text("2 of 2")
    answered(second)
    # An edited question takes the turns behind it along.
    first.get_by_role("button", name="Edit the question").click()
    field = page.get_by_role("textbox", name="The question")
    expect(field).to_be_focused()
    field.fill("A better question")
    field.press("Enter")
    expect(page.locator(".question")).to_have_text(["A better question"])
    answered(page.locator(".turn").first)
    expect(page.locator(".prose")).to_have_text("user: A better question")
    versions = first.get_by_role("group", name="Versions of this turn")
    expect(versions).to_have_text("2 of 2")
    # With the keyboard, and the focus stays on the arrow.
    previous = versions.get_by_role("button", name="Previous version")
    previous.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".question")).to_have_text(["A question", "And another"])
    expect(versions).to_have_text("1 of 2")
    expect(previous).to_be_focused()
    page.keyboard.press("Enter")
    expect(versions).to_have_text("1 of 2")
    expect(second.locator(".versions")).to_have_text("2 of 2")
    page.reload()
    expect(page.locator(".question")).to_have_text(["A question", "And another"])
    expect(second.locator(".versions")).to_have_text("2 of 2")
    second.get_by_role("button", name="Previous version").click()
    expect(second.locator(".versions")).to_have_text("1 of 2")
    # The model sees the branch that is shown.
    turn = answered(ask(page, "What did I ask?"))
    expect(turn.locator(".prose")).to_contain_text("user: A question")
    expect(turn.locator(".prose")).not_to_contain_text("better")


def test_a_chat_that_is_gone_says_so(page: Page, provoked_errors: list[str]) -> None:
    provoked_errors.append("status of 404")
    page.goto("/ui/chat/gone")
    expect(page.get_by_role("alert")).to_contain_text("This chat does not exist.")
    page.get_by_role("button", name="New chat").click()
    answered(ask(page, "Hello"))


def test_a_reload_during_an_answer_shows_it_and_goes_on(page: Page) -> None:
    page.goto("/")
    turn = ask(page, VERY_LONG)
    expect(turn.locator(".prose")).to_contain_text("Tell me more")
    page.reload()
    turn = page.locator(".turn").last
    expect(turn.locator(".prose")).to_contain_text("Tell me more")
    assert turn.get_attribute("data-state") == "in_progress"
    length = len(turn.locator(".prose").inner_text())
    expect(turn.locator(".prose")).not_to_have_text(re.compile(f"^.{{0,{length}}}$", re.DOTALL))
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(turn.locator(".stopped")).to_be_visible()


def test_a_question_that_the_server_does_not_take_stays(page: Page, provoked_errors: list[str]) -> None:
    provoked_errors.append("ERR_INTERNET_DISCONNECTED|ERR_FAILED|Failed to load resource")
    page.goto("/")
    answered(ask(page, "Hello"))
    page.route("**/chat", lambda route: route.abort())
    turn = ask(page, "Is anybody there?")
    expect(turn.locator(".notice.bad, .hint")).not_to_have_count(0)
    expect(turn).to_have_attribute("data-state", "failed")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Is anybody there?")
    page.unroute("**/chat")
    turn.get_by_role("button", name="Try again").click()
    answered(page.locator(".turn").last)
    expect(page.locator(".question")).to_have_text(["Hello", "Is anybody there?"])
    expect(page.get_by_label("Message", exact=True)).to_have_value("")


def test_a_failed_question_keeps_its_reason(page: Page) -> None:
    page.goto("/")
    turn = ask(page, "word " * 5000)
    expect(turn.locator(".notice.bad")).to_contain_text("context")
    page.reload()
    expect(page.locator(".notice.bad")).to_contain_text("context")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_waiting_question_shows_how_long_it_will_wait(page: Page, stack: Stack) -> None:
    page.goto("/")
    answered(ask(page, "Hello"))
    redis_client, gaps = connect(stack.redis_url()), "eh:queue:gpu.echo:gaps"
    with stack.paused("gpu.echo"):
        # As if jobs had been claimed every ten minutes, however long this test takes.
        redis_client.delete(gaps)
        redis_client.rpush(gaps, *[600_000] * 20)
        turn = ask(page, "When is it my turn?")
        expect(turn.locator(".status")).to_contain_text(re.compile("^Next in line, about 10 min, waiting"))
        expect(turn.get_by_role("progressbar", name="Waiting")).to_be_visible()
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(turn).to_have_attribute("data-state", "cancelled")
    redis_client.delete(gaps)


def test_a_waiting_question_shows_its_place_and_goes_before_bulk_work(page: Page, stack: Stack) -> None:
    page.goto("/")
    answered(ask(page, "Hello"))
    with stack.paused("gpu.echo"):
        waiting = [stack.generate(f"bulk {number}")["id"] for number in range(20)]
        turn = ask(page, "Are you there?")
        status = turn.locator(".status")
        expect(status).to_contain_text(re.compile("^Next in line"))
        page.reload()
        turn = page.locator(".turn").last
        expect(status).to_contain_text(re.compile("^Next in line"))
        # What changes each second is not read aloud.
        assert page.locator("[role=log]").count() == 0
        assert turn.locator("[aria-live], [role=status]").count() == 0
        jobs = stack.client.get("/jobs?kind=generate&limit=1").json()["data"]
        assert jobs[0]["priority"] == 2
        for job in waiting:
            stack.client.post(f"/jobs/{job}/cancel")
    answered(turn)


def test_sampling_and_a_model_that_loads_on_demand(page: Page, stack: Stack) -> None:
    page.goto("/")
    expect(page.get_by_label("Model").locator("option:checked")).to_have_text("echo")
    parrot = page.get_by_label("Model").locator("option[value=parrot]")
    expect(parrot).to_be_enabled()
    expect(page.get_by_label("Model").locator("option[value=not-started]")).to_be_disabled()
    page.get_by_label("Model").select_option("parrot")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("System prompt").fill("Repeat it.")
    page.get_by_label("Longest answer (tokens)").fill("5")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Temperature").press("Tab")
    turn = answered(ask(page, "A question to a parrot"))
    expect(turn.locator(".prose")).to_have_text("syste")
    expect(turn.locator(".details")).to_contain_text("parrot · 5 tokens")
    expect(turn.locator(".details")).to_contain_text("cut off")


def test_a_citation_opens_its_page_with_the_sentence_marked(page: Page, stack: Stack) -> None:
    add_documents(stack, "ducks", ducks_txt="Ducks swim.\fThe capital of the ducks is Pondicherry-on-Mud. It rains there.")
    page.goto("/")
    page.get_by_label("Answer from").select_option("ducks")
    turn = answered(ask(page, "What is the capital of the ducks?"))
    source = turn.get_by_role("group", name="Sources").get_by_role("button", name=re.compile("ducks.txt, page 2"))
    source.click()
    sheet = page.get_by_role("complementary", name="Details")
    expect(sheet.get_by_role("heading")).to_have_text("ducks.txt")
    expect(sheet).to_contain_text("Page 2 of 2")
    expect(sheet.locator("mark")).to_contain_text("The capital of the ducks is Pondicherry-on-Mud.")
    sheet.get_by_role("button", name="Previous page").click()
    expect(sheet.locator(".page-text")).to_have_text("Ducks swim.")
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)
    page.reload()
    expect(page.get_by_role("group", name="Sources").get_by_role("button").first).to_be_visible()
    # The markers in the text open the same.
    page.locator(".marker").first.click()
    expect(page.get_by_role("complementary", name="Details").locator("mark")).to_be_visible()


def test_the_answer_stays_in_view_unless_the_reader_scrolls_up(page: Page) -> None:
    page.goto("/")
    answered(ask(page, "short"))
    before = page.locator(".composer-box").bounding_box()
    turn = ask(page, "line\n\n" * 40)
    expect(turn.locator(".prose")).to_contain_text("line")
    turns = page.locator(".turns")
    at_end = "(box) => box.scrollHeight - box.scrollTop - box.clientHeight < 5"
    assert turns.evaluate(at_end)
    turns.evaluate("(box) => { box.scrollTop = 0; }")
    to_end = page.get_by_role("button", name="To the end")
    expect(to_end).to_be_visible()
    answered(turn)
    assert turns.evaluate("(box) => box.scrollTop") == 0
    to_end.click()
    expect(to_end).to_have_count(0)
    # Neither the composer nor its controls move with the length of the chat, and both columns are aligned.
    after = page.locator(".composer-box").bounding_box()
    assert before is not None
    assert after is not None
    assert before == after
    question = page.locator(".turn").last.bounding_box()
    assert question is not None
    assert abs(question["x"] - after["x"]) < 2
    expect(page.get_by_label("Model")).to_be_in_viewport()


def test_a_first_visit_says_what_this_is_and_what_to_try(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="Ask the models of this server")).to_be_visible()
    expect(page.locator(".tries button")).to_have_count(3)
    expect(page.locator(".curl pre")).to_contain_text("curl http://127.0.0.1")
    expect(page.get_by_role("link", name="API reference")).to_have_attribute("href", "/docs")
    page.locator(".tries button").first.click()
    answered(page.locator(".turn").last)


def test_an_outage_is_told_once_and_the_page_recovers(page: Page, provoked_errors: list[str]) -> None:
    provoked_errors.append("ERR_INTERNET_DISCONNECTED|ERR_NETWORK_CHANGED|network error")
    page.goto("/")
    turn = ask(page, LONG)
    expect(turn.locator(".prose")).to_contain_text("Tell me")
    page.context.set_offline(True)
    expect(page.locator("#health")).to_have_text("Away")
    expect(page.locator(".banner, .notice.bad")).to_have_count(1)
    expect(page.get_by_role("button", name="Delete collection")).to_have_count(0)
    page.context.set_offline(False)
    expect(page.locator("#health")).to_have_text("Ready")
    expect(page.locator(".banner")).to_have_count(0)
    answered(turn)


class TestOnAPhone:
    @pytest.fixture
    def context_options(self) -> dict[str, Any]:
        return {"viewport": {"width": 390, "height": 740}, "has_touch": True, "is_mobile": True}

    def test_enter_starts_a_new_line_and_the_chats_open(self, page: Page) -> None:
        page.goto("/")
        message = page.get_by_label("Message", exact=True)
        message.fill("one")
        message.press("Enter")
        message.press_sequentially("two")
        expect(message).to_have_value("one\ntwo")
        expect(page.locator(".turn")).to_have_count(0)
        page.get_by_role("button", name="Send").click()
        answered(page.locator(".turn").last)
        page.get_by_role("button", name="Chats", exact=True).click()
        expect(page.get_by_role("link", name="one two")).to_be_visible()


def test_a_turn_says_what_was_searched_for_and_that_nothing_was_found(page: Page, stack: Stack) -> None:
    add_documents(stack, "lights", light_txt="The lighthouse is green.")
    source = {"name": "lights", "min_relevance": 0.9}
    for message in ("What is the capital of France?", "Is the lighthouse green?"):
        stack.post("/chat", {"session": "ground", "message": message, "collection": source}).raise_for_status()

    def rewritten(route: Route) -> None:
        # The echo engine writes no question, so the page gets one here.
        turns = route.fetch().json()
        turns["data"][-1]["retrieval"] |= {
            "rewritten": True,
            "query": "Is the lighthouse of Ravenholm green?",
            "unknown_markers": ["[7]"],
        }
        route.fulfill(json=turns)

    page.route("**/chat/sessions/ground/turns*", rewritten)
    page.goto("/ui/chat/ground")
    first, second = page.locator(".turn").first, page.locator(".turn").last
    expect(first).to_contain_text("The documents do not contain an answer to this question.")
    expect(first).to_contain_text("Not found in the documents")
    expect(second).to_contain_text("Searched for “Is the lighthouse of Ravenholm green?”")
    expect(second).to_contain_text("No passage has the number [7].")
    expect(second).not_to_contain_text("Not found in the documents")
    expect(second.get_by_role("button", name=re.compile(r"Passage \[1\]")).first).to_be_visible()
