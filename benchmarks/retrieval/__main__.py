"""Measure retrieval: ``python -m benchmarks.retrieval``. See ``docs/retrieval.md``.

The first run downloads the manuals and indexes them, which takes some minutes; ``--folder`` keeps both for later runs.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, percentile
from benchmarks.retrieval.in_process import Chunks, InProcessIndex, Variant, peers
from benchmarks.retrieval.indexed import connected, index_files
from benchmarks.retrieval.manuals import fetch_manuals, manuals_collection
from benchmarks.retrieval.peers import PEERS, PeerIndex
from benchmarks.retrieval.public_sets import (
    PUBLIC_SETS,
    download,
    measure_public_set,
    read_public_set,
    write_documents,
)
from benchmarks.retrieval.twin import Twin, make_twin, shares_kept
from benchmarks.retrieval.vector_cache import VectorCache, export_texts, import_vectors
from cli.remote.evaluation.metrics import DEPTH, measures, rank_hits
from cli.remote.evaluation.questions import Question, read_questions
from enginehouse_client import Client

QUESTIONS = Path(__file__).with_name("questions.jsonl")
MODES = ("vector", "keyword", "hybrid")
FOLLOW_UP = "follow-up"
VARIANTS = (
    Variant(200),
    Variant(200, layout=False),
    Variant(200, outline=False, layout=False),
    Variant(100, outline=False, layout=False),
)
Search = Callable[[str], Sequence[dict[str, Any]]]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(".enginehouse/retrieval"), help="keeps manuals and indexes")
    arguments.add_argument("--chunk-tokens", type=int, default=200, help="size of chunks")
    arguments.add_argument("--reranker", metavar="URL", help="also measure searches with this reranker, such as a hub id")
    arguments.add_argument("--no-peers", action="store_true", help="measure Enginehouse alone")
    arguments.add_argument(
        "--ocr", type=number_of_pages, metavar="PAGES", help="also index the manuals with this many pages as pictures"
    )
    arguments.add_argument(
        "--public", metavar="NAME|FOLDER", help=f"measure {', '.join(PUBLIC_SETS)}, or a folder in the format of BEIR"
    )
    arguments.add_argument("--manuals", nargs="+", metavar="NAME", help="only these manuals and the questions about them")
    arguments.add_argument(
        "--in-process",
        action="store_true",
        help="compare variants of the index in this process, without a stack; with --ocr, only text and pictures",
    )
    arguments.add_argument("--export", type=Path, metavar="TEXTS.json.gz", help="write the texts without vectors, and stop")
    arguments.add_argument("--import", type=Path, nargs="+", dest="imported", metavar="FILE", help="the texts, and their vectors")
    arguments.add_argument("--url", help="measure this server instead of starting a stack")
    options = arguments.parse_args()
    folder = options.folder.resolve()
    if options.public:
        measure_public(options.public, folder, options.chunk_tokens, options.url)
        return
    files = fetch_manuals(folder / "manuals")
    questions = read_questions(QUESTIONS)
    if options.manuals:
        files = [path for path in files if path.name in options.manuals]
        questions = [question for question in questions if question.document[0] in options.manuals]
    if options.in_process:
        cache = VectorCache(folder / "in-process" / "vectors.npz")
        if options.imported:
            import_vectors(cache, options.imported[0], options.imported[1:])
        if options.ocr:
            measure_twin_in_process(files, questions, folder / "in-process", cache, options.ocr)
            return
        compare_in_process(files, questions, folder / "in-process", cache, options.export)
        return
    with connected(folder / "stack", options.url, options.reranker) as client:
        measure_stack(client, files, questions, options.chunk_tokens)
        if options.ocr:
            measure_twin(client, files, questions, options.chunk_tokens, options.ocr, folder / "twins")
    if not options.no_peers:
        measure_peers(files, questions, folder / "peers")


def number_of_pages(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pages from 1")
    return int(text)


def measure_stack(client: Client, files: Sequence[Path], questions: Sequence[Question], chunk_tokens: int) -> None:
    """Figures of each mode: for questions that stand alone, by kind, and for follow-up questions in several forms."""
    collection = manuals_collection(files, chunk_tokens)
    start = time.perf_counter()
    pages, chunks = index_files(client, collection, files, chunk_tokens)
    about = {"system": "enginehouse", "chunk_tokens": chunk_tokens, "pages": pages, "chunks": chunks}
    figure("retrieval.indexing_seconds", time.perf_counter() - start, "s", **about)
    for mode in MODES:
        report(questions, searcher(client, collection, mode), **about, mode=mode)
    rerankers = [model.name for model in client.models() if model.task == "rerank"]
    if not rerankers:
        print("The server has no reranker, so reranked searches are not measured.", file=sys.stderr)
    for reranker in rerankers:
        report(questions, searcher(client, collection, "hybrid", reranker), **about, mode="hybrid", reranker=reranker)


def searcher(client: Client, collection: str, mode: Any, reranker: str | bool = False) -> Search:
    """A search with the given reranker, or without one."""
    return lambda query: [dict(hit.raw) for hit in client.search(collection, query, top_k=DEPTH, mode=mode, rerank=reranker)]


def compare_in_process(
    files: Sequence[Path], questions: Sequence[Question], folder: Path, cache: VectorCache, export: Path | None
) -> None:
    """Figures of several variants of the index, and of other tools, with the product's search and exact nearest neighbours."""
    variants = {variant: Chunks(variant, files, folder, cache) for variant in VARIANTS}
    others = list(peers(files, folder, cache))
    queries = [form(question) for question in questions for form in QUERY_FORMS.values()]
    if export:
        texts = [text for source in (*variants.values(), *(index for _, index in others)) for text in source.texts]
        missing = cache.missing([*texts, *queries])
        export_texts(missing, export)
        print(f"{len(missing)} texts are in {export}")
        return
    cache.vectors(queries)
    for variant, chunks in variants.items():
        index = InProcessIndex(chunks, folder / "text-index", cache)
        about = {"system": "enginehouse", "in_process": True, **vars(variant), "chunks": len(chunks.texts)}
        for mode in MODES:
            report(questions, lambda query, index=index, mode=mode: index.search(query, mode), **about, mode=mode)
    for peer, other in others:
        report(questions, other.search, system=peer.name, in_process=True, mode="vector", chunks=other.chunks)


