"""Alternatives of a message: which of its plain text and its HTML to read, and what the plain text lacks of the HTML."""

import re

_ADDRESS = re.compile(r"https?://\S+")
# Scripts that put no spaces between words.
_UNSPACED = "\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_GAP = re.compile(rf"(?<=[{_UNSPACED}])\s+(?=[{_UNSPACED}])")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")


def html_says_more(plain: str, html: str) -> bool:
    """Whether the HTML is much longer, as it is beside a stub, or has all words of the plain text and others."""
    characters = [len("".join(text.split())) for text in (plain, html)]
    # Addresses of links stand in the plain text only.
    words = [_words(_ADDRESS.sub("", text)) for text in (plain, html)]
    return not characters[0] or characters[1] > 3 * characters[0] + 200 or (words[1] > words[0] and characters[1] > characters[0])


def missing_lines(plain: str, html: str) -> str:
    """The lines of the HTML with words that the plain text lacks."""
    known = _words(plain)
    return "\n".join(line for line in html.split("\n") if not _words(line) <= known)


def _words(text: str) -> set[str]:
    """The words of a text; of scripts without spaces, each character and each pair of neighbours, since lines break anywhere."""
    words: set[str] = set()
    for word in _WORD.findall(_GAP.sub("", text).casefold()):
        if _IS_UNSPACED.match(word):
            words.update(word, (word[at : at + 2] for at in range(len(word) - 1)))
        else:
            words.add(word)
    return words
