"""Readers on small files written in the exact format of the real ones: separators, headers, columns, odd rows."""

from __future__ import annotations

import pytest

from tests.trainer.annotations.real_formats import CHARADES_CLASSES, COIN_ENTRY, LVU_HEADER, written
from trainer.annotations import (
    AnnotationError,
    Lack,
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

# MSR-VTT


def test_msrvtt_1ka_test_has_a_caption_in_each_row(tmp_path, media):
    test = written(
        tmp_path / "MSRVTT_JSFUSION_test.csv",
        "key,vid_key,video_id,sentence\n"
        "ret0,msr9770,video9770,a person is connecting something to system\n"
        'ret1,msr7020,video7020,"a man, then a woman, sing"\n'
        "ret2,msr9771,video9771,a little girl does gymnastics\n",
    )
    found = read_msrvtt(test, media("video9770.mp4", "video7020.mp4", "video7026.mp4"))
    assert [(row.video_id, row.media.name, row.texts, row.span) for row in found.rows] == [
        ("video9770", "video9770.mp4", ("a person is connecting something to system",), None),
        ("video7020", "video7020.mp4", ("a man, then a woman, sing",), None),
    ]
    assert found.num_entries == 3
    assert found.lacking == {Lack.media: ("video9771",)}
    assert found.describe().endswith("2 of 3 entries used; 1 without media: video9771")


def test_msrvtt_rows_of_one_video_are_captions_of_it(tmp_path, media):
    test = written(tmp_path / "test.csv", "video_id,sentence\nvideo1,a car\nvideo2,a dog\nvideo1,a red car\n")
    found = read_msrvtt(test, media("video1.mp4", "video2.mp4"))
    assert [(row.video_id, row.texts) for row in found.rows] == [
        ("video1", ("a car", "a red car")),
        ("video2", ("a dog",)),
    ]


MSRVTT_SENTENCES = [("video0", "a car"), ("video1", "b"), ("video0", " a red car "), ("video0", " "), ("video3", "d")]


@pytest.mark.parametrize(
    "document",
    [
        {
            "info": {"year": "2016"},
            "videos": [{"video_id": "video0", "split": "train"}],
            "sentences": [
                {"caption": text, "video_id": v, "sen_id": n} for n, (v, text) in enumerate(MSRVTT_SENTENCES)
            ],
        },
        {"annotations": [{"image_id": v, "caption": text} for v, text in MSRVTT_SENTENCES]},
    ],
    ids=["MSRVTT_data.json", "MSR_VTT.json"],
)
def test_msrvtt_9k_train_takes_all_captions_of_the_listed_videos(tmp_path, media, document):
    train = written(tmp_path / "MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo1\nvideo2\n")
    captions = written(tmp_path / "captions.json", document)
    found = read_msrvtt(train, media("video0.mp4", "video2.mp4", "video3.mp4"), captions)
    assert [(row.video_id, row.texts) for row in found.rows] == [("video0", ("a car", "a red car"))]
    assert found.lacking == {Lack.media: ("video1",), Lack.text: ("video2",)}
    assert found.num_blank_texts == 1
    assert "1 blank captions left out" in found.describe()


# ActivityNet Captions

ACTIVITYNET = {
    "v_QOlSCBRmfWY": {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17.37, 60.81]],
        "sentences": ["A young woman is seen standing in a room.", " She dances around the room."],
    },
    "v_ehGHCYKzyZ8": {"duration": 61.0, "timestamps": [[1, 2]], "sentences": ["He skis."]},
    "v_gone": {"duration": 3, "timestamps": [[1, 2]], "sentences": ["Gone from the web."]},
}


