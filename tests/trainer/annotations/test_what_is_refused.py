"""What holds for all readers: the account, links, errors that name file and line."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from tests.trainer.annotations.real_formats import CHARADES_CLASSES, COIN_ENTRY, LVU_HEADER, written
from trainer.annotations import (
    AnnotationError,
    Annotations,
    RetrievalPair,
    Span,
    read_activitynet,
    read_charades_ego,
    read_class_folders,
    read_coin,
    read_how2qa,
    read_lsmdc,
    read_lvu,
    read_msrvtt,
)


def test_media_behind_links_is_found_and_a_circle_of_links_ends(tmp_path, media):
    folder = media("inner/skip.txt")
    elsewhere = tmp_path / "elsewhere"
    written(elsewhere / "video1.mp4", "")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "inner" / "back").symlink_to(folder)
    source = written(tmp_path / "test.csv", "video_id,sentence\nvideo1,one\n")
    assert read_msrvtt(source, folder).rows[0].media == folder / "linked" / "video1.mp4"


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path, media):
    source = written(tmp_path / "test.csv", "\ufeffvideo_id,sentence\nvideo1,one\n")
    assert len(read_msrvtt(source, media("video1.MP4")).rows) == 1


def test_two_files_with_one_id_are_refused_where_it_is_asked_for(tmp_path, media):
    source = written(tmp_path / "test.csv", "video_id,sentence\nvideo1,one\n")
    with pytest.raises(AnnotationError, match=r"'video1' has 2 files, .*keep one of them"):
        read_msrvtt(source, media("a/video1.mp4", "b/video1.webm"))


def test_rows_are_frozen_and_the_account_must_add_up():
    pair = RetrievalPair("a", Path("a.mp4"), ("text",))
    with pytest.raises(FrozenInstanceError):
        pair.video_id = "b"
    with pytest.raises(ValueError, match="2 entries, 1 rows and 0 lacking"):
        Annotations(Path("x"), (pair,), 2)
    with pytest.raises(ValueError, match="0 <= start <= end"):
        Span(2, 1)


def test_many_missing_files_are_counted_and_the_first_named(tmp_path, media):
    source = written(tmp_path / "test.csv", "video_id,sentence\n" + "".join(f"v{n},t\n" for n in range(30)))
    told = read_msrvtt(source, media()).describe(max_names=2)
    assert told.endswith("0 of 30 entries used; 30 without media: v0, v1, …")


READ = {
    "msrvtt": read_msrvtt,
    "activitynet": read_activitynet,
    "lsmdc": read_lsmdc,
    "lvu": read_lvu,
    "how2qa": read_how2qa,
    "coin": lambda path, media: read_coin(path, media, "training"),
}
WRONG = [
    ("msrvtt", "video_id,caption\nv,t\n", "line 1: found the header video_id,caption, expected columns video_id, sent"),
    ("msrvtt", "video_id,sentence\nv,t\nv,t,u\n", "line 3: found 3 fields, expected 2, as in the header"),
    ("msrvtt", "video_id,sentence\n,t\n", "line 2: found no video_id"),
    ("msrvtt", 'video_id,sentence\nv,"t\n', "found broken quotes"),
    ("msrvtt", "", "line 1: found an empty file"),
    ("activitynet", '{\n"v_a": }', "line 2: found no JSON"),
    ("activitynet", "[]", "document: found list, expected a JSON object"),
    ("activitynet", '{"v_a": {"duration": 3}}', "v_a: found no sentences"),
    (
        "activitynet",
        '{"v_a": {"duration": 3, "sentences": "A."}}',
        "v_a.sentences: found A., expected a list of strings",
    ),
    ("activitynet", '{"v_a": {"duration": "x", "sentences": ["A."]}}', "v_a.duration: found 'x', expected a number"),
    ("activitynet", '{"v_a": {"duration": -2, "sentences": ["A."]}}', "v_a.duration: found 0 to -2 s"),
    ("lsmdc", "a\tb\tc\td\te\tf\na\tb\n", "line 2: found 2 fields, expected clip id, four times, sentence"),
    ("lvu", "0 friend yt tt\n", "line 1: found the header '0 friend yt tt'"),
    ("lvu", "view_count youtube_id imdb_id\n5 a tt\n", "regression tasks are not read"),
    ("lvu", LVU_HEADER + "x friend yt tt\n", "line 2: found 'x', expected a whole number"),
    ("lvu", LVU_HEADER + "0 yt tt\n", "line 2: found 3 fields"),
    ("lvu", LVU_HEADER + "0 a yt tt\n0 b yu tt\n", "line 3: found class 0 named b, expected a, as before"),
    ("lvu", LVU_HEADER + "1 a yt tt\n", "found no class 0, expected train.csv, val.csv and test.csv side by side"),
    ("lvu", "\n", "line 1: found an empty file"),
    ("how2qa", "a,[1:2],w,w,w,q,r\nvideo_id,times,a0,a1,a2,question,answer\n", "line 2: found 'times' in the second"),
    ("how2qa", "a,[1:2],w,w,q,r\n", "line 1: found 6 fields, expected 7: .* there is no header"),
    ("how2qa", "a,[1:2],w,,w,q,r\n", "line 1: found a blank field"),
    ("how2qa", "a,[3:2],w,w,w,q,r\n", "line 1: found 3 to 2 s, expected 0 <= start <= end"),
    ("coin", "{}", "document: found no database"),
    ("coin", json.dumps({"database": {"a": COIN_ENTRY | {"subset": "dev"}}}), "a: found subset 'dev'"),
    ("coin", json.dumps({"database": {"a": COIN_ENTRY, "b": COIN_ENTRY | {"class": "X"}}}), "b: found class X for"),
    ("coin", json.dumps({"database": {"a": COIN_ENTRY | {"recipe_type": "r"}}}), "a: found 'r', expected a whole"),
]


@pytest.mark.parametrize(("reader", "content", "message"), WRONG)
def test_a_wrong_format_is_refused_with_file_and_line(tmp_path, media, reader, content, message):
    source = written(tmp_path / "annotations.txt", content)
    with pytest.raises(AnnotationError, match=message) as caught:
        READ[reader](source, media("v_a.mp4", "a.mp4", "v.mp4"))
    assert str(caught.value).startswith(str(source))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("actions", "classes", "message"),
    [
        ("c003 1 2", CHARADES_CLASSES, "line 2: found the action 'c003 1 2', expected a class c000 to c002"),
        ("c001 1", CHARADES_CLASSES, "line 2: found the action 'c001 1'"),
        ("c001 a 2", CHARADES_CLASSES, "line 2: found 'a', expected a number"),
        ("c001 1 2", "c000 A\nc002 B\n", "line 2: found 'c002 B', expected c001 and the name"),
    ],
)
def test_a_wrong_charades_file_is_refused(tmp_path, media, actions, classes, message):
    videos = written(tmp_path / "videos.csv", f"id,actions\nA,{actions}\n")
    with pytest.raises(AnnotationError, match=message):
        read_charades_ego(videos, media("A.mp4"), written(tmp_path / "classes.txt", classes))


def test_msrvtt_captions_in_another_format_are_refused(tmp_path, media):
    videos = written(tmp_path / "train.csv", "video_id\nv\n")
    with pytest.raises(AnnotationError, match=r"sentences\[0\]: found no caption"):
        read_msrvtt(videos, media("v.mp4"), written(tmp_path / "a.json", {"sentences": [{"video_id": "v"}]}))
    with pytest.raises(AnnotationError, match="found videos, expected a list sentences or annotations"):
        read_msrvtt(videos, media("v.mp4"), written(tmp_path / "b.json", {"videos": []}))


def test_files_and_folders_that_are_not_there_or_not_text_are_named(tmp_path, media):
    with pytest.raises(AnnotationError, match=r"none\.csv cannot be read: No such file"):
        read_lsmdc(tmp_path / "none.csv", media())
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"a\tb\tc\td\te\tok\na\tb\tc\td\te\tcaf\xe9\n")
    with pytest.raises(AnnotationError, match=r"latin\.csv, line 2: found byte 0xe9, expected UTF-8"):
        read_lsmdc(latin, media())
    good = written(tmp_path / "good.csv", "a\tb\tc\td\te\tf\n")
    with pytest.raises(AnnotationError, match=r"no folder .*nowhere"):
        read_lsmdc(good, tmp_path / "nowhere")
    with pytest.raises(AnnotationError, match="holds no folder"):
        read_class_folders(media("a.jpg"))
    with pytest.raises(AnnotationError, match=r"no folder .*nowhere"):
        read_class_folders(tmp_path / "nowhere")


def test_class_names_must_name_every_folder_once(tmp_path, media):
    folder = media("n01/a.jpg")
    with pytest.raises(AnnotationError, match="no name for the folder n01"):
        read_class_folders(folder, written(tmp_path / "names.txt", "n02 x\n"))
    with pytest.raises(AnnotationError, match="line 2: found 'n01 y', expected a folder and its name"):
        read_class_folders(folder, written(tmp_path / "names.txt", "n01 x\nn01 y\n"))
