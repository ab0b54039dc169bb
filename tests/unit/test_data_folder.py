"""The data folder is closed to other users, whoever creates it and however it was created."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import data_folder
from shared.data_folder import open_data_folder


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths]


def test_a_new_data_folder_and_its_contents_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    open_data_folder(folder)
    (folder / "documents").mkdir()
    (folder / "documents" / "note").write_text("private")
    assert modes(folder, folder / "documents", folder / "documents" / "note") == [0o700, 0o700, 0o600]


def test_an_open_data_folder_is_closed_and_this_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Libraries that configure logging in this process disable the loggers that exist.
    monkeypatch.setattr(data_folder.logger, "disabled", False)
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    caplog.set_level(logging.WARNING, logger="shared.data_folder")
    open_data_folder(folder)
    assert modes(folder) == [0o700]
    assert "was open to other users of this machine (mode 0755); it is closed now" in caplog.text
    caplog.clear()
    open_data_folder(folder)
    assert caplog.text == ""