def test_activitynet_joins_the_sentences_and_finds_files_with_and_without_the_prefix(tmp_path, media):
    source = written(tmp_path / "val_1.json", ACTIVITYNET)
    found = read_activitynet(source, media("QOlSCBRmfWY.mp4", "v_ehGHCYKzyZ8.mkv"))
    paragraph = "A young woman is seen standing in a room. She dances around the room."
    assert found.rows[0].texts == (paragraph,)
    assert found.rows[0].span == Span(0, 83)
    assert [(row.video_id, row.media.name) for row in found.rows] == [
        ("QOlSCBRmfWY", "QOlSCBRmfWY.mp4"),
        ("ehGHCYKzyZ8", "v_ehGHCYKzyZ8.mkv"),
    ]
    assert found.rows[1].span == Span(0, 61)
    assert found.lacking == {Lack.media: ("gone",)}


def test_activitynet_ids_choose_and_an_id_without_captions_is_named(tmp_path, media):
    source = written(tmp_path / "train.json", ACTIVITYNET)
    ids = written(tmp_path / "train_ids.json", ["v_ehGHCYKzyZ8", "v_uncaptioned"])
    found = read_activitynet(source, media("ehGHCYKzyZ8.mp4", "QOlSCBRmfWY.mp4"), ids)
    assert [row.video_id for row in found.rows] == ["ehGHCYKzyZ8"]
    assert found.lacking == {Lack.text: ("uncaptioned",)}


# LSMDC

LSMDC_CLIP = "3009_BATTLE_LOS_ANGELES_00.03.07.170-00.03.09.675"
LSMDC_TIMES = "00.03.07.170\t00.03.09.675\t00.03.07.170\t00.03.09.675"


def test_lsmdc_ids_hold_dots_and_lie_in_a_folder_a_movie(tmp_path, media):
    other = "1012_Unbreakable_00.05.16.065-00.05.21.941"
    source = written(
        tmp_path / "LSMDC16_challenge_1000_publictect.csv",
        f'{LSMDC_CLIP}\t{LSMDC_TIMES}\tSOMEONE says "no, sir\r\n{other}\t{LSMDC_TIMES}\tHe sits up.\r\n',
    )
    movie = "3009_BATTLE_LOS_ANGELES"
    found = read_lsmdc(source, media(f"{movie}/{LSMDC_CLIP}.avi", f"{movie}/{LSMDC_CLIP[:-4]}.avi"))
    assert [(row.video_id, row.media.name, row.texts) for row in found.rows] == [
        (LSMDC_CLIP, f"{LSMDC_CLIP}.avi", ('SOMEONE says "no, sir',))
    ]
    assert found.lacking == {Lack.media: (other,)}


def test_lsmdc_first_line_is_no_header_and_a_clip_may_have_several_captions(tmp_path, media):
    source = written(
        tmp_path / "LSMDC16_annos_training.csv",
        f"{LSMDC_CLIP}\t{LSMDC_TIMES}\tfirst\nb.0\t{LSMDC_TIMES}\tother\n{LSMDC_CLIP}\t{LSMDC_TIMES}\tsecond\n",
    )
    found = read_lsmdc(source, media(f"{LSMDC_CLIP}.avi", "b.0.avi"))
    assert [row.texts for row in found.rows] == [("first", "second"), ("other",)]
    assert found.num_entries == 2


# LVU


def test_lvu_classes_are_those_of_all_splits(tmp_path, media):
    folder = tmp_path / "lvu_1.0" / "relationship"
    written(folder / "train.csv", LVU_HEADER + "0 friend AAAAAAAAAAA tt0000001\n2 wife_husband BBBBBBBBBBB tt0000002\n")
    written(folder / "val.csv", LVU_HEADER + "1 boyfriend_girlfriend CCCCCCCCCCC tt0000003\n")
    test = written(folder / "test.csv", LVU_HEADER + "2 wife_husband -D_DDDDDDDD tt0000004\n0 friend gone tt0000005\n")
    found = read_lvu(test, media("-D_DDDDDDDD.mp4"))
    assert [(row.video_id, row.labels, row.span) for row in found.rows] == [("-D_DDDDDDDD", (2,), None)]
    assert found.class_names == ("friend", "boyfriend_girlfriend", "wife_husband")
    assert found.lacking == {Lack.media: ("gone",)}


