"""Events of a response, made of the events of its job.

The same events of a job always make the same events of its response, with the same numbers. A stream that broke off, in whichever
process, can therefore be made again from its start, and continues after the last event that its client has received.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.jobs.deltas import delta_of_result
from shared.jobs.event_streams import StreamEvent
from shared.jobs.models import Job, Status
from shared.openai.job_errors import CONTEXT_LENGTH_EXCEEDED, error_of_job
from shared.openai.requests.responses import FILE_SEARCH
from shared.openai.responses.citations import Annotator, searches_files
from shared.openai.responses.ids import item_id
from shared.openai.results import finish_reason

Event = dict[str, Any]

SEARCH_CALL = "file_search_call"

STATUSES = {
    Status.QUEUED: "queued",
    Status.IN_PROGRESS: "in_progress",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.EXPIRED: "failed",
    Status.CANCELLED: "cancelled",
}
# OpenAI has no event for a cancelled response.
FINAL_EVENTS = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "cancelled": "response.incomplete",
    "failed": "response.failed",
}


class _OpenItem:
    """An item that is being generated. ``text`` is its text, reasoning or arguments so far."""

    def __init__(self, kind: str, index: int, item: dict[str, Any], number: int = 0) -> None:
        self.kind = kind
        self.index = index
        self.item = item
        self.number = number
        self.text = ""
        self.logprobs: list[dict[str, Any]] = []
        self.annotator = Annotator(())


class ResponseEvents:
    """Turns the events of one job into those of its response. ``initial`` is the response before anything has happened."""

    def __init__(self, job: str, initial: Mapping[str, Any]) -> None:
        self._job = job
        self._initial = initial
        self._events: list[Event] = []
        self._next_number = 0
        self._begun = self._started = self._is_void = False
        self._open: _OpenItem | None = None
        self._output: list[dict[str, Any]] = []
        self._counts: dict[str, int] = {}
        self._logprobs: list[dict[str, Any]] = []
        self._searches = searches_files(initial)
        self._citations: Sequence[Mapping[str, Any]] = ()

    def feed(self, event: StreamEvent, job: Job | None = None) -> list[Event]:
        """The events that an event of the job adds. With ``ended`` comes the job as it is then."""
        self._events = []
        self._begin()
        if event.type == "started":
            self._start()
        elif event.type == "requeued" and event.data.get(FILE_SEARCH):
            self._end_search(event.data[FILE_SEARCH])
        elif event.type == "delta" and not self._is_void:
            self._start()
            self._add_delta(event.data)
        elif event.type == "restart" and self._has_answer() and not self._is_void:
            self._void()
        elif event.type == "ended":
            assert job is not None
            self._end(job)
        return self._events

    def _emit(self, kind: str, **fields: Any) -> None:
        self._events.append({"type": kind, "sequence_number": self._next_number, **fields})
        self._next_number += 1

    def _emit_response(self, kind: str, status: str) -> None:
        self._emit(kind, response={**self._initial, "status": status})

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        in_background = self._initial.get("background")
        self._emit_response("response.created", "queued" if in_background else "in_progress")
        if in_background:
            self._emit_response("response.queued", "queued")

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._emit_response("response.in_progress", "in_progress")
            self._begin_search()

    def _begin_search(self) -> None:
        if not self._searches:
            return
        call: dict[str, Any] = {"id": self._new_id("fs"), "type": SEARCH_CALL, "queries": [], "results": None}
        item = self._open_item(SEARCH_CALL, call)
        for state in ("in_progress", "searching"):
            self._emit(f"response.{SEARCH_CALL}.{state}", **self._place(item))

    def _end_search(self, found: Mapping[str, Any]) -> None:
        """Complete the search, unless that has happened: a job may search again after its worker has died."""
        if self._open is not None and self._open.kind == SEARCH_CALL:
            self._open.item |= {"queries": found["queries"], "results": found["results"]}
            self._emit(f"response.{SEARCH_CALL}.completed", **self._place(self._open))
            self._close_item("completed")

    def _has_answer(self) -> bool:
        return any(item["type"] != SEARCH_CALL for item in self._output)

    def _add_delta(self, delta: Mapping[str, Any]) -> None:
        if delta.get(FILE_SEARCH):
            self._end_search(delta[FILE_SEARCH])
        self._citations = delta.get("citations", self._citations)
        if delta.get("reasoning"):
            self._add_reasoning(delta["reasoning"])
        # Those of reasoning, too, belong to the text, as a result does not tell them apart.
        self._logprobs += [_logprob(entry) for entry in delta.get("logprobs", ())]
        if delta.get("text"):
            self._add_text(delta["text"])
        for call in delta.get("tool_calls", ()):
            self._add_call(call)

    def _add_reasoning(self, text: str) -> None:
        item = self._open
        if item is None or item.kind != "reasoning":
            item = self._open_item("reasoning", {"id": self._new_id("rs"), "type": "reasoning", "summary": [], "content": []})
            self._emit_part("response.content_part.added", item, {"type": "reasoning_text", "text": ""})
        item.text += text
        self._emit("response.reasoning_text.delta", **self._place(item), content_index=0, delta=text)

    def _add_text(self, text: str) -> None:
        item = self._open
        if item is None or item.kind != "message":
            item = self._open_message()
        item.text += text
        logprobs = self._take_logprobs(item)
        self._emit("response.output_text.delta", **self._place(item), content_index=0, delta=text, logprobs=logprobs)
        for annotation in item.annotator.new_annotations(item.text):
            number = len(item.annotator.annotations) - 1
            self._emit(
                "response.output_text.annotation.added",
                **self._place(item),
                content_index=0,
                annotation_index=number,
                annotation=annotation,
            )

    def _take_logprobs(self, item: _OpenItem) -> list[dict[str, Any]]:
        """The log-probabilities that have come since the last text; they become part of the item."""
        logprobs, self._logprobs = self._logprobs, []
        item.logprobs += logprobs
        return logprobs

    def _open_message(self) -> _OpenItem:
        item = self._open_item("message", {"id": self._new_id("msg"), "type": "message", "role": "assistant", "content": []})
        item.annotator = Annotator(self._citations)
        self._emit_part("response.content_part.added", item, _text_part("", [], []))
        return item

    def _add_call(self, call: Mapping[str, Any]) -> None:
        item = self._open
        if item is None or item.kind != "function_call" or item.number != call["index"]:
            call_item = {
                "id": self._new_id("fc"),
                "type": "function_call",
                "call_id": call.get("id") or "",
                "name": call.get("name") or "",
                "arguments": "",
            }
            item = self._open_item("function_call", call_item, call["index"])
        if arguments := call.get("arguments"):
            item.text += arguments
            self._emit("response.function_call_arguments.delta", **self._place(item), delta=arguments)

    def _open_item(self, kind: str, item: dict[str, Any], number: int = 0) -> _OpenItem:
        self._close_item("completed")
        self._open = _OpenItem(kind, len(self._output), item, number)
        added = {**item, "status": "in_progress"}
        self._output.append(added)
        self._emit("response.output_item.added", output_index=self._open.index, item=added)
        return self._open

    def _close_item(self, status: str) -> None:
        item, self._open = self._open, None
        if item is None:
            return
        done = {**item.item, "status": status}
        if item.kind == SEARCH_CALL:
            pass
        elif item.kind == "function_call":
            done["arguments"] = item.text
            self._emit("response.function_call_arguments.done", **self._place(item), name=item.item["name"], arguments=item.text)
        elif item.kind == "reasoning":
            part = {"type": "reasoning_text", "text": item.text}
            done["content"] = [part]
            self._emit("response.reasoning_text.done", **self._place(item), content_index=0, text=item.text)
            self._emit_part("response.content_part.done", item, part)
        else:
            self._take_logprobs(item)
            part = _text_part(item.text, item.annotator.annotations, item.logprobs)
            done["content"] = [part]
            self._emit("response.output_text.done", **self._place(item), content_index=0, text=item.text, logprobs=item.logprobs)
            self._emit_part("response.content_part.done", item, part)
        self._output[item.index] = done
        self._emit("response.output_item.done", output_index=item.index, item=done)

    def _void(self) -> None:
        """The next attempt begins again. What clients have read cannot be taken back, so they get no more of the text."""
        self._close_item("incomplete")
        self._is_void = True
        self._emit(
            "error",
            code="output_lost",
            message="The worker of this response died, and its answer could not be continued. It is generated again.",
            param=None,
        )

    def _end(self, job: Job) -> None:
        result = job.result or {}
        status = response_status(job)
        if job.status is Status.COMPLETED:
            self._start()
            if self._is_void:
                again = ResponseEvents(self._job, self._initial)
                again._begun = again._started = True
                again._begin_search()
                again._add_delta(delta_of_result(result))
                again._end(job)
                self._output = again._output
            elif not self._has_answer():
                self._open_message()
        self._close_item("completed" if status == "completed" else "incomplete")
        self._emit(FINAL_EVENTS[status], response={**self._initial, **end_fields(job), "output": self._output})

    def _emit_part(self, kind: str, item: _OpenItem, part: Mapping[str, Any]) -> None:
        self._emit(kind, **self._place(item), content_index=0, part=part)

    def _place(self, item: _OpenItem) -> dict[str, Any]:
        return {"item_id": item.item["id"], "output_index": item.index}

    def _new_id(self, prefix: str) -> str:
        number = self._counts[prefix] = self._counts.get(prefix, 0) + 1
        return item_id(prefix, self._job, str(number) if number > 1 else "")


def response_status(job: Job) -> str:
    """The status in OpenAI's words. A response whose attempt was lost stays in progress."""
    if job.status is Status.QUEUED and job.started_at is not None:
        return "in_progress"
    if job.status is Status.COMPLETED and finish_reason(job.result or {}) == "length":
        return "incomplete"
    return STATUSES[job.status]


