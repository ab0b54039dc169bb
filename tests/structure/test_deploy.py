"""What is given to operators is read by the tools that will read it, and names only metrics and commands that exist."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import app as command
from shared.settings import Settings, from_environment
from testing.repository import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
OURS = re.compile(r"\benginehouse_[a-z_]+")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)


def tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def known_metrics() -> set[str]:
    """Those of the page; a histogram has three."""
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(enginehouse_\w+)`", page))
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "count", "sum")}


def pods() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for manifest in MANIFESTS:
        for item in yaml.safe_load_all(manifest.read_text()):
            if "template" in item.get("spec", {}):
                found.append((item["metadata"]["name"], item["spec"]["template"]["spec"]))
    return found


def test_yaml_is_clean() -> None:
    done = run(tool("yamllint"), "--strict", "-c", REPOSITORY / ".yamllint", DEPLOY, REPOSITORY / "docker-compose.yml")
    assert done.returncode == 0, done.stdout


def test_kubernetes_takes_the_manifests() -> None:
    done = run(tool("kubernetes-validate"), "--strict", DEPLOY / "kubernetes" / "enginehouse.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_keda_scales_is_there() -> None:
    kinds = {
        (item["kind"], item["metadata"]["name"])
        for item in yaml.safe_load_all((DEPLOY / "kubernetes" / "enginehouse.yml").read_text())
    }
    for item in yaml.safe_load_all((DEPLOY / "kubernetes" / "keda.yml").read_text()):
        if item["kind"] == "ScaledObject":
            target = item["spec"]["scaleTargetRef"]
            assert (target.get("kind", "Deployment"), target["name"]) in kinds
            assert item["spec"]["triggers"][0]["metadata"]["listName"].split(".")[0] in ("cpu", "gpu", "io")


def test_no_pod_is_given_settings_that_cluster_makes_up() -> None:
    """For a service called enginehouse, links would be ENGINEHOUSE_PORT and names that are no settings."""
    assert len(pods()) > 5
    assert [name for name, pod in pods() if pod.get("enableServiceLinks") is not False] == []


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: str(path.name))
def test_settings_of_the_cluster_are_settings(manifest: Path) -> None:
    for item in yaml.safe_load_all(manifest.read_text()):
        if item["kind"] == "ConfigMap":
            from_environment(item["data"])


def test_pods_of_workers_may_drain() -> None:
    drain = Settings().drain_seconds
    for name, pod in pods():
        if name.removeprefix("enginehouse-") in ("gpu", "cpu", "io"):
            assert pod["terminationGracePeriodSeconds"] > drain + 10


# All that a unit says: a word that systemd does not know it ignores, with no more than a line in its log.
MUST = {
    "Unit": {"Description": r".+", "After": r"network-online\.target", "Wants": r"network-online\.target"},
    "Service": {
        "Type": r"simple",
        "User": r"[a-z]+",
        "WorkingDirectory": r"/\S+",
        "Environment": r"ENGINEHOUSE_DATA=/var/lib/enginehouse",
        "EnvironmentFile": r"-?/\S+",
        "ExecStart": r"/\S+/enginehouse .+",
        "StateDirectory": r"enginehouse",
        "StateDirectoryMode": r"0700",
        "Restart": r"always",
        "RestartSec": r"\d+",
        "KillMode": r"mixed",
        "TimeoutStopSec": r"\d+",
        "LimitNOFILE": r"\d{5,}",
        "NoNewPrivileges": r"true",
        "ProtectSystem": r"full|strict",
        "PrivateTmp": r"true",
    },
    "Install": {"WantedBy": r"multi-user\.target"},
}


def unit_of(file: Path) -> configparser.RawConfigParser:
    """Raises configparser.Error when a word stands twice or outside a section."""
    unit = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"), interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(file.read_text(encoding="utf-8"))
    return unit


@pytest.mark.parametrize("file", UNITS, ids=lambda path: str(path.name))
def test_units_say_what_they_must_and_nothing_else(file: Path) -> None:
    unit = unit_of(file)
    assert unit.sections() == list(MUST)
    for section, words in MUST.items():
        said = dict(unit[section])
        assert set(said) == set(words), section
        for word, pattern in words.items():
            assert re.fullmatch(pattern, said[word]), f"{word}={said[word]}"
    assert unit["Service"]["ExecStart"].startswith(unit["Service"]["WorkingDirectory"]), "it is started from its own checkout"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here; the test above reads the units")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: str(path.name))
def test_systemd_takes_the_units(unit: Path, tmp_path: Path) -> None:
    # The program is not where the unit will find it; everything else is judged as it stands.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/enginehouse/.venv/bin/enginehouse", "/bin/true"))
    done = run("systemd-analyze", "verify", copy)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: str(path.name))
def test_units_start_commands_that_exist_and_let_them_drain(unit: Path) -> None:
    service = unit_of(unit)["Service"]
    words = service["ExecStart"].split()[1:]
    assert words[0] in {item.name or (item.callback and item.callback.__name__) for item in command.registered_commands}
    assert int(service["TimeoutStopSec"]) > Settings().drain_seconds + 10


def test_nginx_reads_its_file_and_streams_are_not_held_back(tmp_path: Path) -> None:
    file = DEPLOY / "nginx" / "enginehouse.conf"
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"events {{}}\nhttp {{ include {file}; }}\n")
    told = json.loads(run(tool("crossplane"), "parse", "--strict", whole).stdout)
    assert told["status"] == "ok", told["errors"]
    [server] = [block for block in told["config"][1]["parsed"] if block["directive"] == "server"]
    locations = {block["args"][-1]: block["block"] for block in server["block"] if block["directive"] == "location"}
    [pattern] = [pattern for pattern in locations if "events" in pattern]
    assert re.fullmatch(pattern, "/jobs/job_01m84stetzyr7esggznw5rdjds/events")
    directives = {item["directive"]: item["args"] for item in locations[pattern]}
    assert directives["proxy_buffering"] == ["off"]
    outer = {item["directive"]: item["args"] for item in server["block"]}
    assert int(outer["proxy_read_timeout"][0].removesuffix("s")) > Settings().chat_wait_seconds


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "enginehouse.json").read_text())
    asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in OURS.findall(target["expr"])}
    assert len(asked) > 10
    assert asked <= known_metrics()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_alerts_ask_for_metrics_that_exist() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 5
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "annotations"}
        assert OURS.findall(rule["expr"])
        assert set(OURS.findall(rule["expr"])) <= known_metrics(), rule["alert"]


def test_prometheus_reads_the_alerts_that_lie_beside_it() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert [(DEPLOY / "prometheus" / name).exists() for name in configuration["rule_files"]] == [True]
    [scrape] = configuration["scrape_configs"]
    assert scrape.get("metrics_path", "/metrics") == "/metrics"
