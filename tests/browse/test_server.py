"""Who is answered, what is found, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from gex_pipeline.browse.app import host_name
from gex_pipeline.browse.server import address_of, is_loopback, listen
from gex_pipeline.errors import GexError
from tests.browse.conftest import ROOT
from tests.shards import damage
from tests.shards.damage import ALPHA

HEAVY = ("torch", "ray", "vllm", "transformers", "sentence_transformers", "prefect", "matplotlib")
# Runs the command as `gex` does; what is loaded is said when it ends.
LISTING = """
import atexit, json, signal, sys
names = json.loads(sys.argv.pop(1))
atexit.register(lambda: sys.stderr.write("LOADED " + json.dumps([n for n in names if n in sys.modules])))
signal.signal(signal.SIGINT, signal.default_int_handler)
from gex_pipeline.cli.main import main
sys.exit(main())
"""
TRAVERSALS = (
    "/../dataset.json", "/..%2fdataset.json", "/%2e%2e/%2e%2e/etc/hostname", "//etc/hostname", "/static/../app.py",
    "/dataset.json", "/LVLT/LVLT-000000.tar", "/tables/clips-000000.parquet", "/media/../../../../etc/hostname",
    "/media/LVLT/../../dataset.json", "/media?granularity=LVLT&key=../../dataset.json", "/media?key=%2fetc%2fhostname",
    "/media?granularity=../&key=x", "/poster?granularity=LVLT&key=..%2F..%2Fsecret", "/media?granularity=LVLT&key=",
    "/api/sample?granularity=LVLT&key=../LVLT-000000.tar", "/media?granularity=LVLT&key=%00", "/media", "/media/LVLT/",
    "/app.js/../index.html", "/media?granularity=LVLT&key=LVLT-000000.tar", "/browse.css%00.html",
)  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_part_of_an_address_is_opened_as_a_path(site, path):
    answer = site.ask(path)
    assert answer.status == 404
    assert list(answer.content) == ["error"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]", "10.0.0.1"])
def test_a_request_for_another_host_is_refused(site, host):
    for path in ("/", "/api/dataset", f"/media?granularity=LVLT&key={ALPHA.key}"):
        answer = site.ask(path, Host=host)
        assert (answer.status, list(answer.content)) == (421, ["error"])


def test_another_page_may_lead_here_and_have_nothing_asked_for(site):
    """A search of many words costs seconds, and any page could send such addresses to this machine's ports."""
    for path in ("/api/dataset", "/poster", f"/media?granularity=LVLT&key={ALPHA.key}", "/app.js"):
        assert site.ask(path, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert site.ask("/", **{"Sec-Fetch-Site": "cross-site"}).status == 200
    assert site.ask("/api/dataset", **{"Sec-Fetch-Site": "same-origin"}).status == 200


def test_this_machine_may_be_called_by_any_of_its_names_through_any_port(site):
    for host in ("127.0.0.1", "localhost:9", f"LOCALHOST:{site.port}", "[::1]:80"):
        assert site.ask("/api/dataset", Host=host).status == 200


def test_the_name_of_a_host_is_read_without_its_port():
    names = [host_name(header) for header in ("A.b:80", "a", "[::1]:80", "[::1]", "127.0.0.1:0")]
    assert names == ["a.b", "a", "::1", "::1", "127.0.0.1"]


def test_nothing_but_get_and_head_is_answered(site):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert site.ask("/api/dataset", method=method).status == 405
    assert site.ask("/", method="HEAD").status == 200


def test_every_answer_says_what_a_browser_may_do_with_it(site):
    for path in ("/", "/app.js", "/api/dataset", "/nothing", f"/media?granularity=LVLT&key={ALPHA.key}"):
        headers = site.ask(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_the_page_loads_nothing_from_elsewhere(site):
    for name in ("/", "/browse.css", "/app.js", "/dom.js", "/filters.js", "/grid.js", "/losses.js", "/sample.js",
                 "/state.js", "/icon.svg", "/report.css"):  # fmt: skip
        answer = site.ask(name)
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert (answer.status, "://" in text, "innerHTML" in text, "eval(" in text) == (200, False, False, False)


def test_an_unknown_sample_is_not_found(site):
    for kind in ("media", "poster", "api/sample", "api/lineage"):
        answer = site.ask(f"/{kind}?granularity=LVLT&key={'0' * 32}")
        assert (answer.status, "there is no sample" in answer.content["error"]) == (404, True)
        assert site.ask(f"/{kind}?granularity=LVST&key={ALPHA.key}").status == 404


def test_ctrl_c_ends_it_and_leaves_nothing_behind(browse, whole, tmp_path):
    for how in (signal.SIGINT, signal.SIGTERM):
        site = browse(whole, environment={"TMPDIR": str(tmp_path)})
        assert list(tmp_path.iterdir())
        assert site.stop(how) == (0, "")
        assert list(tmp_path.iterdir()) == []


def test_a_browser_in_the_terminal_is_answered_while_it_runs(browse, whole, tmp_path):
    """It was started among the answers: the server waited for its end, and it for the server's answer."""
    text_browser, seen = tmp_path / "text_browser.py", tmp_path / "seen"
    text_browser.write_text(
        "import pathlib, sys, urllib.request\n"
        "answer = urllib.request.urlopen(sys.argv[1], timeout=10)\n"
        "pathlib.Path(sys.argv[2]).write_bytes(answer.read())\n"
    )
    site = browse(
        whole, "--open", environment={"BROWSER": f"{sys.executable} {text_browser} %s {seen}", "NO_PROXY": "*"}
    )
    end_s = time.monotonic() + 20
    while not (seen.exists() and b"</html>" in seen.read_bytes()) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert seen.read_bytes() == site.ask("/").body


def test_a_damaged_receipt_is_noted_and_the_rest_is_shown(browse, output):
    (output / "LVLT" / "LVLT-000000.parquet").write_bytes(b"no table")
    site = browse(output)
    found = site.json("/api/dataset")
    assert found["notes"] == ["LVLT/LVLT-000000.tar: no receipt can be read; its samples are left out"]
    assert site.json("/api/count") == {"num": 7}
    assert "no receipt can be read" in site.stop()[1]


def test_only_one_granularity_is_listed_when_one_is_asked_for(browse, whole):
    site = browse(whole, "--granularity", "LVST")
    assert [item["name"] for item in site.json("/api/dataset")["granularities"]] == ["LVST"]
    assert (site.json("/api/count"), site.json("/api/count", granularity="IT")) == ({"num": 2}, {"num": 0})
    key = site.json("/api/samples")["samples"][0]["key"]
    parents = site.json(f"/api/lineage?granularity=LVST&key={key}")["parents"]
    assert [parent["sample"]["granularity"] for parent in parents] == ["LVLT"]
    assert site.json("/api/losses/counts") == {"counts": []}
    assert site.json("/api/spread", quantity="words")["num"] == 2


def test_it_says_so_when_it_can_be_reached_from_elsewhere(browse, whole):
    site = browse(whole, "--host", "0.0.0.0")
    site.host = "127.0.0.1"
    assert site.ask("/api/dataset", Host="anything.example").status == 200
    code, errors = site.stop()
    assert (code, "anyone who can reach this address can read the whole data set" in errors) == (0, True)


def test_a_port_that_is_taken_is_one_sentence(gex, whole):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = gex("browse", whole, "--port", port)
    assert (done.code, done.err) == (
        1,
        f"gex: cannot listen on '127.0.0.1', port {port}: [Errno 98] Address already in use\n",
    )


def test_wrong_arguments_are_told_before_anything_is_served(gex, whole, tmp_path):
    assert gex("browse", whole, "--port", "70000").code == 2
    assert "has no granularity 'XX'" in gex("browse", whole, "--granularity", "XX").err
    assert "neither an output" in gex("browse", tmp_path / "none").err
    with pytest.raises(GexError, match="cannot listen on 'no such host'"):
        listen("no such host", 0)


def test_an_address_names_what_can_be_opened():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert (is_loopback(listening), address_of(listening, "localhost")) == (True, f"http://localhost:{port}/")
    with listen("0.0.0.0", 0) as listening:
        port = listening.getsockname()[1]
        expected = f"http://{socket.gethostname()}:{port}/"
        assert (is_loopback(listening), address_of(listening, "0.0.0.0")) == (False, expected)


def test_nothing_heavy_is_loaded_to_browse(whole):
    process = subprocess.Popen(
        [sys.executable, "-c", LISTING, json.dumps(HEAVY), "shards", "browse", str(whole)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    address = process.stdout.readline().split(" at ")[1].split()[0]
    port = int(address.rstrip("/").rpartition(":")[2])
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/poster?granularity=LVLT&key={ALPHA.key}")
    assert connection.getresponse().read()[:2] == b"\xff\xd8"
    connection.close()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors.endswith("LOADED []")


def test_a_shard_replaced_while_it_is_browsed_is_told(browse, output):
    site = browse(output)
    (output / "LVLT" / "LVLT-000000.parquet").unlink()
    answer = site.ask(f"/api/sample?granularity=LVLT&key={ALPHA.key}")
    assert (answer.status, "cannot be read" in answer.content["error"]) == (500, True)
    assert site.json("/api/count", granularity="LVLT") == {"num": 2}
    assert damage.tar(output, "LVLT").exists()
