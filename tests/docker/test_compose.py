"""compose.yaml: valid, nothing open beyond this machine, no secret in it, everything waits for what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from tests.docker.reading import (
    COMPOSE,
    DOCKER,
    DOCKERFILES,
    FROM_ELSEWHERE,
    ROOT,
    compose,
    driver_bytes,
    filled,
    last_stage,
    services,
    variables,
)

ONCE = {"make-bucket", "deploy", "demo"}


def test_the_file_is_valid_by_the_schema_of_compose():
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_yamllint_finds_nothing():
    pytest.importorskip("yamllint")
    rules = "{extends: relaxed, rules: {line-length: {max: 130}, braces: disable, commas: disable}}"
    command = [sys.executable, "-m", "yamllint", "--strict", "-d", rules, str(DOCKER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_ports_are_open_on_loopback_only():
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200", "127.0.0.1:8333:8333", "127.0.0.1:8265:8265"]


def test_no_secret_has_a_value_or_a_default_in_the_file():
    from docker_make_env import NAMES

    used = variables(COMPOSE.read_text(encoding="utf-8"))
    assert {name for name, kind, _ in used if kind == "?"} == set(NAMES)
    free = {"GEX_IMAGE", "GEX_OUTPUT", "GEX_RECIPE", "GEX_WORKER_CPUS", "GEX_WORKER_MEMORY"}
    assert {name for name, kind, _ in used if kind == "-"} == free
    assert not [name for name, kind, _ in used if kind is None]
    for service, settings in services().items():
        for name, value in (settings.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|AUTH_STRING|KEY", name):
                assert "<" in filled(value), f"{service}: {name}"


def test_the_deployments_are_told_of_the_recipe_of_the_demo_and_of_its_output():
    told = {name: filled(value) for name, value in services()["deploy"]["environment"].items()}
    recipe = tomllib.loads((DOCKER / "recipes" / "demo.toml").read_text(encoding="utf-8"))
    assert told["GEX_OUTPUT"] == recipe["output"]
    assert f"cp /app/recipes/demo.toml {told['GEX_RECIPE']} " in services()["demo"]["command"][-1]


def test_volumes_are_named_and_declared():
    declared = set(compose()["volumes"])
    used = {volume.partition(":")[0] for service in services().values() for volume in service.get("volumes", [])}
    assert used == declared == {"postgres", "prefect", "object-store", "data"}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_volumes_of_our_services_lie_where_the_image_has_a_folder_of_its_user(name):
    """A volume at another place is root's, and the first write to it fails."""
    ours = [service for key, service in services().items() if key not in FROM_ELSEWHERE]
    used = {volume.split(":")[1] for service in ours for volume in service.get("volumes", [])}
    (made,) = [rest for word, rest in last_stage(name) if word == "RUN" and "install -d" in rest]
    assert used == set(made.partition("install -d -o gex -g gex ")[2].split())


def test_what_does_more_than_stand_is_done_when_it_is_asked_for():
    """Each `up`, for another number of workers, say, set schedules back that were paused or resumed by hand."""
    profiles = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert profiles == {"deploy": ["deploy"], "demo": ["demo"]}
    guide = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
    for name in profiles:
        assert f"docker compose -f docker/compose.yaml run --rm {name}\n" in guide


def test_one_shots_end_and_all_else_is_started_again():
    policies = {name: service["restart"] for name, service in services().items()}
    assert {name for name, policy in policies.items() if policy == "no"} == ONCE
    assert {policy for name, policy in policies.items() if name not in ONCE} == {"unless-stopped"}


def test_everything_that_stands_says_whether_it_is_healthy():
    assert {name for name, service in services().items() if "healthcheck" not in service} == ONCE
    for name, service in services().items():
        assert service["init"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert service["logging"]["options"]["max-size"] == "10m", name


def test_what_is_waited_for_exists_and_can_come_true():
    for name, service in services().items():
        for other, wait in (service.get("depends_on") or {}).items():
            expected = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert wait == {"condition": expected}, (name, other)


def test_our_services_share_one_image_that_one_of_them_builds():
    ours = {name: service for name, service in services().items() if name not in FROM_ELSEWHERE}
    assert {service["image"] for service in ours.values()} == {"${GEX_IMAGE:-gex-pipeline:local}"}
    assert [name for name, service in ours.items() if "build" in service] == ["ray-head"]
    build = ours["ray-head"]["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).is_file()
    for name in FROM_ELSEWHERE:
        assert re.fullmatch(r"[\w/]+:[\w.-]*\d[\w.-]*", services()[name]["image"]), name


def test_the_database_is_reached_by_its_server_only():
    networks = {name: set(service["networks"]) for name, service in services().items()}
    assert {name for name, of in networks.items() if "database" in of} == {"postgres", "prefect-server"}
    assert networks["postgres"] == {"database"}
    assert compose()["networks"]["database"] == {"internal": True}


def test_everything_of_ray_has_the_token_and_drivers_know_the_head():
    for name in ("ray-head", "ray-worker", "prefect-worker", "demo"):
        environment = services()[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token", name
        assert filled(environment["RAY_AUTH_TOKEN"]) == "<RAY_AUTH_TOKEN>", name
    for name in ("prefect-worker", "demo"):
        assert services()[name]["environment"]["RAY_ADDRESS"] == "ray-head:6379"
    # `ray start --head` takes the variable for the address of another head
    assert "RAY_ADDRESS" not in services()["ray-head"]["environment"]


def test_two_workers_offer_the_cpus_they_are_given():
    worker = services()["ray-worker"]
    assert worker["deploy"]["replicas"] == 2
    assert f"--num-cpus={worker['deploy']['resources']['limits']['cpus']}" in worker["command"]
    assert "--num-cpus=0" in services()["ray-head"]["command"]


@pytest.mark.parametrize("name", ["ray-head", "prefect-worker", "demo"])
def test_what_may_hold_a_driver_has_memory_for_its_database(name):
    limits = services()[name]["deploy"]["resources"]["limits"]
    assert int(limits["memory"].removesuffix("G")) * 2**30 >= driver_bytes(services()[name]["environment"])


@pytest.mark.parametrize("name", ["ray-head", "ray-worker", "prefect-worker", "demo"])
def test_shared_memory_holds_the_object_store(name):
    service = services()[name]
    unit = {"mb": 2**20, "gb": 2**30}[service["shm_size"][-2:]]
    stores = [int(word.partition("=")[2]) for word in service["command"] if word.startswith("--object-store-memory=")]
    assert sum(stores) * 1.5 < int(service["shm_size"][:-2]) * unit


def test_object_store_keeps_what_asks_for_no_credentials_on_loopback():
    command = services()["object-store"]["command"]
    assert "-ip.bind=127.0.0.1" in command
    assert "-s3.ip.bind=0.0.0.0" in command
