"""Detokenization: tokens become text as they are generated, and the text ends at the first stop text."""

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"

# How many tokens before new ones are decoded with them.
_CONTEXT_TOKENS = 8

# A character takes a few tokens at most; a longer run that does not decode never will.
_MAX_CHARACTER_TOKENS = 64


class Detokenizer:
    """Turns the tokens of one generation into text as they arrive. The text does not depend on how they are split into calls."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), *, drop_leading_space: bool = False
    ) -> None:
        self._decode = decode
        self._drops_space = drop_leading_space
        self._stops = tuple(text for text in dict.fromkeys(stop) if text)
        self._ids: list[int] = []
        self._decoded = 0  # how many of `_ids` are already part of the text, and their own text
        self._decoded_text = ""
        self._held = ""  # text that may be the start of a stop text
        self.stopped = False
        self.received = 0
        """How many characters have been decoded so far, with those at the start that were dropped."""
        self.released = 0
        """How many of them are not held back any more. After a stop, what follows is not part of the text."""

    @property
    def has_stops(self) -> bool:
        """Whether a stop text can end the generation."""
        return bool(self._stops)

    def add_tokens(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text that these tokens add, and whether a stop text was found. After a stop there is no more text."""
        pieces = []
        if len(ids) > 1 and not self.stopped and (text := self._decode_all(ids)):
            return self._release(text), self.stopped
        for id in ids:
            if self.stopped:
                break
            self._ids.append(id)
            pieces.append(self._release(self._decode_next()))
        return "".join(pieces), self.stopped

    def flush(self) -> str:
        """The text held back so far, at the end of a generation; incomplete characters are dropped."""
        if self.stopped:
            return ""
        piece = self._release(self._decode_next(last=True).rstrip(BROKEN))
        rest, self._held = self._held, ""
        if not self.stopped:
            self.released = self.received
        return piece if self.stopped else piece + rest

    def _decode_all(self, ids: Sequence[int]) -> str:
        """The text of all these tokens at once, or nothing, and no token used, if it ends within a character."""
        together = [*self._ids, *ids]
        text = self._decode(together)[len(self._decoded_text) :]
        if text.endswith(BROKEN):
            return ""
        if text:
            self._keep_context(together[self._decoded :], text)
        return text

    def _decode_next(self, last: bool = False) -> str:
        text = self._decode(self._ids)[len(self._decoded_text) :]
        incomplete = not text or text.endswith(BROKEN)
        if incomplete and not last and len(self._ids) - self._decoded < _MAX_CHARACTER_TOKENS:
            return ""
        self._keep_context(self._ids[self._decoded :], text)
        return text

    def _keep_context(self, ids: list[int], text: str) -> None:
        """Keep some of the tokens that have just been decoded, because some tokenizers drop the space at the start of a text.

        The last few are enough if they are the end of this text by themselves. They are not if the first of them is within a character.
        """
        context = ids[-_CONTEXT_TOKENS:]
        own_text = self._decode(context)
        if len(context) < len(ids) and (not own_text or BROKEN in own_text or not text.endswith(own_text)):
            context, own_text = ids, self._decode(ids)
        self._ids, self._decoded, self._decoded_text = context, len(context), own_text

    def _release(self, text: str) -> str:
        self.received += len(text)
        if self._drops_space:
            text = text.lstrip()
            self._drops_space = not text
        text = self._held + text
        before = self.received - len(text)
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            # The stop that completes first counts, so that it does not matter how the text is split into pieces.
            self.stopped, self._held = True, ""
            self.released = before + min(found)[1]
            return text[: min(found)[1]]
        hold = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - hold :]
        self.released = self.received - hold
        return text[: len(text) - hold]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the start of ``stop``."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
