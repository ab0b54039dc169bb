"""A Chroma server for tests and benchmarks of the vector store, which can be killed and started again."""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.local.process_commands import chroma_command
from testing.waiting import wait_until

PASSWORD = "the-password-of-chroma"


@dataclass
class ChromaServer:
    """The Chroma server in its own folder, on a port that stays the same across restarts."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://:{PASSWORD}@127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {**os.environ, "ENGINEHOUSE_CHROMA_URL": self.url}
        self.process = subprocess.Popen(
            chroma_command(self.folder, self.port), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, "the Chroma server answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the Chroma server ended"
        try:
            return httpx.get(f"{self.url}/api/v2/heartbeat", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
