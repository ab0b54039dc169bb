"""Files that ship with the code: the models file, the Compose file, ``deploy/`` and the documents of the demo.

A wheel contains them in ``shared/files``; in a checkout they are in the top folder, where people edit them.
"""

from pathlib import Path

PACKAGE = "enginehouse"
CODE_ROOT = Path(__file__).resolve().parent.parent
"""The folder that contains the packages: a checkout or ``site-packages``. Child processes with an empty environment import them from it."""


def packaged_file(name: str) -> Path:
    """The path of a packaged file or folder, such as ``models.json``."""
    packaged = CODE_ROOT / "shared" / "files" / name
    return packaged if packaged.exists() else CODE_ROOT / name


def installed_version() -> str:
    """The version of Enginehouse, or "" if it runs from a checkout that is not installed."""
    # It imports much, and the health check of each worker, which runs every few seconds, needs none of that.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""
