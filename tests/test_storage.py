"""Local files for real, and an object store for real: moto's S3 server on loopback, through Arrow's client."""

from __future__ import annotations

import errno
import os
import urllib.request
from pathlib import Path

import pytest

from gex_pipeline import object_store, storage
from gex_pipeline.errors import FileMissingError, GexError, TransientError
from gex_pipeline.storage_failures import Kind, one_line


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- local -----------------------------------------------------------------------------------------------------------


def test_published_bytes_can_be_read_again_and_leave_nothing_beside_them(tmp_path):
    uri = f"{tmp_path}/a/b/file.bin"
    storage.publish_bytes(b"one", uri)
    storage.publish_bytes(b"two!", uri)
    assert storage.read_bytes(uri) == b"two!"
    assert names(tmp_path) == ["a/b/file.bin"]
    assert storage.info(uri).num_bytes == 4


def test_a_published_file_is_whole_and_its_local_original_stays(tmp_path):
    local = tmp_path / "local.tar"
    local.write_bytes(os.urandom(3_000_000))
    storage.publish_file(local, f"{tmp_path}/out/x.tar")
    assert (tmp_path / "out/x.tar").read_bytes() == local.read_bytes()
    assert names(tmp_path) == ["local.tar", "out/x.tar"]


def test_a_publication_that_fails_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    uri = f"{tmp_path}/out/x.bin"
    storage.publish_bytes(b"old", uri)
    with pytest.raises(FileMissingError):
        storage.publish_file(tmp_path / "gone", uri)
    (tmp_path / "folder/x").mkdir(parents=True)
    with pytest.raises(GexError, match=r"storage failed for .*folder"):
        storage.publish_bytes(b"new", f"{tmp_path}/folder/x")
    assert storage.read_bytes(uri) == b"old"
    assert names(tmp_path) == ["out/x.bin"]


