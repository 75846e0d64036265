"""Every kind of annotation file, small and in its real format, through a real model; figures against those by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gex_pipeline.errors import GexError
from tests.media.making_clips import Make, make_clip, number_of, picture_of
from tests.trainer.annotations.real_formats import CHARADES_CLASSES, COIN_ENTRY, LVU_HEADER, written
from tests.trainer.by_hand import check_retrieval, file_of, logits_of, places_by_hand, text_of, unit
from tests.trainer.conftest import write_tiny_model
from tests.trainer.test_frames import whole
from trainer.annotations import AnnotationError
from trainer.data_settings import AnnotationSettings, DataSettings, GranularitySettings
from trainer.evaluate import Options
from trainer.evaluate_annotations import PublicData, evaluate_annotations
from trainer.frames import read_frames
from trainer.history import HeldOut, held_out_of_annotations
from trainer.media_reader import MediaReader
from trainer.pretrained import Pretrained
from trainer.run_data import open_data

NAMES = [f"v{number}" for number in range(8)]
CLASSES = ("MakeTea", "ReplaceTyre", "sit_down")
SPOKEN = ("make tea", "replace tyre", "sit down")
FRAMES = Options(num_frames=3, batch_size=4)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """v0 to v7, 12 frames at 25 a second, which say which they are; v7 is broken."""
    folder = tmp_path_factory.mktemp("media")
    for number, name in enumerate(NAMES):
        make_clip(folder / f"{name}.mp4", 2 * number + 1, Make(num_frames=12, size_px=(96, 96)))
    whole = (folder / "v7.mp4").read_bytes()
    (folder / "v7.mp4").write_bytes(b"\0" * len(whole))
    return folder


@pytest.fixture(scope="module")
def classifier(tiny_clip_folder, tmp_path_factory) -> Pretrained:
    """A model with a head for the three classes, in another order than that of the data set."""
    folder = tmp_path_factory.mktemp("classifier") / "model"
    return Pretrained.from_pretrained(write_tiny_model(folder, tiny_clip_folder, tuple(reversed(CLASSES))))


def evaluate(model, kind, file, media=None, *, options=FRAMES, granularity=None, templates=None, span_s=None, **rest):
    settings = AnnotationSettings(
        kind=kind,
        file=str(file),
        media=None if media is None else str(media),
        **{name: str(value) for name, value in rest.items()},
    )
    return evaluate_annotations(model, PublicData(settings, granularity, templates, span_s), options)


def coin_file(tmp_path: Path, labels: dict[str, int], span: tuple[float, float] = (0.0, 0.48)) -> Path:
    entries = {
        name: {
            **COIN_ENTRY,
            "class": CLASSES[label],
            "recipe_type": label,
            "subset": "testing",
            "start": span[0],
            "end": span[1],
        }
        for name, label in labels.items()
    }
    return written(tmp_path / "COIN.json", {"database": entries})


LABELS = {"v0": 0, "v1": 1, "v2": 2, "v3": 0, "v4": 1, "v5": 2, "v6": 0, "v7": 1, "gone": 2}


def top1(scores_VK: np.ndarray, labels: list[int]) -> float:
    return 100 * float(np.mean(scores_VK.argmax(axis=1) == labels))


# Retrieval


def test_msrvtt_with_several_captions_a_video(tmp_path, media, pretrained):
    captions = {"v0": ["a cat", "in short"], "v1": ["half of a"], "v7": ["broken"], "v2": ["a cat"], "gone": ["x"]}
    csv = written(tmp_path / "train.csv", "video_id\n" + "\n".join(captions))
    sentences = [{"video_id": name, "caption": text} for name, texts in captions.items() for text in texts]
    found = evaluate(
        pretrained, "msrvtt", csv, media, captions=written(tmp_path / "captions.json", {"sentences": sentences})
    )
    videos = unit([file_of(pretrained, media / f"{name}.mp4", 3, 1) for name in ("v0", "v1", "v2")])
    texts = unit([text_of(pretrained, text, 1) for text in ("a cat", "in short", "half of a", "a cat")])
    right = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    check_retrieval(found.figures["text_to_video"], places_by_hand(texts @ videos.T, right))
    check_retrieval(found.figures["video_to_text"], places_by_hand(videos @ texts.T, right.T))
    assert found.figures["num_shared_texts"] == 1
    assert found.figures["chance_text_to_video"]["r1_percent"] == pytest.approx(100 / 3)
    assert (found.num_samples, found.data["num_captions"]) == (3, 4)
    assert [one.key for one in found.damaged] == ["v7"]
    assert "the video cannot be decoded" in found.damaged[0].reason
    assert found.data["lacking"] == {"media": ["gone"]}
    # short videos with short texts; the model was not trained on SVST, so the paper's #iter
    assert (found.read.granularity, found.read.n_iter_video, found.read.n_iter_text) == ("SVST", 1, 1)


def test_activitynet_paragraphs_are_read_as_long_texts_over_the_span(tmp_path, media, pretrained):
    content = {
        f"v_{name}": {"duration": 0.4, "timestamps": [[0, 1]], "sentences": [f"half {n}.", "a picture."]}
        for n, name in enumerate(NAMES[:6])
    }
    found = evaluate(pretrained, "activitynet", written(tmp_path / "val_1.json", content), media)
    videos = unit([file_of(pretrained, media / f"{name}.mp4", 3, 3) for name in NAMES[:6]])
    texts = unit([text_of(pretrained, f"half {n}. a picture.", 3) for n in range(6)])
    check_retrieval(found.figures["text_to_video"], places_by_hand(texts @ videos.T, np.eye(6, dtype=bool)))
    assert (found.read.granularity, found.read.origin) == ("LVLT", "model")


def test_lsmdc_clips(tmp_path, media, pretrained):
    lines = [f"{name}\t0\t1\t0\t1\t{text}" for name, text in zip(NAMES[:3], ("a cat", "in short", "of a"), strict=True)]
    found = evaluate(pretrained, "lsmdc", written(tmp_path / "test.csv", "\n".join(lines)), media)
    assert found.figures["text_to_video"]["num_queries"] == found.num_samples == 3


# Classes


def test_coin_with_the_models_own_head_whatever_the_order_of_its_classes(tmp_path, media, classifier):
    file = coin_file(tmp_path, LABELS, (0.08, 0.4))
    labels = [LABELS[name] for name in NAMES[:7]]
    for trim, part in ((False, None), (True, (0.08, 0.4))):
        found = evaluate(classifier, "coin", file, media, subset="testing", trim=trim)
        logits = np.array([logits_of(classifier, media / f"{name}.mp4", 3, 3, part)[::-1] for name in NAMES[:7]])
        assert found.figures["top1_percent"] == pytest.approx(top1(logits, labels))
        assert found.data["told"].endswith("; of each only the part that shows its task") is trim
    assert found.method == "the model's linear head"
    assert (found.num_samples, found.figures["num_classes"], len(found.damaged)) == (7, 3, 1)


@pytest.mark.parametrize(
    ("record", "trim"),
    [({}, True), ({"trim": True}, True), ({"trim": False}, False), (None, False)],
    ids=["of a version that always trimmed", "trimmed", "whole", "not trained on COIN"],
)
def test_a_model_is_measured_on_coin_as_it_was_trained_on_it_unless_it_is_said(
    tmp_path, media, classifier, record, trim
):
    of = None if record is None else {"kind": "coin", "file": "f", "media": "m", "subset": "training", **record}
    model = replace(classifier, trained={"annotations": {"kind": "lvu"}, "earlier": [{"annotations": of}]})
    file = coin_file(tmp_path, LABELS, (0.08, 0.4))
    assert evaluate(model, "coin", file, media).data["annotations"]["trim"] is trim
    assert evaluate(model, "coin", file, media, trim=not trim).data["annotations"]["trim"] is not trim


def test_coin_by_prompts_where_there_is_no_head_and_it_says_so(tmp_path, media, pretrained):
    file = coin_file(tmp_path, LABELS)
    videos = unit([file_of(pretrained, media / f"{name}.mp4", 3, 3) for name in NAMES[:7]])
    labels = [LABELS[name] for name in NAMES[:7]]
    found = evaluate(pretrained, "coin", file, media)
    classes = unit([text_of(pretrained, f"A video of a {name}.", 1) for name in SPOKEN])
    assert found.figures["top1_percent"] == pytest.approx(top1(videos @ classes.T, labels))
    assert "zero-shot" in found.method
    assert found.method.endswith("the model has no head")
    assert found.data["templates"] == ["A video of a {label}."]
    templates = ("half of {label}", "{label} in short")
    found = evaluate(pretrained, "coin", file, media, templates=templates)
    several = [unit([text_of(pretrained, one.format(label=name), 1) for one in templates]).mean(0) for name in SPOKEN]
    assert found.figures["top1_percent"] == pytest.approx(top1(videos @ unit(several).T, labels))


def test_a_head_for_other_classes_is_not_used(tmp_path, media, classifier):
    folder = tmp_path / "folders"
    for name in ("cat", "dog", "bird"):  # as many as the head has
        (folder / name).mkdir(parents=True)
        (folder / name / "a.mp4").write_bytes((media / "v1.mp4").read_bytes())
    found = evaluate(classifier, "folders", folder)
    assert found.method.endswith("the model's head is for other classes")


def test_prompts_that_are_given_are_used_whatever_head_the_model_has(tmp_path, media, classifier):
    """The head was taken, and the prompts went nowhere without a word."""
    file = coin_file(tmp_path, LABELS)
    found = evaluate(classifier, "coin", file, media, templates=("{label} in short",))
    assert found.method.endswith("prompts were given")
    assert found.data["templates"] == ["{label} in short"]
    videos = unit([file_of(classifier, media / f"{name}.mp4", 3, 3) for name in NAMES[:7]])
    classes = unit([text_of(classifier, f"{name} in short", 1) for name in SPOKEN])
    assert found.figures["top1_percent"] == pytest.approx(top1(videos @ classes.T, [LABELS[n] for n in NAMES[:7]]))


def test_lvu_sums_the_chances_of_the_spans_of_a_video(tmp_path, media, classifier):
    rows = "".join(f"{label} {CLASSES[label]} {name} tt0\n" for name, label in LABELS.items())
    for split in ("train", "val", "test"):
        written(tmp_path / f"{split}.csv", LVU_HEADER + rows)
    found = evaluate(classifier, "lvu", tmp_path / "test.csv", media, span_s=0.2)
    bounds = [(0.0, 0.16), (0.16, 0.32), (0.32, 0.48)]
    summed = []
    for name in NAMES[:7]:
        logits = np.array([logits_of(classifier, media / f"{name}.mp4", 3, 3, part)[::-1] for part in bounds])
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        summed.append(chances.sum(axis=0))
    labels = [LABELS[name] for name in NAMES[:7]]
    assert found.figures["top1_percent"] == pytest.approx(top1(np.array(summed), labels))
    assert (found.task, found.data["num_spans"], found.num_samples) == ("accuracy over spans", 21, 7)
    assert [one.key for one in found.damaged] == ["v7"]
    whole = evaluate(classifier, "lvu", tmp_path / "test.csv", media)
    assert (whole.data["num_spans"], whole.data["span_s"]) == (7, None)
    logits = np.array([logits_of(classifier, media / f"{name}.mp4", 3, 3)[::-1] for name in NAMES[:7]])
    assert whole.figures["top1_percent"] == pytest.approx(top1(logits, labels))


def test_charades_ego_ranks_videos_for_the_name_of_every_class(tmp_path, media, pretrained):
    actions = {
        "v0": "c000 0 1;c002 0 1",
        "v1": "c001 0 1",
        "v2": "",
        "v3": "c002 0 1",
        "v4": "c001 0 1",
        "v7": "c000 0 1",
    }
    file = written(
        tmp_path / "test.csv", "id,actions\n" + "".join(f"{name},{text}\n" for name, text in actions.items())
    )
    classes = written(tmp_path / "classes.txt", CHARADES_CLASSES)
    found = evaluate(pretrained, "charades-ego", file, media, class_names=classes)
    names = ("v0", "v1", "v3", "v4")  # v2 has no class: it is left out
    videos = unit([file_of(pretrained, media / f"{name}.mp4", 3, 3) for name in names])
    texts = [line[5:] for line in CHARADES_CLASSES.splitlines()]
    scores = videos @ unit([text_of(pretrained, text, 1) for text in texts]).T
    expected = []
    for number in range(3):
        order = np.argsort(-scores[:, number])
        hits = [f"c00{number}" in actions[names[place]] for place in order]
        expected.append(np.mean([sum(hits[: place + 1]) / (place + 1) for place in range(4) if hits[place]]))
    assert found.figures["map_percent"] == pytest.approx(100 * np.mean(expected))
    assert found.figures["num_unlabelled"] == 1
    assert (found.num_samples, found.read.granularity) == (5, "LVST")


def test_how2qa_chooses_among_question_and_answer_and_a_word_for_word_twin_counts_half(tmp_path, media, pretrained):
    lines = [
        "v0,[0:0.3],a cat,short,half,What is it?,a picture",
        "v1,[0.1:0.3],a cat,short,half,What is it?,in short",
        "v2,[0.2:0.2],a picture,a cat,a picture,What is it?,a picture",
        "v7,[0:1],a,b,c,d,e",
    ]
    found = evaluate(pretrained, "how2qa", written(tmp_path / "q.csv", "\n".join(lines)), media)
    counts = []
    for name, part, answers in (
        ("v0", (0, 0.3), ("a cat", "short", "half", "a picture")),
        ("v1", (0.1, 0.3), ("a cat", "short", "half", "in short")),
        ("v2", (0.2, 0.2), ("a picture", "a cat", "a picture", "a picture")),
    ):
        video = unit(file_of(pretrained, media / f"{name}.mp4", 3, 1, part))
        scores = [float(unit(text_of(pretrained, f"What is it? {answer}", 1)) @ video) for answer in answers]
        best = [answer for answer, score in zip(answers, scores, strict=True) if score == max(scores)]
        counts.append((answers[3] in best) / len(best))
    assert found.figures["accuracy_percent"] == pytest.approx(100 * np.mean(counts))
    assert (found.num_samples, len(found.damaged), found.figures["chance_percent"]) == (3, 1, 25)
    assert found.figures["num_tied_questions"] == (1 if counts[2] else 0)


def test_class_folders_with_images_are_read_as_images_and_named_by_a_file(tmp_path, pretrained):
    for number in range(6):
        folder = tmp_path / "images" / f"n0{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture_of(number_of(number, 3), (96, 96))).save(folder / f"{number}.bmp")
    names = written(tmp_path / "names.txt", "n00 cat\nn01 half of\nn02 picture\n")
    found = evaluate(pretrained, "folders", tmp_path / "images", class_names=names, options=Options())
    assert (found.read.granularity, found.read.num_frames, found.read.n_iter_video) == ("IT", 1, 0)
    assert found.figures["num_samples"] == 6
    order = [0, 3, 1, 4, 2, 5]
    files = [tmp_path / "images" / f"n0{number % 3}" / f"{number}.bmp" for number in order]
    frames = torch.from_numpy(np.stack([read_frames(whole(file, "bmp"), 1, 32, MediaReader()) for file in files]))
    with torch.inference_mode():
        videos = unit(pretrained.model.encode_video(frames, 0).numpy())
    classes = unit([text_of(pretrained, f"A video of a {name}.", 1) for name in ("cat", "half of", "picture")])
    assert found.figures["top1_percent"] == pytest.approx(top1(videos @ classes.T, [0, 0, 1, 1, 2, 2]))


def test_images_and_videos_of_class_folders_keep_their_own_numbers_of_frames(tmp_path, media, pretrained):
    """A model of one granularity of videos could not read an image, and no model could with --num-frames."""
    files = [tmp_path / "mixed" / name for name in ("cat/0.bmp", "cat/1.mp4", "half of/0.mp4", "half of/1.bmp")]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".mp4":
            file.write_bytes((media / f"v{number}.mp4").read_bytes())
        else:
            Image.fromarray(picture_of(number_of(number, 3), (96, 96))).save(file)
    tuned = replace(pretrained, granularities={"OWN": GranularitySettings(num_frames=3, n_iter_video=2, n_iter_text=1)})
    one_frame = torch.from_numpy(np.stack([read_frames(whole(files[n], "bmp"), 1, 32, MediaReader()) for n in (0, 3)]))
    with torch.inference_mode():
        images = unit(pretrained.model.encode_video(one_frame, 2).numpy())
    videos = unit([file_of(pretrained, files[number], 3, 2) for number in (1, 2)])
    classes = unit([text_of(pretrained, f"A video of a {name}.", 1) for name in ("cat", "half of")])
    expected = top1(np.stack([images[0], videos[0], videos[1], images[1]]) @ classes.T, [0, 0, 1, 1])
    for model, options in ((tuned, Options()), (pretrained, Options(num_frames=3, n_iter_video=2))):
        found = evaluate(model, "folders", tmp_path / "mixed", options=options)
        assert (found.figures["top1_percent"], found.num_samples, found.damaged) == (pytest.approx(expected), 4, ())
        assert found.read.num_frames == 3
    files[0].write_bytes(b"no picture")
    found = evaluate(tuned, "folders", tmp_path / "mixed", options=Options())
    assert (found.num_samples, [one.key for one in found.damaged]) == (3, ["cat/0.bmp"])
    for number in (1, 2):
        files[number].unlink()
    found = evaluate(tuned, "folders", tmp_path / "mixed", options=Options())
    assert (found.num_samples, found.read.granularity, found.read.num_frames) == (1, "OWN", 1)


def test_prompts_and_answers_whose_end_is_not_read_are_counted(tmp_path, media, pretrained):
    long = "half of a picture " * 8
    file = written(tmp_path / "q.csv", f"v0,[0:0.3],a cat,short,{long},What is it?,a picture\nv1,[0:1],a,b,c,{long},d")
    found = evaluate(pretrained, "how2qa", file, media)
    assert (found.num_truncated_texts, found.num_samples) == (1 + 4, 2)
    found = evaluate(pretrained, "coin", coin_file(tmp_path, LABELS), media, templates=(long + "{label}", "a {label}"))
    assert found.num_truncated_texts == 3


# What training held out


def test_what_is_measured_is_what_training_held_out_and_nothing_that_it_was_trained_on(tmp_path, media, pretrained):
    """Every video of the training part is broken: one that were measured would be named."""
    names = [f"video {number}" for number in range(24)]
    rows = "".join(f"{name},caption {n} of {name}\n" for name in names for n in range(2))
    csv = written(tmp_path / "test.csv", "video_id,sentence\n" + rows)
    folder = tmp_path / "videos"
    folder.mkdir()
    settings = AnnotationSettings(kind="msrvtt", file=str(csv), media=str(folder))
    whole = (media / "v1.mp4").read_bytes()
    for name in names:
        (folder / f"{name}.mp4").write_bytes(whole)
    recipe = DataSettings(
        annotations=settings, granularities={"SVST": {}}, batch_size=2, held_out_share=0.3, held_out_seed=5
    )
    with open_data(recipe) as data:
        trained_on, held_out = (
            {part.sample("SVST", number).source_id for number in range(part.num_samples("SVST"))}
            for part in (data.training, data.held_out)
        )
    assert 3 <= len(held_out) <= 12
    assert trained_on | held_out == set(names)
    for name in trained_on:
        (folder / f"{name}.mp4").write_bytes(bytes(len(whole)))
    found = evaluate_annotations(pretrained, PublicData(settings, held_out=(HeldOut(0.3, 5),)), FRAMES)
    assert (found.num_samples, found.damaged) == (len(held_out), ())
    assert found.data["num_captions"] == 2 * len(held_out)
    assert (found.data["part"], found.data["held_out"]) == ("held out", [{"share": 0.3, "seed": 5}])
    assert found.data["told"].endswith(f"24 of 24 entries used; {len(held_out)} of these are of held-out videos")
    everything = evaluate_annotations(pretrained, PublicData(settings), FRAMES)
    assert {one.key for one in everything.damaged} == trained_on
    assert everything.data["part"] == "all"
    with pytest.raises(GexError, match=r"test\.csv' has no usable entry of a held-out video; take a larger share than"):
        evaluate_annotations(pretrained, PublicData(settings, held_out=(HeldOut(1e-9, 5),)), FRAMES)


@pytest.mark.parametrize(
    ("trained_on", "measured", "same"),
    [
        ({"kind": "lsmdc", "file": "a.csv"}, {"kind": "lsmdc", "file": "a.csv", "media": "elsewhere"}, True),
        ({"kind": "lsmdc", "file": "sub/../a.csv"}, {"kind": "lsmdc", "file": "a.csv"}, True),
        ({"kind": "lsmdc", "file": "a.csv"}, {"kind": "lsmdc", "file": "b.csv"}, False),
        ({"kind": "lsmdc", "file": "a.csv"}, {"kind": "how2qa", "file": "a.csv"}, False),
        ({"kind": "coin", "file": "a", "subset": "training"}, {"kind": "coin", "file": "a"}, False),
        ({"kind": "coin", "file": "a", "subset": "testing"}, {"kind": "coin", "file": "a"}, True),
        ({"kind": "folders", "file": "a/"}, {"kind": "folders", "file": "a"}, True),
        (None, {"kind": "folders", "file": "a"}, False),
        # of models that were trained when keys that a kind does not take were let through
        ({"kind": "msrvtt", "file": "a.csv", "subset": "training"}, {"kind": "msrvtt", "file": "a.csv"}, True),
    ],
    ids=str,
)
def test_a_model_knows_the_annotations_that_it_was_trained_on(tmp_path, trained_on, measured, same):
    def placed(tables):
        media = {} if tables is None or tables["kind"] == "folders" else {"media": "videos"}
        return tables and {**media, **tables, "file": f"{tmp_path}/{tables['file']}"}

    trained = {"annotations": placed(trained_on), "held_out_share": 0.25, "held_out_seed": 3}
    settings = AnnotationSettings(**placed(measured))
    assert held_out_of_annotations(trained, settings) == (((0.25, 3),) if same else ())


# What is read, and what is refused


def test_a_data_set_is_read_as_the_granularity_that_is_named_or_the_only_one_trained(tmp_path, media, pretrained):
    file = coin_file(tmp_path, LABELS)
    assert evaluate(pretrained, "coin", file, media, granularity="LVLT").read.n_iter_text == 3
    tuned = replace(pretrained, granularities={"tuned": pretrained.granularities["LVLT"]})
    found = evaluate(tuned, "coin", file, media, options=Options(batch_size=4))
    assert (found.read.granularity, found.read.num_frames, found.read.origin) == ("tuned", 4, "model")


def test_some_of_the_rows_are_chosen_by_a_seed(tmp_path, media, pretrained):
    found = evaluate(
        pretrained, "coin", coin_file(tmp_path, LABELS), media, options=Options(num_frames=2, max_samples=4)
    )
    assert found.num_samples + len(found.damaged) == 4
    assert found.figures["num_classes"] == 3
    assert (found.data["num_in_part"], found.data["num_chosen"], found.data["num_entries"]) == (8, 4, 9)
    assert found.data["told"].endswith(
        "8 of 9 entries used; 1 without media: gone; 4 of these measured, chosen by seed 0"
    )


def test_what_cannot_be_measured_is_said_in_a_sentence(tmp_path, media, pretrained):
    with pytest.raises(GexError, match=r"no entry can be used\. .*0 of 1 entries used; 1 without media: gone"):
        evaluate(pretrained, "coin", coin_file(tmp_path, {"gone": 1}), media)
    with pytest.raises(GexError, match="none of 1 samples of coin can be read"):
        evaluate(pretrained, "coin", coin_file(tmp_path, {"v7": 1}), media)
    with pytest.raises(AnnotationError, match="expected columns video_id, sentence"):
        evaluate(pretrained, "msrvtt", written(tmp_path / "x.csv", "a,b\n1,2\n"), media)
    captions = written(tmp_path / "c.json", {"sentences": [{"video_id": "v0", "caption": text} for text in "ab"]})
    csv = written(tmp_path / "t.csv", "video_id\nv0\n")
    with pytest.raises(GexError, match=r"gives no figures: .*one right candidate"):
        evaluate(pretrained, "msrvtt", csv, media, captions=captions, options=Options(ties="clip4clip"))
