"""Following a submitted job over a dashboard that fails, with Ray's own client; what a job does is in end_to_end."""

from __future__ import annotations

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gex_pipeline import ray_submit
from gex_pipeline.errors import TransientError
from tests.making_runs import clip_row, write_jsonl

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None, reason="needs ray[default] (the extra 'cluster')"
)
DROPPED = "dropped"
SOME_JOB = {"type": "SUBMISSION", "submission_id": "gex-1-0", "entrypoint": "gex", "message": "", "driver_exit_code": 0}


class Dashboard(ThreadingHTTPServer):
    """What Ray's dashboard answers of one job: `answers` in turn when asked how it goes, the last of them for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answers: list[str | int] = ["RUNNING"]
        self.listing: list[dict] | int | str = []
        self.log = "first\n"
        self.num_logs = 0

    def answer(self, path: str) -> object:
        if path == "/api/version":
            return {"version": "4", "ray_version": "2.60.0", "ray_commit": ""}
        if path == "/api/jobs/":
            return self.listing
        if path.endswith("/logs"):
            self.num_logs += 1
            return {"logs": self.log}
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return {**SOME_JOB, "status": status} if str(status).isupper() else status


class _Answering(BaseHTTPRequestHandler):
    server: Dashboard

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        answer = self.server.answer(self.path)
        if answer == DROPPED:
            return
        is_failure = isinstance(answer, int)
        content = b'{"error": "busy"}' if is_failure else json.dumps(answer).encode()
        self.send_response(answer if is_failure else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def dashboard(monkeypatch):
    monkeypatch.setattr(ray_submit, "_LOOK_S", 0.01)
    monkeypatch.setattr(ray_submit, "_READ_S", (0.0, 0.0))
    with Dashboard() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(dashboard):
    return ray_submit._client(address_of(dashboard))


def address_of(dashboard: Dashboard) -> str:
    return f"http://127.0.0.1:{dashboard.server_port}"


@pytest.mark.parametrize("failure", [503, DROPPED])
def test_a_dashboard_that_does_not_answer_for_a_moment_is_asked_again(dashboard, client, failure):
    """One busy moment of the head ended the command with a traceback, while the job went on."""
    dashboard.answers = ["RUNNING", failure, failure, "RUNNING", "SUCCEEDED"]
    said: list[str] = []
    assert ray_submit._follow(client, "gex-1-0", said.append) == 0
    assert said == ["first"]


@pytest.mark.parametrize(("failure", "words"), [(503, "status code 503"), (DROPPED, "Connection aborted")])
def test_one_that_has_not_answered_for_minutes_ends_the_command_and_says_that_the_job_goes_on(
    dashboard, client, monkeypatch, failure, words
):
    monkeypatch.setattr(ray_submit, "_PATIENCE_S", 0.0)
    dashboard.answers = ["RUNNING", failure]
    with pytest.raises(TransientError) as caught:
        ray_submit._follow(client, "gex-1-0", print)
    assert "has not said for 0 minutes how job gex-1-0 goes" in str(caught.value)
    assert words in str(caught.value)
    assert str(caught.value).endswith("The job goes on where the cluster does; run the same command again to follow it")


@pytest.mark.parametrize("failure", [503, DROPPED])
def test_one_that_does_not_answer_when_the_job_is_to_be_sent_is_no_traceback(dashboard, tmp_path, failure):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    dashboard.listing = failure
    with pytest.raises(TransientError, match=r"did not answer \(.*Run the same command again; it follows the job if"):
        ray_submit.submit(address_of(dashboard), str(tmp_path), [], print)


@pytest.mark.parametrize("is_known", [False, True])
def test_one_that_takes_the_connection_and_says_nothing_ends_the_command(
    dashboard, client, tmp_path, monkeypatch, is_known
):
    """Ray's client has no limit of its own: the command hung for ever, whenever the head of the cluster did."""
    monkeypatch.setattr(ray_submit, "_ANSWER_S", 0.2)
    monkeypatch.setattr(ray_submit, "_PATIENCE_S", 0.0)
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    dashboard.shutdown()  # the system still takes connections for it
    with pytest.raises(TransientError, match=r"[rR]ead timed out") as caught:
        if is_known:
            ray_submit._follow(client, "gex-1-0", print)
        else:
            ray_submit.submit(address_of(dashboard), str(tmp_path), [], print)
    assert "run the same command again" in str(caught.value).lower()


def test_the_log_is_read_seldom_and_whole_at_the_end(dashboard, client, monkeypatch):
    """Of a job of hours the whole log was sent every second."""
    monkeypatch.setattr(ray_submit, "_READ_S", (3600.0, 3600.0))
    dashboard.answers = [*["RUNNING"] * 20, "SUCCEEDED"]
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        dashboard.log = "first\nsecond\nlast"

    assert ray_submit._follow(client, "gex-1-0", say) == 0
    assert said == ["first", "second\nlast"]
    assert dashboard.num_logs == 2
