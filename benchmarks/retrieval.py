"""Retrieval quality: recall@5 and mean reciprocal rank of the page that answers a question, for each search mode.

The corpus consists of this repository's documentation and the demo documents as PDFs, plus a reference generated from its
source, which contains many of the same words. ``retrieval_labels.jsonl`` has the questions, each with the document that
answers it and a quote from the right page, so that labels stay valid when pages move.
Run: ``.venv/bin/python -m benchmarks.retrieval``.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, percentile
from cli.local.pdf_writer import pdf_from_markdown
from testing.repository import REPOSITORY
from testing.source_reference import source_reference
from testing.stack import MINILM, Stack

LABELS = Path(__file__).with_name("retrieval_labels.jsonl")
PAPERS = ("examples/documents/*.md", "docs/*.md", "docs/decisions/*.md", "CONTRIBUTING.md")
MODES = ("vector", "keyword", "hybrid")
SEARCH_DEPTH = 20
COLLECTION = "corpus"


@dataclass(frozen=True)
class Label:
    """A question and the pages of one document that answer it."""

    question: str
    document: str
    pages: frozenset[int]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--chunk-tokens", type=int, nargs="+", default=[200], help="chunk sizes to compare")
    arguments.add_argument("--misses", action="store_true", help="print the questions whose page is not among the first five")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), embedding=MINILM, environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"})
        try:
            stack.start()
            for size in options.chunk_tokens:
                measure(stack, size, show_misses=options.misses)
        finally:
            stack.kill()


def measure(stack: Stack, size: int, *, show_misses: bool) -> None:
    """Index the corpus with this chunk size, and ask all questions in every mode."""
    if stack.client.get(f"/collections/{COLLECTION}").status_code == 404:
        stack.client.post("/collections", json={"name": COLLECTION, "chunk_tokens": size}).raise_for_status()
        files = [("file", (f"{name}.pdf", data)) for name, data in corpus()]
        batch = stack.client.post(f"/collections/{COLLECTION}/documents", files=files).json()["batch"]["id"]
        while stack.job(batch, wait=60)["ended_at"] is None:
            pass
    else:
        stack.client.post(f"/collections/{COLLECTION}/reindex", json={"chunk_tokens": size}, headers={"Prefer": "wait=60"})
    documents = stack.client.get(f"/collections/{COLLECTION}/documents", params={"limit": 100}).json()["data"]
    labels = read_labels(stack, documents)
    corpus_size = {
        "questions": len(labels),
        "pages": sum(d["pages"] for d in documents),
        "chunks": sum(d["chunks"] for d in documents),
    }
    for mode in MODES:
        ranks: list[int | None] = []
        seconds: list[float] = []
        for label in labels:
            body = {"query": label.question, "mode": mode, "top_k": SEARCH_DEPTH}
            answer = stack.client.post(f"/collections/{COLLECTION}/search", json=body)
            seconds.append(answer.elapsed.total_seconds())
            ranks.append(rank(answer.json()["data"], label))
        for name, value in (("recall_at_5", recall(ranks, 5)), ("mrr", mean_reciprocal_rank(ranks))):
            figure(f"retrieval.{name}", value, "share", mode=mode, chunk_tokens=size, **corpus_size)
        figure("retrieval.p50_seconds", percentile(seconds, 50), "s", mode=mode, chunk_tokens=size)
        if show_misses:
            missed = [label for label, found in zip(labels, ranks, strict=True) if found is None or found > 5]
            print(*(f"  {mode}: {label.document}: {label.question}" for label in missed), sep="\n")


def corpus() -> list[tuple[str, bytes]]:
    """Names and bytes of the PDFs."""
    sources = [path for pattern in PAPERS for path in sorted(REPOSITORY.glob(pattern))]
    papers = [(path.stem, pdf_from_markdown(path.read_text(encoding="utf-8"), path.stem)) for path in sources]
    return [(name, bytes(paper.output())) for name, paper in [*papers, ("source-reference", source_reference())]]


def read_labels(stack: Stack, documents: Sequence[dict[str, Any]]) -> list[Label]:
    """The questions with their pages. A quote that is on no page is an error in the labels file and ends the run."""
    pages: dict[str, dict[int, str]] = {}
    for document in documents:
        pages_file = stack.data / "documents" / document["id"] / "pages.jsonl"
        rows = [json.loads(line) for line in pages_file.read_text(encoding="utf-8").splitlines()]
        pages[document["name"]] = {row["number"]: " ".join(row["text"].split()).lower() for row in rows}
    labels = []
    for line in LABELS.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        words = " ".join(fields["quote"].split()).lower()
        answer_pages = frozenset(number for number, text in pages[fields["document"]].items() if words in text)
        if not answer_pages:
            raise SystemExit(f"{fields['quote']!r} is on no page of {fields['document']}")
        labels.append(Label(fields["question"], fields["document"], answer_pages))
    return labels


def rank(hits: Sequence[dict[str, Any]], label: Label) -> int | None:
    """Rank of the first hit on a right page, from 1."""
    for number, hit in enumerate(hits, 1):
        if hit["document"] == label.document and hit["page"] in label.pages:
            return number
    return None


def recall(ranks: Sequence[int | None], depth: int) -> float:
    return sum(found is not None and found <= depth for found in ranks) / len(ranks)


def mean_reciprocal_rank(ranks: Sequence[int | None]) -> float:
    return sum(1 / found for found in ranks if found is not None) / len(ranks)


if __name__ == "__main__":
    main()
