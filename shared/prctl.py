"""prctl(2): Linux's controls over the own process, for its death signal, its orphans, its privileges and its system calls.

On other systems each function does nothing and returns False.
"""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

# Loaded at import, because `die_with_parent` may run between fork and exec, where loading a library can deadlock.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(number: int = signal.SIGKILL) -> bool:
    """Have the kernel send this process a signal when the thread that started it ends."""
    return _prctl(PR_SET_PDEATHSIG, number)


def name_process(name: str) -> bool:
    """Set the name of this process that tools such as ``top`` show, of which the first 15 bytes count."""
    return _libc is not None and _libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0) == 0


def adopt_orphans() -> bool:
    """Make this process the parent of every descendant whose own parent has died."""
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> bool:
    """Keep this process and its children from gaining privileges by executing a file."""
    return _prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_seccomp_filter(program: ctypes.c_char_p, instructions: int) -> bool:
    """Have the kernel run a filter before each system call of this process."""
    filtered = _FilterProgram(instructions, program)
    return _libc is not None and _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filtered), 0, 0) == 0


def system_call(number: int, *arguments: object) -> int:
    """The result of a system call for which the C library has no function, or -1."""
    return int(_libc.syscall(ctypes.c_long(number), *arguments)) if _libc is not None else -1


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def _prctl(option: int, value: int) -> bool:
    return _libc is not None and _libc.prctl(option, value, 0, 0, 0) == 0
