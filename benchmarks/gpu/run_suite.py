"""Suite runner: several of these benchmarks one after the other, each with a time limit, with all results in one file.

``python -m benchmarks.gpu.run_suite RESULTS SECONDS:"engine_only 8b --models FOLDER" …``: a benchmark that fails or takes too
long loses only its own results. Their logs go to files next to RESULTS.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    results = Path(sys.argv[1])
    for number, item in enumerate(sys.argv[2:]):
        seconds, _, command = item.partition(":")
        module, *arguments = shlex.split(command)
        began = time.monotonic()
        with results.open("ab") as out, results.with_name(f"{results.stem}-{number}-{module}.log").open("wb") as log:
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
                    # With its clients; its stack is killed with it.
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                status = "timed out"
        print(f"{command}: {status}, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
