"""``enginehouse doctor``: says what this machine lacks to run a server safely."""

import json

from workers.cpu.sandbox.sandbox import missing_protections


def report_problems(*, as_json: bool) -> int:
    """Print the problems of this machine, one per line; return their number."""
    problems = missing_protections()
    if as_json:
        print(json.dumps(problems))
    else:
        print("\n".join(problems) or "No problems found: files are read in a sandbox of Landlock and seccomp.")
    return len(problems)
