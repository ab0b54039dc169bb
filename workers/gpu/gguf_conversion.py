"""Conversion of GGUF weights to safetensors and a tokenizer: ``python -m workers.gpu.gguf_conversion PACKAGE FOLDER``.

A process of its own, because what the conversion imports and allocates, half a gigabyte, would stay with the worker. On standard output
it reports its progress, each line a JSON array of what it does and the completed fraction, and at a failure an object with ``error``.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from shared.prctl import die_with_parent


def main() -> None:
    package, folder = sys.argv[1:]
    die_with_parent()
    # Whatever the libraries print is not a report.
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(message: object) -> None:
        print(json.dumps(message), file=reports)

    try:
        convert_gguf(import_module(package), Path(folder), lambda doing, fraction: say([doing, fraction]))
    except Exception as error:
        # The top of this process: whatever prevents the conversion is the reason that the caller reports.
        say({"error": f"{type(error).__name__}: {error}"})
        raise


def convert_gguf(module: ModuleType, target: Path, report: Callable[[str, float], None]) -> None:
    """Write the weights of an installed package into a folder."""
    report("joining the weights", 0.0)
    gguf = Path(module.assemble(target / "weights.gguf"))
    report("converting the tokenizer", 0.03)
    # Takes seconds, so after what fails when the disk is full.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(target, gguf_file=gguf.name)
    report("converting the weights", 0.4)
    model: Any = AutoModelForCausalLM.from_pretrained(target, gguf_file=gguf.name, dtype=torch.bfloat16)
    # The loader leaves dequantized weights marked as quantized, and would then refuse to save them.
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


if __name__ == "__main__":
    main()
