"""File upload of ``/v1/files``: a form whose file is written to the data folder as it arrives."""

import re
from typing import NamedTuple, get_args

from flask import request

from api.openai.parsing import record_ignored_params
from api.request_parsing import MAX_SHOWN, parse_integer
from api.services import owner, services
from shared.errors import InvalidRequest, InvalidValue
from shared.openai.files import BATCH_FILE_SECONDS, FileDraft, Purpose, StoredFile
from shared.openai.requests.batches import LONGEST_EXPIRY, SHORTEST_EXPIRY
from shared.openai.requests.field_rules import shown_names

MAX_FILE_NAME = 255
MAX_FORM_PARTS = 20
FIELDS = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")


class _Fields(NamedTuple):
    filename: str
    purpose: str
    expires_seconds: int | None


def receive_file() -> StoredFile:
    """Store the file of the current request. If the request is refused, nothing of it stays.

    Raises InvalidRequest, BodyTooLarge, DiskFull and QuotaExceeded.
    """
    context = services()
    context.disk_space.require(request.content_length or 0)
    drafts: list[FileDraft] = []

    def open_draft() -> FileDraft:
        if drafts:
            raise InvalidValue("file: send one file in each request", param="file")
        drafts.append(context.file_store.new_draft())
        return drafts[0]

    request.open_file = open_draft  # type: ignore[attr-defined]
    # A form also has its boundaries and other fields, for which a file of the largest size needs some room.
    request.max_content_length = context.settings.max_upload_bytes + 64 * 1024
    request.max_form_parts = MAX_FORM_PARTS
    try:
        fields = _read_fields()
        return context.file_store.add(
            drafts[0], owner(), filename=fields.filename, purpose=fields.purpose, expires_seconds=fields.expires_seconds
        )
    finally:
        for draft in drafts:
            draft.discard()


def _read_fields() -> _Fields:
    """The form's fields. Reading the first of them reads the whole form."""
    file = request.files.get("file")
    if file is None:
        raise InvalidRequest(
            "file: send a file as multipart/form-data in the field `file`", code="missing_required_parameter", param="file"
        )
    filename = file.filename or "unnamed"
    if len(filename) > MAX_FILE_NAME:
        raise InvalidValue(f"file: its name may have at most {MAX_FILE_NAME} characters, not {len(filename)}", param="file")
    record_ignored_params(shown_names(name for name in (*request.form, *request.files) if name not in FIELDS))
    return _Fields(filename, purpose := _purpose(), _expires_seconds(purpose))


def _purpose() -> str:
    purpose = request.form.get("purpose")
    if purpose is None:
        raise InvalidRequest("purpose: is required", code="missing_required_parameter", param="purpose")
    if purpose not in get_args(Purpose):
        allowed = ", ".join(get_args(Purpose))
        raise InvalidValue(f"purpose: must be one of {allowed}, not {purpose[:MAX_SHOWN]!r}", param="purpose")
    return purpose


def _expires_seconds(purpose: str) -> int | None:
    text, anchor = request.form.get("expires_after[seconds]"), request.form.get("expires_after[anchor]")
    if anchor not in (None, "created_at"):
        raise InvalidValue(f"expires_after.anchor: must be created_at, not {anchor[:MAX_SHOWN]!r}", param="expires_after.anchor")
    if text is None:
        if anchor is not None:
            raise InvalidValue("expires_after.seconds: is required", param="expires_after.seconds")
        return BATCH_FILE_SECONDS if purpose == "batch" else None
    return parse_integer(re.sub(r"\.0$", "", text), "expires_after.seconds", SHORTEST_EXPIRY, LONGEST_EXPIRY)
