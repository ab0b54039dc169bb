"""The data folder, which only the user of the server can read: it holds prompts, answers, documents and secrets."""

import logging
import os
import stat
from pathlib import Path

logger = logging.getLogger(__name__)

OTHER_USERS = stat.S_IRWXG | stat.S_IRWXO


def open_data_folder(folder: Path) -> None:
    """Create the data folder if it is missing, and close it to other users. Every process that writes into it calls this first.

    Whatever this process and its children create from now on is closed to them too. Raises OSError if the folder cannot be created.
    """
    os.umask(OTHER_USERS)
    folder.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & OTHER_USERS == 0:
        return
    try:
        folder.chmod(mode & ~OTHER_USERS)
    except PermissionError:
        logger.warning("the data folder %s is open to other users (mode %04o), and only its owner can close it", folder, mode)
    else:
        logger.warning("the data folder %s was open to other users of this machine (mode %04o); it is closed now", folder, mode)
