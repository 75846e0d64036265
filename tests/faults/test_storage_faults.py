"""Storage that fails: a store behind a proxy that injects what networks and stores do, and disks that are full.

Each test asserts that the fault happened, and what came of it. The same through whole runs is in
tests/end_to_end/test_storage_faults.py.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gex_pipeline import object_store, storage
from gex_pipeline.errors import FileMissingError, GexError, TransientError
from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import held, read_holder
from gex_pipeline.storage_failures import Kind, explained
from tests.end_to_end.object_store import ObjectStore
from tests.faults.faulty_store import ALWAYS, Fault, FaultyStore
from tests.faults.test_run_lock import HOLD, RACE, process

ROOT = Path(__file__).parents[2]
KEY_ID, SECRET = "AKIAWRONGWRONGWRONG0", "veryverysecretsecretsecretsecretsecret00"
CONTENT = os.urandom(300_000)


@pytest.fixture(scope="module")
def store():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend = ObjectStore()
    backend.make_bucket("bucket")
    proxy = FaultyStore(backend.url)
    yield proxy
    proxy.close()
    backend.close()


@pytest.fixture
def bucket(store, monkeypatch):
    """A bucket with one object, asked with our own patience alone: Arrow's client tries once, and pauses are short."""
    for name, value in {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name, value in {"_TRIES": 1, "_PAUSE_S": 0.01, "_ANSWER_S": 1.0}.items():
        monkeypatch.setattr(object_store, name, value)
    object_store._s3.cache_clear()
    storage.publish_bytes(CONTENT, "s3://bucket/in/x.bin")
    yield "s3://bucket"
    object_store._s3.cache_clear()


# --- what may pass ---------------------------------------------------------------------------------------------------


def read_all(uri, _folder):
    assert storage.read_bytes(uri) == CONTENT


def read_part(uri, _folder):
    with storage.open_read(uri) as stream:
        stream.seek(100_000)
        assert stream.read(100_000) == CONTENT[100_000:200_000]
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == CONTENT[-10:]


def copy_part(uri, folder):
    storage.copy_range(uri, 50_000, 200_000, folder / "part")
    assert (folder / "part").read_bytes() == CONTENT[50_000:250_000]


def copy_all(uri, _folder):
    with storage.local_copy(uri) as path:
        assert path.read_bytes() == CONTENT


def list_all(uri, _folder):
    found = storage.list_files(f"{uri.removesuffix('x.bin')}*.bin")
    assert [(file.uri, file.num_bytes) for file in found] == [(uri, len(CONTENT))]


def ask_size(uri, _folder):
    assert storage.info(uri).num_bytes == len(CONTENT)
    assert storage.exists(uri)


def publish(uri, folder):
    (folder / "new").write_bytes(CONTENT[::-1])
    storage.publish_file(folder / "new", uri.replace("in/", "out/"))
    assert storage.read_bytes(uri.replace("in/", "out/")) == CONTENT[::-1]


READS = [(read_all, "GET"), (read_part, "GET"), (copy_part, "GET"), (copy_all, "GET")]
ALL = [*READS, (list_all, "GET"), (ask_size, "HEAD"), (publish, "PUT")]
FAULTS = {
    "500": Fault("answer", times=4),
    "slow down": Fault("answer", status=503, code="SlowDown", times=4),
    "no answer": Fault("close", times=3),
    "silence": Fault("hang", times=1),
    "cut": Fault("cut", times=3),
    "reset": Fault("reset", times=3),
}
KINDS = {"GET": ("500", "slow down", "no answer", "cut"), "PUT": ("500", "slow down", "no answer", "reset")}
CASES = [(kind, work, method) for work, method in ALL for kind in KINDS.get(method, ("500", "slow down", "no answer"))]
CASES += [("silence", work, method) for work, method in ALL if work not in (read_part, copy_part, copy_all)]


@pytest.mark.parametrize(("kind", "work", "method"), CASES, ids=[f"{kind}-{work.__name__}" for kind, work, _ in CASES])
def test_what_may_pass_is_tried_again_until_it_has(bucket, store, tmp_path, kind, work, method):
    fault = Fault(**{**vars(FAULTS[kind]), "method": method, "paths": []})
    with store.faults(fault):
        work(f"{bucket}/in/x.bin", tmp_path)
    assert fault.num_done == fault.times


def test_arrow_s_own_client_tries_again_too(bucket, store, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "_TRIES", 3)
    monkeypatch.setattr(object_store, "ask", lambda uri, work: work(*object_store.connect(uri)))
    object_store._s3.cache_clear()
    fault = Fault("answer", "GET", times=2)
    with store.faults(fault):
        read_all(f"{bucket}/in/x.bin", tmp_path)
    assert fault.num_done == 2


def test_a_long_file_goes_on_where_it_was_cut(bucket, store, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(object_store, "_BUFFER_BYTES", 50_000)
    fault = Fault("cut", "GET", "in/x.bin", times=2)
    with store.faults(fault) as seen:
        copy_all(f"{bucket}/in/x.bin", tmp_path)
    assert fault.num_done == 2
    assert [method for method, _ in seen].count("GET") == 3 + 2  # not one piece that had come is asked for again


def test_a_piece_that_comes_too_slowly_is_asked_for_again(bucket, store, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "_PIECE_S", 0.5)
    fault = Fault("slow", "GET", times=2, bytes_a_s=20_000)  # 15 s for the file
    with store.faults(fault):
        read_all(f"{bucket}/in/x.bin", tmp_path)
    assert fault.num_done == 2


def test_a_slow_store_that_goes_on_sending_is_waited_for(bucket, store, tmp_path):
    fault = Fault("slow", "GET", times=1, bytes_a_s=150_000)
    with store.faults(fault) as seen:
        copy_part(f"{bucket}/in/x.bin", tmp_path)
    assert fault.num_done == 1
    assert [method for method, _ in seen] == ["HEAD", "GET"]


# --- where patience ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        (read_all, Fault("cut", "GET", times=ALWAYS), r"partial file"),
        (copy_part, Fault("cut", "GET", times=ALWAYS), r"partial file"),
        (copy_all, Fault("answer", "GET", times=ALWAYS), r"INTERNAL_FAILURE"),
        (list_all, Fault("close", "GET", times=ALWAYS), r"did not answer"),
        (ask_size, Fault("answer", "HEAD", times=ALWAYS), r"HTTP status 500"),
        (publish, Fault("reset", "PUT", times=ALWAYS), r"did not answer"),
        (publish, Fault("half", "HEAD", times=ALWAYS), r"150000 bytes are there after uploading 300000"),
        (publish, Fault("answer", "PUT", status=503, code="SlowDown", times=ALWAYS), r"busy.*SLOW_DOWN"),
    ],
)
def test_what_does_not_pass_is_said_with_uri_cause_and_tries(bucket, store, tmp_path, monkeypatch, case):
    work, fault, said = case
    for kind in (Kind.busy, Kind.down):
        monkeypatch.setitem(object_store._PATIENCE_S, kind, 0.2)
    with store.faults(fault), pytest.raises(TransientError) as caught:
        work(f"{bucket}/in/x.bin", tmp_path)
    assert 2 <= fault.num_done < 20
    assert re.search(rf"storage failed for 's3://bucket/(in|out).*'.*{said}.*; given up at try \d+", str(caught.value))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "part").exists(), "half of a file is no file"
    assert storage.list_files(f"{bucket}/out/gone*") == []


