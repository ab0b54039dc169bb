"""The Helm chart, rendered by Helm itself: valid objects, confined pods, closed networks, and values that are refused."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from cli.local.redis_users import RULES, container_configuration
from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from shared.settings_sources import from_environment
from testing.repository import REPOSITORY
from tests.structure.test_compose import redis_configuration

CHART = REPOSITORY / "deploy" / "chart"
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
# The oldest release that the chart supports, and the newest whose schemas are here.
RELEASES = ("1.30", "1.37")
TWO_MODELS = [
    {**DEFAULTS["gpu"][0], "name": "small", "replicas": 3},
    {**DEFAULTS["gpu"][0], "name": "empty", "model": "", "gpus": 2, "resources": {"limits": {"memory": "64Gi"}}},
]
EVERYTHING: dict[str, Any] = {
    "settings": {"ENGINEHOUSE_MAX_UPLOAD_BYTES": "2147483648"},
    "images": {"registry": "registry.example.com/team/", "tag": "0.1.0-cuda", "pullSecrets": [{"name": "registry"}]},
    "api": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "llm.example.com",
            "tlsSecret": "llm",
            "annotations": {"a": "b"},
        },
        "env": [{"name": "ENGINEHOUSE_GRAFANA_URL", "value": "https://grafana.example.com"}],
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    },
    "existingKeys": "house-keys",
    "gpu": TWO_MODELS,
    "storage": {"accessMode": "ReadWriteMany", "locksBetweenNodes": True, "className": "cephfs"},
    "keda": {"enabled": True, "prometheus": "http://prometheus.monitoring:9090"},
    "networkPolicies": {"apiFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]},
}
EXTERNAL: dict[str, Any] = {
    "redis": {"enabled": False, "address": "redis.example.com:6379"},
    "chroma": {"enabled": False},
    "networkPolicies": {"cpuEgress": [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"port": 6379}]}]},
}
VALUES = {"defaults": {}, "everything": EVERYTHING, "external": EXTERNAL}


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(deepcopy(values), name="house", namespace="llm")
    objects = [item for name, text in texts.items() if name.endswith(".yaml") for item in yaml.safe_load_all(text)]
    return [item for item in objects if item]


@pytest.fixture(scope="module", params=VALUES)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(VALUES[request.param])


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in objects:
        if "template" in item.get("spec", {}):
            yield item["metadata"]["name"].removeprefix("house-"), item["spec"]["template"]["spec"]


def by_name(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"].removeprefix("house-"): item for item in objects if item["kind"] == kind}


def test_helm_finds_no_fault() -> None:
    report = helm_python.lint(CHART, strict=True)
    assert (report["errors"], [message for message in report["messages"] if message["severity"] > 1]) == ([], [])


@pytest.mark.parametrize("release", RELEASES)
def test_objects_are_valid(objects: list[dict[str, Any]], release: str) -> None:
    checked = [item for item in objects if not item["apiVersion"].startswith("keda.sh/")]
    assert len(checked) > 12
    for item in checked:
        assert kubernetes_validate.validate(item, release, strict=True)
    names = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(names) == len(set(names))


def test_versions_are_those_of_the_server() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'\nversion = "{chart["appVersion"]}"\n' in project
    assert chart["version"] == chart["appVersion"]
    catalogue = load_catalogue(REPOSITORY / "models.json")
    assert all(catalogue.get_model(pool["model"]) for pool in DEFAULTS["gpu"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"replica": 2}, "replica"),
        ({"api": {"replicas": "two"}}, "replicas"),
        ({"images": {"registry": "registry.example.com"}}, "registry"),
        ({"settings": {"ENGINEHOUSE_PORT": 5000}}, "ENGINEHOUSE_PORT"),
        ({"drainSeconds": -1}, "drainSeconds"),
        ({"storage": {"accessMode": "ReadWriteMany"}}, "storage.locksBetweenNodes"),
        ({"redis": {"enabled": False}}, "networkPolicies.cpuEgress"),
        ({"redis": {"enabled": False}, "networkPolicies": {"enabled": False}, "keda": {"enabled": True}}, "redis.address"),
        ({"api": {"ingress": {"enabled": True}}}, "host"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(reason)):
        render(values)


def test_pods_that_open_the_text_index_share_a_node_unless_locks_hold_between_nodes() -> None:
    """The text index is SQLite: without such locks, two nodes that write it damage it."""
    opens = {"api", "cpu", "io"}
    with_data = set()
    for name, pod in pods(render({})):
        claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
        if claims:
            assert claims == {"house-data"}
            with_data.add(name)
            [term] = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert term["topologyKey"] == "kubernetes.io/hostname"
            expected = {"app.kubernetes.io/instance": "house", "enginehouse/opens-text-index": "true"}
            assert term["labelSelector"]["matchLabels"] == expected
    assert with_data == opens
    labelled = {
        name
        for kind in ("Deployment", "StatefulSet")
        for name, item in by_name(render({}), kind).items()
        if item["spec"]["template"]["metadata"]["labels"].get("enginehouse/opens-text-index") == "true"
    }
    assert labelled == opens
    assert all("affinity" not in pod for _, pod in pods(render(EVERYTHING)))


def test_pods_disable_service_links(objects: list[dict[str, Any]]) -> None:
    """Kubernetes would set ENGINEHOUSE_PORT and other unknown settings for a service called enginehouse."""
    assert [name for name, pod in pods(objects) if pod.get("enableServiceLinks") is not False] == []


def test_pods_are_confined(objects: list[dict[str, Any]]) -> None:
    for name, pod in pods(objects):
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
            assert container["resources"].get("requests") or name == "gpu-empty", name


def test_each_gpu_worker_has_its_gpus_and_its_model() -> None:
    found = dict(pods(render({"gpu": TWO_MODELS})))
    small, empty = found["gpu-small"]["containers"][0], found["gpu-empty"]["containers"][0]
    assert small["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert {"name": "ENGINEHOUSE_WORKER_MODEL", "value": "gemma-3-270m"} in small["env"]
    assert empty["resources"]["limits"] == {"nvidia.com/gpu": 2, "memory": "64Gi"}
    assert empty["command"] == ["enginehouse", "worker", "gpu", "--empty"]


def test_secrets_are_read_one_by_one_and_are_on_no_command_line(objects: list[dict[str, Any]]) -> None:
    assert [item for item in objects if item["kind"] == "Secret"] == []
    for name, pod in pods(objects):
        for container in pod["containers"]:
            # Kubernetes replaces $(NAME) in commands, so that the secret would be visible to all processes of the node.
            assert "$(" not in " ".join([*container.get("command", []), *container.get("args", [])]), name
            assert [source for source in container.get("envFrom", []) if "secretRef" in source] == [], name


def test_the_users_of_redis_have_the_rights_of_up(tmp_path: Path) -> None:
    assert (CHART / "files" / "redis-users.conf").read_text() == container_configuration(), (
        "python -m cli.local.redis_users > deploy/chart/files/redis-users.conf"
    )
    [container] = dict(pods(render({})))["redis"]["containers"]
    passwords = {f"REDIS_{user.upper()}_PASSWORD": user for user in RULES} | {"REDIS_PASSWORD": "default"}
    lines = redis_configuration(container["command"][-1], passwords, tmp_path)
    assert [line for line in lines if line.startswith("user ")] == [
        f"user {user} on >{user} {rules}" for user, rules in RULES.items()
    ]
    assert {'requirepass "default"', "appendonly yes", "maxmemory 2gb", "maxmemory-policy noeviction"} <= set(lines)


def secrets_of(objects: list[dict[str, Any]]) -> dict[str, set[str]]:
    return {
        name: {item["valueFrom"]["secretKeyRef"]["key"] for item in pod["containers"][0]["env"] if "valueFrom" in item}
        for name, pod in pods(objects)
    }


def test_each_pod_gets_the_passwords_that_it_needs() -> None:
    secrets = secrets_of(render({}))
    assert secrets == {
        "redis": {"REDIS_PASSWORD", *(f"REDIS_{user.upper()}_PASSWORD" for user in RULES)},
        "chroma": {"CHROMA_PASSWORD"},
        "api": {"REDIS_API_PASSWORD", "CHROMA_PASSWORD", "METRICS_TOKEN"},
        "gpu-default": {"REDIS_GPU_PASSWORD"},
        "cpu": {"REDIS_CPU_PASSWORD", "CHROMA_PASSWORD"},
        "io": {"REDIS_IO_PASSWORD", "CHROMA_PASSWORD"},
    }
    note = (CHART / "values.yaml").read_text()
    created = {f"{name}_PASSWORD" for name in re.findall(r"[A-Z_]+", note.split("for name in")[1].split(";")[0])}
    assert created | {"METRICS_TOKEN"} == set().union(*secrets.values())
    assert 'echo "METRICS_TOKEN=' in note


def test_only_the_api_gets_the_keys_that_are_brought_along() -> None:
    for name, pod in pods(render(EVERYTHING)):
        container = pod["containers"][0]
        files = [item["value"] for item in container["env"] if item["name"] == "ENGINEHOUSE_KEYS_FILE"]
        folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        assert files == (["/run/api-keys/keys.json"] if name == "api" else [])
        assert folders.get("api-keys") == ("/run/api-keys" if name == "api" else None)
        assert secrets.get("api-keys") == ("house-keys" if name == "api" else None)


def test_servers_outside_of_the_chart_are_reached_by_the_addresses_of_the_secret() -> None:
    secrets = secrets_of(render(EXTERNAL))
    assert secrets == {
        "api": {"REDIS_URL", "CHROMA_URL", "METRICS_TOKEN"},
        "gpu-default": {"REDIS_URL"},
        "cpu": {"REDIS_URL", "CHROMA_URL"},
        "io": {"REDIS_URL", "CHROMA_URL"},
    }
    egress = by_name(render(EXTERNAL), "NetworkPolicy")["cpu"]["spec"]["egress"]
    assert EXTERNAL["networkPolicies"]["cpuEgress"][0] in egress


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def test_network_policies_close_redis_chroma_and_the_readers_of_files() -> None:
    objects = render({"gpu": TWO_MODELS})
    policies = by_name(objects, "NetworkPolicy")
    labels = {
        name: item["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for name, item in by_name(objects, kind).items()
    }

    def reached(name: str) -> set[str]:
        """The pods that may connect to a pod."""
        applied = [item["spec"] for item in policies.values() if selects(item["spec"]["podSelector"], labels[name])]
        peers = [peer for spec in applied for rule in spec.get("ingress", []) for peer in rule.get("from", [])]
        return {pod for pod in labels for peer in peers if selects(peer["podSelector"], labels[pod])}

    workers = {"gpu-small", "gpu-empty", "cpu", "io"}
    assert reached("redis") == {"api", *workers}
    assert reached("chroma") == {"api", "cpu", "io"}
    for worker in workers:
        applied = [item["spec"] for item in policies.values() if selects(item["spec"]["podSelector"], labels[worker])]
        assert any("Ingress" in spec["policyTypes"] and "ingress" not in spec for spec in applied), worker
    for name in ("redis", "chroma"):
        assert "Egress" in policies[name]["spec"]["policyTypes"]
        assert "egress" not in policies[name]["spec"]
    destinations = [peer["podSelector"] for rule in policies["cpu"]["spec"]["egress"] for peer in rule["to"]]
    assert {pod for pod in labels for selector in destinations if selects(selector, labels[pod])} == {"redis", "chroma"}
    assert destinations[1:] == [{"matchLabels": {"k8s-app": "kube-dns"}}]


def test_services_budgets_and_selectors_find_their_pods(objects: list[dict[str, Any]]) -> None:
    templates = {
        name: item["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for name, item in by_name(objects, kind).items()
    }
    for item in objects:
        name, spec = item["metadata"]["name"].removeprefix("house-"), item.get("spec", {})
        if item["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            assert [pod for pod, labels in templates.items() if selects(spec["selector"], labels)] == [name]
        elif item["kind"] == "Service":
            assert len([pod for pod, labels in templates.items() if spec["selector"].items() <= labels.items()]) == 1
    budgets = {name for name in templates if name not in ("redis", "chroma")}
    assert set(by_name(objects, "PodDisruptionBudget")) == budgets


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_config_maps_contain_valid_settings(values: dict[str, Any]) -> None:
    [config] = by_name(render(values), "ConfigMap").values()
    settings = from_environment(config["data"])
    assert settings.max_upload_bytes == int(
        values.get("settings", {}).get("ENGINEHOUSE_MAX_UPLOAD_BYTES", Settings().max_upload_bytes)
    )


@pytest.mark.parametrize("seconds", [20, 600])
def test_pods_have_time_to_drain(seconds: int) -> None:
    objects = render({"drainSeconds": seconds})
    [config] = by_name(objects, "ConfigMap").values()
    assert from_environment(config["data"]).drain_seconds == seconds
    for name, pod in pods(objects):
        if name in ("cpu", "io") or name.startswith("gpu"):
            assert pod["terminationGracePeriodSeconds"] == seconds + 20, name
    api = dict(pods(objects))["api"]
    assert api["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
    assert api["terminationGracePeriodSeconds"] > 5 + 5 + 10


def test_a_changed_setting_restarts_the_pods_that_read_it() -> None:
    before, after = (
        {
            name: item["spec"]["template"]["metadata"].get("annotations")
            for name, item in by_name(render(values), "Deployment").items()
        }
        for values in ({}, {"settings": {"ENGINEHOUSE_LOG_LEVEL": "DEBUG"}})
    )
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_keda_scales_existing_workloads_by_their_queues_and_by_age() -> None:
    values = {"gpu": TWO_MODELS, "keda": {"enabled": True, "prometheus": "http://prometheus:9090"}}
    objects = render(values)
    workloads = {(item["kind"], item["metadata"]["name"]): item for item in objects}
    queues = {"house-cpu": "cpu", "house-gpu-small": "gpu.gemma-3-270m"}
    scaled = [item for item in objects if item["kind"] == "ScaledObject"]
    assert {item["spec"]["scaleTargetRef"]["name"] for item in scaled} == set(queues), "not a pool without a model"
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    for item in scaled:
        target = item["spec"]["scaleTargetRef"]
        workload = workloads[target["kind"], target["name"]]
        assert "replicas" not in workload["spec"], "an upgrade of the chart would undo what KEDA decided"
        length, age = item["spec"]["triggers"]
        assert length["metadata"]["listName"] == queues[target["name"]]
        assert length["metadata"]["address"] == "house-redis:6379"
        assert f'{{queue="{queues[target["name"]]}"}}' in age["metadata"]["query"]
        [metric] = re.findall(r"enginehouse_\w+", age["metadata"]["query"])
        assert f"`{metric}` | `queue` |" in page
        # Without this, pods with running jobs would be removed as soon as the queue is empty.
        down = item["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down["stabilizationWindowSeconds"] >= 600
    without = render({"keda": {"enabled": True}})
    assert {trigger["type"] for item in without if item["kind"] == "ScaledObject" for trigger in item["spec"]["triggers"]} == {
        "redis"
    }
    peers = by_name(objects, "NetworkPolicy")["redis"]["spec"]["ingress"][0]["from"]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}} in peers


def test_the_schema_knows_every_value() -> None:
    """A default that the schema does not know would make the chart refuse its own values."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(DEFAULTS) <= set(schema["properties"])
    for name, value in DEFAULTS.items():
        if isinstance(value, dict) and "properties" in schema["properties"][name]:
            assert set(value) == set(schema["properties"][name]["properties"]), name
