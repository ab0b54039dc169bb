"""What a child process that opens a stranger's file takes from itself first. Knows no file."""

import math
import resource

from shared.prctl import die_with_parent, forbid_new_privileges


def restrict(memory_bytes: int, seconds: float) -> None:
    """Take from this process what reading a file never needs: memory, time, open files, writing files, new privileges."""
    processor = math.ceil(seconds) + 1  # the parent's clock comes first; this one holds even without it
    for what, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    die_with_parent()
    forbid_new_privileges()