def test_a_busy_store_gets_more_patience_than_a_silent_one(bucket, store, tmp_path, monkeypatch):
    monkeypatch.setitem(object_store._PATIENCE_S, Kind.down, 0)
    busy = Fault("answer", "GET", status=503, code="SlowDown", times=6)
    with store.faults(busy):
        list_all(f"{bucket}/in/x.bin", tmp_path)
    assert busy.num_done == 6
    with store.faults(Fault("close", "GET", times=8)), pytest.raises(TransientError, match="given up at try 1"):
        list_all(f"{bucket}/in/x.bin", tmp_path)


@pytest.mark.parametrize("num_bytes", [1000, 12_000_000])  # in one request, in three parts
def test_an_upload_that_fails_leaves_what_was_there_before(bucket, store, tmp_path, monkeypatch, num_bytes):
    """Once a failed upload was taken for a torn one and the old file, a manifest for instance, deleted."""
    for kind in (Kind.busy, Kind.down):
        monkeypatch.setitem(object_store._PATIENCE_S, kind, 0)
    uri = f"{bucket}/out/dataset.json"
    storage.publish_bytes(b"old", uri)
    (tmp_path / "new").write_bytes(b"n" * num_bytes)
    fault = Fault("answer", "PUT", part="partNumber=2" if num_bytes > 10_000_000 else "", times=ALWAYS)
    with store.faults(fault) as seen, pytest.raises(TransientError, match=r"out/dataset\.json"):
        storage.publish_file(tmp_path / "new", uri)
    assert fault.num_done
    assert "DELETE" not in {method for method, _ in seen}
    assert storage.read_bytes(uri) == b"old"


# --- what a person has to mend ---------------------------------------------------------------------------------------

