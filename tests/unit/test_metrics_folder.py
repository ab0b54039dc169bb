"""The folder of the API's metrics: those of running APIs stay, those of killed ones are removed."""

import os
import subprocess
import sys
from pathlib import Path

from api.metrics_folder import METRICS_PREFIX, make_metrics_folder
from testing.repository import REPOSITORY

MAKE = (
    "import sys; from pathlib import Path; from api.metrics_folder import make_metrics_folder; "
    "print(make_metrics_folder(Path(sys.argv[1])), flush=True); input()"
)


def test_folders_of_killed_apis_are_removed(tmp_path: Path) -> None:
    foreign = tmp_path / f"{METRICS_PREFIX}without-a-lock"
    foreign.mkdir()
    pipe = subprocess.PIPE
    other = subprocess.Popen([sys.executable, "-c", MAKE, str(tmp_path)], cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True)
    try:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        own = make_metrics_folder(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([foreign, left, own]), "the other one still runs"
    finally:
        other.kill()
        other.communicate()
    newer = make_metrics_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([foreign, own, newer])
    assert all(os.stat(folder).st_mode & 0o77 == 0 for folder in (own, newer)), "only this user can read them"