def test_lvu_classes_are_numbered_without_the_gaps_of_their_ids(tmp_path, media):
    """Director and writer, as they are published, skip ids in all of their files; both were refused."""
    folder = tmp_path / "lvu_1.0" / "director"
    written(folder / "train.csv", LVU_HEADER + "0 ron_howard A tt1\n9 quentin_tarantino B tt2\n4 peter_jackson C tt3\n")
    written(folder / "val.csv", LVU_HEADER + "1 martin_scorsese D tt4\n")
    test = written(folder / "test.csv", LVU_HEADER + "9 quentin_tarantino E tt5\n4 peter_jackson F tt6\n")
    found = read_lvu(test, media("E.mp4", "F.mp4"))
    assert found.class_names == ("ron_howard", "martin_scorsese", "peter_jackson", "quentin_tarantino")
    assert [(row.video_id, row.labels) for row in found.rows] == [("E", (3,)), ("F", (2,))]
    (folder / "val.csv").unlink()
    with pytest.raises(AnnotationError, match=r"no class 1, expected train\.csv, val\.csv and test.csv side by side"):
        read_lvu(test, media("E.mp4", "F.mp4"))


# COIN

COIN = {
    "LtRSn-ntcLY": COIN_ENTRY,
    "testedvideo": COIN_ENTRY | {"class": "ChangeCarTire", "recipe_type": 13, "subset": "testing"},
    "validated__": COIN_ENTRY | {"subset": "validation"},
}


@pytest.mark.parametrize("subset", ["testing", "validation"])
def test_coin_takes_both_names_of_the_subset_that_is_tested_on(tmp_path, media, subset):
    source = written(tmp_path / "COIN.json", {"database": COIN})
    found = read_coin(source, media("testedvideo.mp4", "validated__.webm", "LtRSn-ntcLY.mp4"), subset)
    assert [(row.video_id, row.labels) for row in found.rows] == [("testedvideo", (0,)), ("validated__", (1,))]
    assert found.class_names == ("ChangeCarTire", "ReplaceCDDriveWithSSD")
    assert [row.span for row in found.rows] == [None, None]
    trimmed = read_coin(source, media("testedvideo.mp4"), subset, trim=True)
    assert trimmed.rows[0].span == Span(56.640895694775196, 85.714362947023)


def test_coin_training_videos_without_media_are_named(tmp_path, media):
    source = written(tmp_path / "COIN.json", {"database": COIN})
    found = read_coin(source, media(), "training")
    assert (found.rows, found.num_entries, found.lacking) == ((), 1, {Lack.media: ("LtRSn-ntcLY",)})


# Charades-Ego

CHARADES_HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
CHARADES_ROWS = (
    '005BUEGO,XB2S,Bedroom,6,7,Yes,"A man, dressed.",bed,A man.,c002 11.90 21.20;c000 0.00 12.60;c002 1 2,30.1\n'
    "00ZCAEGO,XB2S,Kitchen,6,7,Yes,Nothing.,,None.,,12.0\n"
    "GONEEEGO,XB2S,Kitchen,6,7,Yes,Nothing.,,None.,c001 3.00 2.00,12.0\n"
)


@pytest.fixture
def charades(tmp_path):
    videos = written(tmp_path / "CharadesEgo_v1_test_only1st.csv", CHARADES_HEADER + CHARADES_ROWS)
    return videos, written(tmp_path / "Charades_v1_classes.txt", CHARADES_CLASSES)


