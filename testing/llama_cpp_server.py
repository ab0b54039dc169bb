"""A llama.cpp server with a tiny model of bytes: ``python -m testing.llama_cpp_server FOLDER PORT``."""

import sys
import time
from pathlib import Path
from typing import Any

from shared.prctl import die_with_parent
from testing.tiny_gguf import write_gguf

END = 256
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_model(path: Path) -> None:
    """Write a model whose tokens are bytes and whose answers are printable."""
    # GPT-2's stand-ins: printable bytes stand for themselves, the others for code points from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    tokens = [chr(byte if byte in printable else next(others)) for byte in range(256)] + ["<end>", "aa"]

    def add_fields(writer: Any) -> None:
        writer.add_add_bos_token(False)
        writer.add_chat_template(TEMPLATE)

    def make_printable(output: Any) -> None:
        output[: ord(" ")] = output[ord("~") + 1 :] = 0

    write_gguf(
        path,
        tokens,
        context=2048,
        token_types=[1] * 256 + [3, 1],
        # No test has a text with these letters.
        merge="a a",
        begin=END,
        end=END,
        add_fields=add_fields,
        change={"output": make_printable},
    )


def main() -> None:
    import xllamacpp

    # A killed test process must not leave it running.
    die_with_parent()
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    model = folder / "tiny.gguf"
    if not model.exists():
        write_model(model)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {"tiny"}
    params.port = port
    params.n_ctx = 4096
    params.n_parallel = 2
    params.warmup = False
    # Several threads spin while they wait for each other, which takes minutes on a busy machine.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
