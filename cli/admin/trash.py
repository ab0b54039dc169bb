"""``enginehouse trash``: lists, restores and deletes the folders that a repair moved to the trash."""

from collections.abc import Sequence
from dataclasses import dataclass

from cli.output import Output, plural, size_text
from shared.documents.descriptions import read_description
from shared.documents.files import DocumentFiles
from shared.documents.trash import DAY_SECONDS, Trash
from shared.settings import Settings


@dataclass(frozen=True)
class _Entry:
    document: str
    trashed_on: str
    size: int
    name: str

    def as_json(self) -> dict[str, object]:
        return {"document": self.document, "trashed_on": self.trashed_on, "size": self.size, "name": self.name or None}


def list_trash(settings: Settings, *, out: Output) -> None:
    """Print what is in the trash, oldest first."""
    entries = []
    for folder in Trash(settings.trash_dir).folders():
        description = read_description(DocumentFiles(folder.path.parent), folder.document_id)
        size = sum(path.stat().st_size for path in folder.path.iterdir() if path.is_file())
        entries.append(_Entry(folder.document_id, folder.trashed_on, size, description.name if description else ""))
    columns = ("document", "trashed on", "size", "name")
    out.print_list(
        columns,
        entries,
        lambda entry: (entry.document, entry.trashed_on, size_text(entry.size), entry.name),
        to_json=_Entry.as_json,
    )


def restore_from_trash(settings: Settings, document_ids: Sequence[str]) -> None:
    """Move folders back to the documents, all of them if none is named. Raises NotFound and Conflict."""
    trash, files = Trash(settings.trash_dir), DocumentFiles(settings.documents_dir)
    ids = document_ids or [folder.document_id for folder in trash.folders()]
    for document_id in ids:
        trash.restore(files, document_id)
    print(f"Moved {plural(len(ids), 'folder')} back.")
    if ids:
        print("`enginehouse collections recover` makes the records of those with a description.")


def empty_trash(settings: Settings, *, older_than_days: float) -> None:
    """Delete what has been in the trash for long enough."""
    removed = Trash(settings.trash_dir).empty(older_than=older_than_days * DAY_SECONDS)
    print(f"Deleted {plural(removed, 'folder')}.")
