"""Ids sort in creation order, even within a millisecond."""

from concurrent.futures import ThreadPoolExecutor

from shared.ids import JOB, derived_id, is_id, new_id


def test_an_id_has_the_layout_of_a_ulid() -> None:
    assert new_id(JOB, now_ms=0, random=bytes(10)) == "job_" + "0" * 26
    assert new_id(JOB, now_ms=2**48 - 1, random=b"\xff" * 10) == "job_7" + "z" * 25
    assert is_id(JOB, new_id(JOB))
    assert not is_id(JOB, new_id("doc"))


def test_ids_of_the_same_millisecond_sort_in_creation_order() -> None:
    ids = [new_id(JOB) for _ in range(10_000)]
    assert ids == sorted(set(ids))


def test_threads_never_create_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [id for created in pool.map(lambda _: [new_id(JOB) for _ in range(500)], range(16)) for id in created]
    assert len(set(ids)) == 8_000


def test_a_derived_id_depends_only_on_its_names() -> None:
    job = new_id(JOB)
    assert derived_id("doc", job, "a.txt") == derived_id("doc", job, "a.txt")
    assert derived_id("doc", job, "a.txt") != derived_id("doc", job, "b.txt")
    assert derived_id("doc", job, "a.txt")[4:14] == job[4:14]
