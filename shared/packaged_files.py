"""Files that ship with the code: the models file, the Compose file, ``deploy/`` and the documents of the demonstration.

A wheel holds them in ``shared/files``; in a checkout they are at the top, where people edit them.
"""

from pathlib import Path

CODE_ROOT = Path(__file__).resolve().parent.parent
"""The folder of the packages: a checkout, or ``site-packages``. A child process with an empty environment finds them there."""


def packaged_file(name: str) -> Path:
    """The path of a packaged file or folder, such as ``models.json``."""
    packaged = CODE_ROOT / "shared" / "files" / name
    return packaged if packaged.exists() else CODE_ROOT / name
