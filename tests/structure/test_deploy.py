"""Deployment files: each is valid for the tool that reads it, and refers only to metrics and commands that exist."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from api.app import create_app
from cli.main import app as command
from shared.settings import Settings
from testing.repository import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
METRIC_NAME = re.compile(r"\benginehouse_[a-z_]+")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=240, check=False)


def tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def known_metrics() -> set[str]:
    """The metrics that docs/operations.md lists; a histogram has three series."""
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(enginehouse_\w+)`", page))
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "count", "sum")}


def test_yaml_is_clean() -> None:
    done = run(tool("yamllint"), "--strict", "-c", REPOSITORY / ".yamllint", DEPLOY, REPOSITORY / "docker-compose.yml")
    assert done.returncode == 0, done.stdout


REQUIRED = {"Restart": "always", "KillMode": "mixed", "StateDirectoryMode": "0700", "NoNewPrivileges": "true"}


def unit_of(file: Path) -> configparser.RawConfigParser:
    """Raises configparser.Error for a duplicate key, or a key outside of a section."""
    unit = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"), interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(file.read_text(encoding="utf-8"))
    return unit


@pytest.mark.parametrize("file", UNITS, ids=lambda path: str(path.name))
def test_units_restart_drain_and_keep_their_state_private(file: Path) -> None:
    unit = unit_of(file)
    assert set(unit.sections()) >= {"Unit", "Service", "Install"}
    service = dict(unit["Service"])
    assert {name: service.get(name) for name in REQUIRED} == REQUIRED
    assert service["ExecStart"].startswith(service["WorkingDirectory"]), "the unit runs the program of its own folder"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed; the test above parses the units")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: str(path.name))
def test_systemd_verifies_the_units(unit: Path, tmp_path: Path) -> None:
    # The program is not installed in the path of the unit.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/enginehouse/.venv/bin/enginehouse", "/bin/true"))
    done = run("systemd-analyze", "verify", copy)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: str(path.name))
def test_units_run_existing_commands_and_let_them_drain(unit: Path) -> None:
    service = unit_of(unit)["Service"]
    words = service["ExecStart"].split()[1:]
    assert words[0] in {item.name or (item.callback and item.callback.__name__) for item in command.registered_commands}
    assert int(service["TimeoutStopSec"]) > Settings().drain_seconds + 10


def test_nginx_configuration_is_valid_and_only_streams_are_not_buffered(tmp_path: Path) -> None:
    file = DEPLOY / "nginx" / "enginehouse.conf"
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"events {{}}\nhttp {{ include {file}; }}\n")
    result = json.loads(run(tool("crossplane"), "parse", "--strict", whole).stdout)
    assert result["status"] == "ok", result["errors"]
    [server] = [block for block in result["config"][1]["parsed"] if block["directive"] == "server"]
    locations = {block["args"][-1]: block["block"] for block in server["block"] if block["directive"] == "location"}
    [pattern] = [pattern for pattern in locations if "events" in pattern]
    assert re.fullmatch(pattern, "/jobs/job_01m84stetzyr7esggznw5rdjds/events")
    directives = {item["directive"]: item["args"] for item in locations[pattern]}
    assert directives["proxy_buffering"] == ["off"]
    [uploads] = [pattern for pattern in locations if "upload" in pattern]
    limit = next(item["args"][0] for item in locations[uploads] if item["directive"] == "client_max_body_size")
    assert int(limit.removesuffix("m")) * 2**20 > Settings().max_upload_bytes
    with_files = [operation.path for operation in create_app(Settings()).extensions["openapi"].operations if operation.files]
    assert "/v1/files" in with_files
    assert [path for path in with_files if not re.fullmatch(uploads, path)] == [], "each takes large files"
    outer = {item["directive"]: item["args"] for item in server["block"]}
    assert {"limit_conn", "limit_req", "client_header_timeout", "client_body_timeout"} <= outer.keys()
    unbuffered = [path for path, block in locations.items() if "proxy_request_buffering" in {item["directive"] for item in block}]
    assert unbuffered == [], "nginx receives each request before it passes it on"
    assert "proxy_request_buffering" not in outer
    assert int(outer["proxy_read_timeout"][0].removesuffix("s")) > Settings().chat_wait_seconds


def test_the_dashboard_queries_existing_metrics() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "enginehouse.json").read_text())
    queried = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in METRIC_NAME.findall(target["expr"])
    }
    assert len(queried) > 10
    assert queried <= known_metrics()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_alerts_query_existing_metrics() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 5
    for rule in rules:
        assert METRIC_NAME.findall(rule["expr"]) or rule["alert"] == "ScrapeFailed"
        assert set(METRIC_NAME.findall(rule["expr"])) <= known_metrics(), rule["alert"]


def test_prometheus_loads_the_alerts_file() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert [(DEPLOY / "prometheus" / name).exists() for name in configuration["rule_files"]] == [True]
    [scrape] = configuration["scrape_configs"]
    assert scrape.get("metrics_path", "/metrics") == "/metrics"
