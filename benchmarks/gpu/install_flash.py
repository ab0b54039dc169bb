"""Install FlashAttention-3 from the library inside a wheel of vllm 0.23.0, for a machine without access to the hub.

``python -m benchmarks.gpu.install_flash LIBRARY FOLDER``: LIBRARY is ``vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so`` from
that wheel, plain or as ``.xz``; FOLDER goes on PYTHONPATH. It becomes the distribution that transformers looks for.
"""

import lzma
import shutil
import sys
from pathlib import Path

NAME = "_vllm_fa3_C.abi3.so"


def main() -> None:
    library, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if library.suffix == ".xz":
        with lzma.open(library) as packed, (folder / NAME).open("wb") as target:
            shutil.copyfileobj(packed, target)
    else:
        shutil.copy(library, folder / NAME)
    shutil.copy(Path(__file__).with_name("flash_attn_interface.py"), folder)
    information = folder / "flash_attn_3-3.0.0.dist-info"
    information.mkdir(exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn-3\nVersion: 3.0.0\n")
    (information / "top_level.txt").write_text("flash_attn_interface\n")
    (information / "RECORD").write_text(f"flash_attn_interface.py,,\n{NAME},,\n")


if __name__ == "__main__":
    main()
