"""Run the stack of the checkout in the current folder, and jobs of its clients on demand, for a benchmark that compares checkouts.

Argument: a folder for the stack. Prints a line once it is ready. For each line of standard input, the numbers of clients and of jobs, it
prints jobs per second. Clients have a key, as they do on a server for several users.
"""

import sys
from pathlib import Path

from benchmarks.overhead import job_client, quick_stack, run_jobs


def main() -> None:
    stack = quick_stack(Path(sys.argv[1]))
    try:
        key = stack.post("/admin/keys", {"name": "benchmark"}).json()["secret"]
        client = job_client(stack, key)
        print("ready", flush=True)
        for line in sys.stdin:
            clients, jobs = map(int, line.split())
            latencies, seconds = run_jobs(clients, jobs, client)
            print(len(latencies) / seconds, flush=True)
    finally:
        stack.stop()
        stack.kill()


if __name__ == "__main__":
    main()
