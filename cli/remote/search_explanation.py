"""``enginehouse search --explain``: ranks of a hit as columns, and the steps of a search as lines."""

from collections.abc import Mapping
from typing import Any

from cli.output import plural

EXPLAINED = ("vector", "keyword", "fused", "rerank")


def explain_hit(explanation: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of a hit: rank and score in each list."""
    return tuple(_cell(explanation.get(name)) for name in EXPLAINED)


def explain_search(explanation: Mapping[str, Any]) -> list[str]:
    """What each step had and removed, one line each."""
    lists = ", ".join(f"{count} by {name}" for name, count in explanation["lists"].items())
    lines = [f"{plural(explanation['chunks'], 'chunk')} in the index; {lists}; {plural(explanation['candidates'], 'candidate')}"]
    removed = explanation["removed"]
    if explanation["filter"]:
        parts = ", ".join(f"{part['condition']}: {part['removed']:,}" for part in explanation["filter"])
        lines.append(f"the filter left out {plural(removed['filter'], 'chunk')} ({parts})")
    if removed["not_ready"]:
        lines.append(f"{plural(removed['not_ready'], 'chunk')} of documents that are not ready left out")
    if removed["threshold"]:
        lines.append(f"the threshold left out {plural(removed['threshold'], 'candidate')}")
    rerank = explanation.get("rerank")
    if rerank is not None and rerank["applied"]:
        lines.append(f"{rerank['model']} ranked {plural(rerank['candidates'], 'candidate')} in {rerank['seconds']:.2f} s")
    return lines


def _cell(place: Any) -> str:
    if place is None:
        return "-"
    return f"{place:.3f}" if isinstance(place, int | float) else f"{place['rank']} ({place['score']:.3f})"
