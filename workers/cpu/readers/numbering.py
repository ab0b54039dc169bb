"""Automatic numbers of paragraphs in Word files, such as the 4.2 of a clause. The file stores how to count, not the numbers."""

import re
from typing import Any

from workers.cpu.readers.ooxml import W

_PLACE = re.compile(r"%([1-9])")
_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"),
    (4, "iv"), (1, "i"),
)  # fmt: skip
_PROPERTIES, _NUMBER = f"{W}pPr", f"{W}numPr"
_LEVELS = 9
_MAX_NUMBER = 5000
_MAX_ANCESTORS = 10


class Numbering:
    """Counts the paragraphs of a document. ``definitions`` are the root of its numbering part, ``styles`` that of its styles."""

    def __init__(self, definitions: Any, styles: Any) -> None:
        self._levels: dict[str, list[Any]] = {}
        self._own_levels: dict[str, dict[int, Any]] = {}
        self._lists: dict[str, str] = {}
        self._starts: dict[tuple[str, int], int] = {}
        self._counts: dict[str, list[int]] = {}
        self._of_styles: dict[str, tuple[str, int]] = {}
        if definitions is None:
            return
        linked: dict[str, str] = {}  # definitions that others refer to, by the style that names them
        for abstract in definitions.iterchildren(f"{W}abstractNum"):
            name = abstract.get(f"{W}abstractNumId") or ""
            self._levels[name] = list(abstract.iterchildren(f"{W}lvl"))[:_LEVELS]
            style = _value(abstract.find(f"{W}styleLink"))
            if style:
                linked[style] = name
        for abstract in definitions.iterchildren(f"{W}abstractNum"):
            name, style = abstract.get(f"{W}abstractNumId") or "", _value(abstract.find(f"{W}numStyleLink"))
            if style in linked and not self._levels[name]:
                self._levels[name] = self._levels[linked[style]]
        for number in definitions.iterchildren(f"{W}num"):
            name = number.get(f"{W}numId") or ""
            self._lists[name] = _value(number.find(f"{W}abstractNumId"))
            for override in number.iterchildren(f"{W}lvlOverride"):
                start = _value(override.find(f"{W}startOverride"))
                own = override.find(f"{W}lvl")
                if own is not None:
                    self._own_levels.setdefault(name, {})[_integer(override.get(f"{W}ilvl"))] = own
                if start:
                    self._starts[name, _integer(override.get(f"{W}ilvl"))] = _integer(start)
        based_on: dict[str, str] = {}
        for style in () if styles is None else styles.iterchildren(f"{W}style"):
            based_on[style.get(f"{W}styleId") or ""] = _value(style.find(f"{W}basedOn"))
            properties = style.find(f"{W}pPr/{W}numPr")
            if properties is not None:
                place = (_value(properties.find(f"{W}numId")), _integer(_value(properties.find(f"{W}ilvl"))))
                self._of_styles[style.get(f"{W}styleId") or ""] = place
        for style in based_on:
            ancestor = style
            for _ in range(_MAX_ANCESTORS):
                if ancestor in self._of_styles:
                    self._of_styles[style] = self._of_styles[ancestor]
                    break
                ancestor = based_on.get(ancestor, "")

    def label(self, paragraph: Any, style: str) -> str:
        """The number that Word shows before a paragraph, with a space, or "". Bullets have none."""
        if not self._lists:
            return ""
        properties = next((found for own in paragraph.iterchildren(_PROPERTIES) for found in own.iterchildren(_NUMBER)), None)
        name, level = self._of_styles.get(style, ("", 0))
        if not name and properties is None:
            return ""
        if properties is not None:
            name = _value(properties.find(f"{W}numId")) or name
            own_level = _value(properties.find(f"{W}ilvl"))
            level = _integer(own_level) if own_level else level
        abstract = self._lists.get(name, "")
        levels = self._levels.get(abstract, [])
        if name in self._own_levels:
            levels = [self._own_levels[name].get(at, one) for at, one in enumerate(levels)]
        if name == "0" or level >= len(levels):
            return ""
        counts = self._count(name, abstract, level, levels)
        shown = _value(levels[level].find(f"{W}lvlText"))
        if _value(levels[level].find(f"{W}numFmt")) in ("bullet", "none") and "%" not in shown:
            return ""
        legal = levels[level].find(f"{W}isLgl") is not None

        def number(place: "re.Match[str]") -> str:
            at = int(place[1]) - 1
            kind = _value(levels[at].find(f"{W}numFmt")) if at < len(levels) and not legal else "decimal"
            return _formatted(counts[at], kind)

        text = _PLACE.sub(number, shown[:100]).strip()
        return f"{text} " if text else ""

    def _count(self, name: str, abstract: str, level: int, levels: list[Any]) -> list[int]:
        """Count a paragraph of a level. Lists with the same definition count on, unless they say where to start."""
        key = name if any(started == name for started, _ in self._starts) else abstract
        counts = self._counts.setdefault(key, [0] * _LEVELS)
        for at in range(level + 1):
            if counts[at] == 0 or at == level:
                start = self._starts.get((name, at), _integer(_value(levels[at].find(f"{W}start")), 1))
                counts[at] = counts[at] + 1 if counts[at] else max(start, 1)
        counts[level + 1 :] = [0] * (_LEVELS - level - 1)
        return counts


def _formatted(number: int, kind: str) -> str:
    if kind in ("lowerLetter", "upperLetter"):
        text = chr(97 + (number - 1) % 26) * min(1 + (number - 1) // 26, 20)
        return text.upper() if kind == "upperLetter" else text
    if kind in ("lowerRoman", "upperRoman") and number < _MAX_NUMBER:
        text = ""
        for value, letters in _ROMAN:
            text, number = text + letters * (number // value), number % value
        return text.upper() if kind == "upperRoman" else text
    return f"{number:02d}" if kind == "decimalZero" else str(number)


def _value(element: Any) -> str:
    return "" if element is None else element.get(f"{W}val") or ""


def _integer(text: str | None, default: int = 0) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else default
