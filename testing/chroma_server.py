"""A Chroma server for tests and benchmarks of the vector store, which can be killed and started again."""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from testing.waiting import wait_until


@dataclass
class ChromaServer:
    """``chroma run`` in its own folder, on a port that stays the same across restarts."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "chroma run answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "chroma run ended"
        try:
            return httpx.get(f"{self.url}/api/v2/heartbeat", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
