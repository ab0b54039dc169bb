"""Ingest a folder into a collection, show progress, and write a report with the outcome of each file.

    pip install ./client
    python examples/bulk_ingest.py papers/ --collection papers --report papers.csv

Run it again when there are new files: those that the collection already holds are not parsed again. `enginehouse ingest` does the
same with progress bars; this example shows how to do it in your own program. ENGINEHOUSE_URL is the address of the server,
ENGINEHOUSE_API_KEY the API key if the server needs one.
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
    # A bulk job can wait: the server may restart in the meantime.
    retry_policy = RetryPolicy(retries=20, max_delay=30.0)
    with Client(address, api_key=os.environ.get("ENGINEHOUSE_API_KEY"), retry_policy=retry_policy) as client:
        try:
            ingestion = client.ingest(options.collection, options.folder, on_progress=print_progress)
        except EnginehouseError as error:
            print(error, file=sys.stderr)
            return 1
    failed = {rejection.document.id for rejection in ingestion.rejected if rejection.document is not None}
    with options.report.open("w", newline="") as file:
        report = csv.writer(file)
        report.writerow(["file", "document", "status", "reason"])
        for document in ingestion.documents:
            if document.id not in failed:
                report.writerow([document.name, document.id, "ready", ""])
        for rejection in ingestion.rejected:
            document_id = rejection.document.id if rejection.document else ""
            report.writerow([rejection.name, document_id, rejection.code, rejection.reason])
    return 3 if ingestion.rejected else 0


def print_progress(progress: IngestProgress) -> None:
    print(f"{progress.ended} of {progress.files} files done, {progress.failed} not searchable", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
