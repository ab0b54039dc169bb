"""Public collections with judgements, in the format of BEIR: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/test.tsv`` in a folder.

Their answers are whole documents, of which a question may have several with different grades. A document has the rank of its best
passage.
"""

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.remote.evaluation.metrics import DEPTH, ndcg

PUBLIC_SETS = ("scifact", "nfcorpus", "fiqa")
PASSAGES = 50
"""Passages that are searched for, to have ten documents."""


@dataclass(frozen=True)
class PublicSet:
    """Texts by document id, and queries with the grades of the documents that answer them."""

    documents: Mapping[str, str]
    queries: Sequence[tuple[str, Mapping[str, float]]]


def download(name: str, folder: Path) -> Path:
    """The folder of a public set, downloaded from the Hugging Face hub."""
    from huggingface_hub import hf_hub_download

    target = folder / name
    for repository, source, file in (
        (f"BeIR/{name}", "corpus.jsonl.gz", "corpus.jsonl.gz"),
        (f"BeIR/{name}", "queries.jsonl.gz", "queries.jsonl.gz"),
        (f"BeIR/{name}-qrels", "test.tsv", "qrels/test.tsv"),
    ):
        path = target / file
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(Path(hf_hub_download(repository, source, repo_type="dataset")).read_bytes())
    return target


def read_public_set(folder: Path) -> PublicSet:
    """The set in a folder. Queries without a judged document are left out."""
    documents = {
        str(row["_id"]): "\n\n".join(filter(None, (row.get("title", ""), row["text"])))
        for row in _read_lines(folder, "corpus.jsonl")
    }
    grades: dict[str, dict[str, float]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if float(row["score"]) > 0:
                grades.setdefault(row["query-id"], {})[row["corpus-id"]] = float(row["score"])
    queries = [
        (str(row["text"]), grades[str(row["_id"])]) for row in _read_lines(folder, "queries.jsonl") if str(row["_id"]) in grades
    ]
    if not queries:
        raise SystemExit(f"{folder} has no query with a judged document.")
    return PublicSet(documents, queries)


def _read_lines(folder: Path, name: str) -> Iterable[dict[str, Any]]:
    path = folder / name
    data = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    return (json.loads(line) for line in data.splitlines() if line.strip())


def write_documents(documents: Mapping[str, str], folder: Path) -> list[Path]:
    """One text file for each document, named by its id."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in documents.items():
        if text.strip():
            paths.append(folder / f"{name.replace('/', '_')}.txt")
            paths[-1].write_text(text, encoding="utf-8")
    return paths


def measure_public_set(
    queries: Sequence[tuple[str, Mapping[str, float]]], search: Callable[[str, int], Iterable[str]]
) -> dict[str, float]:
    """Measures of ``search``, which returns the document names of the passages found, best first."""
    gains: list[float] = []
    recalls: list[float] = []
    for query, grades in queries:
        names = list(dict.fromkeys(name.removesuffix(".txt") for name in search(query, PASSAGES)))[:DEPTH]
        known = {name.replace("/", "_"): grade for name, grade in grades.items()}
        gains.append(ndcg([known.get(name, 0.0) for name in names], list(known.values()), DEPTH))
        recalls.append(sum(name in known for name in names) / len(known))
    return {"ndcg@10": sum(gains) / len(gains), "recall@10": sum(recalls) / len(recalls)}