def measure_peers(files: Sequence[Path], questions: Sequence[Question], folder: Path) -> None:
    """The same figures of other tools."""
    versions = {name: version(name) for name in ("langchain-community", "langchain-text-splitters", "chromadb", "pypdf")}
    pages: dict[str, list[Any]] = {}
    for peer in PEERS:
        index = PeerIndex(peer, files, folder, pages)
        about = {
            "system": peer.name,
            "mode": "vector",
            "chunks": index.chunks,
            "answers_from": peer.passages,
            "versions": versions,
        }
        report(questions, lambda query, index=index: index.search(query, DEPTH), **about)


def report(questions: Sequence[Question], search: Search, **about: Any) -> None:
    """Print the figures of one search for all questions that stand alone, for each kind of them, and for follow-up questions."""
    first = [question for question in questions if not question.history]
    follow_ups = [question for question in questions if question.history]
    seconds: list[float] = []

    def timed(query: str) -> Sequence[dict[str, Any]]:
        start = time.perf_counter()
        hits = search(query)
        seconds.append(time.perf_counter() - start)
        return hits

    ranks = [rank_hits(timed(question.question), question) for question in first]
    print_measures(measures(ranks), questions=len(first), kind="all", **about)
    figure("retrieval.p50_seconds", percentile(seconds, 50), "s", **about)
    for kind in dict.fromkeys(question.kind for question in first):
        chosen = [found for found, question in zip(ranks, first, strict=True) if question.kind == kind]
        print_measures(measures(chosen), questions=len(chosen), kind=kind, **about)
    for form, query_of in QUERY_FORMS.items():
        found = [rank_hits(search(query_of(question)), question) for question in follow_ups]
        print_measures(measures(found), questions=len(found), kind=FOLLOW_UP, query=form, **about)


