"""What ``enginehouse doctor`` finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A problem and its fix, as sentences. ``area`` is the part with the problem."""

    area: str
    problem: str
    fix: str
