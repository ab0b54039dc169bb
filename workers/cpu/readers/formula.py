"""Formulas in Office files (OMML), written on one line."""

from typing import Any

from lxml import etree

from workers.cpu.readers.ooxml import M, W


def flatten_formulas(root: Any) -> None:
    """Replace the contents of each formula by one element with its text."""
    for formula in list(root.iter(f"{M}oMath")):
        text = linear_formula(formula)
        for child in list(formula):
            formula.remove(child)
        etree.SubElement(formula, f"{M}t").text = text


def linear_formula(element: Any) -> str:
    """A formula on one line, such as ``E=mc^2`` or ``(a+b)/2``."""
    if element.tag in (f"{M}t", f"{W}t"):
        return element.text or ""
    texts = [(str(child.tag).rpartition("}")[2], linear_formula(child)) for child in element]
    parts = dict(texts)
    base, below, above = parts.get("e", ""), parts.get("sub", ""), parts.get("sup", "")
    scripts = "".join(f"{mark}{_grouped(text)}" for mark, text in (("_", below), ("^", above)) if text)
    match str(element.tag).removeprefix(M):
        case "f":
            return f"{_grouped(parts.get('num', ''))}/{_grouped(parts.get('den', ''))}"
        case "sSup" | "sSub" | "sSubSup":
            return f"{base}{scripts}"
        case "rad":
            degree = parts.get("deg", "")
            return f"√{f'[{degree}]' if degree else ''}({base})"
        case "nary":
            sign = element.find(f"{M}naryPr/{M}chr")
            return f"{'∫' if sign is None else sign.get(f'{M}val') or '∫'}{scripts} {base}"
        case "d":
            return f"({', '.join(text for tag, text in texts if tag == 'e')})"
        case "mr":
            return " ".join(text for tag, text in texts if tag == "e")
        case "m":
            return f"[{'; '.join(text for tag, text in texts if tag == 'mr')}]"
    return "".join(text for _, text in texts)


def _grouped(text: str) -> str:
    return text if len(text) == 1 or text.isalnum() else f"({text})"
