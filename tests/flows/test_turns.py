"""An archive gives way to owners who wait: each attempt ends after its turn, and the next one continues."""

import io
import json
import zipfile
from dataclasses import replace

import pytest
import redis

from shared.documents.files import DocumentFiles
from shared.ids import DOCUMENT, JOB, new_id
from shared.jobs.models import Job
from shared.jobs.queries import JobQueries
from tests.conftest import JobSystem
from tests.flows.test_ingest_parts import Attempt, Library, chroma, embedders, library
from tests.flows.test_search_parts import reindex_attempt
from workers.cpu.archives.unpack import unpack
from workers.runtime.attempt import AttemptStopped

__all__ = ["chroma", "embedders", "library"]


class OthersWait(JobQueries):
    """Another owner always waits."""

    def must_give_way(self, job: Job) -> bool:
        return True


def test_an_archive_gives_way_between_members(library: Library, system: JobSystem, redis_client: redis.Redis) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        for name in ("a.txt", "again.txt", "b.txt", "c.txt"):
            target.writestr(name, "the same text" if name in ("a.txt", "again.txt") else f"the text of {name}")
    settings = replace(library.settings, turn_seconds=0)
    archive, archives = new_id(DOCUMENT), DocumentFiles(settings.archives_dir)
    archives.store(archive, io.BytesIO(packed.getvalue()), limit=10_000)
    spec = {"archive_id": archive, "name": "papers.zip", "collection_id": library.collection.id}
    job = replace(reindex_attempt(library).job, id=new_id(JOB), kind="unpack", spec=spec)
    for done in range(1, 5):
        with pytest.raises(AttemptStopped, match="release"):
            unpack(Attempt(job), library.documents, system.submitter, OthersWait(redis_client), settings)
        assert json.loads(archives.path(archive, "unpacked.json").read_bytes())["done"] == done
        assert redis_client.zcard("eh:owner:ada:jobs") == (1, 1, 2, 3)[done - 1], "members are ingested as soon as they are known"
    result = unpack(Attempt(job), library.documents, system.submitter, OthersWait(redis_client), settings)
    assert [member["name"] for member in result["members"]] == ["a.txt", "b.txt", "c.txt"]
    assert [member["name"] for member in result["duplicate_members"]] == ["again.txt"]
    assert not archives.path(archive, "original").parent.exists()
