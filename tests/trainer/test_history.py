"""What a model was trained on in all its trainings, and that nothing of it is measured as held out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.errors import GexError, RecipeError
from tests.trainer.annotations.real_formats import written
from tests.trainer.tiny_recipes import tiny_recipe, train_here
from trainer.annotation_catalog import held_out_rows
from trainer.annotations import read_msrvtt
from trainer.catalog import read_catalog
from trainer.data_settings import AnnotationSettings, DataSettings
from trainer.evaluate import Options, PublishedData, evaluate_published
from trainer.evaluate_annotations import PublicData, evaluate_annotations
from trainer.history import (
    HeldOut,
    are_held_out,
    check_held_out,
    held_out_of_annotations,
    held_out_of_dataset,
    record_of,
    trainings_of,
)
from trainer.pretrained import Pretrained
from trainer.run_data import open_data

FIRST, SECOND = HeldOut(0.5, 0), HeldOut(0.6, 7)


def training(data: str, split: HeldOut | None = None, **facts):
    share, seed = split or HeldOut(0.0)
    return {"name": "one", "data": data, "held_out_share": share, "held_out_seed": seed, **facts}


def chain(*trainings):
    """The record of a model that came about by these, the oldest first."""
    return {**trainings[-1], "earlier": list(trainings[:-1])}


def sources_of(output: Path, *splits: HeldOut, side: str = "held_out") -> set[str]:
    """Sources of IT on one side of all of these splits."""
    with read_catalog(str(output), granularities=["IT"]) as catalog:
        parts = [getattr(catalog.split(*split), side) for split in splits]
        found = [{part.sample("IT", number).source_id for number in range(part.num_samples("IT"))} for part in parts]
    return set.intersection(*found)


def test_a_source_is_held_out_where_all_trainings_on_the_data_held_it_out(tmp_path):
    here, there = str(tmp_path / "a"), str(tmp_path / "b")
    assert held_out_of_dataset(training(here, FIRST), f"{here}/../a") == (FIRST,)
    assert held_out_of_dataset(chain(training(here, FIRST), training(there, SECOND)), here) == (FIRST,)
    assert held_out_of_dataset(chain(training(here, FIRST), training(here, SECOND)), here) == (FIRST, SECOND)
    # of one seed, what the smaller share holds out the larger one does too
    smaller = chain(training(here, HeldOut(0.5, 3)), training(here, HeldOut(0.2, 3)))
    assert held_out_of_dataset(smaller, here) == ((0.2, 3),)
    assert held_out_of_dataset(chain(training(here), training(here)), here) == ()
    assert held_out_of_dataset({"steps": 0}, here) == ()
    with pytest.raises(
        GexError, match=r"no source of .*/a' was held out by all .* 'one' took all .*\('two' share 0\.5, s"
    ):
        held_out_of_dataset(chain(training(here), training(here, FIRST, name="two")), here)


def test_what_a_model_that_starts_from_another_writes_down_is_every_training_once():
    first, second = training("a", figures={"r1": 3.0}), training("b", SECOND, figures={"r1": 4.0})
    recorded = record_of(chain(first, second))
    assert [one["data"] for one in recorded] == ["a", "b"]
    assert not any("figures" in one or "earlier" in one for one in recorded)
    assert [one["data"] for one in trainings_of(chain(*recorded, training("c")))] == ["a", "b", "c"]


def test_whether_a_part_was_trained_on_is_told_of_any_split():
    trainings = [training("a", HeldOut(0.5, 1)), training("a", HeldOut(0.2, 2))]
    assert are_held_out(trainings, [HeldOut(0.4, 1), HeldOut(0.2, 2)])
    assert not are_held_out(trainings, [HeldOut(0.4, 1)])
    assert not are_held_out(trainings, [HeldOut(0.4, 1), HeldOut(0.3, 2)])
    assert not are_held_out(trainings, [])
    assert are_held_out([], [])


@pytest.fixture(scope="module")
def twice_trained(numbered_output, tmp_path_factory) -> str:
    """A model of two trainings on the same images: the first held half of the sources out, the second none."""
    folder = tmp_path_factory.mktemp("twice")
    images = {"data": {"held_out_share": FIRST.share, "granularities": {"IT": {}}, "batch_size": 2}}
    first = tiny_recipe(numbered_output, folder / "first", images, {"name": "first", "optim": {"epochs": 1}})
    train_here(first)
    later = {"name": "later", "model": None, "start_from": first.output, "data": {"held_out_share": 0.0}}
    train_here(tiny_recipe(numbered_output, folder / "later", images, {"optim": {"epochs": 1}}, later))
    return str(folder / "later")


def test_a_training_that_starts_from_a_model_records_its_trainings_in_config_and_card(twice_trained, numbered_output):
    trained = Pretrained.from_pretrained(twice_trained).trained
    (before,) = trained["earlier"]
    assert (before["name"], before["data"], before["held_out_share"]) == ("first", str(numbered_output), 0.5)
    assert trained["start_from"].endswith("/first") and "figures" not in before
    card = Path(twice_trained, "model", "README.md").read_text(encoding="utf-8")
    assert f"\n- Trained before as first on {numbered_output}, snapshot 0; 50% of its sources were held out.\n" in card
    assert card.strip().endswith("Nothing was held out.")
    first = Path(twice_trained).parent / "first" / "model" / "README.md"
    assert "Trained before" not in first.read_text(encoding="utf-8")


def test_eval_refuses_where_no_source_was_held_out_by_all_trainings_and_takes_all_where_it_is_told_to(
    twice_trained, numbered_output, capsys
):
    """The last training alone was looked at, so sources of the first one were measured and called held out."""
    arguments = ["eval", twice_trained, str(numbered_output), "--workers", "0"]
    assert main(arguments) == 1
    assert "no source of" in (said := capsys.readouterr().err) and "'first' share 0.5, seed 0" in said
    assert main([*arguments, "--held-out", "0"]) == 0
    assert "the model was trained on these data" in capsys.readouterr().out


def test_only_sources_that_all_trainings_held_out_are_measured(numbered_output, pretrained, tmp_path):
    data = str(numbered_output)
    model = replace(pretrained, trained=chain(training(data, FIRST), training(data, SECOND)))
    held_out = held_out_of_dataset(model.trained, data)
    wanted = sources_of(numbered_output, FIRST, SECOND)
    assert 2 <= len(wanted) < len(sources_of(numbered_output, SECOND))  # or the test would say nothing
    (found,) = evaluate_published(model, PublishedData(data, granularities=("IT",), held_out=held_out), Options())
    assert (found.num_samples, found.data["num_in_part"]) == (len(wanted), len(wanted))
    assert found.data["held_out"] == [{"share": 0.5, "seed": 0}, {"share": 0.6, "seed": 7}]
    assert "trained_on" not in found.data
    # a split that is given: some of its sources the first training took
    (other,) = evaluate_published(model, PublishedData(data, granularities=("IT",), held_out=(SECOND,)), Options())
    assert other.data["trained_on"] is True
    apart = (HeldOut(0.1, 3), HeldOut(0.1, 4))
    assert not sources_of(numbered_output, *apart)
    with pytest.raises(
        GexError, match=r"IT has no sample .* none is held out by all .* \(share 0\.1, seed 3; share 0\.1"
    ):
        evaluate_published(model, PublishedData(data, granularities=("IT",), held_out=apart), Options())


def test_gex_eval_says_by_what_the_sources_are_held_out(numbered_output, tiny_model_folder, tmp_path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model_folder.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((tiny_model_folder / "config.json").read_text())
    trained = chain(training(str(numbered_output), FIRST), training(str(numbered_output), SECOND))
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "trained": trained}))
    assert main(["eval", str(folder), str(numbered_output), "--granularity", "IT", "--workers", "0"]) == 0
    out = capsys.readouterr().out
    num = len(sources_of(numbered_output, FIRST, SECOND))
    assert f"IT: {num} samples" in out
    told = "only held-out sources of all the trainings of the model on these data: share 0.5, seed 0; share 0.6, seed 7"
    assert told in out
    assert "the model was trained on these data" not in out


def test_annotations_are_measured_where_all_trainings_held_the_video_out(pretrained, numbered_output, tmp_path):
    names = [f"video {number}" for number in range(24)]
    csv = written(tmp_path / "test.csv", "video_id,sentence\n" + "".join(f"{name},of {name}\n" for name in names))
    media = tmp_path / "media"
    media.mkdir()
    from tests.media.making_clips import Make, make_clip

    clip = make_clip(tmp_path / "clip.mp4", 3, Make(num_frames=4, size_px=(96, 96)))
    for name in names:
        (media / f"{name}.mp4").symlink_to(clip)
    settings = AnnotationSettings(kind="msrvtt", file=str(csv), media=str(media))
    facts = {"annotations": settings.model_dump(mode="json")}
    trained = chain(training("msrvtt", FIRST, **facts), training("msrvtt", SECOND, **facts), training("elsewhere"))
    held_out = held_out_of_annotations(trained, settings)
    assert held_out == (FIRST, SECOND)
    rows = held_out_rows(list(read_msrvtt(csv, media).rows), *FIRST)
    wanted = {row.video_id for row in rows} & {
        row.video_id for row in held_out_rows(list(read_msrvtt(csv, media).rows), *SECOND)
    }
    assert 2 <= len(wanted) < len(rows)
    model = replace(pretrained, trained=trained)
    found = evaluate_annotations(model, PublicData(settings, held_out=held_out), Options(num_frames=1))
    assert (found.num_samples, found.data["num_in_part"]) == (len(wanted), len(wanted))
    assert found.data["told"].endswith(f"24 of 24 entries used; {len(wanted)} of these are of held-out videos")
    assert "trained_on" not in found.data


def test_a_split_that_would_measure_what_the_start_was_trained_on_is_refused_before_any_step(
    twice_trained, numbered_output, tmp_path
):
    first = str(Path(twice_trained).parent / "first")
    changes = {"model": None, "start_from": first, "data": {"granularities": {"IT": {}}, "batch_size": 2}}
    split = {"data": {"held_out_share": 0.3, "held_out_seed": 7}}
    with pytest.raises(RecipeError) as caught:
        train_here(tiny_recipe(numbered_output, tmp_path / "later", changes, split))
    assert str(caught.value) == (
        "data.held_out_share = 0.3 with data.held_out_seed = 7 would measure as held out what the model of start_from "
        "was trained on: of the same data its training 'first' held out share 0.5, seed 0; set held_out_share = 0.5 or "
        "less with held_out_seed = 0, or held_out_share = 0, with which nothing is measured"
    )
    assert not (tmp_path / "later" / "recipe.json").exists()


def test_a_smaller_share_of_what_the_start_held_out_is_no_problem_and_other_data_are_none(numbered_output):
    def data(share, seed=0):
        return DataSettings(
            dataset=str(numbered_output), granularities={"IT": {}}, held_out_share=share, held_out_seed=seed
        )

    before = [training(str(numbered_output), HeldOut(0.5, 0)), training("elsewhere")]
    for allowed in (data(0.5), data(0.2), data(0.0), data(0.0, 7)):
        check_held_out(allowed, before)
    with pytest.raises(RecipeError, match=r"set held_out_share = 0\.5 or less with held_out_seed = 0"):
        check_held_out(data(0.6), before)
    with pytest.raises(RecipeError, match="'one' took all of them; set held_out_share = 0, with"):
        check_held_out(data(0.5), [training(str(numbered_output))])
    with (
        open_data(data(0.2).model_copy(update={"batch_size": 2})) as smaller,
        open_data(data(0.5).model_copy(update={"batch_size": 2})) as larger,
    ):
        parts = [
            {part.sample("IT", number).source_id for number in range(part.num_samples("IT"))}
            for part in (smaller.held_out, larger.held_out)
        ]
    assert parts[0] < parts[1]
