"""The error that ends a command, and messages for errors of the operating system."""

import errno

# A write fails with these when the disk, the quota or the largest size of a file is used up.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CommandError(Exception):
    """A command cannot continue. The text is one sentence for the user; the command prints it and exits with status 2."""


def os_error_message(error: OSError) -> str:
    """What failed, and why. An error that concerns no file has no file name."""
    name = str(error.filename)[:200] if error.filename else ""
    if error.errno in DISK_FULL:
        return f"{name or 'Output'} cannot be written: {error.strerror}."
    return f"{name}: {error.strerror or 'cannot be read'}" if name else str(error)[:200]