def conversation(question: Question) -> str:
    """All messages of a conversation as one query."""
    return "\n".join([*(turn.content for turn in question.history), question.question])


def user_messages(question: Question) -> str:
    """The messages of the user as one query."""
    return "\n".join([*(turn.content for turn in question.history if turn.role == "user"), question.question])


QUERY_FORMS: dict[str, Callable[[Question], str]] = {
    "last message": lambda question: question.question,
    "user messages": user_messages,
    "conversation": conversation,
    "rewritten by a person": lambda question: question.standalone or question.question,
}


def print_measures(values: dict[str, float], **about: Any) -> None:
    for name, value in values.items():
        figure(f"retrieval.{name}", value, "share", **about)


def measure_twin(
    client: Client, files: Sequence[Path], questions: Sequence[Question], chunk_tokens: int, count: int, folder: Path
) -> None:
    """What share of the recall remains when the pages with the answers are pictures."""
    twin = make_twin(files, questions, count, folder)
    collections = {"text": manuals_collection(files, chunk_tokens), "pictures": f"twin-{twin.name}-{chunk_tokens}"}
    start = time.perf_counter()
    index_files(client, collections["pictures"], twin.files, chunk_tokens)
    figure("retrieval.twin_indexing_seconds", time.perf_counter() - start, "s", pictures=twin.pictures)
    compare_twin(twin, {name: lambda mode, found=found: searcher(client, found, mode) for name, found in collections.items()})


def measure_twin_in_process(
    files: Sequence[Path], questions: Sequence[Question], folder: Path, cache: VectorCache, count: int
) -> None:
    """The same without a stack, which embeds only the passages that differ."""
    twin = make_twin(files, questions, count, folder / "twins")
    sources = {"text": (files, folder), "pictures": (twin.files, folder / f"twin-{twin.name}")}
    indexes = {
        name: InProcessIndex(Chunks(VARIANTS[0], paths, place, cache), place / "text-index", cache)
        for name, (paths, place) in sources.items()
    }
    compare_twin(
        twin,
        {name: lambda mode, found=found: lambda query: found.search(query, mode) for name, found in indexes.items()},
        in_process=True,
    )


def compare_twin(twin: Twin, searches: Mapping[str, Callable[[Any], Search]], **about: Any) -> None:
    """Print the figures of both, and what share of those for text pictures keep. ``searches`` are by ``text`` and ``pictures``, and then by mode."""
    about |= {"pictures": twin.pictures, "questions": len(twin.questions)}
    for mode in MODES:
        values = {}
        for name, search_in in searches.items():
            search = search_in(mode)
            values[name] = measures([rank_hits(search(question.question), question) for question in twin.questions])
            print_measures(values[name], mode=mode, pages_as=name, **about)
        for measure, share in shares_kept(**values).items():
            figure(f"retrieval.kept_{measure}", share, "pictures / text", mode=mode, **about)


def measure_public(name: str, folder: Path, chunk_tokens: int, url: str | None) -> None:
    """Figures for a public set, in each mode."""
    source = download(name, folder / "public") if name in PUBLIC_SETS else Path(name)
    public = read_public_set(source)
    collection = f"{source.resolve().name}-{chunk_tokens}"
    with connected(folder / "stack", url, None) as client:
        files = write_documents(public.documents, folder / "public" / f"{source.resolve().name}-files")
        _, chunks = index_files(client, collection, files, chunk_tokens)
        for mode in MODES:

            def search(query: str, top_k: int, mode: Any = mode) -> list[str]:
                return [hit.document for hit in client.search(collection, query, top_k=top_k, mode=mode, rerank=False)]

            print_measures(
                measure_public_set(public.queries, search),
                mode=mode,
                set=source.resolve().name,
                queries=len(public.queries),
                documents=len(public.documents),
                chunks=chunks,
                chunk_tokens=chunk_tokens,
            )


if __name__ == "__main__":
    main()
