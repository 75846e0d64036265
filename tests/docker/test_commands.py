"""What the containers run: programs and options that exist, and our own scripts, run for real."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest

from tests.docker.reading import DOCKER, FROM_ELSEWHERE, ROOT, filled, program, services, yaml_documents

SCRIPTS = {"beside-ray": "beside_ray.py", "healthy": "healthy.py", "make-bucket": "make_bucket.py"}


def run(command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def words_of(service):
    command = [filled(word) for word in service["command"]]
    return command[2].split("exec ")[1].split() if command[:2] == ["sh", "-c"] else command


def own_commands():
    """The commands of our services and of the Prefect worker's pod, without the script that starts them."""
    found = {name: words_of(service) for name, service in services().items() if name not in FROM_ELSEWHERE}
    pod = yaml_documents(DOCKER / "kubernetes" / "prefect-worker.yaml")[0]["spec"]["template"]["spec"]["containers"][0]
    return found | {"pod prefect-worker": pod["command"]}


def test_every_command_begins_with_a_program_of_the_image():
    for name, words in own_commands().items():
        inner = words[1:] if words[0] == "beside-ray" else words
        assert inner[0] in {"gex", "prefect", "ray", "make-bucket"}, name
    tests = [
        service["healthcheck"]["test"]
        for name, service in services().items()
        if name not in FROM_ELSEWHERE | {"make-bucket", "deploy", "demo"}
    ]
    assert {tuple(test[:2]) for test in tests} == {("CMD", "healthy")}
    for name in ("Dockerfile",):
        text = (DOCKER / name).read_text(encoding="utf-8")
        for target, source in SCRIPTS.items():
            assert f"COPY --chmod=755 docker/{source} /usr/local/bin/{target}\n" in text


def test_gex_and_prefect_say_their_versions():
    from gex_pipeline import __version__

    assert run([program("gex"), "--version"]).stdout.split() == ["gex", __version__]
    import prefect

    assert prefect.__version__ in run([program("prefect"), "version"]).stdout


def options_of(words):
    return [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]


@pytest.mark.parametrize("verb", [["ray", "start"], ["prefect", "server", "start"], ["prefect", "worker", "start"]])
def test_every_option_exists(verb):
    said = run([program(verb[0]), *verb[1:], "--help"], env={**os.environ, "COLUMNS": "200"}).stdout
    wanted = set()
    for words in own_commands().values():
        inner = words[1:] if words[0] == "beside-ray" else words
        if inner[: len(verb)] == verb:
            wanted |= set(options_of(inner))
    if verb[0] == "ray":
        from docker_beside_ray import node_command

        wanted |= set(options_of(node_command("head:6379")))
    assert len(wanted) >= 2
    missing = {option for option in wanted if option not in said}
    assert not missing


def test_every_setting_of_prefect_exists():
    import prefect.settings

    used = {name for service in services().values() for name in service.get("environment") or {}}
    config = yaml_documents(DOCKER / "kubernetes" / "config.yaml")[0]["data"]
    wanted = {name for name in used | set(config) if name.startswith("PREFECT_")}
    assert "PREFECT_SERVER_DATABASE_PASSWORD" in wanted
    assert {name for name in wanted if not hasattr(prefect.settings, name)} == set()


def test_the_flow_server_takes_the_database_from_its_parts(monkeypatch):
    from prefect.settings import Settings

    for name, value in services()["prefect-server"]["environment"].items():
        monkeypatch.setenv(name, filled(value).replace("<POSTGRES_PASSWORD>", "pass"))
    url = Settings().server.database.connection_url.get_secret_value()
    assert url == "postgresql+asyncpg://prefect:pass@postgres:5432/prefect"


def test_the_flow_server_still_knows_who_holds_a_place_after_a_restart(monkeypatch, tmp_path):
    """It forgot them, and Prefect ended every run of a deployment within four minutes of a restart of seven seconds."""
    from prefect.settings import PREFECT_HOME, Settings, temporary_settings

    server = services()["prefect-server"]
    for name, value in server["environment"].items():
        monkeypatch.setenv(name, filled(value))
    settings = Settings()
    module = settings.server.concurrency.lease_storage
    storage = importlib.import_module(module).ConcurrencyLeaseStorage
    with temporary_settings({PREFECT_HOME: tmp_path}):
        lease = asyncio.run(storage().create_lease([uuid4()], timedelta(seconds=300)))
        assert list((tmp_path / "concurrency_leases").glob(f"{lease.id}.*"))  # so that another process finds it
        assert asyncio.run(storage().renew_lease(lease.id, timedelta(seconds=300)))
    assert [volume.split(":")[1] for volume in server["volumes"]] == [str(settings.home)]
    guide = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    assert f"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={module} \\\n  prefect server start" in guide


def test_secrets_are_new_long_private_and_never_overwritten(tmp_path):
    from docker_make_env import NAMES, make_env

    first, second = tmp_path / "a", tmp_path / "b"
    assert make_env(first)
    assert make_env(second)
    assert first.stat().st_mode & 0o777 == 0o600
    values = [dict(line.split("=") for line in file.read_text().splitlines()) for file in (first, second)]
    assert set(values[0]) == set(NAMES)
    assert len({value for of in values for value in of.values()}) == 2 * len(NAMES)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in values[0].values())
    before = first.read_text()
    assert not make_env(first)
    assert first.read_text() == before


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        codes = {"/api/health": 200, "/api/local_raylet_healthz": 200, "/moved": 307}
        self.send_response(codes.get(self.path, 503))
        self.end_headers()

    def log_message(self, *_):
        pass


