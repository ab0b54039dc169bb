"""With API keys: the dialog that asks for one, and what owners and administrators see.

A server that has seen a key wants one from then on, so these tests have a stack of their own. A job is given up after one lost attempt.
"""

import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import FilePayload, Page, expect

from shared.owners.limits import KeyLimits
from shared.owners.store import ApiKeys
from shared.redis_connection import connect
from testing.stack import QUICK, Stack
from tests.browser.actions import answered, ask, fits, small_targets, violations


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("keys"), token_seconds=0.05, environment=QUICK | {"ENGINEHOUSE_MAX_ATTEMPTS": "1"})
    try:
        yield stack.start()
    finally:
        stack.kill()


@pytest.fixture
def api_keys(stack: Stack) -> ApiKeys:
    return ApiKeys(connect(stack.redis_url()))


def test_signing_in_and_out(page: Page, api_keys: ApiKeys, provoked_errors: list[str], axe: str) -> None:
    provoked_errors.append("status of 401")
    key = api_keys.create("ada", admin=True)[1]
    page.goto("/ui/jobs")
    dialog = page.get_by_role("dialog", name="Sign in")
    expect(dialog.get_by_label("API key")).to_be_focused()
    expect(page.locator("#health")).to_have_text("Signed out")
    expect(page.locator(".notice.bad, .banner")).to_have_count(0)
    dialog.get_by_label("API key").fill("eh_wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("does not know this key")
    assert violations(page, axe) == []
    dialog.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    # A new owner has no jobs: the empty list says what jobs are.
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    expect(page.locator("#health")).to_have_text("Ready")
    expect(page.locator(".account")).to_contain_text("ada (admin)")
    expect(page.get_by_role("navigation", name="Views").get_by_role("link", name="Operations")).to_be_visible()
    other = page.context.new_page()
    other.goto("/ui/jobs")
    expect(other.get_by_text("No jobs yet")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()
    expect(other.get_by_role("dialog", name="Sign in")).to_be_visible()
    other.close()


def test_signing_out_forgets_the_chats_and_drafts_of_this_browser(
    page: Page, api_keys: ApiKeys, provoked_errors: list[str]
) -> None:
    provoked_errors.append("status of (401|403)")
    keys = [api_keys.create(name)[1] for name in ("first", "next")]
    for number, key in enumerate(keys):
        page.goto("/")
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Sign in")).to_have_count(0)
        message = page.get_by_label("Message", exact=True)
        expect(message).to_be_visible()
        if number == 0:
            answered(ask(page, "My salary"))
            expect(page.locator(".chats li")).to_have_count(1)
            message.fill("A draft about it")
            page.get_by_role("button", name="Options").click()
            page.get_by_label("System prompt").fill("You know my salary.")
            page.get_by_role("button", name="Sign out").click()
            # At once, and not only after the page is loaded again.
            expect(page.locator(".question")).to_have_count(0)
            expect(page.locator(".chats li")).to_have_count(0)
            expect(message).to_have_value("")
            expect(page).to_have_url(re.compile("/$"))
        else:
            page.get_by_role("button", name="Options").click()
            expect(page.get_by_label("System prompt")).to_have_value("")
            expect(message).to_have_value("")
            expect(page.locator(".chats li")).to_have_count(0)
            expect(page.get_by_text("My salary")).to_have_count(0)
    # Administrators alone may see the workers.
    expect(page.locator(".account")).to_contain_text("next")
    expect(page.get_by_role("navigation", name="Views").get_by_role("link", name="Operations")).to_have_count(0)


def test_a_refused_upload_waits_and_goes_on_by_itself(page: Page, api_keys: ApiKeys, provoked_errors: list[str]) -> None:
    provoked_errors.append("status of (401|403|429)")
    key = api_keys.create("slow", requests_per_second=4)[1]
    page.goto("/ui/documents/slow")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.locator("#files")).to_be_enabled()
    files: list[FilePayload] = [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": f"Text {n}.".encode()} for n in range(4)]
    page.evaluate(
        "() => { for (let n = 0; n < 12; n += 1) fetch('/models', { headers: { Authorization: `Bearer ${sessionStorage['enginehouse.key']}` } }); }"
    )
    page.locator("#files").set_input_files(files)
    expect(page.locator("#upload-words")).to_have_text("4 of 4 ready")
    expect(page.get_by_role("button", name=re.compile("again"))).to_have_count(0)


def test_dead_letters_are_shown_and_replayed(page: Page, stack: Stack, api_keys: ApiKeys, provoked_errors: list[str]) -> None:
    provoked_errors.append("status of 401")
    key = api_keys.create("root", admin=True)[1]
    headers = {"Authorization": f"Bearer {key}"}
    answer = stack.client.post(
        "/generate", json={"prompt": "A job without luck. " * 60, "max_tokens": 1200}, headers=headers
    ).json()
    page.goto(f"/ui/jobs/{answer['id']}")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.locator("#job-status")).to_have_text("Running")
    os.kill(stack.pid("gpu0"), signal.SIGKILL)
    expect(page.locator("#job-status")).to_have_text("Failed")
    expect(page.get_by_role("alert")).to_contain_text("worker_lost")
    expect(page.get_by_role("img", name=re.compile("Lost attempt"))).to_be_visible()
    page.get_by_role("link", name="Operations").click()
    letters = page.get_by_role("group", name="Table of dead letters")
    expect(letters).to_contain_text("A job without luck.")
    page.reload()
    expect(page.locator("#health")).to_have_text("1 needs attention")
    letters.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("1 job started again.")).to_be_visible()
    expect(page.get_by_text("None: no job has lost all its workers.")).to_be_visible()


