"""The parser of server-sent events finds the same events however the bytes are split."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse_client.events import EventParser, ServerSentEvent

# Redis clients of earlier tests in this process wait for servers that are gone, and take the length of each pause from `random`:
# what hypothesis then sees is not done by these strategies.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]), max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[ServerSentEvent], str, float | None]:
    """Events, one possible encoding of them, and the last retry time."""
    written, events, retry = "", [], None
    known = ""
    for _ in range(draw(st.integers(0, 6))):
        end = draw(LINE_ENDS)
        lines, data = [], draw(st.lists(TEXT, min_size=1, max_size=3))
        name = draw(TEXT)
        if draw(st.booleans()):
            lines.append(":" + draw(TEXT))
        if draw(st.booleans()):
            known = draw(TEXT)
            lines.append(f"id: {known}")
        if draw(st.booleans()):
            retry = draw(st.integers(0, 10_000)) / 1000
            lines.append(f"retry: {round(retry * 1000)}")
        lines.append(f"event: {name}")
        lines += [f"data: {text}" for text in data]
        written += end.join([*lines, "", ""])
        events.append(ServerSentEvent(known, name or "message", "\n".join(data)))
    return events, written, retry


@settings(deadline=None)
@given(streams(), st.data(), st.booleans())
def test_any_cut_gives_the_same_events(
    stream: tuple[list[ServerSentEvent], str, float | None], data: st.DataObject, bom: bool
) -> None:
    events, text, retry = stream
    rest = (b"\xef\xbb\xbf" if bom else b"") + text.encode() + b"id: 9\nevent: broken off\ndata: never dispatched\n"
    parser, found = EventParser(), []
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += list(parser.feed(rest[:size]))
        rest = rest[size:]
    assert found == events
    assert parser.retry_seconds == retry


def test_one_byte_at_a_time() -> None:
    parser = EventParser()
    text = "id: 1\r\nevent: delta\r\ndata: żółć\r\n\r\n: still there\n\ndata: two\rdata: lines\r\r"
    found = [event for byte in (text + "\n").encode() for event in parser.feed(bytes([byte]))]
    assert found == [ServerSentEvent("1", "delta", "żółć"), ServerSentEvent("1", "message", "two\nlines")]