REFUSALS = {
    "AccessDenied": (403, r"the store denies access; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may"),
    "InvalidAccessKeyId": (403, r"the store does not know the access key; check AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, r"the secret key is not that of the access key; check AWS_SECRET_ACCESS_KEY"),
    "ExpiredToken": (400, r"the credentials have expired; renew them"),
    "InvalidToken": (400, r"the session token is not valid; renew AWS_SESSION_TOKEN"),
    "PermanentRedirect": (301, r"in another region or at another address; check AWS_REGION and AWS_ENDPOINT_URL"),
    "XMinioStorageFull": (507, r"the store has no space left; make room"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_one_sentence_at_once_without_secrets(bucket, store, tmp_path, code):
    status, said = REFUSALS[code]
    fault = Fault("answer", status=status, code=code, text=f"for {KEY_ID} and {SECRET}", times=ALWAYS)
    for work, _ in ALL:
        with store.faults(fault) as seen, pytest.raises(GexError, match=said) as caught:
            work(f"{bucket}/in/x.bin", tmp_path)
        assert not caught.value.transient
        assert re.match(r"storage failed for 's3://bucket/(in|out)/?(x.bin)?': ", str(caught.value))
        assert KEY_ID not in str(caught.value)
        assert SECRET not in str(caught.value)
        assert len(seen) <= 2, "the request, and one that finds out why"


def test_a_missing_bucket_is_not_taken_for_a_missing_file(bucket, tmp_path):
    """A typing error in the bucket of the clips once was thousands of clips rejected as missing."""
    for work, _ in ALL:
        with pytest.raises(GexError, match=r"the bucket does not exist; create it, or correct its name") as caught:
            work("s3://nobodys-bucket/in/x.bin", tmp_path)
        assert not isinstance(caught.value, FileMissingError)
        assert not caught.value.transient
        assert "s3://nobodys-bucket" in str(caught.value)
    with pytest.raises(FileMissingError, match=r"'s3://bucket/in/none' does not exist"):
        storage.read_bytes(f"{bucket}/in/none")


def test_without_credentials_the_sentence_says_so(bucket, store, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    fault = Fault("answer", status=403, code="AccessDenied", times=ALWAYS)
    with store.faults(fault), pytest.raises(GexError, match=r"denies access and AWS_ACCESS_KEY_ID is not set; set it"):
        storage.list_files(f"{bucket}/in/*")


def test_credentials_in_a_uri_are_refused_and_not_repeated():
    """The recipe is stored with the output, so they would be published."""
    for secret in (SECRET, f"12/{SECRET}"):
        with pytest.raises(GexError, match=r"'s3://bucket/x' is given with credentials") as caught:
            storage.list_files(f"s3://{KEY_ID}:{secret}@bucket/x")
        assert KEY_ID not in str(caught.value)
        assert SECRET not in str(caught.value)


# --- two runs over one output in a store -----------------------------------------------------------------------------


def test_of_two_runs_over_one_store_one_works_and_the_other_says_who_holds_it(bucket, tmp_path):
    layout = Layout(f"{bucket}/held")
    other = process(HOLD, layout.output_uri)
    try:
        with pytest.raises(GexError, match=rf"is held by process {other.pid} on .*Wait until that run ends"):
            held(layout, "mine").__enter__()
        other.kill()
        other.communicate()
        with held(layout, "mine") as lease:  # of one that died
            assert read_holder(layout).pid == os.getpid()
            lease.check()
    finally:
        other.kill()
        other.communicate()
    assert storage.list_files(f"{bucket}/held/*") == []


def test_of_runs_that_start_at_once_over_one_store_one_goes_on(bucket):
    uri = f"{bucket}/race"
    racers = [process(RACE, uri) for _ in range(3)]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    ends = sorted(racer.communicate(timeout=30)[0] for racer in racers)
    assert [line.split()[0] for line in ends] == ["lost", "lost", "won"]
    assert all("is held by" in line for line in ends[:2])
    assert storage.list_files(f"{uri}/*") == []


# --- disks -----------------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from pathlib import Path
from gex_pipeline import claims, storage
from gex_pipeline.errors import GexError
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
for work in (
    lambda: storage.publish_bytes(b"n" * 20_000, f"{folder}/out/LVLT-000000.tar"),
    lambda: storage.publish_file(Path("/proc/self/exe"), f"{folder}/out/LVLT-000001.tar"),
    lambda: claims.create_bytes(b"n" * 20_000, f"{folder}/out/run.lock"),
    lambda: storage.copy_range(f"{folder}/source", 0, 20_000, folder / "part"),
):
    try:
        work()
    except GexError as error:
        print(error.transient, error)
"""


def test_a_disk_that_takes_no_more_leaves_what_was_there_and_nothing_half_made(tmp_path):
    storage.publish_bytes(b"old", f"{tmp_path}/out/LVLT-000000.tar")
    (tmp_path / "source").write_bytes(b"s" * 20_000)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stdout + done.stderr
    for line, name in zip(lines, ("out/LVLT-000000.tar", "out/LVLT-000001.tar", "out/run.lock", "part"), strict=True):
        assert line.startswith(f"False storage failed for '{tmp_path}/{name}': the file is larger than a limit allows")
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["out/LVLT-000000.tar", "source"]
    assert (tmp_path / "out/LVLT-000000.tar").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("code", "said", "transient"),
    [
        (errno.ENOSPC, "no space is left on this disk; make room", False),
        (errno.EDQUOT, "the disk quota is used up; make room", False),
        (errno.EROFS, "the file system is read-only; mount it for writing", False),
        (errno.EACCES, "permission denied; change the rights", False),
        (errno.EIO, "Input/output error", False),
        (errno.ESTALE, "file handle", True),
    ],
)
def test_every_failure_of_a_disk_has_its_sentence(code, said, transient):
    with pytest.raises(GexError, match=rf"storage failed for '/out': .*{said}") as caught, explained("/out"):
        raise OSError(code, os.strerror(code))
    assert caught.value.transient is transient
