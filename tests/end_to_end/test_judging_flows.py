"""Validation and the assessment of summarisers as flows; and what the expansion says when new samples are others."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.end_to_end.running import (
    NO_MODELS,
    error_of,
    expand_to,
    metadata_of,
    run_flow,
    source_table,
    write_metadata,
    write_recipe,
)

BODY = """
[validation]
max_psi = 0.05
[granularity.SVST]
pack = true
"""


@pytest.fixture
def artifacts(running):
    """The artifacts of a flow run by key, as the server has them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    def of(state):
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        with get_client(sync_client=True) as client:
            return {artifact.key: artifact.data for artifact in client.read_artifacts(artifact_filter=chosen)}

    return of


def test_the_assessment_of_a_corpus_recommends_and_leaves_a_table(corpus, artifacts, tmp_path):
    from flows.assess import AssessParameters, assess_summarisers

    references = [json.loads(line) for line in (corpus / "references.jsonl").read_text().splitlines()]
    file = tmp_path / "assessment.toml"
    file.write_text(
        f'name = "drawn"\n[tasks]\nreferences = "{corpus}/references.jsonl"\nclips = "{corpus}/clips.jsonl"\n'
        "[scores]\nbertscore_model = false\n"
        '[candidate.long]\ngates = {}\nsummarizer = { backend = "extractive" }\n'
        '[candidate.short]\ngates = {}\nsummarizer = { backend = "extractive", min_words = 5, max_words = 6 }\n'
    )
    state = assess_summarisers(AssessParameters(file=str(file), output=str(tmp_path / "out")), return_state=True)
    assert state.is_completed()
    assert state.result() == "long"
    content = json.loads((tmp_path / "out/assessment.json").read_text())
    assert content["num_tasks"] == len(references) == 4
    assert content["candidates"][0]["scores"]["rougeL"]["mean"] > content["candidates"][1]["scores"]["rougeL"]["mean"]
    found = artifacts(state)
    assert "| long | " in found["summarisers"]
    assert "assessment.html" in found["assessment"]


def test_the_validation_of_an_output_is_on_its_report(paper_output, artifacts, tmp_path):
    from flows.validate import ValidateParameters, validate

    output = shutil.copytree(paper_output.folder, tmp_path / "output")
    state = validate(ValidateParameters(output=str(output), num_videos=4), return_state=True)
    assert state.is_completed(), state.message
    content = json.loads((output / "report/validation.json").read_text())
    measured = {(item["granularity"], item["score"]): item["num"] for item in content["pairs"]}
    assert measured == {
        ("SVST", "clip_video_text"): 4,
        ("LVLT", "clip_video_long_text"): 4,
        ("LVST", "clip_video_short_text"): 4,
        ("LVST", "clip_text_cosine"): 4,
        ("IT", "clip_image_text"): 4,
    }
    # The run has taken some of the same cosines, by its own workers.
    stored = {row["score"]: row["mean"] for row in content["stored"] if row["granularity"] == "LVST"}
    taken = next(item for item in content["pairs"] if item["score"] == "clip_text_cosine")
    assert taken["mean"] == pytest.approx(stored["clip_text_cosine"], abs=1e-3)
    assert "Features in a plane" in (output / "report/report.html").read_text(encoding="utf-8")
    assert "report.html" in artifacts(state)["report"]


def test_new_clips_with_other_captions_mark_the_run_and_fail_the_validation(corpus, artifacts, tmp_path):
    from flows.validate import ValidateParameters, validate

    rows = metadata_of(corpus)
    clips = write_metadata(tmp_path / "clips.jsonl", rows[:13])
    recipe = write_recipe(tmp_path, source_table(corpus, clips) + NO_MODELS + BODY)
    expand_to(recipe)
    later = [{**row, "Caption": f"{row['Caption']} " * 4} for row in rows[13:]]
    write_metadata(clips, [*rows[:13], *later])
    state = run_flow(recipe)
    assert state.result() == 1  # a warning is no failure: the samples are published
    table = artifacts(state)["drift"]
    (words,) = [line for line in table.splitlines() if line.startswith("| SVST | num_words |")]
    assert words.endswith("| **drift** |")

    failed = validate(ValidateParameters(output=str(tmp_path / "output")), return_state=True)
    message = str(error_of(failed))
    assert message.startswith(f"snapshot 1 of {tmp_path / 'output'} drifts: SVST num_words: mean ")
    assert "gex validate" in failed.message
