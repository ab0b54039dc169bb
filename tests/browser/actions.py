"""What people do on the page, and what tests look at."""

import json

from playwright.sync_api import Locator, Page, expect

from testing.stack import Stack

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def ask(page: Page, question: str) -> Locator:
    """Send a question, and return its turn."""
    before = page.locator(".turn").count()
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".turn")).to_have_count(before + 1)
    return page.locator(".turn").last


def answered(turn: Locator) -> Locator:
    """The turn, once its answer is complete."""
    expect(turn).to_have_attribute("data-state", "completed")
    return turn


def add_documents(stack: Stack, collection: str, **files: str | bytes) -> list[str]:
    """Upload files, wait until they are read, and return the ids of the documents in the same order."""
    forms = [
        ("file", (name.replace("_", "."), data if isinstance(data, bytes) else data.encode())) for name, data in files.items()
    ]
    answer = stack.client.post(f"/collections/{collection}/documents", files=forms)
    assert answer.status_code in (200, 202), answer.text
    for document in answer.json()["data"]:
        stack.ended(document["job"])
    return [str(document["id"]) for document in answer.json()["data"]]


MOST_TABS = 80


def tab_to(page: Page, target: Locator, *, key: str = "Tab") -> None:
    """Press Tab until the target has the focus, as one does who has only a keyboard."""
    expect(target).to_be_attached()
    for _ in range(MOST_TABS):
        if target.evaluate("(one) => one === document.activeElement"):
            assert_focus_shown(page)
            return
        page.keyboard.press(key)
    raise AssertionError(f"{MOST_TABS} times {key} do not reach {target}")


# A hidden file chooser is shown by its label, and the text area of a chat by the box around it.
FOCUS_SHOWN = """() => {
  const one = document.activeElement;
  if (one === document.body) return "nothing has the focus";
  const shown = one.closest("label:has(input[type=file]), .composer-box") ?? one;
  const { outlineStyle, boxShadow } = getComputedStyle(shown);
  if (outlineStyle === "none" && boxShadow === "none") return `no ring around ${one.outerHTML.slice(0, 120)}`;
  const { top, bottom, left, right } = shown.getBoundingClientRect();
  const inView = bottom > 0 && right > 0 && top < innerHeight && left < innerWidth;
  return inView ? null : `out of view: ${one.outerHTML.slice(0, 120)}`;
}"""


def assert_focus_shown(page: Page) -> None:
    """Check that something has the focus, and that it can be seen."""
    assert page.evaluate(FOCUS_SHOWN) is None


def tab_back_to(page: Page, target: Locator) -> None:
    """The same in the other direction."""
    tab_to(page, target, key="Shift+Tab")


def go_to(page: Page, name: str) -> None:
    """Open what the palette has under this name, with the keyboard."""
    page.keyboard.press("Control+k")
    field = page.get_by_label("View, collection or job")
    expect(field).to_be_focused()
    page.keyboard.type(name)
    expect(field).to_have_value(name)
    # The first of those that match is chosen; its shortcut follows its name.
    expect(page.get_by_role("listbox", name="Places").get_by_role("option", selected=True)).to_contain_text(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Go to")).to_have_count(0)


def violations(page: Page, axe: str) -> list[str]:
    """What axe finds on the page as it is, in both themes. Only the contrast depends on the theme."""
    page.evaluate(f"() => {{ if (!window.axe) {{ {axe} }} }}")
    found: list[str] = []
    for theme, rules in (("light", {"type": "tag", "values": RULES}), ("dark", {"type": "rule", "values": ["color-contrast"]})):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        found += page.evaluate(
            "([theme, runOnly]) => axe.run(document, { runOnly, resultTypes: ['violations'] }).then((result) =>"
            " result.violations.flatMap((one) => one.nodes.map((node) => `${theme}: ${one.id}: ${node.html}`)))",
            [theme, rules],
        )
    return found


def small_targets(page: Page) -> list[str]:
    """Controls that are too small for a finger. A link within a sentence may be as high as its line; a row is a target as a whole,
    and so is the label of a check box."""
    found = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, nav a, a.button, label.button, label:has(> input[type=checkbox])")]
          .filter((one) => !one.matches(".unseen, label > input[type=checkbox], .grid-head *") && one.checkVisibility())
          .map((one) => [one.outerHTML.slice(0, 90), one.getBoundingClientRect()])
          .filter(([, box]) => box.width > 0 && (box.height < 43.5 || box.width < 43.5)).map(([html]) => html)"""
    )
    return [str(one) for one in found]


def drop(page: Page, selector: str, **files: str) -> None:
    """Drop files, whose names have an underscore in place of the dot."""
    named = {name.replace("_", "."): text for name, text in files.items()}
    data = page.evaluate_handle(
        "(files) => { const data = new DataTransfer();"
        " for (const [name, text] of Object.entries(JSON.parse(files))) data.items.add(new File([text], name)); return data; }",
        json.dumps(named),
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": data})


def fits(page: Page) -> bool:
    """Whether nothing but tables and code needs scrolling sideways, and the page as a whole not even downwards.

    A phone's ``innerWidth`` would grow with what does not fit.
    """
    assert page.viewport_size is not None
    page_width, page_height, parts_fit = page.evaluate(
        """() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight,
          [...document.querySelectorAll(".view, .sheet-body, .turns, dialog")].every((one) => one.scrollWidth <= one.clientWidth)]"""
    )
    return page_width <= page.viewport_size["width"] and page_height <= page.viewport_size["height"] and bool(parts_fit)
