"""A llama.cpp server with a tiny model of bytes: ``python -m testing.llama_cpp_server FOLDER PORT``."""

import sys
import time
from pathlib import Path

from shared.prctl import die_with_parent

END = 256
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_model(path: Path) -> None:
    """Write a Llama of one layer with random weights, whose tokens are bytes and whose answers are printable."""
    import gguf
    import numpy as np

    size, inner = 32, 64
    # GPT-2's stand-ins: printable bytes stand for themselves, the others for code points from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    tokens = [chr(byte if byte in printable else next(others)) for byte in range(256)] + ["<end>", "aa"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 1])
    # The reader insists on a merge; no test has a text with its letters.
    writer.add_token_merges(["a a"])
    writer.add_bos_token_id(END)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    shapes = {
        "token_embd": (len(tokens), size),
        "output_norm": (size,),
        "output": (len(tokens), size),
        "blk.0.attn_norm": (size,),
        "blk.0.ffn_norm": (size,),
        **{f"blk.0.attn_{part}": (size, size) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (inner, size),
        "blk.0.ffn_up": (inner, size),
        "blk.0.ffn_down": (size, inner),
    }
    generator = np.random.default_rng(1)
    for name, shape in shapes.items():
        values = generator.standard_normal(shape).astype(np.float32)
        if name == "output":
            values[: ord(" ")] = values[ord("~") + 1 :] = 0
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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