def test_healthy_tells_an_answer_from_a_refusal_and_from_silence():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    paths = ("/api/health", "/busy", "/moved")  # a page to log in, say
    codes = [run([sys.executable, DOCKER / "healthy.py", base + path]).returncode for path in paths]
    server.shutdown()
    server.server_close()
    silent = run([sys.executable, DOCKER / "healthy.py", base + "/api/health"])
    assert codes == [0, 1, 1]
    assert silent.returncode == 1
    assert "refused" in silent.stderr


def test_a_bucket_is_made_once():
    from tests.end_to_end.object_store import ObjectStore

    store = ObjectStore()
    environment = {**os.environ, "AWS_ENDPOINT_URL": store.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    command = [sys.executable, DOCKER / "make_bucket.py", "gex"]
    said = [run(command, env=environment) for _ in range(2)]
    store.close()
    assert [(done.returncode, done.stdout) for done in said] == [(0, "bucket gex is there\n")] * 2
    assert [path.rstrip("/") for method, path in store.requests if method == "PUT"] == ["/gex"]


def test_the_recipes_are_accepted():
    from gex_pipeline.recipe import load_recipe
    from trainer.train_recipe import load_train_recipe

    demo = load_recipe(DOCKER / "recipes" / "demo.toml")
    assert (demo.output_uri, demo.ray.address) == ("s3://gex/demo", "auto")
    expand = load_recipe(DOCKER / "kubernetes" / "recipes" / "expand.toml")
    train = load_train_recipe(DOCKER / "kubernetes" / "recipes" / "train.toml")
    assert expand.ray.address == train.launch.address == "auto"
    assert train.data.dataset == expand.output_uri
    # images are a stage after the paper's pre-training
    assert set(train.data.granularities) == set(expand.granularity) - {"IT"}


def test_the_demo_is_the_demo_of_the_command_line(tmp_path):
    from gex_pipeline.cli.demo import _RECIPE
    from gex_pipeline.recipe import load_recipe

    file = tmp_path / "recipe.toml"
    file.write_text(_RECIPE, encoding="utf-8")
    assert load_recipe(DOCKER / "recipes" / "demo.toml").hash == load_recipe(file).hash


# beside-ray, with a sleeping process in the place of Ray's node


def beside(tmp_path, node, command):
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from beside_ray import run_beside\n"
        f"sys.exit(run_beside({node!r}, pathlib.Path({str(tmp_path / 'up')!r}).exists, {command!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", script, DOCKER], stderr=subprocess.PIPE, text=True, cwd=ROOT)


def gone(pid_file):
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def node_that_lives(tmp_path, seconds=60):
    return ["sh", "-c", f"echo $$ > {tmp_path}/node; touch {tmp_path}/up; exec sleep {seconds}"]


def test_the_exit_code_is_the_commands_and_the_node_goes_with_it(tmp_path):
    process = beside(tmp_path, node_that_lives(tmp_path), ["sh", "-c", "exit 4"])
    assert process.wait(20) == 4
    assert gone(tmp_path / "node")
    killed = beside(tmp_path, node_that_lives(tmp_path), ["sh", "-c", "kill -KILL $$"])
    assert killed.wait(20) == 128 + signal.SIGKILL  # as a shell says it


def test_sigterm_reaches_the_command_which_may_end_in_peace(tmp_path):
    command = ["sh", "-c", f"trap 'echo told > {tmp_path}/told; exit 7' TERM; touch {tmp_path}/runs; sleep 60 & wait"]
    process = beside(tmp_path, node_that_lives(tmp_path), command)
    while not (tmp_path / "runs").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 7
    assert (tmp_path / "told").read_text() == "told\n"
    assert gone(tmp_path / "node")


def test_when_the_node_ends_the_command_is_stopped_and_the_code_asks_for_a_restart(tmp_path):
    command = ["sh", "-c", f"echo $$ > {tmp_path}/command; exec sleep 60"]
    process = beside(tmp_path, node_that_lives(tmp_path, 1), command)
    assert process.wait(20) == 75
    assert gone(tmp_path / "command")
    assert "the node ended" in process.stderr.read()


def test_a_node_that_does_not_join_ends_it_before_the_command_begins(tmp_path):
    process = beside(tmp_path, ["false"], ["touch", str(tmp_path / "begun")])
    assert process.wait(20) == 75
    assert "address and token" in process.stderr.read()
    assert not (tmp_path / "begun").exists()


def test_a_node_has_joined_when_its_agent_says_so(monkeypatch):
    import docker_beside_ray

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    monkeypatch.setattr(docker_beside_ray, "_AGENT", f"127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert docker_beside_ray.has_joined()
    server.shutdown()
    server.server_close()
    assert not docker_beside_ray.has_joined()


def test_beside_ray_wants_an_address():
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = run([sys.executable, DOCKER / "beside_ray.py", "true"], env=environment)
    assert done.returncode == 1
    assert "RAY_ADDRESS=host:port" in done.stderr
