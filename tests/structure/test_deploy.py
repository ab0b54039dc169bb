"""Deployment files: each is valid for the tool that reads it, and refers only to metrics and commands that exist."""

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

from cli.local.redis_users import RULES
from cli.main import app as command
from shared.settings import Settings, from_environment
from testing.repository import REPOSITORY
from tests.structure.test_compose import redis_configuration

DEPLOY = REPOSITORY / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yml"))
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


def test_kubernetes_manifests_are_valid() -> None:
    done = run(tool("kubernetes-validate"), "--strict", DEPLOY / "kubernetes" / "enginehouse.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_keda_scales_existing_workloads_by_their_queues() -> None:
    environment = {item["name"]: item.get("value") for item in dict(pods())["enginehouse-gpu"]["containers"][0]["env"]}
    model = environment["ENGINEHOUSE_WORKER_MODEL"]
    assert model in {entry["name"] for entry in json.loads((REPOSITORY / "models.json").read_text())}
    queues = {"enginehouse-cpu": "cpu", "enginehouse-gpu": f"gpu.{model}"}
    kinds = {
        (item["kind"], item["metadata"]["name"])
        for item in yaml.safe_load_all((DEPLOY / "kubernetes" / "enginehouse.yml").read_text())
    }
    for item in yaml.safe_load_all((DEPLOY / "kubernetes" / "keda.yml").read_text()):
        if item["kind"] == "ScaledObject":
            target = item["spec"]["scaleTargetRef"]
            assert (target.get("kind", "Deployment"), target["name"]) in kinds
            queue = item["spec"]["triggers"][0]["metadata"]["listName"]
            assert queue == queues[target["name"]]
            # Without this, pods with running jobs would be removed as soon as the queue is empty. A cooldown has no effect above 0 pods.
            down = item["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
            assert down["stabilizationWindowSeconds"] >= 600
            assert "cooldownPeriod" not in item["spec"]


def test_pods_disable_service_links() -> None:
    """Kubernetes would set ENGINEHOUSE_PORT and other unknown settings for a service called enginehouse."""
    assert len(pods()) > 5
    assert [name for name, pod in pods() if pod.get("enableServiceLinks") is not False] == []


def test_pods_are_confined() -> None:
    for name, pod in pods():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, name


def test_secrets_are_read_one_by_one_and_are_on_no_command_line() -> None:
    for name, pod in pods():
        for container in pod["containers"]:
            # Kubernetes replaces $(NAME) in commands, so that the secret would be visible to all processes of the node.
            assert "$(" not in " ".join([*container.get("command", []), *container.get("args", [])]), name
            assert [source for source in container.get("envFrom", []) if "secretRef" in source] == [], name


def test_the_users_of_redis_have_the_rights_of_up(tmp_path: Path) -> None:
    [container] = dict(pods())["redis"]["containers"]
    passwords = {f"REDIS_{user.upper()}_PASSWORD": user for user in RULES}
    lines = redis_configuration(container["command"][-1], passwords, tmp_path)
    assert [line for line in lines if line.startswith("user ")] == [
        f"user {user} on >{user} {rules}" for user, rules in RULES.items()
    ]


def test_each_pod_gets_the_passwords_that_it_needs() -> None:
    secrets = {
        name: {item["valueFrom"]["secretKeyRef"]["key"] for item in pod["containers"][0]["env"] if "valueFrom" in item}
        for name, pod in pods()
    }
    assert secrets == {
        "redis": {"REDIS_PASSWORD", *(f"REDIS_{user.upper()}_PASSWORD" for user in RULES)},
        "chroma": {"CHROMA_PASSWORD"},
        "enginehouse-api": {"REDIS_API_PASSWORD", "CHROMA_PASSWORD", "METRICS_TOKEN"},
        "enginehouse-gpu": {"REDIS_GPU_PASSWORD"},
        "enginehouse-cpu": {"REDIS_CPU_PASSWORD", "CHROMA_PASSWORD"},
        "enginehouse-io": {"REDIS_IO_PASSWORD", "CHROMA_PASSWORD"},
    }
    note = (DEPLOY / "kubernetes" / "enginehouse.yml").read_text().split("apiVersion", 1)[0]
    created = {f"{name}_PASSWORD" for name in re.findall(r"[A-Z_]+", note.split("for name in")[1].split(";")[0])}
    assert created | {"METRICS_TOKEN"} == set().union(*secrets.values())
    assert 'echo "METRICS_TOKEN=' in note


def test_network_policies_close_redis_chroma_and_the_readers_of_files() -> None:
    items = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "enginehouse.yml").read_text()))
    policies = {item["metadata"]["name"]: item["spec"] for item in items if item["kind"] == "NetworkPolicy"}
    labels = {item["spec"]["template"]["metadata"]["labels"]["app"] for item in items if "template" in item.get("spec", {})}
    for name in ("redis", "chroma"):
        assert policies[name]["podSelector"]["matchLabels"] == {"app": name}
        [rule] = policies[name]["ingress"]
        [source] = rule["from"]
        assert set(source["podSelector"]["matchExpressions"][0]["values"]) <= labels
        assert "egress" not in policies[name]
        assert "Egress" in policies[name]["policyTypes"]
    destinations = [peer["podSelector"] for rule in policies["enginehouse-cpu"]["egress"] for peer in rule["to"]]
    assert destinations[0]["matchExpressions"][0]["values"] == ["redis", "chroma"]
    assert destinations[1:] == [{"matchLabels": {"k8s-app": "kube-dns"}}]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: str(path.name))
def test_config_maps_contain_valid_settings(manifest: Path) -> None:
    for item in yaml.safe_load_all(manifest.read_text()):
        if item["kind"] == "ConfigMap":
            from_environment(item["data"])


def test_worker_pods_have_time_to_drain() -> None:
    drain = Settings().drain_seconds
    for name, pod in pods():
        if name.removeprefix("enginehouse-") in ("gpu", "cpu", "io"):
            assert pod["terminationGracePeriodSeconds"] > drain + 10


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


def test_nginx_configuration_is_valid_and_streams_are_not_buffered(tmp_path: Path) -> None:
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
    outer = {item["directive"]: item["args"] for item in server["block"]}
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