def test_charades_ego_videos_have_many_labels_or_none(charades, media):
    videos, classes = charades
    found = read_charades_ego(videos, media("005BUEGO.mp4", "005BU.mp4", "00ZCAEGO.mp4"), classes)
    assert [(row.video_id, row.labels) for row in found.rows] == [("005BUEGO", (0, 2)), ("00ZCAEGO", ())]
    assert found.class_names[1] == "Putting clothes somewhere"
    assert found.lacking == {Lack.media: ("GONEEEGO",)}


def test_charades_ego_actions_are_spans_and_one_that_ends_before_it_starts_is_named(charades, media):
    videos, classes = charades
    found = read_charades_ego(videos, media("005BUEGO.mp4", "GONEEEGO.mp4"), classes, each_action=True)
    assert [(row.labels, row.span) for row in found.rows] == [
        ((2,), Span(11.9, 21.2)),
        ((0,), Span(0, 12.6)),
        ((2,), Span(1, 2)),
    ]
    assert found.lacking == {Lack.span: ("GONEEEGO c001",)}  # and a video without actions has no entry


# How2QA

HOW2QA = (
    "NOuQuofjk44,[7.2:18.0],10,12,16,how many knife is there?,1\n"
    'dnUFgR92F8M,[121.56:121.56],lethal,mild,none,"How poisonous are they, here?",not poisonous\n'
    'DUEyiEnMVj4,[85.5:107.74],drums,"called ""digitaldezignz",flute,what is behind him,Guitar\n'
    "gone_gone_g,[0.0:4.5],a,b,c,what?,d\n"
)


def test_how2qa_has_no_header_so_the_first_row_is_a_question(tmp_path, media):
    source = written(tmp_path / "how2QA_val_release.csv", HOW2QA)
    found = read_how2qa(source, media("NOuQuofjk44.mp4", "dnUFgR92F8M.mp4", "DUEyiEnMVj4_60_120.mp4"))
    first, second, third = found.rows
    assert (first.video_id, first.question, first.span) == ("NOuQuofjk44", "how many knife is there?", Span(7.2, 18))
    assert (first.candidates, first.answer_index) == (("10", "12", "16", "1"), 3)
    assert second.question == "How poisonous are they, here?"
    assert second.span == Span(121.56, 121.56)  # such a moment stands in the real file
    assert third.candidates[1] == 'called "digitaldezignz'
    assert found.lacking == {Lack.media: ("gone_gone_g",)}


def test_how2qa_clips_of_a_minute_have_spans_in_their_own_time(tmp_path, media):
    source = written(tmp_path / "how2QA_val_release.csv", HOW2QA)
    found = read_how2qa(source, media("DUEyiEnMVj4_0_60.mp4", "DUEyiEnMVj4_60_120.mp4", "DUEyiEnMVj4_120_180.mp4"))
    assert [row.media.name for row in found.rows] == ["DUEyiEnMVj4_60_120.mp4"]
    assert (found.rows[0].span.start_s, found.rows[0].span.end_s) == pytest.approx((25.5, 47.74))
    assert found.num_entries == 4


# folders


def test_class_folders_are_classes_in_the_order_of_their_names(tmp_path, media):
    folder = media("n02/b.JPEG", "n02/a.JPEG", "n01/x.y.png", "n01/notes.txt", "n01/.DS_Store", "n03/clip.mp4")
    (folder / "n00").mkdir()
    names = written(tmp_path / "names.txt", "n00 empty one\nn01 tench\nn02\tgold fish\nn03 shark\nn99 other\n")
    found = read_class_folders(folder, names)
    assert [(row.video_id, row.labels) for row in found.rows] == [
        ("n01/x.y.png", (1,)),
        ("n02/a.JPEG", (2,)),
        ("n02/b.JPEG", (2,)),
        ("n03/clip.mp4", (3,)),
    ]
    assert found.class_names == ("empty one", "tench", "gold fish", "shark")
    assert found.lacking == {Lack.media: ("n01/notes.txt",)}
    assert read_class_folders(folder).class_names == ("n00", "n01", "n02", "n03")
