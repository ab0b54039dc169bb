"""Run several of these benchmarks one after the other, each with a time limit, and keep the lines of all of them.

``python -m benchmarks.gpu.run_suite LINES SECONDS:"alone 8b --models FOLDER" …``: a benchmark that fails or takes too long costs
only its own lines. What they write beside figures goes to files next to LINES.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    lines = Path(sys.argv[1])
    for number, item in enumerate(sys.argv[2:]):
        seconds, _, command = item.partition(":")
        module, *arguments = shlex.split(command)
        began = time.monotonic()
        with lines.open("ab") as out, lines.with_name(f"{lines.stem}-{number}-{module}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", f"benchmarks.gpu.{module}", *arguments],
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
            try:
                status: int | str = process.wait(float(seconds))
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                status = "out of time"
        print(f"{command}: {status}, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
