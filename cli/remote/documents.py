"""``enginehouse search``, ``collections`` and ``documents``: what is there, and what it says."""

import json
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.errors import CommandError
from cli.remote.command import PANEL, CommandContext, Group, server_command
from cli.remote.jobs import print_id, print_results
from cli.remote.output import clock, first_line

if TYPE_CHECKING:
    from enginehouse_client import Collection, Document, Hit

collections = typer.Typer(cls=Group, help="Documents that are searched together.")
documents = typer.Typer(cls=Group, help="Uploaded files, and what became of them.")

Name = Annotated[str, typer.Argument(help="Name of a collection.")]
Documents = Annotated[list[str], typer.Argument(help="Ids of documents.", metavar="DOCUMENT…")]


@server_command
def search(
    context: CommandContext,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where.")],
    top_k: Annotated[int, typer.Option(min=1, max=100, help="How many passages at most.")] = 5,
    mode: Annotated[
        Literal["vector", "keyword", "hybrid"] | None,
        typer.Option(help="By meaning, by words, or by both.", show_default="hybrid"),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--filter", help="""Of these documents and pages only, as JSON: '{"metadata.year": 2024}'.""")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="The least score.")] = None,
    neighbours: Annotated[int | None, typer.Option(min=0, max=5, help="With --json: chunks around each passage.")] = None,
) -> None:
    """Print the passages of a collection that answer a query, best first."""
    try:
        wanted = None if only is None else dict(json.loads(only))
    except (ValueError, TypeError):
        raise CommandError("--filter: must be a JSON object") from None

    def row(hit: "Hit") -> tuple[object, ...]:
        return f"{hit.score:.3f}", hit.document, hit.page, first_line(hit.text, 160)

    found = context.client.search(
        collection, query, top_k=top_k, mode=mode, filter=wanted, threshold=threshold, neighbours=neighbours
    )
    context.out.print_list(("score", "document", "page", "passage"), found, row)


@collections.command("list")
@server_command
def list_collections(context: CommandContext) -> None:
    """List all collections."""

    def row(collection: "Collection") -> tuple[object, ...]:
        return collection.name, collection.documents, collection.embedding_model, clock(collection.created_at)

    context.out.print_list(("collection", "documents", "embedding model", "made"), context.client.collections(), row)


@collections.command("show")
@server_command
def show_collection(context: CommandContext, name: Name) -> None:
    """Show one collection."""
    found = context.client.collection(name)
    context.out.print_record(
        found,
        [
            ("collection", found.name),
            ("documents", found.documents),
            ("embedding model", found.embedding_model),
            ("made", clock(found.created_at)),
        ],
    )


@collections.command("delete")
@server_command
def delete_collection(
    context: CommandContext,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a collection and all its documents."""
    found = context.client.collection(name)
    if not yes:
        typer.confirm(f"Forget {found.name} and its {found.documents} documents?", abort=True, err=True)
    context.client.delete_collection(name)
    _forgotten(context, name)


@collections.command("reindex")
@server_command
def reindex(
    context: CommandContext,
    name: Name,
    embedding_model: Annotated[str | None, typer.Option(help="With this model from now on.")] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="In chunks of this size from now on.")] = None,
    chunk_overlap_tokens: Annotated[int | None, typer.Option(help="With so much of the chunk before in each.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and print its result.")] = False,
) -> None:
    """Index a collection anew, while the old index answers; prints the id of the job that does it."""
    job = context.client.reindex(
        name, embedding_model=embedding_model, chunk_tokens=chunk_tokens, chunk_overlap_tokens=chunk_overlap_tokens
    )
    if wait:
        print_results(context, [context.patient_client.wait(job)])
    else:
        print_id(context, job)


@documents.command("list")
@server_command
def list_documents(
    context: CommandContext,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Of which.")],
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
) -> None:
    """List the documents of a collection, newest first."""

    def row(one: "Document") -> tuple[object, ...]:
        return one.id, one.status, one.name, one.pages, one.chunks, first_line(one.reason or "")

    columns = ("document", "status", "name", "pages", "chunks", "reason")
    context.out.print_list(columns, islice(context.client.documents(collection), limit), row)


@documents.command("show")
@server_command
def show_document(context: CommandContext, ids: Documents) -> None:
    """Show documents."""
    for document in ids:
        found = context.client.document(document)
        names = ("id", "name", "collection", "status", "reason", "media_type", "size", "sha256", "pages", "pages_done", "chunks")
        rows = [(name, getattr(found, name)) for name in (*names, "job_id")]
        context.out.print_record(found, [*rows, ("created_at", clock(found.created_at)), ("updated_at", clock(found.updated_at))])


@documents.command("delete")
@server_command
def delete_documents(context: CommandContext, ids: Documents) -> None:
    """Forget documents: records, files and vectors."""
    for document in ids:
        context.client.delete_document(document)
        _forgotten(context, document)


def install(root: typer.Typer) -> None:
    """Put these commands under the root."""
    root.command(rich_help_panel=PANEL)(search)
    root.add_typer(collections, name="collections", rich_help_panel=PANEL)
    root.add_typer(documents, name="documents", rich_help_panel=PANEL)


def _forgotten(context: CommandContext, what: str) -> None:
    if context.out.as_json:
        context.out.print_json({"id": what, "deleted": True})
    else:
        context.out.print_note(f"{what} is forgotten")
