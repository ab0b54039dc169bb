"""Unpublished output: batches that ended as failed, so that no attempt could make their output files of the owner.

A batch fails if each of its workers dies, or because of an unexpected error. Maintenance then publishes what it has written,
so answers that exist are not lost with it.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import redis

from shared.disk_space import DiskSpace
from shared.errors import DiskFull
from shared.ids import JOB, is_id, new_id
from shared.jobs.models import Job
from shared.jobs.queries import JobQueries
from shared.jobs.scripts import JobScripts
from shared.openai.batches import REQUEST_BATCH, RequestBatches, output_file_id, public_id
from shared.openai.files import FileStore
from shared.settings import Settings
from workers.io.request_batches.output import NAMES

logger = logging.getLogger(__name__)


class UnpublishedOutput:
    """Finds and publishes it. Safe to run on many workers at once."""

    def __init__(self, client: redis.Redis, settings: Settings, disk_space: DiskSpace) -> None:
        self._root = settings.request_batches_dir
        self._disk_space = disk_space
        self._queries = JobQueries(client)
        self._batches = RequestBatches(client)
        self._scripts = JobScripts(client)
        self._files = FileStore(client, settings, disk_space)

    def publish(self) -> int:
        """Publish the output of all batches that have ended without it; return how many."""
        ids = [folder.name for folder in self._root.iterdir() if is_id(JOB, folder.name)] if self._root.is_dir() else []
        ended = [job for job in self._queries.read_jobs(ids) if job.kind == REQUEST_BATCH and job.status.final]
        return sum(self._publish(job) for job in ended)

    def _publish(self, job: Job) -> bool:
        state = self._batches.state(job.id)
        files = {}
        try:
            for name in NAMES if state.get("phase") != "ended" else ():
                if self._copy(job, state, name):
                    files[f"{name}_file"] = output_file_id(job.id, name)
        except (DiskFull, FileNotFoundError) as error:
            # Files that are gone were published by another worker, or not restored. A full disk may have space later.
            logger.warning("job %s: its output is not published: %s", job.id, error)
            return False
        if files and self._scripts.publish_requests(id=job.id, changes={**files, "phase": "ended"}) != "ok":
            return False
        shutil.rmtree(self._root / job.id, ignore_errors=True)
        return bool(files)

    def _copy(self, job: Job, state: Mapping[str, str], name: str) -> bool:
        """Make what counts of one file a file of the owner; return whether there is anything. Raises DiskFull and FileNotFoundError."""
        size = int(state.get(f"{name}_size") or 0)
        if not size:
            return False
        folder = self._root / job.id
        self._disk_space.require(size)
        # A copy: a process that was taken for dead may still append to its own file.
        copy = folder / f"published.{new_id('part')}"
        _copy_beginning(folder / f"{name}.{state['part']}", copy, size)
        self._files.adopt(
            copy,
            output_file_id(job.id, name),
            job.owner,
            filename=f"{public_id(job.id)}_{name}.jsonl",
            purpose="batch_output",
            expires_seconds=int(state["output_seconds"]),
        )
        return True


def _copy_beginning(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as stream, target.open("xb") as copy:
        while size and (block := stream.read(min(size, 1024 * 1024))):
            copy.write(block)
            size -= len(block)
        copy.flush()
        os.fsync(copy.fileno())
    target.chmod(0o600)
