"""``enginehouse init``: write the files that a project starts from."""

import shlex
from pathlib import Path

from cli.errors import CommandError
from shared.packaged_files import packaged_file

FILES = ("models.json", ".env", "docker-compose.yml")


def create_project(folder: Path) -> None:
    """Write ``models.json``, ``.env`` and ``docker-compose.yml`` into ``folder``, which is created if missing.

    Raises CommandError, before anything is written, if one of them exists or the folder cannot be used.
    """
    is_current = folder.resolve() == Path.cwd()
    shown = "this folder" if is_current else str(folder)
    existing = [name for name in FILES if (folder / name).exists()]
    if existing:
        raise CommandError(
            f"{', '.join(existing)} already exist{'s' * (len(existing) == 1)} in {shown}: choose another folder, or delete "
            f"{'it' if len(existing) == 1 else 'them'} first."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_bytes(packaged_file(name).read_bytes())
    except OSError as error:
        raise CommandError(f"{error.filename or folder} cannot be written: {error.strerror}.") from None
    change_folder = "" if is_current else f"  cd {shlex.quote(str(folder))}\n"
    print(
        f"Wrote {', '.join(FILES)} to {shown}.\n\n"
        f"Next:\n{change_folder}"
        "  edit models.json        # the models to serve\n"
        "  enginehouse up          # run everything on this machine\n\n"
        "To run it in containers instead, set ENGINEHOUSE_SOURCE in .env and run `docker compose up`."
    )
