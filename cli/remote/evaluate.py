"""``enginehouse evaluate``: measure how well searches of a collection find the answers to given questions."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CommandError
from cli.output import first_line, plural
from cli.remote.command import PANEL, CommandContext, server_command
from cli.safe_text import safe_line, safe_text

if TYPE_CHECKING:
    from cli.remote.evaluation.metrics import Ranks
    from cli.remote.evaluation.questions import Question
    from enginehouse_client import SearchHits


class Mode(StrEnum):
    """How a collection is searched."""

    VECTOR = "vector"
    KEYWORD = "keyword"
    HYBRID = "hybrid"


FOUND_WITHIN = 5
"""A question is a miss if its answer is not among this many hits."""
SHOWN_NAMES = 5


@dataclass(frozen=True)
class _Row:
    """The measures of some questions in one mode."""

    mode: str
    kind: str
    ranks: "Sequence[Ranks]"
    seconds: Sequence[float]

    def to_json(self) -> dict[str, Any]:
        from cli.remote.evaluation.metrics import measures

        kind = {"kind": self.kind} if self.kind else {}
        values = {name: round(value, 4) for name, value in measures(self.ranks).items()}
        return {"mode": self.mode, **kind, "questions": len(self.ranks), **values, "p50_seconds": round(self._median(), 4)}

    def cells(self) -> tuple[object, ...]:
        from cli.remote.evaluation.metrics import measures

        values = (f"{value:.3f}" for value in measures(self.ranks).values())
        return self.mode, self.kind or "all", len(self.ranks), *values, f"{self._median() * 1000:.0f} ms"

    def _median(self) -> float:
        return sorted(self.seconds)[len(self.seconds) // 2]


@server_command
def evaluate(
    context: CommandContext,
    paths: Annotated[Path, typer.Argument(help="File with one question per line, as JSON.", metavar="QUESTIONS.jsonl")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Collection to search.")],
    mode: Annotated[
        list[Mode] | None, typer.Option(help="Search by vectors, by keywords, or by both; repeatable.", show_default="hybrid")
    ] = None,
    rerank: Annotated[
        bool | None,
        typer.Option("--rerank/--no-rerank", help="Rank the candidates with a reranker.", show_default="if the server has one"),
    ] = None,
    reranker: Annotated[str | None, typer.Option(help="The reranker, instead of the default one.")] = None,
    by_kind: Annotated[bool, typer.Option("--by-kind", help="Also show the questions of each kind.")] = False,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Search with the field standalone of the questions that have it.")
    ] = False,
    misses: Annotated[
        bool, typer.Option("--misses", help=f"Print the questions whose answer is not among the first {FOUND_WITHIN} passages.")
    ] = False,
) -> None:
    """Search a collection with questions whose answers are known, and print how many it finds and at which rank.

    Each line of the file is an object with "question" and "document", and optionally "page", "quote" (a text that the answer
    contains), "kind", "standalone" and "history":

      {"question": "How many days of vacation are there?", "document": "policy.pdf", "page": 3, "quote": "thirty days"}
    """
    from cli.remote.evaluation.metrics import DEPTH, MEASURES
    from cli.remote.evaluation.questions import missing_documents, read_questions

    if reranker is not None and rerank is False:
        raise CommandError("--reranker and --no-rerank contradict each other.")
    questions = read_questions(paths)
    names = {name for document in context.client.documents(collection) for name in (document.id, document.name)}
    if missing := missing_documents(questions, names):
        more = f" and {len(missing) - SHOWN_NAMES:,} more" if len(missing) > SHOWN_NAMES else ""
        raise CommandError(
            f"Collection {collection!r} lacks {plural(len(missing), 'document')} of the questions: "
            f"{', '.join(missing[:SHOWN_NAMES])}{more}."
        )

    modes = list(dict.fromkeys(mode or [Mode.HYBRID]))
    rows: list[_Row] = []
    with _progress(len(questions) * len(modes)) as advance:
        for chosen in modes:
            search = partial(context.patient_client.search, collection, top_k=DEPTH, mode=chosen.value, rerank=reranker or rerank)
            found = list(_search(search, questions, standalone, advance))
            rows += _rows(chosen.value, questions, found, by_kind)
            if misses:
                _print_misses(context, chosen.value, questions, found)
    columns = ("mode", "kind", "questions", *MEASURES, "median")
    context.out.print_list(columns, rows, _Row.cells, to_json=_Row.to_json)


def _search(
    search: "Callable[[str], SearchHits]", questions: "Sequence[Question]", standalone: bool, advance: Callable[[], None]
) -> "Iterator[tuple[Ranks, float]]":
    from cli.remote.evaluation.metrics import rank_hits

    warned = False
    for question in questions:
        query = question.standalone if standalone and question.standalone else question.question
        start = time.perf_counter()
        hits = search(query)
        seconds = time.perf_counter() - start
        if hits.warnings and not warned:
            print(safe_text("\n".join(hits.warnings)), file=sys.stderr)
            warned = True
        yield rank_hits([hit.raw for hit in hits], question), seconds
        advance()


def _rows(mode: str, questions: "Sequence[Question]", found: "Sequence[tuple[Ranks, float]]", by_kind: bool) -> Iterator[_Row]:
    def row(kind: str, chosen: "Iterable[tuple[Ranks, float]]") -> _Row:
        ranks, seconds = zip(*chosen, strict=True)
        return _Row(mode, kind, ranks, seconds)

    yield row("", found)
    kinds = dict.fromkeys(question.kind for question in questions if question.kind) if by_kind else {}
    for kind in kinds:
        yield row(kind, (one for question, one in zip(questions, found, strict=True) if question.kind == kind))


def _print_misses(
    context: CommandContext, mode: str, questions: "Sequence[Question]", found: "Sequence[tuple[Ranks, float]]"
) -> None:
    missed = False
    for question, (ranks, _) in zip(questions, found, strict=True):
        if ranks.answer is None or ranks.answer > FOUND_WITHIN:
            missed = True
            place = "not found" if ranks.answer is None else f"rank {ranks.answer}"
            pages = "" if question.page is None else f" page {', '.join(map(str, question.page))}"
            text = first_line(question.question, 120)
            context.out.print_note(safe_line(f"{mode}: {place}: {text} ({', '.join(question.document)}{pages})"))
    if not missed:
        context.out.print_note(f"{mode}: every answer is among the first {FOUND_WITHIN} passages")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error while searches run, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("searches", total=total)
        yield lambda: bars.advance(task)


def install(root: typer.Typer) -> None:
    """Add this command to the root."""
    root.command(rich_help_panel=PANEL)(evaluate)
