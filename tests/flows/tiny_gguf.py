"""Makes an importable package with tiny GGUF weights, of the form that the default model's package has."""

from pathlib import Path

NAME = "tiny-gguf"

# ``assemble`` waits for a file, so that a test decides when the conversion goes on.
PROGRAM = """
import os, shutil, time
from pathlib import Path

def assemble(path):
    shutil.copy(Path(__file__).parent / "data" / "weights.gguf", path)
    while not os.path.exists(os.environ["TINY_GGUF_PROCEEDS"]):
        time.sleep(0.01)
    return path
"""


def make_gguf_package(folder: Path) -> None:
    """Write the package into ``folder``, which has to be on the path of Python."""
    package = folder / NAME.replace("-", "_")
    data, about = package / "data", folder / f"{package.name}-1.0.dist-info"
    data.mkdir(parents=True)
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
    (package / "__init__.py").write_text(PROGRAM)
    (data / "TERMS.html").write_text("terms")
    _write_weights(data / "weights.gguf")


def _write_weights(path: Path) -> None:
    import gguf
    import numpy as np

    words, size, inner = 64, 32, 64
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(words)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["t", "0", "t0", *(f"w{number}" for number in range(words - 3))])
    writer.add_token_types([1] * words)
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(3)
    writer.add_eos_token_id(4)
    shapes = {
        "token_embd": (words, size),
        "output_norm": (size,),
        "output": (words, size),
        "blk.0.attn_norm": (size,),
        "blk.0.ffn_norm": (size,),
        **{f"blk.0.attn_{part}": (size, size) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (inner, size),
        "blk.0.ffn_up": (inner, size),
        "blk.0.ffn_down": (size, inner),
    }
    generator = np.random.default_rng(1)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", generator.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
