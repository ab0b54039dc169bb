"""Settings of a collection by the command: those that are given, and the server's for others."""

import json

from testing.stack import Stack
from tests.flows.command import run


def test_the_command_creates_and_changes_a_collection(stack: Stack) -> None:
    created = run(stack, "collections", "create", "settled", "--ocr-languages", "deu, eng", "--chunk-tokens", "100", "--json")
    assert created.returncode == 0, created.stderr
    found = json.loads(created.stdout)
    assert (found["ocr_languages"], found["chunk_tokens"], found["chunk_overlap_tokens"]) == (["deu", "eng"], 100, None)
    changed = run(stack, "collections", "change", "settled", "--ocr-languages", "", "--json")
    assert (json.loads(changed.stdout)["ocr_languages"], json.loads(changed.stdout)["chunk_tokens"]) == (None, 100)
    refused = run(stack, "collections", "change", "settled", "--ocr-languages", "rus")
    assert (refused.returncode != 0, "rapidocr cannot read rus" in refused.stderr) == (True, True), refused.stderr
