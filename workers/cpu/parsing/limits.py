"""Resource limits that a child process imposes on itself before it opens an untrusted file."""

import math
import resource

from shared.prctl import die_with_parent, forbid_new_privileges


def restrict_process(memory_bytes: int, seconds: float) -> None:
    """Limit memory, CPU time and open files of this process; forbid writing files and gaining privileges."""
    cpu_seconds = math.ceil(seconds) + 1  # the parent's timeout fires first; this limit also holds without the parent
    for name, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (limit, limit))
    die_with_parent()
    forbid_new_privileges()
