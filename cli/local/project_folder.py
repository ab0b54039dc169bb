"""``enginehouse init``: write the files that a project starts from.

``python -m cli.local.project_folder`` (``make env``) writes only ``.env``, into a checkout. It must run without any installed package.
"""

import os
import re
import secrets
import shlex
import sys
from pathlib import Path

from cli.errors import CommandError
from shared.packaged_files import CODE_ROOT, packaged_file

ENVIRONMENT = ".env"
FILES = ("models.json", ENVIRONMENT, "docker-compose.yml")
SECRET = re.compile(r"^(\w+_PASSWORD|METRICS_TOKEN)=$", re.MULTILINE)
SOURCE = re.compile(r"^# (ENGINEHOUSE_SOURCE)=.*$", re.MULTILINE)


def create_project(folder: Path) -> None:
    """Write ``models.json``, ``.env`` with new passwords, and ``docker-compose.yml`` into ``folder``, which is created if missing.

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
            if name == ENVIRONMENT:
                write_environment(folder / name)
            else:
                (folder / name).write_bytes(packaged_file(name).read_bytes())
    except OSError as error:
        raise CommandError(f"{error.filename or folder} cannot be written: {error.strerror}.") from None
    change_folder = "" if is_current else f"  cd {shlex.quote(str(folder))}\n"
    compose = "run `docker compose up`" if _source() else "set ENGINEHOUSE_SOURCE in .env and run `docker compose up`"
    print(
        f"Wrote {', '.join(FILES)} to {shown}.\n\n"
        f"Next:\n{change_folder}"
        "  edit models.json        # the models to serve\n"
        "  enginehouse up          # run everything on this machine\n\n"
        f"To run it in containers instead, {compose}. Its passwords are in .env: keep this file private."
    )


def write_environment(file: Path) -> None:
    """Write ``.env`` for Compose, with random passwords, readable by its owner only. Raises FileExistsError if it exists."""
    text = packaged_file(".env.example").read_text(encoding="utf-8")
    text = SECRET.sub(lambda found: f"{found[1]}={secrets.token_urlsafe(24)}", text)
    source = _source()
    # A project elsewhere builds its images from this checkout. A wheel contains too little for that.
    if source and file.resolve().parent != source:
        text = SOURCE.sub(lambda found: f"{found[1]}='{source}'", text)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def _source() -> Path | None:
    """The checkout that this code runs from, or None for an installed package."""
    return CODE_ROOT if (CODE_ROOT / "deploy" / "Dockerfile").exists() else None


def main() -> None:
    """Write ``.env`` beside the Compose file of the checkout."""
    file = CODE_ROOT / ENVIRONMENT
    try:
        write_environment(file)
    except FileExistsError:
        sys.exit(f"{file} exists: it was left as it is. Delete it to create new passwords.")
    print(f"Wrote {file} with new passwords for `docker compose up`.")


if __name__ == "__main__":
    main()