def test_an_administrator_creates_limits_rotates_and_revokes_keys(
    page: Page, stack: Stack, api_keys: ApiKeys, provoked_errors: list[str], axe: str
) -> None:
    key_limits = KeyLimits(connect(stack.redis_url()))
    provoked_errors.append("status of (401|422)")
    page.goto("/ui/operations")
    page.get_by_label("API key").fill(api_keys.create("keeper", admin=True)[1])
    page.keyboard.press("Enter")
    page.get_by_role("link", name="API keys").click()
    expect(page).to_have_url(re.compile("/ui/operations/keys$"))
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New key")
    expect(dialog.get_by_label("Name")).to_be_focused()
    assert violations(page, axe) == []
    dialog.get_by_label("Name").fill("web site")
    for scope in ("generate", "documents", "chat", "batches", "webhooks"):
        dialog.get_by_label(scope, exact=True).uncheck()
    dialog.get_by_label("Collections that it may use").fill("handbook, minutes")
    dialog.get_by_label("Expires").select_option("In 90 days")
    dialog.get_by_label("Tokens a day").fill("many")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Tokens a day: a whole number")
    dialog.get_by_label("Tokens a day").fill("50,000")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_role("alert")).to_contain_text("start with a letter or digit")
    dialog.get_by_label("Name").fill("website")
    dialog.get_by_role("button", name="Create").click()
    shown = page.get_by_role("dialog", name="Secret of website")
    secret = shown.locator("pre").inner_text()
    [key] = [each for each in api_keys.list_keys() if each.name == "website"]
    assert api_keys.find(secret) == key
    assert (key.owner, key.scopes, key.collections) == ("website", ("search",), ("handbook", "minutes"))
    page.keyboard.press("Escape")
    card = page.get_by_role("article", name=re.compile(f"website, {key.id}"))
    expect(card).to_contain_text("Only the collections: handbook, minutes")
    expect(card).to_contain_text("Never used")
    expect(page.get_by_text(secret)).to_have_count(0)
    expect(card).to_contain_text("Tokens at most: 50,000 a day")
    assert key_limits.limits(key.id) == {"tokens_per_day": 50_000}
    page.set_viewport_size({"width": 390, "height": 844})
    card.get_by_role("button", name="Limits of website").click()
    dialog = page.get_by_role("dialog", name="Limits of website")
    assert (violations(page, axe), small_targets(page), fits(page)) == ([], [], True)
    expect(dialog.get_by_label("Tokens a day")).to_have_value("50,000")
    dialog.get_by_label("Tokens a minute").fill("1.5")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Tokens a minute: a whole number")
    dialog.get_by_label("Tokens a minute").fill("1000")
    dialog.get_by_label("Tokens a day").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(card).to_contain_text("Tokens at most: 1,000 a minute")
    assert key_limits.limits(key.id) == {"tokens_per_minute": 1000}
    page.set_viewport_size({"width": 1280, "height": 800})
    card.get_by_role("button", name="Rotate website").click()
    page.get_by_role("button", name="Replace", exact=True).click()
    successor = page.get_by_role("dialog", name="Secret of website").locator("pre").inner_text()
    page.keyboard.press("Escape")
    assert api_keys.find(successor) is not None
    assert api_keys.get(key.id).expires_at is not None
    card.get_by_role("button", name="Revoke website").click()
    page.get_by_role("button", name="Revoke", exact=True).click()
    expect(card).to_contain_text("Revoked")
    assert api_keys.find(secret) is None
    assert violations(page, axe) == []
