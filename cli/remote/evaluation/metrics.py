"""Measures of a search: recall, nDCG, mean reciprocal rank and page hit.

Each question has one answer, so the first hit that contains it decides and the other hits count as wrong. Measures with several
answers of different grades (``ndcg``) are used by the benchmark on public collections.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.remote.evaluation.questions import Question

DEPTH = 10
"""The number of hits considered."""

MEASURES = ("recall@3", "recall@5", "recall@10", "ndcg@10", "mrr@10", "page_hit@5")


@dataclass(frozen=True)
class Ranks:
    """The ranks, from 1, of the first hit that contains the answer and of the first hit on a right page; None if there is none."""

    answer: int | None
    page: int | None


def rank_hits(hits: Sequence[Mapping[str, Any]], question: Question) -> Ranks:
    """The ranks of a question's answer and page among hits, best first."""
    return Ranks(
        answer=next((rank for rank, hit in enumerate(hits, 1) if question.is_answered_by(hit)), None),
        page=next((rank for rank, hit in enumerate(hits, 1) if question.is_on_page(hit)), None),
    )


def measures(ranks: Sequence[Ranks]) -> dict[str, float]:
    """Each of MEASURES, from 0 to 1, for the ranks of at least one question."""
    answers = [found.answer for found in ranks]
    return {
        "recall@3": share_within(answers, 3),
        "recall@5": share_within(answers, 5),
        "recall@10": share_within(answers, 10),
        "ndcg@10": sum(ndcg([0.0] * (rank - 1) + [1.0], [1.0], 10) for rank in answers if rank is not None) / len(answers),
        "mrr@10": sum(1 / rank for rank in answers if rank is not None and rank <= 10) / len(answers),
        "page_hit@5": share_within([found.page for found in ranks], 5),
    }


def share_within(ranks: Sequence[int | None], depth: int) -> float:
    """The share of ranks that are at most ``depth``."""
    return sum(rank is not None and rank <= depth for rank in ranks) / len(ranks)


def ndcg(gains: Sequence[float], ideal: Sequence[float], depth: int) -> float:
    """Normalized discounted cumulative gain of hits with these gains, best first; ``ideal`` are the gains of all right hits."""

    def discounted(values: Sequence[float]) -> float:
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(values[:depth], 1))

    best = discounted(sorted(ideal, reverse=True))
    return discounted(gains) / best if best else 0.0
