"""Preparation of a model's weights: a folder with safetensors files and a tokenizer, ready to be loaded.

Weights come from an installed Python package, from a folder, or from the hub. Called by ``enginehouse`` at setup and by every
engine process when it starts; the second call does nothing.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry

# Increase this when the conversion below writes something else, so that existing folders are converted again.
CONVERSION = 1

MARKER = "enginehouse.json"

# What is fetched from the hub.
WEIGHTS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "LICENSE*", "NOTICE*", "USE_POLICY*"]
ADAPTER_WEIGHTS = ["adapter_config.json", "*.safetensors", "LICENSE*", "NOTICE*"]

ProgressCallback = Callable[[str, float], None]
"""Called with what is being done and the completed fraction, from 0 to 1."""


def prepare_model(entry: ModelEntry, folder: Path, report: ProgressCallback) -> Path:
    """Download or convert ``entry`` if needed, and return the folder to load it from; ``folder`` has all prepared models.

    Safe to call from several processes at once, and to kill at any moment. Raises ModelUnavailable.
    """
    scheme, _, rest = entry.url.partition(":")
    if scheme == "package":
        return _from_package(entry, rest, folder, report)
    if _is_path(entry.url):
        return _model_folder(entry, Path(entry.url).expanduser())
    return _from_hub(entry, report)


def prepare_adapters(entry: ModelEntry, report: ProgressCallback) -> dict[str, Path]:
    """Download the LoRA adapters of ``entry`` if needed, and return their folders by name. Raises ModelUnavailable."""
    return {name: _prepare_adapter(entry, name, url, report) for name, url in entry.adapters.items()}


def _prepare_adapter(entry: ModelEntry, name: str, url: str, report: ProgressCallback) -> Path:
    who, field = f"Model {entry.name}, adapter {name}", f"adapters.{name}"
    if _is_path(url):
        folder = Path(url).expanduser()
        if not folder.is_dir():
            raise ModelUnavailable(f"{who}: the folder {folder} does not exist. Correct {field} in the models file.")
    else:
        id, _, revision = url.partition("@")
        folder = _download(who, field, id, revision or None, report, patterns=ADAPTER_WEIGHTS)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / file).is_file():
            raise ModelUnavailable(
                f"{who}: {url} has no {file}. It needs a LoRA adapter as PEFT saves it, with safetensors weights."
            )
    return folder.resolve()


def find_prepared_folder(entry: ModelEntry, folder: Path) -> Path | None:
    """The folder that ``prepare_model`` returned for ``entry``, or None if it was never called. Never downloads or converts."""
    scheme, _, rest = entry.url.partition(":")
    if scheme == "package":
        plain = _plain_folder_inside(_import_package(entry, rest))
        target = folder / entry.name
        return plain or (target if _is_current(target, entry, _marker(entry, rest)) else None)
    if _is_path(entry.url):
        return _model_folder(entry, Path(entry.url).expanduser())
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(entry.url, revision=entry.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def describe_unpinned_revision(entry: ModelEntry, folder: Path) -> str | None:
    """Which commit of the hub is in ``folder`` and how to pin it, or None if ``entry`` pins its weights already."""
    # The hub's cache has one folder per commit.
    if entry.is_pinned_to_commit or folder.parent.name != "snapshots":
        return None
    return (
        f"Model {entry.name}: {entry.revision or 'the main branch'} of {entry.url} is commit {folder.name}. "
        f'To use the same weights everywhere, add "revision": "{folder.name}" to its entry in the models file.'
    )


def _is_path(url: str) -> bool:
    return url.startswith((".", "/", "~"))


def _model_folder(entry: ModelEntry, path: Path) -> Path:
    if not path.is_dir():
        raise ModelUnavailable(f"Model {entry.name}: the folder {path} does not exist. Correct its url in the models file.")
    for pattern in ("config.json", "*.safetensors", "tokenizer*"):
        if not any(path.glob(pattern)):
            raise ModelUnavailable(
                f"Model {entry.name}: the folder {path} has no {pattern}. It needs config.json, safetensors weights and a tokenizer."
            )
    return path.resolve()


# Installed packages


def _from_package(entry: ModelEntry, package: str, folder: Path, report: ProgressCallback) -> Path:
    module = _import_package(entry, package)
    plain = _plain_folder_inside(module)
    if plain is not None:
        return plain
    if not hasattr(module, "assemble"):
        raise ModelUnavailable(
            f"Model {entry.name}: the package {package} has neither a model folder nor GGUF weights. Correct its url in the models file."
        )
    target, marker = folder / entry.name, _marker(entry, package)
    if _is_current(target, entry, marker):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(
        folder / f".{entry.name}.lock", lambda: report(f"waiting for another process that is preparing {entry.name}", 0.0)
    ) as lock:
        if _is_current(target, entry, marker):
            return target
        # Only the lock holder writes here, so an existing folder was left by a process that was killed.
        unfinished = folder / f".{entry.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _convert_gguf(entry, module, unfinished, lock, report)
        (unfinished / MARKER).write_text(json.dumps(marker))
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    report("ready", 1.0)
    return target


def _import_package(entry: ModelEntry, package: str) -> ModuleType:
    name = package.replace("-", "_")
    if find_spec(name) is None:
        raise ModelUnavailable(
            f"Model {entry.name}: the Python package {package} is not installed. Install it with: pip install {package}"
        )
    return import_module(name)


def _plain_folder_inside(module: ModuleType) -> Path | None:
    root = Path(str(module.__file__)).parent
    for config in sorted([*root.glob("config.json"), *root.glob("*/config.json")]):
        if any(config.parent.glob("*.safetensors")):
            return config.parent
    return None


def _convert_gguf(entry: ModelEntry, module: ModuleType, target: Path, lock: int, report: ProgressCallback) -> None:
    command = [sys.executable, "-m", "workers.gpu.gguf_conversion", module.__name__, str(target)]
    error = ""
    # It holds the lock as well, until it has followed this process, should that be killed.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, pass_fds=[lock]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            if isinstance(said, dict):
                error = said["error"]
            else:
                report(*said)
    if process.returncode != 0:
        reason = error or f"its process ended with status {process.returncode}"
        raise ModelUnavailable(f"Model {entry.name}: its GGUF weights could not be converted: {reason}")


def _marker(entry: ModelEntry, package: str) -> dict[str, object]:
    return {"url": entry.url, "revision": entry.revision, "version": metadata.version(package), "conversion": CONVERSION}


def _is_current(target: Path, entry: ModelEntry, marker: dict[str, object]) -> bool:
    try:
        return bool(json.loads((target / MARKER).read_text()) == marker)
    except (FileNotFoundError, ValueError):
        return False


@contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold an exclusive lock on ``path``, by a descriptor; the kernel releases it when all processes with it have ended, however they end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


# The hub


def _from_hub(entry: ModelEntry, report: ProgressCallback) -> Path:
    ignored = ["original/*", "consolidated*", *([] if entry.trust_remote_code else ["*.py"])]
    return _download(f"Model {entry.name}", "url", entry.url, entry.revision, report, patterns=WEIGHTS, ignored=ignored)


def _download(
    who: str,
    field: str,
    id: str,
    revision: str | None,
    report: ProgressCallback,
    *,
    patterns: list[str],
    ignored: list[str] | None = None,
) -> Path:
    """Fetch what ``patterns`` select. ``who`` and ``field`` say in errors which entry of the models file names it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    report(f"fetching {id} from the hub", 0.0)
    model = f"{who}: {id}"
    try:
        return Path(snapshot_download(id, revision=revision, allow_patterns=patterns, ignore_patterns=ignored))
    except GatedRepoError:
        raise ModelUnavailable(
            f"{model} is gated on the hub. Accept its licence there and set HF_TOKEN to a token of that account."
        ) from None
    except HFValidationError:
        raise ModelUnavailable(
            f"{model} is not the name of a model on the hub, such as Qwen/Qwen3-8B. Correct its {field} in the models file."
        ) from None
    except RepositoryNotFoundError:
        raise ModelUnavailable(
            f"{model} does not exist on the hub, or is private. Correct its {field} in the models file, or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise ModelUnavailable(f"{model} has no revision {revision} on the hub. Correct it in the models file.") from None
    except LocalEntryNotFoundError:
        raise ModelUnavailable(
            f"{model} is not on this machine and the model hub cannot be reached. "
            f"Connect this machine, or download the model elsewhere and use its folder as {field}."
        ) from None
    except OSError as error:
        raise ModelUnavailable(
            f"{model} could not be fetched from the model hub ({error.__class__.__name__}: {error}); partial downloads are kept, so try again."
        ) from error
