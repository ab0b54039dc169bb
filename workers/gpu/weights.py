"""Makes a model ready to be loaded: a folder with safetensors weights and a tokenizer.

Weights come from an installed Python package, from a folder, or from the hub. It knows nothing of engines, jobs or
GPUs; it is called by `enginehouse` at setup and by every engine process at its start, and does nothing the second time.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry

# Raised when the conversion below changes what it writes, so that folders written by an older one are made again.
CONVERSION = 1

MARKER = "enginehouse.json"

Report = Callable[[str, float], None]
"""Called with what is being done and the fraction of the whole that is behind, from 0 to 1."""


def prepare(entry: ModelEntry, folder: Path, report: Report) -> Path:
    """The folder to load ``entry`` from, made first if need be; ``folder`` holds all prepared models.

    Safe to call from several processes at once, and to kill at any moment. Raises ModelUnavailable.
    """
    scheme, _, rest = entry.url.partition(":")
    if scheme == "package":
        return _from_package(entry, rest, folder, report)
    if _is_path(entry.url):
        return _model_folder(entry, Path(entry.url).expanduser())
    return _from_hub(entry, report)


def find_prepared_folder(entry: ModelEntry, folder: Path) -> Path | None:
    """Where ``prepare`` has left ``entry``, or None when it has not been prepared yet. Never downloads or converts."""
    scheme, _, rest = entry.url.partition(":")
    if scheme == "package":
        plain = _plain_folder_inside(_import_package(entry, rest))
        target = folder / entry.name
        return plain or (target if _is_current(target, entry, _marker(entry, rest)) else None)
    if _is_path(entry.url):
        return _model_folder(entry, Path(entry.url).expanduser())
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(entry.url, revision=entry.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _is_path(url: str) -> bool:
    return url.startswith((".", "/", "~"))


def _model_folder(entry: ModelEntry, path: Path) -> Path:
    if not path.is_dir():
        raise ModelUnavailable(f"Model {entry.name}: there is no folder {path}; correct its url in the models file.")
    for pattern in ("config.json", "*.safetensors", "tokenizer*"):
        if not any(path.glob(pattern)):
            raise ModelUnavailable(
                f"Model {entry.name}: the folder {path} holds no {pattern}; it needs config.json, safetensors weights and a tokenizer."
            )
    return path.resolve()


# Installed packages


def _from_package(entry: ModelEntry, package: str, folder: Path, report: Report) -> Path:
    module = _import_package(entry, package)
    plain = _plain_folder_inside(module)
    if plain is not None:
        return plain
    if not hasattr(module, "assemble"):
        raise ModelUnavailable(
            f"Model {entry.name}: the package {package} holds neither a model folder nor GGUF weights; choose another url."
        )
    target, marker = folder / entry.name, _marker(entry, package)
    if _is_current(target, entry, marker):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f".{entry.name}.lock", lambda: report(f"waiting for another process that prepares {entry.name}", 0.0)):
        if _is_current(target, entry, marker):
            return target
        # Whoever holds the lock is alone: a folder found under this name was left by a preparation that was killed.
        unfinished = folder / f".{entry.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _convert_gguf(module, unfinished, report)
        (unfinished / MARKER).write_text(json.dumps(marker))
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    report("ready", 1.0)
    return target


def _import_package(entry: ModelEntry, package: str) -> ModuleType:
    name = package.replace("-", "_")
    if find_spec(name) is None:
        raise ModelUnavailable(
            f"Model {entry.name}: the Python package {package} is not installed; install it with: pip install {package}"
        )
    return import_module(name)


def _plain_folder_inside(module: ModuleType) -> Path | None:
    root = Path(str(module.__file__)).parent
    for config in sorted([*root.glob("config.json"), *root.glob("*/config.json")]):
        if any(config.parent.glob("*.safetensors")):
            return config.parent
    return None


def _convert_gguf(module: ModuleType, target: Path, report: Report) -> None:
    # Imported here, as `prepared_folder` is also called where seconds matter and torch is not wanted.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report("joining the weights", 0.0)
    gguf = Path(module.assemble(target / "weights.gguf"))
    report("converting the tokenizer", 0.03)
    tokenizer = AutoTokenizer.from_pretrained(target, gguf_file=gguf.name)
    report("converting the weights", 0.4)
    model: Any = AutoModelForCausalLM.from_pretrained(target, gguf_file=gguf.name, dtype=torch.bfloat16)
    # The loader marks what it has dequantized as quantized still, and would then refuse to save it.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    gguf.unlink()
    report("writing the weights", 0.95)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for terms in (Path(str(module.__file__)).parent / "data").glob("*"):
        if terms.suffix in (".html", ".md", ".txt"):
            shutil.copy(terms, target / terms.name)


def _marker(entry: ModelEntry, package: str) -> dict[str, object]:
    return {"url": entry.url, "revision": entry.revision, "version": metadata.version(package), "conversion": CONVERSION}


def _is_current(target: Path, entry: ModelEntry, marker: dict[str, object]) -> bool:
    try:
        return bool(json.loads((target / MARKER).read_text()) == marker)
    except (FileNotFoundError, ValueError):
        return False


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the kernel gives it back when the process ends, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# The hub


def _from_hub(entry: ModelEntry, report: Report) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    report(f"fetching {entry.url} from the hub", 0.0)
    where = f"Model {entry.name}: {entry.url}"
    try:
        return Path(
            snapshot_download(
                entry.url,
                revision=entry.revision,
                allow_patterns=[
                    "*.safetensors",
                    "*.json",
                    "*.txt",
                    "*.model",
                    "*.jinja",
                    "*.py",
                    "LICENSE*",
                    "NOTICE*",
                    "USE_POLICY*",
                ],
                ignore_patterns=["original/*", "consolidated*", *([] if entry.trust_remote_code else ["*.py"])],
            )
        )
    except GatedRepoError:
        raise ModelUnavailable(
            f"{where} is gated on the hub; accept its licence there and set HF_TOKEN to a token of that account."
        ) from None
    except RepositoryNotFoundError:
        raise ModelUnavailable(
            f"{where} does not exist on the hub, or is private; correct its url in the models file, or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise ModelUnavailable(f"{where} has no revision {entry.revision} on the hub; correct it in the models file.") from None
    except LocalEntryNotFoundError:
        raise ModelUnavailable(
            f"{where} is not on this machine and the model hub cannot be reached; "
            "connect this machine, or download the model elsewhere and give its folder as url."
        ) from None
    except OSError as error:
        raise ModelUnavailable(
            f"{where} could not be fetched from the model hub ({error.__class__.__name__}: {error}); what has arrived is kept, try again."
        ) from error
