"""Put a whole folder into a collection, show how far it is, and write down what became of each file.

    pip install ./client
    python examples/bulk_ingest.py papers/ --collection papers --report papers.csv

Run it again after more files have come: what the collection holds already is not read again. `enginehouse ingest` does the same
with bars; this shows how a program of your own would. ENGINEHOUSE_URL and ENGINEHOUSE_API_KEY say where.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

from enginehouse_client import Client, EnginehouseError, IngestProgress, RetryPolicy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--collection", required=True)
    parser.add_argument("--report", type=Path, required=True, help="a CSV file")
    options = parser.parse_args()
    address = os.environ.get("ENGINEHOUSE_URL", "http://127.0.0.1:5000")
    # A bulk job has time: the server may be restarted meanwhile.
    with Client(
        address, api_key=os.environ.get("ENGINEHOUSE_API_KEY"), retry_policy=RetryPolicy(retries=20, max_delay=30.0)
    ) as client:
        try:
            done = client.ingest(options.collection, options.folder, on_progress=show)
        except EnginehouseError as error:
            print(error, file=sys.stderr)
            return 1
    unreadable = {one.document.id for one in done.rejected if one.document is not None}
    with options.report.open("w", newline="") as file:
        report = csv.writer(file)
        report.writerow(["file", "document", "end", "reason"])
        for document in done.documents:
            if document.id not in unreadable:
                report.writerow([document.name, document.id, "ready", ""])
        for one in done.rejected:
            report.writerow([one.name, one.document.id if one.document else "", one.code, one.reason])
    return 3 if done.rejected else 0


def show(progress: IngestProgress) -> None:
    print(f"{progress.ended} of {progress.files} files are read, {progress.failed} of them cannot be searched", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