def end_fields(job: Job) -> dict[str, Any]:
    """The fields of a response that change when its job starts and ends, without ``output``."""
    status = response_status(job)
    is_over = job.status is Status.COMPLETED
    return {
        "status": status,
        "completed_at": (job.ended_at or job.phase_at) // 1000 if status == "completed" else None,
        "error": _error(job) if status == "failed" else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "usage": response_usage(job.result or {}) if is_over else None,
    }


def _error(job: Job) -> dict[str, str]:
    """Codes as OpenAI has them, as far as clients react to them."""
    error = error_of_job(job)
    if error.code == CONTEXT_LENGTH_EXCEEDED:
        code = CONTEXT_LENGTH_EXCEEDED
    else:
        code = "invalid_prompt" if error.status < 500 else "server_error"
    return {"code": code, "message": error.message}


def response_usage(result: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens that a result has used, in OpenAI's form."""
    usage = result.get("usage") or {}
    return {
        "input_tokens": usage.get("prompt_tokens", 0),
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.get("completion_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.get("total_tokens", 0),
    }


def _text_part(text: str, annotations: list[dict[str, Any]], logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs}


def _logprob(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**_token(entry), "top_logprobs": [_token(top) for top in entry.get("top", ())]}


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry.get("bytes") or []}
