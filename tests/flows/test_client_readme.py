"""Every example of the client's README runs unchanged against the stack."""

import os
import re
import subprocess
import sys

import pytest

from testing.repository import REPOSITORY
from testing.stack import Stack

EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "client" / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_each_example_of_the_readme_runs(stack: Stack, number: int) -> None:
    # The README speaks of the usual port; this stack has one of its own.
    code = EXAMPLES[number].replace("http://127.0.0.1:5000", stack.url).replace("Client()", f"Client({stack.url!r})")
    code = code.replace("Client(retry_policy", f"Client({stack.url!r}, retry_policy")
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
