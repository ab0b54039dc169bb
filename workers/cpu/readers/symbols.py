"""Characters of symbol fonts, which files store by their place in the font."""

# ruff: noqa: RUF001 - the tables have signs that look like letters

_SYMBOL = dict(zip("abgdezhqiklmnxoprstufcyw", "αβγδεζηθικλμνξοπρστυφχψω", strict=True))
_SYMBOL |= dict(zip("ABGDEZHQIKLMNXOPRSTUFCYW", "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ", strict=True))
_SYMBOL |= {
    "\xa2": "′", "\xa3": "≤", "\xa5": "∞", "\xab": "↔", "\xac": "←", "\xad": "↑", "\xae": "→", "\xaf": "↓", "\xb0": "°", "\xb1": "±",
    "\xb2": "″", "\xb3": "≥", "\xb4": "×", "\xb5": "∝", "\xb6": "∂", "\xb7": "•", "\xb8": "÷", "\xb9": "≠", "\xba": "≡", "\xbb": "≈",
    "\xbc": "…", "\xc6": "∅", "\xc7": "∩", "\xc8": "∪", "\xce": "∈", "\xd1": "∇", "\xd2": "®", "\xd3": "©", "\xd4": "™", "\xd5": "∏",
    "\xd6": "√", "\xde": "⇒", "\xe5": "∑", "\xf2": "∫",
}  # fmt: skip
_WINGDINGS = {
    "\x6c": "●", "\x6e": "■", "\x6f": "□", "\x71": "❑", "\x76": "❖", "\x9f": "•", "\xa7": "▪", "\xa8": "☐", "\xd8": "➢",
    "\xdf": "←", "\xe0": "→", "\xe8": "→", "\xf0": "⇨", "\xfb": "✗", "\xfc": "✓", "\xfd": "☒", "\xfe": "☑", "\x4a": "☺",
}  # fmt: skip


def symbol(font: str, code: str) -> str:
    """The character with a hexadecimal ``code`` in a font, or "" if it is unknown."""
    try:
        number = int(code, 16)
    except ValueError:
        return ""
    if not 0 < number < 0x11_0000:
        return ""
    place = chr(number - 0xF000 if 0xF000 <= number < 0xF100 else number)
    tables = {"symbol": _SYMBOL, "wingdings": _WINGDINGS}
    known = tables.get(font.lower())
    if known is not None:
        return known.get(place, place if font.lower() == "symbol" and place.isascii() and place.isprintable() else "")
    return "" if 0xE000 <= number < 0xF900 else chr(number)