def test_a_publication_killed_before_the_rename_leaves_no_file_that_a_glob_finds(tmp_path, monkeypatch):
    def die(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        storage.publish_bytes(b"new", f"{tmp_path}/x.parquet")
    assert storage.list_files(f"{tmp_path}/*.parquet") == []


def test_a_place_that_is_a_file_is_no_place_to_write(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GexError, match=r"cannot write to .*file'"):
        storage.check_writable(f"{tmp_path}/file")


def test_the_check_of_a_place_leaves_nothing_there(tmp_path):
    storage.check_writable(f"{tmp_path}/new")
    assert names(tmp_path) == []


def test_a_missing_file_is_said_by_name(tmp_path):
    uri = f"{tmp_path}/none"
    with pytest.raises(FileMissingError, match=r"none' does not exist"):
        storage.read_bytes(uri)
    assert storage.info(uri) is None
    assert not storage.exists(uri)
    assert not storage.exists(str(tmp_path)), "a folder is no file"
    storage.remove(uri)


def test_a_path_through_a_file_is_no_file(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for uri in (f"{tmp_path}/file/below", f"{tmp_path}/a\0b"):
        assert storage.info(uri) is None
    storage.remove(f"{tmp_path}/file/below")
    os.mkfifo(tmp_path / "pipe")
    assert storage.info(f"{tmp_path}/pipe") is None


def test_a_file_of_which_nothing_can_be_told_is_one_sentence(tmp_path):
    """Sizes and removals raised what the disk said, a traceback where reading the same file was a sentence."""
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name, why in (("x" * 300, "File name too long"), ("round/x", "Too many levels of symbolic links")):
        uri = f"{tmp_path}/{name}"
        for work in (storage.info, storage.exists, storage.remove, storage.read_bytes, storage.list_files):
            with pytest.raises(GexError, match=rf"storage failed for .*{why}") as caught:
                work(uri)
            assert not caught.value.transient
    (tmp_path / "folder").mkdir()
    with pytest.raises(GexError, match=r"storage failed for .*folder': "):
        storage.remove(f"{tmp_path}/folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_looked_into_is_one_sentence(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x").write_bytes(b"x")
    (tmp_path / "folder").chmod(0)
    try:
        for work in (storage.info, storage.remove, storage.read_bytes):
            with pytest.raises(GexError, match=r"folder/x': permission denied; change the rights"):
                work(f"{tmp_path}/folder/x")
    finally:
        (tmp_path / "folder").chmod(0o700)


@pytest.mark.parametrize("name", ["stat", "unlink"])
def test_a_network_disk_that_does_not_answer_just_now_may_answer_later(tmp_path, monkeypatch, name):
    def hang(self, **_):
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(Path, name, hang)
    with pytest.raises(TransientError, match=r"storage failed for .*x': .*timed out"):
        {"stat": storage.info, "unlink": storage.remove}[name](f"{tmp_path}/x")


def test_globs_match_part_by_part_in_order(tmp_path):
    for name in ("a/1.csv", "a/2.csv", "a/10.csv", "b/1.csv", "a/x/1.csv", "a/1.txt", "c[1]/1.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def found(pattern):
        return [file.uri.removeprefix(f"{tmp_path}/") for file in storage.list_files(f"{tmp_path}/{pattern}")]

    assert found("a/*.csv") == ["a/1.csv", "a/10.csv", "a/2.csv"]
    assert found("*/1.csv") == ["a/1.csv", "b/1.csv", "c[1]/1.csv"]
    assert found("[ab]/?.csv") == ["a/1.csv", "a/2.csv", "b/1.csv"]
    assert found("a/*/*.csv") == ["a/x/1.csv"]
    assert found("a/1.csv") == ["a/1.csv"]
    assert found("none/*.csv") == []
    assert found("a/none.csv") == []


TREE = (
    "x.csv",
    "en/x.csv",
    "en/a/x.csv",
    "en/a/y.txt",
    "en/.x.csv",
    ".git/x.csv",
    "en/.old/x.csv",
    "._x.csv",
    "z/b/x.csv",
)
FOUND = {
    "**/*.csv": ["en/a/x.csv", "en/x.csv", "x.csv", "z/b/x.csv"],
    "**/x.csv": ["en/a/x.csv", "en/x.csv", "x.csv", "z/b/x.csv"],
    "en/**/x.csv": ["en/a/x.csv", "en/x.csv"],
    "**/a/*": ["en/a/x.csv", "en/a/y.txt"],
    "**/[ab]/**/x.csv": ["en/a/x.csv", "z/b/x.csv"],
    "**/**/x.csv": ["en/a/x.csv", "en/x.csv", "x.csv", "z/b/x.csv"],
    "en/**": ["en/a/x.csv", "en/a/y.txt", "en/x.csv"],
    "**": ["en/a/x.csv", "en/a/y.txt", "en/x.csv", "x.csv", "z/b/x.csv"],
    "*.csv": ["x.csv"],
    "en*x.csv": [],
    "en?x.csv": [],
    "*/x.csv": ["en/x.csv"],
    ".*.csv": ["._x.csv"],
    "**/.*.csv": ["._x.csv", "en/.x.csv"],
    ".git/*.csv": [".git/x.csv"],
    "*/.old/*.csv": ["en/.old/x.csv"],
    "[.]git/*.csv": [],
}


def found_in(root: str, pattern: str) -> list[str]:
    return [file.uri.removeprefix(f"{root}/") for file in storage.list_files(f"{root}/{pattern}")]


@pytest.mark.parametrize("pattern", FOUND)
def test_two_stars_are_any_number_of_folders_and_dots_must_be_asked_for(tmp_path, pattern):
    """Two stars were taken for one: the metadata of one level only were read, and every account balanced."""
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert found_in(str(tmp_path), pattern) == FOUND[pattern]


@pytest.mark.parametrize("pattern", ["**.csv", "a**/x.csv", "***/x.csv"])
def test_two_stars_beside_other_characters_are_an_error_and_not_one_star(tmp_path, pattern):
    with pytest.raises(GexError, match=r"\*\* stands for folders, and must be between slashes"):
        storage.list_files(f"{tmp_path}/{pattern}")


def test_two_stars_follow_links_to_folders_and_go_in_no_circle(tmp_path):
    (tmp_path / "there/deep").mkdir(parents=True)
    (tmp_path / "there/deep/x.csv").write_bytes(b"x")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path / "there")
    (tmp_path / "there/deep/round").symlink_to(tmp_path / "there")
    (tmp_path / "here/dead").symlink_to(tmp_path / "nowhere")
    assert found_in(str(tmp_path), "here/**/*.csv") == ["here/link/deep/x.csv"]


def test_two_stars_work_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a/b").mkdir(parents=True)
    Path("a/b/1.csv").write_bytes(b"")
    Path("2.csv").write_bytes(b"")
    assert [file.uri for file in storage.list_files("**/*.csv")] == ["2.csv", "a/b/1.csv"]


def test_a_folder_whose_name_has_brackets_can_be_named_as_it_is(tmp_path):
    """Without it, an output in a folder like `run [2]` would never find its own tables again."""
    folder = tmp_path / "run [2]"
    storage.publish_bytes(b"x", f"{folder}/tables/plan-000000.parquet")
    assert [file.uri for file in storage.list_files(f"{folder}/tables/*-000000.parquet")] == [
        f"{folder}/tables/plan-000000.parquet"
    ]
    assert storage.list_files(f"{folder}/tables/plan-000000.parquet")


def test_globs_work_from_the_current_folder_and_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x").mkdir()
    Path("x/1.csv").write_bytes(b"")
    Path("2.csv").write_bytes(b"")
    assert [Path(file.uri).name for file in storage.list_files("*.csv")] == ["2.csv"]
    assert [Path(file.uri).name for file in storage.list_files("x/*.csv")] == ["1.csv"]


@pytest.mark.parametrize("part", ["/etc/passwd", "../x", "a/../../x", "a/..", "x\0y"])
def test_a_path_that_leads_out_is_refused(part):
    with pytest.raises(GexError, match=r"leads out of"):
        storage.join("s3://bucket/out", "tables", part)


def test_paths_are_joined_with_one_slash():
    assert storage.join("s3://bucket/out/", "a", "b.tar") == "s3://bucket/out/a/b.tar"
    assert storage.join("/data", "..a", "b..c") == "/data/..a/b..c"
    assert storage.name_of("s3://bucket/a/b.tar") == "b.tar"


def test_local_and_remote_are_told_apart():
    assert storage.is_local("/a/b") and storage.is_local("a:b") and storage.is_local("file:///a")
    assert not storage.is_local("s3://b/x") and not storage.is_local("gs://b")
    assert storage.local_path("file:///a/b") == Path("/a/b")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://anonymous@b/x?endpoint_override=h&scheme=http", "b/x?endpoint_override=h&scheme=http"),
        ("gs://anonymous@b/a%2f..%2fb c#d", "b/a%2f..%2fb c#d"),
        ("gs://anonymous@b", "b"),
        ("abfs://c@account.dfs.core.windows.net/x?enable_tls=false", "c/x?enable_tls=false"),
        ("abfs://account.blob.core.windows.net/c/x", "c/x"),
    ],
)
def test_what_an_id_says_in_a_path_sets_nothing_of_the_store(uri, path):
    """Arrow took it for settings, and sent the token of the run to the address that the id named."""
    assert object_store.connect(uri)[1] == path


