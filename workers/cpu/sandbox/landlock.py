"""Landlock: takes this process's access to all files except those that are named, on Linux 5.13 and later."""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from shared.prctl import system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_QUERY_VERSION = 1
_RULE_PATH_BENEATH = 1

_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
# The accesses to files that each version of the interface can take away.
_FILE_ACCESS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_FILE_ACCESS = (1 << 16) - 1
_NETWORK_ACCESS = 0b11
_SCOPES = 0b11  # abstract UNIX sockets, signals


def version() -> int:
    """The version of the interface, or 0 where the kernel has no Landlock or its use is forbidden."""
    return max(0, system_call(_CREATE_RULESET, None, 0, _QUERY_VERSION))


def allow_only_reading(files: Iterable[int], folders: Iterable[Path]) -> bool:
    """Allow this process to read ``files``, given as descriptors, and what is in ``folders``, and to open nothing else.

    Returns False if the kernel cannot do that. The process must not be able to gain privileges.
    """
    interface = version()
    if not interface:
        return False
    fields = [_FILE_ACCESS.get(interface, _ALL_FILE_ACCESS)]
    fields += [_NETWORK_ACCESS] if interface >= 4 else []
    fields += [_SCOPES] if interface >= 6 else []
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = system_call(_CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for file in files:
            _add_rule(ruleset, _READ_FILE, file)
        for folder in folders:
            if folder.exists():
                descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
                try:
                    _add_rule(ruleset, _READ_FILE | _READ_DIRECTORY, descriptor)
                finally:
                    os.close(descriptor)
        return system_call(_RESTRICT_SELF, ruleset, 0, 0) == 0
    finally:
        os.close(ruleset)


def _add_rule(ruleset: int, access: int, descriptor: int) -> None:
    rule = struct.pack("=Qi", access, descriptor)
    if system_call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.c_char_p(rule), 0) < 0:
        raise OSError(ctypes.get_errno(), "Landlock accepts no rule")
