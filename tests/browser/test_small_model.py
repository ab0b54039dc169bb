"""The page with the small default model: a cited answer that arrives in pieces, and what the other views show of it."""

import json
import os
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from shared.models.catalogue import load_catalogue
from shared.settings_sources import from_environment
from testing.stack import HASH, QUICK, Stack
from tests.browser.actions import add_documents, answered, ask
from workers.gpu.weights import prepare_model

pytestmark = [pytest.mark.model, pytest.mark.slow_fault, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = from_environment(os.environ)
    entry = load_catalogue(settings.models_file).default()
    prepare_model(entry, settings.prepared_models, lambda step, fraction: None)
    folder = str(settings.prepared_models.resolve())
    stack = Stack(tmp_path_factory.mktemp("model"), environment=QUICK | {"ENGINEHOUSE_MODELS_DIR": folder})
    own = next(one for one in json.loads(settings.models_file.read_text()) if one["name"] == entry.name)
    stack.models.write_text(json.dumps([own, HASH]))
    try:
        yield stack.start(seconds=300)
    finally:
        stack.kill()


def test_a_question_about_a_document_is_answered_and_seen_in_all_views(page: Page, stack: Stack) -> None:
    add_documents(stack, "brannock", device_txt="The Brannock device measures feet. It was patented in 1926 by Charles Brannock.")
    page.goto("/")
    page.get_by_label("Answer from").select_option("brannock")
    turn = answered(ask(page, "In which year was the Brannock device patented?"))
    expect(turn.locator(".prose")).to_contain_text("1926")
    expect(turn.get_by_role("link", name=re.compile("gemma-3-270m · [0-9]+ tokens"))).to_be_visible()
    # Passages that the answer does not refer to are folded, and so small a model may leave its references out.
    folded = turn.locator("details > summary")
    if folded.count():
        folded.click()
    turn.get_by_role("button", name=re.compile("device.txt, page 1")).first.click()
    expect(page.get_by_role("complementary", name="Details").locator("mark")).to_contain_text("1926")
    page.keyboard.press("Escape")
    turn.get_by_role("link", name=re.compile("gemma-3-270m")).click()
    expect(page.locator("#job-status")).to_have_text("Completed")
    expect(page.get_by_role("region", name="Timeline").get_by_role("img", name=re.compile("Writing"))).to_be_visible()
    page.goto("/ui/operations")
    card = page.get_by_role("article", name=re.compile("gpu0"))
    expect(card).to_contain_text("gemma-3-270m")
    expect(card.get_by_role("img", name=re.compile("^Batch: 0 of 16"))).to_be_visible()
    expect(card.get_by_role("slider", name=re.compile("^Tokens a second of gpu0@.*highest [1-9]"))).to_be_visible(timeout=60_000)
