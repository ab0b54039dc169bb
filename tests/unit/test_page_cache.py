"""Pages of the KV cache: shared prefixes, what is given up first, and pages that nobody may share."""

from workers.gpu.engine.page_cache import SPARE_PAGE, PageCache

PAGE = 4


def cache(pages: int = 10) -> PageCache:
    return PageCache(pages + 1, PAGE)


def prompt(*pages: int) -> list[int]:
    return [page * 10 + place for page in pages for place in range(PAGE)]


def test_pages_are_distinct_and_never_the_spare_page() -> None:
    own = cache(5)
    first, second = own.allocate([], 8), own.allocate([], 12)
    assert first is not None
    assert second is not None
    assert SPARE_PAGE not in first.pages + second.pages
    assert len({*first.pages, *second.pages}) == 5
    assert own.available == 0
    assert own.used_fraction == 1.0
    assert own.allocate([], 1) is None
    own.release(first.pages)
    assert own.available == 2


def test_written_pages_are_shared_also_after_their_request() -> None:
    own = cache()
    digests = own.digests(prompt(1, 2), 0)
    first = own.allocate(digests, 12)
    assert first is not None
    assert own.is_being_computed(digests)
    own.mark_written(first.pages[:2])
    assert not own.is_being_computed(digests)
    other = own.digests(prompt(1, 3), 0)
    second = own.allocate(other, 12)
    assert second is not None
    assert second.shared == 1
    assert second.pages[0] == first.pages[0]
    own.release(first.pages)
    own.release(second.pages)
    again = own.allocate(digests, 12)
    assert again is not None
    assert again.shared == 2
    assert again.pages[:2] == first.pages[:2]


def test_a_page_is_shared_only_after_the_same_tokens_and_with_the_same_salt() -> None:
    own = cache()
    digests = own.digests(prompt(1, 2), 7)
    assert own.digests(prompt(1, 2), 8)[0] != digests[0]
    assert own.digests(prompt(3, 2), 7)[1] != digests[1]
    assert own.digests(prompt(1, 2)[:-1], 7) == digests[:1]
    assert own.digests(prompt(1, 2, 3), 7, digests)[:2] == digests


def test_pages_of_an_unfinished_prompt_are_not_shared_after_it() -> None:
    own = cache()
    digests = own.digests(prompt(1, 2), 0)
    first = own.allocate(digests, 12)
    assert first is not None
    own.mark_written(first.pages[:1])
    own.release(first.pages)
    again = own.allocate(digests, 12)
    assert again is not None
    assert again.shared == 1


def test_unused_pages_are_given_up_oldest_request_and_last_page_first() -> None:
    own = cache(4)
    for number in (1, 2):
        allocation = own.allocate(own.digests(prompt(number, number + 10), 0), 8)
        assert allocation is not None
        own.mark_written(allocation.pages)
        own.release(allocation.pages)
    assert own.available == 4
    assert own.shareable == 4
    taken = own.allocate([], 4)
    assert taken is not None
    kept = own.allocate(own.digests(prompt(1, 11), 0), 8)
    assert kept is not None
    assert kept.shared == 1, "the second page of the first request was given up"
    assert own.allocate(own.digests(prompt(2, 12), 0), 8) is None, "its second page was given up for that"


def test_a_shared_page_is_not_counted_as_free_for_the_request_that_shares_it() -> None:
    own = cache(3)
    digests = own.digests(prompt(1), 0)
    first = own.allocate(digests, 4)
    assert first is not None
    own.mark_written(first.pages)
    own.release(first.pages)
    assert own.allocate(digests, 16) is None
    allocation = own.allocate(digests, 12)
    assert allocation is not None
    assert allocation.shared == 1


def test_output_pages_are_shared_with_the_next_turn() -> None:
    own = cache()
    asked = prompt(1)
    answered = [*asked, *prompt(2)]
    digests = own.digests(asked, 0)
    first = own.allocate(digests, 12)
    assert first is not None
    own.mark_written(first.pages[:1])
    own.share_output(first.pages, own.digests(answered, 0, digests))
    own.release(first.pages)
    second = own.allocate(own.digests([*answered, *prompt(3)], 0), 20)
    assert second is not None
    assert second.shared == 2


def test_poisoned_pages_are_not_shared_and_zeroed_when_nobody_reads_them() -> None:
    own = cache()
    digests = own.digests(prompt(1, 2), 0)
    first = own.allocate(digests, 12)
    assert first is not None
    own.mark_written(first.pages)
    second = own.allocate(digests, 12)
    assert second is not None
    assert second.shared == 2
    assert own.release(first.pages, poisoned=True) == first.pages[2:]
    assert own.shareable == 0
    # The second request may end before it has read them, and not be poisoned itself.
    own.share_output(second.pages, digests)
    assert own.shareable == 0
    assert sorted(own.release(second.pages)) == sorted(first.pages[:2])
    assert own.available == 10
    assert own.release(first.pages[:0]) == []
