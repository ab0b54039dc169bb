"""The loop of ``enginehouse ingest --watch``: send what is new or changed in a folder or bucket until it is interrupted."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event
from types import FrameType

from cli.output import plural
from cli.remote.bulk_ingest.folder_watch import (
    SETTLE_SECONDS,
    Changes,
    FolderState,
    WatchedFile,
    WatchedSource,
    find_changes,
    state_path,
)
from cli.remote.bulk_ingest.progress_display import ProgressDisplay
from cli.remote.bulk_ingest.s3_bucket import BucketUnavailable
from cli.remote.bulk_ingest.uploader import SERVER_UNREACHABLE, FileOutcome, Uploader
from cli.remote.command import CommandContext
from enginehouse_client import Client, EnginehouseError, Job, NotFound, UploadProgress

RETRY_SECONDS = 10.0
"""How long the loop waits when the server could not be reached after all retries of a request."""


@dataclass(frozen=True)
class WatchOptions:
    """What to watch, and how to send it. ``list_above``: with more files, the collection is listed before they are sent."""

    source: WatchedSource
    collection: str
    include: Sequence[str]
    exclude: Sequence[str]
    prefix: str
    concurrency: int
    again: bool
    delete_removed: bool
    list_above: int
    concurrency_key: str | None
    concurrency_limit: int | None


class SourceWatch:
    """One run of the command. Files replace the documents of their names."""

    def __init__(self, context: CommandContext, client: Client, options: WatchOptions) -> None:
        self._context = context
        self._client = client
        self._options = options
        identity = (
            context.address,
            options.collection,
            options.source.identity,
            options.prefix,
            options.include,
            options.exclude,
        )
        self._state = FolderState(state_path(*identity))
        self._stop = Event()
        self._reported_removed: set[str] = set()

    def run(self) -> None:
        """Returns after Ctrl-C or SIGTERM."""
        with _stop_on_sigterm(self._stop), suppress(KeyboardInterrupt):
            self._retry(self._compare_with_server)
            self._retry(self._send_changes)
            self._context.out.print_note(f"Watching {self._options.source}. Ctrl-C ends.")
            for _ in self._options.source.wait_for_changes(self._stop):
                self._retry(self._send_changes)
        self._context.out.print_note("The watch has ended. The server finishes what it has received.")

    def _retry(self, step: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                step()
                return
            except (*SERVER_UNREACHABLE, BucketUnavailable) as error:
                self._context.out.print_note(f"{error} Trying again in {RETRY_SECONDS:g} s.")
                self._stop.wait(RETRY_SECONDS)

    def _compare_with_server(self) -> None:
        documents: list[str] = []
        with suppress(NotFound):  # the first upload creates the collection
            documents = [document.id for document in self._client.documents(self._options.collection)]
        self._state.forget_unknown(documents)

    def _send_changes(self) -> None:
        while not self._stop.is_set():
            changes = find_changes(self._state, self._options.source.list_files(), now=time.time())
            if changes.files:
                self._upload(changes)
            self._remove(changes.removed)
            if not changes.unsettled:
                return
            self._stop.wait(SETTLE_SECONDS)

    def _upload(self, changes: Changes) -> None:
        files = {file.name: (file, version) for file, version in changes.files}
        batch = self._client.open_batch()
        self._context.out.print_note(f"Batch {batch.id} counts the jobs of {plural(len(files), 'file')}.")
        with ProgressDisplay(len(files)) as display:
            recorder = _StateRecorder(display, self._state, files)
            uploader = Uploader(
                self._client,
                self._options.collection,
                batch,
                recorder,
                again=self._options.again,
                replace=True,
                concurrency_key=self._options.concurrency_key,
                concurrency_limit=self._options.concurrency_limit,
            )
            try:
                if len(files) > self._options.list_above:
                    uploader.load_existing_documents()
                for outcome in uploader.upload_files([file for file, _ in files.values()], self._options.concurrency):
                    self._print(outcome)
            finally:
                # If this fails, the server seals the batch some time after its last job.
                with suppress(EnginehouseError):
                    self._context.client.seal(batch)

    def _remove(self, names: Sequence[str]) -> None:
        if not self._options.delete_removed:
            for name in set(names) - self._reported_removed:
                self._context.out.print_note(f"{name} was removed. Its document stays; --delete-removed would delete it.")
            self._reported_removed.update(names)
            return
        for name in names:
            document = self._state.forget(name)
            if document is not None:
                with suppress(NotFound):
                    self._client.delete_document(document)
                self._print(FileOutcome(name, "deleted", "the file was removed", document))

    def _print(self, outcome: FileOutcome) -> None:
        if self._context.out.as_json:
            self._context.out.print_json(outcome.raw)
        else:
            self._context.out.print_note(f"{outcome.file}: {outcome.status}{f' ({outcome.reason})' * bool(outcome.reason)}")


class _StateRecorder:
    """Passes progress on, and records each file as soon as it has ended, before its outcome is printed."""

    def __init__(self, display: ProgressDisplay, state: FolderState, files: Mapping[str, WatchedFile]) -> None:
        self._display = display
        self._state = state
        self._files = files

    def file_started(self, file: str) -> None:
        self._display.file_started(file)

    def upload_progressed(self, file: str, progress: UploadProgress) -> None:
        self._display.upload_progressed(file, progress)

    def job_polled(self, file: str, job: Job) -> None:
        self._display.job_polled(file, job)

    def file_ended(self, file: str, outcomes: list[FileOutcome]) -> None:
        self._display.file_ended(file, outcomes)
        if outcomes:
            self._state.record(*self._files[file], outcomes)


@contextmanager
def _stop_on_sigterm(stop: Event) -> Iterator[None]:
    """Let a service manager end the command as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
