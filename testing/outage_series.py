"""Test files for Prometheus' ``promtool``, made from scrapes of a real stack before and during an outage."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

INTERVAL_SECONDS = 15
HEALTHY_MINUTES = 20
OUTAGE_MINUTES = 80
# Their values grow with time; the others stay as they are.
GROWING = ("_total", "_count", "_sum", "_bucket", "_oldest_seconds")

Series = Mapping[str, float]


@dataclass(frozen=True)
class Scrape:
    """The series of one scrape, by name with labels, and the time in seconds at which it was made."""

    at: float
    series: Series

    def value(self, start: str) -> float:
        """The sum of the series that begin so."""
        return sum(value for name, value in self.series.items() if name.startswith(start))


def scrape(url: str, token: str) -> Scrape:
    """Scrape as Prometheus does: with a series ``up``, which is 0 if there are no metrics."""
    at = time.monotonic()
    try:
        answer = httpx2.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    except httpx2.HTTPError:
        return Scrape(at, {series_name("up", {}): 0})
    if answer.status_code != 200:
        return Scrape(at, {series_name("up", {}): 0})
    families = text_string_to_metric_families(answer.text)
    series = {series_name(sample.name, sample.labels): float(sample.value) for family in families for sample in family.samples}
    return Scrape(at, {series_name("up", {}): 1, **series})


def write_test(file: Path, rules: Path, healthy: Scrape, outage: Sequence[Scrape], alerts: Sequence[str]) -> None:
    """A test in which the healthy scrape is followed by the outage, which goes on at the rate between its first and last scrape.

    These alerts must fire in it, and none before it.
    """
    samples = OUTAGE_MINUTES * 60 // INTERVAL_SECONDS
    names = sorted({*healthy.series, *outage[-1].series})
    series = [
        {"series": name, "values": f"{_steady(healthy, name)} {_continued(outage[0], outage[-1], name, samples)}"}
        for name in names
    ]
    # The disk of the machine that runs the tests may be nearly full.
    fired = 'count(ALERTS{alertstate="firing", alertname!="DiskNearlyFull"}) or vector(0)'
    quiet = {"expr": fired, "eval_time": f"{HEALTHY_MINUTES - 1}m", "exp_samples": [{"labels": "{}", "value": 0}]}
    loud = [
        {
            "expr": f'count(count_over_time(ALERTS{{alertname="{alert}", alertstate="firing"}}[{OUTAGE_MINUTES}m])) > bool 0',
            "eval_time": f"{HEALTHY_MINUTES + OUTAGE_MINUTES - 1}m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for alert in alerts
    ]
    test = {"interval": f"{INTERVAL_SECONDS}s", "input_series": series, "promql_expr_test": [quiet, *loud]}
    # JSON is YAML too.
    content: dict[str, Any] = {"rule_files": [str(rules)], "evaluation_interval": f"{INTERVAL_SECONDS}s", "tests": [test]}
    file.write_text(json.dumps(content, indent=1))


def series_name(name: str, labels: Mapping[str, str]) -> str:
    """The name of a series of the scraped API with these labels."""
    pairs = {"job": "enginehouse", "instance": "api", **labels}
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in sorted(pairs.items())) + "}"


def _steady(scrape: Scrape, name: str) -> str:
    count = HEALTHY_MINUTES * 60 // INTERVAL_SECONDS
    value = scrape.series.get(name)
    return f"_x{count}" if value is None else f"{value:.6f}+0x{count - 1}"


def _continued(first: Scrape, last: Scrape, name: str, count: int) -> str:
    value = last.series.get(name)
    if value is None:
        return f"_x{count}"
    rate = 0.0
    if name.partition("{")[0].endswith(GROWING) and last.at > first.at:
        rate = max(0.0, value - first.series.get(name, 0.0)) / (last.at - first.at)
    return f"{value:.6f}+{rate * INTERVAL_SECONDS:.6f}x{count - 1}"
