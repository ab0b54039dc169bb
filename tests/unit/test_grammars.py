"""Grammars: which bytes a matcher allows, where the stop tokens are among them, and how the output ends."""

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer

from workers.gpu.engine import grammars
from workers.gpu.engine.grammars import GrammarCompiler, GrammarError, GrammarMatcher, fill_masks

STOP = 258
COMPILER = GrammarCompiler(lambda: LLTokenizer("byte"))


def compile_regex(regex: str, stops: tuple[int, ...] = (STOP,), generated: bytes = b"") -> GrammarMatcher:
    return COMPILER.compile(LLMatcher.grammar_from_regex(regex), stops, generated)


def allowed(matcher: GrammarMatcher) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(fill_masks([matcher]).view(np.uint8), bitorder="little")).tolist())


def test_stop_tokens_are_allowed_where_the_output_may_end_and_nowhere_else() -> None:
    matcher = compile_regex("a[bc]+")
    assert allowed(matcher) == {ord("a")}
    assert matcher.accept(ord("a")) is None
    assert allowed(matcher) == {ord("b"), ord("c")}
    assert matcher.accept(ord("b")) is None
    assert allowed(matcher) == {ord("b"), ord("c"), STOP}


def test_a_token_of_the_text_that_is_also_a_stop_token_ends_only_a_complete_output() -> None:
    matcher = compile_regex("a[bc]+", (ord("c"), STOP))
    matcher.accept(ord("a"))
    assert allowed(matcher) == {ord("b")}
    matcher.accept(ord("b"))
    assert allowed(matcher) == {ord("b"), ord("c"), STOP}
    assert allowed(compile_regex("cb", (ord("c"),))) == {ord("c")}, "there is no other way to go on"


def test_an_output_that_cannot_go_on_ends_by_itself() -> None:
    matcher = compile_regex("ab", ())
    assert matcher.accept(ord("a")) is None
    assert matcher.accept(ord("b")) == ("stop", "")
    assert matcher.is_complete


def test_a_token_outside_the_grammar_fails_the_request_without_repeating_its_output() -> None:
    matcher = compile_regex("secret [0-9]+", generated=b"secret 1")
    end = matcher.accept(ord("x"))
    assert end is not None
    assert end[0] == "failed"
    assert "secret" not in end[1]
    assert matcher.error
    assert not matcher.is_complete


def test_a_matcher_goes_on_after_output_of_an_earlier_process() -> None:
    assert allowed(compile_regex("a[bc]+d", generated=b"ab")) == {ord("b"), ord("c"), ord("d")}
    with pytest.raises(GrammarError, match="does not match"):
        compile_regex("a[bc]+d", generated=b"ax")


@pytest.mark.parametrize("serial_seconds", [0.0, 3600.0], ids=["in threads", "one by one"])
def test_rows_of_several_matchers_are_their_own(serial_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "SERIAL_SECONDS", serial_seconds)
    matchers = [compile_regex(f"{character}+") for character in "abcdefghijklmnopqrst"]
    masks = fill_masks(matchers)
    for row, matcher in zip(masks, matchers, strict=True):
        assert np.array_equal(row, fill_masks([matcher])[0])


def test_rows_of_used_memory_are_those_of_empty_memory() -> None:
    matchers = [compile_regex(f"{character}+", stops) for character in "abc" for stops in ((), (STOP,), (ord("b"), STOP))]
    for matcher in matchers[:2]:
        assert matcher.accept(ord("a")) is None
    used = fill_masks(matchers, lambda count, words: np.full((count, words), -1, np.int32))
    assert np.array_equal(used, fill_masks(matchers))


def test_matchers_of_one_grammar_share_no_state() -> None:
    for number in range(70):
        # More grammars than are kept compiled.
        first, second = compile_regex(f"{number}[ab]c"), compile_regex(f"{number}[ab]c", generated=f"{number}a".encode())
        assert allowed(second) == {ord("c")}
        assert allowed(first) == {ord(f"{number}"[0])}
    assert allowed(compile_regex("0[ab]c", generated=b"0")) == {ord("a"), ord("b")}


@pytest.mark.parametrize("grammar", ["", "no grammar", "start: missing", LLMatcher.grammar_from_regex("(")])
def test_a_grammar_that_cannot_be_compiled_is_refused(grammar: str) -> None:
    with pytest.raises(GrammarError, match=r"the grammar is invalid: ."):
        COMPILER.compile(grammar, ())


def test_a_tokenizer_that_is_not_made_of_bytes_is_refused() -> None:
    def make() -> LLTokenizer:
        raise ValueError("can't determine decoder type")

    with pytest.raises(GrammarError, match="tokenizer cannot be used with grammars: can't determine"):
        GrammarCompiler(make).compile(LLMatcher.grammar_from_regex("a"), ())