def test_settings_behind_the_name_of_a_bucket_are_refused():
    with pytest.raises(GexError, match=r"settings of a store belong into the environment"):
        object_store.connect("gs://b?endpoint_override=h/x")


def test_a_range_is_copied_and_one_past_the_end_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(100)))
    storage.copy_range(f"{tmp_path}/x", 10, 5, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == bytes(range(10, 15))
    storage.copy_range(f"{tmp_path}/x", 100, 0, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == b""
    with pytest.raises(GexError, match=r"ends 5 bytes before the range 95\+10 does"):
        storage.copy_range(f"{tmp_path}/x", 95, 10, tmp_path / "part")
    assert not (tmp_path / "part").exists()  # half of it would be taken for a file
    for offset, size in ((-1, 5), (10, -5)):  # of a receipt that anyone wrote; -5 bytes were the whole rest
        with pytest.raises(GexError, match=rf"{offset}\+{size} is no range of bytes of"):
            storage.read_range(f"{tmp_path}/x", offset, size)


def test_a_local_file_is_used_where_it_lies(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    with storage.local_copy(f"{tmp_path}/x") as path:
        assert path == tmp_path / "x"
    assert (tmp_path / "x").exists()


# --- object store ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_server():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """An empty bucket, reached as a user reaches any store of this kind: by the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    _ask(f"{s3_server}/moto-api/reset", b"")
    _ask(f"{s3_server}/bucket", b"", "PUT")
    return "s3://bucket"


def _ask(url: str, data: bytes, method: str = "POST") -> None:
    headers = {"Content-Type": "text/plain"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
        assert answer.status == 200


def test_an_object_is_published_read_and_removed(bucket, tmp_path):
    uri = f"{bucket}/out/LVLT/x.tar"
    content = os.urandom(6_000_000)  # more than one part of an upload
    (tmp_path / "x").write_bytes(content)
    storage.publish_file(tmp_path / "x", uri)
    assert storage.read_bytes(uri) == content
    assert storage.info(uri).num_bytes == len(content)
    assert storage.info(uri).modified_s > 1e9
    storage.publish_bytes(b"new", uri)
    assert storage.read_bytes(uri) == b"new"
    storage.remove(uri)
    storage.remove(uri)
    assert not storage.exists(uri)


def test_a_range_of_an_object_is_copied(bucket, tmp_path):
    storage.publish_bytes(bytes(range(200)), f"{bucket}/a.tar")
    storage.copy_range(f"{bucket}/a.tar", 50, 7, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == bytes(range(50, 57))
    with pytest.raises(GexError, match=r"ends 10 bytes before"):
        storage.copy_range(f"{bucket}/a.tar", 190, 20, tmp_path / "part")


def test_objects_are_listed_like_files(bucket):
    for name in ("a/1.csv", "a/2.csv", "a/x/1.csv", "b/1.csv", "3.csv"):
        storage.publish_bytes(b"x", f"{bucket}/{name}")

    def found(pattern):
        return [file.uri.removeprefix(f"{bucket}/") for file in storage.list_files(f"{bucket}/{pattern}")]

    assert found("a/*.csv") == ["a/1.csv", "a/2.csv"]
    assert found("*/1.csv") == ["a/1.csv", "b/1.csv"]
    assert found("*.csv") == ["3.csv"]
    assert found("a/1.csv") == ["a/1.csv"]
    assert found("none/*.csv") == []


def test_objects_are_found_by_the_same_patterns_as_files(bucket):
    for name in TREE:
        storage.publish_bytes(b"x", f"{bucket}/{name}")
    assert {pattern: found_in(bucket, pattern) for pattern in FOUND} == FOUND


def test_an_object_is_copied_for_as_long_as_it_is_needed(bucket):
    storage.publish_bytes(b"video", f"{bucket}/clips/x.mp4")
    with storage.local_copy(f"{bucket}/clips/x.mp4") as path:
        assert (path.name, path.read_bytes()) == ("x.mp4", b"video")
    assert not path.exists()


def test_a_missing_object_is_said_by_name(bucket):
    with pytest.raises(FileMissingError, match=r"'s3://bucket/none' does not exist"):
        storage.read_bytes(f"{bucket}/none")


def test_a_missing_bucket_is_one_clear_sentence_and_not_worth_another_try(bucket):
    with pytest.raises(
        GexError, match=r"^cannot write to 's3://none/out': the bucket does not exist; create it"
    ) as caught:
        storage.check_writable("s3://none/out")
    assert not caught.value.transient
    with pytest.raises(GexError, match=r"storage failed for 's3://none/x': the bucket does not exist"):
        storage.publish_bytes(b"x", "s3://none/x")


def test_a_bucket_that_can_be_written_passes_the_check_and_keeps_nothing_of_it(bucket):
    storage.check_writable(f"{bucket}/out")
    assert storage.list_files(f"{bucket}/out/*") == []


def test_wrong_credentials_are_one_sentence_and_not_worth_another_try(bucket, s3_server):
    _ask(f"{s3_server}/moto-api/reset-auth", b"0")  # from here on the server checks who asks
    try:
        for work in (
            lambda: storage.check_writable(f"{bucket}/out"),
            lambda: storage.read_bytes(f"{bucket}/x"),
            lambda: storage.list_files(f"{bucket}/*"),
        ):
            with pytest.raises(GexError, match=r"(?i)access|credential|key|denied") as caught:
                work()
            assert not caught.value.transient, caught.value
            assert "\n" not in str(caught.value)
    finally:
        _ask(f"{s3_server}/moto-api/reset-auth", b"Infinity")


def test_a_store_that_does_not_answer_may_answer_later(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setitem(object_store._PATIENCE_S, Kind.down, 0)
    with pytest.raises(
        TransientError, match=r"storage failed for 's3://bucket/x': the store did not answer; .*given up at try 1"
    ):
        storage.read_bytes(f"{bucket}/x")


def test_a_scheme_that_nobody_knows_is_refused():
    with pytest.raises(GexError, match=r"cannot reach 'ftp://host/x'"):
        storage.read_bytes("ftp://host/x")


def test_an_upload_whose_source_cannot_be_read_publishes_nothing(bucket):
    """Closing Arrow's stream completes the upload, so a read error half way must not end in a close."""
    with pytest.raises(GexError, match=r"the local file for 's3://bucket/x.tar' cannot be read: .*Input/output error"):
        storage.publish_file(Path("/proc/self/mem"), f"{bucket}/x.tar")
    assert not storage.exists(f"{bucket}/x.tar")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_no_sentence_holds_a_credential_of_the_environment(monkeypatch, name):
    monkeypatch.setenv(name, "abcdefgh12345678")
    said = one_line(OSError("GET with\nabcdefgh12345678 failed"))
    assert said == f"GET with <{name}> failed"
