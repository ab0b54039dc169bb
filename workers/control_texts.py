"""Control texts: the texts of a model's control tokens, and how to keep them out of what users send.

A document or a message that contains ``<end_of_turn>`` would otherwise end its turn, and speak as someone else.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class ControlTexts:
    """The texts of a model's control tokens, of which there may be thousands. A regular expression would try all of them at each
    position of a hostile text."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(filter(None, texts))
        lengths: dict[str, set[int]] = {}
        for text in self._texts:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def split(self, text: str) -> list[str]:
        """The parts of a text; every second one is the text of a control token."""
        if self._lengths.keys().isdisjoint(text):
            return [text]
        parts, start = [], 0
        for at, character in enumerate(text):
            if at >= start and character in self._lengths:
                length = next((length for length in self._lengths[character] if text[at : at + length] in self._texts), 0)
                if length:
                    parts += [text[start:at], text[at : at + length]]
                    start = at + length
        return [*parts, text[start:]]


class HiddenTexts:
    """Control texts that were replaced by marks, so that a chat template can render what surrounds them."""

    def __init__(self, control_texts: ControlTexts) -> None:
        self._control_texts = control_texts
        self._texts: list[str] = []
        # Plain ASCII, so that no JSON filter of a template escapes it.
        self._mark = f"hidden{secrets.token_hex(12)}:"

    def hide(self, value: Any) -> Any:
        """A copy of a JSON value in which each control text, in keys too, is a mark, a number and a semicolon."""
        if isinstance(value, str):
            return self._hide_text(value)
        if isinstance(value, Mapping):
            return {self.hide(name): self.hide(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def encode(self, rendered: str, encode: Callable[[str], list[int]], encode_as_text: Callable[[str], list[int]]) -> list[int]:
        """The tokens of a rendered template: ``encode_as_text`` gets what was hidden, ``encode`` the rest."""
        if not self._texts:
            return encode(rendered)
        first, *parts = rendered.split(self._mark)
        ids = encode(first)
        # The template repeats, drops or reorders contents as it likes, so the marks say which text they stand for.
        for part in parts:
            number, _, rest = part.partition(";")
            # A template that cuts texts may have cut a mark.
            ids += encode_as_text(self._texts[int(number)] if number.isdecimal() and int(number) < len(self._texts) else number)
            ids += encode(rest)
        return ids

    def _hide_text(self, text: str) -> str:
        parts = self._control_texts.split(text)
        for at in range(1, len(parts), 2):
            self._texts.append(parts[at])
            parts[at] = f"{self._mark}{len(self._texts) - 1};"
        return "".join(parts)
