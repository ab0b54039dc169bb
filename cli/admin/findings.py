"""What ``enginehouse doctor`` finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A problem, and what mends it, as sentences. ``area`` is the part that has it."""

    area: str
    problem: str
    mend: str
