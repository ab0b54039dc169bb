"""Sandbox: what a child process gives up before it opens an untrusted file.

Resource limits hold everywhere. On Linux, Landlock takes access to files and seccomp takes connections, programs and processes.
A child may still read the code that it runs, because Python and its libraries import some modules when they are first used.
"""

import math
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

from shared.packaged_files import CODE_ROOT
from shared.prctl import die_with_parent, forbid_new_privileges
from workers.cpu.sandbox import landlock, seccomp

# The linker opens them when Python imports a module that is written in C.
_SYSTEM_LIBRARIES = [Path(folder) for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")]


def close_sandbox(memory_bytes: int, seconds: float, files: Iterable[int] = (), folders: Iterable[Path] = ()) -> None:
    """Limit memory, CPU time and open files of this process, and forbid all access except reading ``files``, given as
    descriptors, and ``folders`` of data. This cannot be undone."""
    cpu_seconds = math.ceil(seconds) + 1  # the parent's timeout fires first; this limit also holds without the parent
    for name, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (limit, limit))
    die_with_parent()
    forbid_new_privileges()
    landlock.allow_only_reading(files, {*_code_folders(), *folders})
    seccomp.deny_dangerous_calls()


def missing_protections() -> list[str]:
    """The parts of the sandbox that this machine lacks, as sentences."""
    missing = []
    if not landlock.version():
        missing.append("Landlock is missing: a file that takes over its reader could read other files of this user.")
    if not seccomp.is_supported():
        missing.append("There is no seccomp filter for this machine: such a file could also start programs and open connections.")
    return missing


def _code_folders() -> set[Path]:
    """The folders of libraries and of this program, but not the top of a checkout, which may hold the data folder."""
    installed = {Path(entry) for entry in sys.path if entry.endswith(("-packages", "lib-dynload"))}
    return {*_SYSTEM_LIBRARIES, *installed, Path(os.__file__).parent, CODE_ROOT / "shared", CODE_ROOT / "workers"}
