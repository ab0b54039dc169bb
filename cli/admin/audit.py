"""Audit of commands that change a stack directly in Redis or the data folder, without the API."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shared.audit_log import DONE, audit_log_of, command_user
from shared.errors import EnginehouseError
from shared.settings import Settings


@contextmanager
def audited(settings: Settings, action: str, *targets: str, **details: Any) -> Iterator[list[str]]:
    """Record the action of the block and its outcome, if the data folder exists. The block may add ids to the list of targets."""
    ids, outcome = list(targets), "failed"
    try:
        yield ids
        outcome = DONE
    except EnginehouseError as error:
        outcome = error.code
        raise
    finally:
        # A command that failed must not leave a data folder behind.
        if settings.data_dir.is_dir():
            log, given = audit_log_of(settings), {name: value for name, value in details.items() if value is not None}
            log.record(action, command_user(), targets=ids, outcome=outcome, details=given)
