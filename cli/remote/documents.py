"""``enginehouse search``, ``collections`` and ``documents``."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.errors import CommandError
from cli.output import clock, first_line, plural, size_text
from cli.remote.command import PANEL, CommandContext, ConcurrencyKey, ConcurrencyLimit, Group, server_command
from cli.remote.jobs import print_id, print_results
from cli.remote.search_explanation import EXPLAINED, explain_hit, explain_search

if TYPE_CHECKING:
    from enginehouse_client import Collection, Document, Hit

collections = typer.Typer(cls=Group, help="List, show, reindex, check, delete and restore collections.")
documents = typer.Typer(cls=Group, help="List, count, show, rename, move and delete documents.")

Name = Annotated[str, typer.Argument(help="Name of the collection.")]
Documents = Annotated[list[str], typer.Argument(help="Document ids.", metavar="DOCUMENT…")]


@server_command
def search(
    context: CommandContext,
    query: Annotated[str, typer.Argument(help="The query.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Collection to search.")],
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Maximum number of passages.")] = 5,
    mode: Annotated[
        Literal["vector", "keyword", "hybrid"] | None,
        typer.Option(help="Search by vectors, by keywords, or by both.", show_default="hybrid"),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--filter", help="""Filter for documents and pages, as JSON: '{"metadata.year": 2024}'.""")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Minimum score.")] = None,
    neighbours: Annotated[
        int | None, typer.Option(min=0, max=5, help="With --json: number of chunks around each passage.")
    ] = None,
    rerank: Annotated[
        bool | None,
        typer.Option("--rerank/--no-rerank", help="Rank the candidates with a reranker.", show_default="if the server has one"),
    ] = None,
    reranker: Annotated[str | None, typer.Option(help="The reranker, instead of the default one.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show ranks and scores in each list, and what the search left out.")
    ] = False,
) -> None:
    """Search a collection and print the best passages first."""
    try:
        filters = None if only is None else dict(json.loads(only))
    except (ValueError, TypeError):
        raise CommandError("--filter must be a JSON object.") from None

    if reranker is not None and rerank is False:
        raise CommandError("--reranker and --no-rerank contradict each other.")

    def row(hit: "Hit") -> tuple[object, ...]:
        score = f"{hit.score if hit.rerank_score is None else hit.rerank_score:.3f}"
        places = explain_hit(hit.explain) if hit.explain is not None else ()
        return score, *places, hit.document, hit.page, first_line(hit.text, 160)

    found = context.client.search(
        collection,
        query,
        top_k=top_k,
        mode=mode,
        filter=filters,
        threshold=threshold,
        neighbours=neighbours,
        rerank=reranker or rerank,
        explain=explain,
    )
    places = EXPLAINED if explain else ()
    context.out.print_list(("score", *places, "document", "page", "passage"), found, row)
    for note in [*found.warnings, *(explain_search(found.explain) if found.explain is not None else ())]:
        context.out.print_note(note)


@collections.command("list")
@server_command
def list_collections(context: CommandContext) -> None:
    """List collections."""

    def row(collection: "Collection") -> tuple[object, ...]:
        return collection.name, collection.documents, collection.embedding_model, clock(collection.created_at)

    context.out.print_list(("collection", "documents", "embedding model", "created"), context.client.collections(), row)


@collections.command("show")
@server_command
def show_collection(context: CommandContext, name: Name) -> None:
    """Show a collection."""
    _print_collection(context, context.client.collection(name))


def _print_collection(context: CommandContext, found: "Collection") -> None:
    context.out.print_record(
        found,
        [
            ("collection", found.name),
            ("documents", found.documents),
            ("embedding model", found.embedding_model),
            ("OCR languages", ", ".join(found.ocr_languages or ()) or "those of the server"),
            ("created", clock(found.created_at)),
        ],
    )


@collections.command("create")
@server_command
def create_collection(
    context: CommandContext,
    name: Name,
    embedding_model: Annotated[str | None, typer.Option(help="Embedding model; the server's default one if omitted.")] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="Chunk size in tokens.")] = None,
    chunk_overlap_tokens: Annotated[int | None, typer.Option(help="Overlap of neighbouring chunks in tokens.")] = None,
    ocr_languages: Annotated[str | None, typer.Option(help="Languages of scans, such as 'deu,eng'.")] = None,
) -> None:
    """Create a collection with settings of its own."""
    created = context.client.create_collection(
        name,
        embedding_model=embedding_model,
        chunk_tokens=chunk_tokens,
        chunk_overlap_tokens=chunk_overlap_tokens,
        ocr_languages=None if ocr_languages is None else _split(ocr_languages),
    )
    _print_collection(context, created)


@collections.command("change")
@server_command
def change_collection(
    context: CommandContext,
    name: Name,
    chunk_tokens: Annotated[int | None, typer.Option(help="New chunk size in tokens.")] = None,
    chunk_overlap_tokens: Annotated[int | None, typer.Option(help="New overlap of neighbouring chunks in tokens.")] = None,
    ocr_languages: Annotated[
        str | None, typer.Option(help="Languages of scans, such as 'deu,eng'; '' for those of the server.")
    ] = None,
) -> None:
    """Change how documents of a collection are read and chunked from now on."""
    changes: dict[str, int | list[str] | None] = {}
    if chunk_tokens is not None:
        changes["chunk_tokens"] = chunk_tokens
    if chunk_overlap_tokens is not None:
        changes["chunk_overlap_tokens"] = chunk_overlap_tokens
    if ocr_languages is not None:
        changes["ocr_languages"] = _split(ocr_languages) or None
    _print_collection(context, context.client.change_collection(name, changes))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@collections.command("delete")
@server_command
def delete_collection(
    context: CommandContext,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    permanent: Annotated[bool, typer.Option("--permanent", help="Delete its data at once.")] = False,
) -> None:
    """Delete a collection with all its documents. It can be restored for a minute, unless --permanent."""
    found = context.client.collection(name)
    if not yes:
        typer.confirm(f"Delete {found.name} and its {plural(found.documents, 'document')}?", abort=True, err=True)
    context.client.delete_collection(name, permanent=permanent)
    _print_deleted(context, name)


@collections.command("restore")
@server_command
def restore_collection(context: CommandContext, name: Name) -> None:
    """Restore a collection that was deleted less than a minute ago, with its documents."""
    restored = context.client.restore_collection(name)
    if context.out.as_json:
        context.out.print_json({"name": restored.name, "documents": restored.documents})
    else:
        context.out.print_note(f"{restored.name} is restored with {plural(restored.documents, 'document')}")


@collections.command("reindex")
@server_command
def reindex(
    context: CommandContext,
    name: Name,
    embedding_model: Annotated[str | None, typer.Option(help="New embedding model.")] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="New chunk size in tokens.")] = None,
    chunk_overlap_tokens: Annotated[int | None, typer.Option(help="New overlap of neighbouring chunks in tokens.")] = None,
    concurrency_key: ConcurrencyKey = None,
    concurrency_limit: ConcurrencyLimit = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job and print its result.")] = False,
) -> None:
    """Rebuild the index of a collection while the old one answers; prints the id of the job."""
    job = context.client.reindex(
        name,
        embedding_model=embedding_model,
        chunk_tokens=chunk_tokens,
        chunk_overlap_tokens=chunk_overlap_tokens,
        concurrency_key=concurrency_key,
        concurrency_limit=concurrency_limit,
    )
    if wait:
        print_results(context, [context.patient_client.wait(job)])
    else:
        print_id(context, job)


@documents.command("list")
@server_command
def list_documents(
    context: CommandContext,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Collection to list.")],
    status: Annotated[str | None, typer.Option(help="Only documents with this status, such as failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number to list.")] = 20,
) -> None:
    """List the documents of a collection, newest first."""

    def row(document: "Document") -> tuple[object, ...]:
        return (
            document.id,
            document.status,
            document.name,
            document.pages,
            document.chunks,
            first_line(document.reason or ""),
        )

    columns = ("document", "status", "name", "pages", "chunks", "reason")
    context.out.print_list(columns, context.client.documents(collection, status=status), row, limit=limit)


@documents.command("counts")
@server_command
def count_documents(
    context: CommandContext,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Collection to count.")],
) -> None:
    """Count the documents of a collection by status."""
    counts = context.client.document_counts(collection)
    if context.out.as_json:
        context.out.print_json(counts.raw)
    else:
        context.out.print_list(("status", "documents"), [*counts.status.items(), ("all", counts.total)], lambda row: row)


@documents.command("rename")
@server_command
def rename_document(
    context: CommandContext,
    document: Annotated[str, typer.Argument(help="Document id.", metavar="DOCUMENT")],
    name: Annotated[str, typer.Argument(help="New file name.", metavar="NAME")],
) -> None:
    """Give a document another file name."""
    renamed = context.client.rename_document(document, name)
    if context.out.as_json:
        context.out.print_json(renamed.raw)
    else:
        context.out.print_note(f"{renamed.id} is called {renamed.name}")


@documents.command("move")
@server_command
def move_documents(
    context: CommandContext,
    ids: Documents,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Existing collection to move them into.")],
    concurrency_key: ConcurrencyKey = None,
    concurrency_limit: ConcurrencyLimit = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the jobs and print their results.")] = False,
) -> None:
    """Move documents into another collection; prints the ids of the jobs."""
    jobs = [
        context.client.move_document(document, collection, concurrency_key=concurrency_key, concurrency_limit=concurrency_limit)
        for document in ids
    ]
    if wait:
        print_results(context, [context.patient_client.wait(job) for job in jobs])
    else:
        for job in jobs:
            print_id(context, job)


@documents.command("show")
@server_command
def show_document(context: CommandContext, ids: Documents) -> None:
    """Show documents."""
    for document in ids:
        found = context.client.document(document)
        rows: list[tuple[str, object]] = [
            ("document", found.id),
            ("name", found.name),
            ("collection", found.collection),
            ("status", found.status),
            ("reason", found.reason),
            ("media type", found.media_type),
            ("size", size_text(found.size)),
            ("SHA-256", found.sha256),
            ("pages", found.pages),
            ("pages read", found.pages_done),
            ("chunks", found.chunks),
            ("job", found.job_id),
            ("created", clock(found.created_at)),
            ("updated", clock(found.updated_at)),
        ]
        context.out.print_record(found, rows)


@documents.command("delete")
@server_command
def delete_documents(
    context: CommandContext,
    ids: Documents,
    permanent: Annotated[bool, typer.Option("--permanent", help="Delete their data at once.")] = False,
) -> None:
    """Delete documents: records, files and index entries. They can be restored for a minute, unless --permanent."""
    for document in ids:
        context.client.delete_document(document, permanent=permanent)
        _print_deleted(context, document)


@documents.command("restore")
@server_command
def restore_documents(context: CommandContext, ids: Documents) -> None:
    """Restore documents that were deleted less than a minute ago."""
    for document in ids:
        restored = context.client.restore_document(document)
        if context.out.as_json:
            context.out.print_json({"id": restored.id, "status": restored.status})
        else:
            context.out.print_note(f"{restored.id} is restored")


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.command(rich_help_panel=PANEL)(search)
    root.add_typer(collections, name="collections", rich_help_panel=PANEL)
    root.add_typer(documents, name="documents", rich_help_panel=PANEL)


def _print_deleted(context: CommandContext, what: str) -> None:
    if context.out.as_json:
        context.out.print_json({"id": what, "deleted": True})
    else:
        context.out.print_note(f"{what} is deleted")
