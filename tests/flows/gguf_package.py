"""Makes an importable package with tiny GGUF weights, of the form that the default model's package has."""

from pathlib import Path

from testing.tiny_gguf import write_gguf

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
    tokens = ["t", "0", "t0", *(f"w{number}" for number in range(61))]
    write_gguf(data / "weights.gguf", tokens, context=64, token_types=[1] * len(tokens), merge="t 0", begin=3, end=4)
