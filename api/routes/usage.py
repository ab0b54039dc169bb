"""``GET /usage``: daily usage of owners, end users and models, from the ledger that outlives the jobs."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, jsonify, request

from api.caller import caller
from api.openapi.operation import Operation, Reply, describe, in_query
from api.request_parsing import query_text
from api.responses import RouteResponse
from api.schemas import responses
from api.services import services
from shared.errors import Forbidden, InvalidValue
from shared.jobs.usage import GROUPS, MAX_DAYS, TIMES, USAGE_FIELDS, UsageTotals, sum_usage

blueprint = Blueprint("usage", __name__)

DEFAULT_DAYS = 30
MAX_ROWS = 50_000
FIRST_YEAR = 2000
DAY = {"type": "string", "format": "date"}
NUMBERS = ("jobs", *(name for name in USAGE_FIELDS if name not in TIMES), *TIMES.values())


@blueprint.get("/usage")
@describe(
    Operation(
        tag="Models and health",
        summary="Get usage by day, model, kind of job, end user or owner",
        description=(
            "Jobs count on the day (UTC) on which they ended, whatever their status. Administrators see all owners, other callers their own. "
            "With `format=csv`, or `Accept: text/csv`, the response is CSV."
        ),
        parameters=(
            in_query(
                "group_by",
                {"type": "string", "default": "day"},
                f"What to group by: {', '.join(GROUPS)}, or several of them, separated by commas.",
                "day,model",
            ),
            in_query("since", DAY, f"The first day; by default, {DEFAULT_DAYS - 1} days before the last.", "2026-01-01"),
            in_query("until", DAY, "The last day (inclusive); by default today.", "2026-01-31"),
            in_query("owner", {"type": "string"}, "Only this owner. Any but your own needs the scope `admin`.", "local"),
            in_query("format", {"type": "string", "enum": ["json", "csv"]}, "The format of the response.", "json"),
        ),
        replies={200: Reply(description="The usage.", model=responses.UsageReport, may_be_csv=True)},
    )
)
def show_usage() -> RouteResponse:
    groups = _groups()
    since, until = _days()
    as_csv = _is_csv()
    rows = services().usage_ledger.rows(since, until, _owners())
    sums = sum_usage(rows, groups)
    if len(sums) > MAX_ROWS:
        raise InvalidValue(
            f"group_by: the answer would have {len(sums)} rows, and may have {MAX_ROWS}. Ask for fewer days, or group by less.",
            param="group_by",
        )
    entries = [
        {**{group: _as_text(value) for group, value in zip(groups, key, strict=True)}, **totals.as_json()}
        for key, totals in sorted(sums.items(), key=lambda item: [str(value or "") for value in item[0]])
    ]
    if as_csv:
        return Response(_write_csv((*groups, *NUMBERS), entries), content_type="text/csv; charset=utf-8")
    total = UsageTotals()
    for totals in sums.values():
        total.add(totals)
    days = {"since": since.isoformat(), "until": until.isoformat()}
    return jsonify({"object": "usage", **days, "group_by": groups, "data": entries, "total": total.as_json()})


def _groups() -> list[str]:
    groups = list(dict.fromkeys((query_text("group_by") or "day").split(",")))
    for group in groups:
        if group not in GROUPS:
            raise InvalidValue(f"group_by: must be one or several of {', '.join(GROUPS)}, not {group[:80]!r}", param="group_by")
    return groups


def _days() -> tuple[date, date]:
    until = _day("until") or datetime.now(UTC).date()
    since = _day("since") or until - timedelta(days=DEFAULT_DAYS - 1)
    if not 0 <= (until - since).days < MAX_DAYS:
        raise InvalidValue(
            f"since: must be a day before `until` ({until}), by less than {MAX_DAYS} days, not {since}", param="since"
        )
    return since, until


def _day(name: str) -> date | None:
    text = query_text(name)
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day.year < FIRST_YEAR:
        raise InvalidValue(f"{name}: must be a day from {FIRST_YEAR}-01-01 on, such as 2026-01-31, not {text[:80]!r}", param=name)
    return day


def _owners() -> tuple[str, ...] | None:
    """The owners whose usage the caller asks for, or None for all of them."""
    wanted = query_text("owner")
    if caller().admin:
        return (wanted,) if wanted else None
    if wanted and wanted != caller().owner:
        raise Forbidden("owner: the usage of other owners needs a key with the scope admin.", code="permission_denied")
    return (caller().owner,)


def _is_csv() -> bool:
    wanted = query_text("format")
    if wanted not in (None, "json", "csv"):
        raise InvalidValue(f"format: must be json or csv, not {wanted[:80]!r}", param="format")
    return wanted == "csv" or (
        wanted is None and request.accept_mimetypes.best_match(("application/json", "text/csv")) == "text/csv"
    )


def _as_text(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, date) else value


def _write_csv(columns: Sequence[str], entries: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(entry[column]) for column in columns] for entry in entries)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A cell. Spreadsheets treat a text that begins like this as a formula, and clients choose the names of end users."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
