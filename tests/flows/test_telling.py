"""What flows say of what their stages found, without a server."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from prefect.logging import disable_run_logger

from flows import assess, evaluate, expand, retire, validate, verify
from flows.expand import balance_markdown
from gex_pipeline.cli.main import _parser
from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.retry import Retry
from gex_pipeline.shards.findings import Finding, rest
from gex_pipeline.shards.manifest import Account
from gex_pipeline.stages.assessment import Assessment
from tests.making_runs import clip_row, recipe_of, write_jsonl

NOTE = Finding("LVLT/LVLT-000000.tar", "k1", "source", "gone", "a clip", is_note=True)
WRONG = Finding("LVLT/LVLT-000001.tar", "k2", "text", "empty", "a text")


@pytest.fixture
def artifacts(monkeypatch):
    """Markdown by key, as far as the flows make any."""
    made = {}
    for module in (retire, verify):
        monkeypatch.setattr(module, "create_markdown_artifact", lambda key, markdown, **_: made.update({key: markdown}))
    with disable_run_logger():
        yield made


def test_notes_are_told_and_fail_no_verification(artifacts, monkeypatch):
    monkeypatch.setattr(verify, "verify_stage", lambda _: (3, [NOTE]))
    assert verify.verify.fn(verify.VerifyParameters(output="/data")) == 3
    assert "| LVLT/LVLT-000000.tar | k1 | source | gone | a clip |" in artifacts["findings"]


@pytest.mark.parametrize(
    ("last", "mends"),
    [
        (WRONG, ""),  # a text that was published so stays so
        (replace(WRONG, check="sha256"), "; build damaged shards again with: gex run /data --check-bytes"),
        (
            replace(WRONG, shard="tables/clips-000000.parquet", check="table"),
            "; put the tables back from a copy, they are not built again",
        ),
    ],
)
def test_what_is_wrong_fails_a_verification_and_what_mends_it_is_named(artifacts, monkeypatch, last, mends):
    monkeypatch.setattr(verify, "verify_stage", lambda _: (3, [NOTE, WRONG, last]))
    with pytest.raises(GexError) as error:
        verify.verify.fn(verify.VerifyParameters(output="/data"))
    assert str(error.value) == (
        f"2 findings in {len({WRONG.shard, last.shard})} places of /data, first LVLT/LVLT-000001.tar k2 text empty "
        f"a text{mends}"
    )
    assert artifacts["findings"].count("\n") == 1 + 3


def test_of_many_findings_a_hundred_are_told_and_all_are_counted(artifacts, monkeypatch):
    """Each was a record in the log that Prefect's server keeps, ten million of one broken table."""
    many = [replace(WRONG, key=f"k{number}") for number in range(150)]
    monkeypatch.setattr(verify, "verify_stage", lambda _: (3, [*many, rest("text", 4000), NOTE]))
    said = []
    logger = SimpleNamespace(log=lambda level, text, *values: said.append((level, text % values)))
    monkeypatch.setattr(verify, "get_run_logger", lambda: logger)
    with pytest.raises(GexError, match=r"^4150 findings in 1 places of /data, first "):
        verify.verify.fn(verify.VerifyParameters(output="/data"))
    assert len(said) == 100 + 1
    assert said[-1] == (40, "and 4051 more")
    assert artifacts["findings"].endswith("\n\nand 4051 more")


def test_a_verification_that_could_not_look_says_its_stage_and_its_command(artifacts, monkeypatch, tmp_path):
    monkeypatch.setattr(verify, "verify_stage", verify.verify_stage.fn)
    nothing = tmp_path / "nothing here"
    state = verify.verify.fn(verify.VerifyParameters(output=str(nothing), deep=True, ray="auto"))
    assert state.message.startswith("stage 'verify' failed: ")
    assert state.message.endswith(f". To go on: gex shards verify '{nothing}' --deep --ray auto")
    assert artifacts == {}


def fail(*_):
    raise GexError("no")


RETIRE, VALIDATE, VERIFY = retire.RetireParameters, validate.ValidateParameters, verify.VerifyParameters
EVALUATE, ASSESS, EXPAND = evaluate.EvaluateParameters, assess.AssessParameters, expand.ExpandParameters
SCORED = {"clip": "a/b", "videos": 3, "texts": 4, "seed": 5}


@pytest.mark.parametrize(
    ("flow", "stage", "parameters", "flags"),
    [
        (retire.retire, "retire_stage", RETIRE(output="/d", older_than_days=365), {"older_than_days": 365.0}),
        (retire.retire, "retire_stage", RETIRE(output="/d", snapshots=(2, 3)), {"snapshot": [2, 3], "dry_run": False}),
        (retire.retire, "retire_stage", RETIRE(output="/d", snapshots=(2,), dry_run=True), {"dry_run": True}),
        (
            validate.validate,
            "validate_stage",
            VALIDATE(output="/d", clip_model="a/b", num_videos=3, num_texts=4, seed=5),
            SCORED,
        ),
        (
            validate.validate,
            "validate_stage",
            VALIDATE(output="/d"),
            {"clip": None, "videos": VALIDATE(output="/d").num_videos, "texts": VALIDATE(output="/d").num_texts},
        ),
        (evaluate.evaluate, "evaluate_stage", EVALUATE(model="m", dataset="/d", max_samples=6), {"max_samples": 6}),
        (assess.assess_summarisers, "assess_stage", ASSESS(file="a.toml", output="/d"), {"out": "/d", "tasks": None}),
        (assess.assess_summarisers, "assess_stage", ASSESS(file="a.toml", output="/d", num_tasks=7), {"tasks": 7}),
        (verify.verify, "verify_stage", VERIFY(output="/d"), {"target": ["/d"], "deep": False, "ray": None}),
        (verify.verify, "verify_stage", VERIFY(output="/d", deep=True, ray="auto"), {"deep": True, "ray": "auto"}),
        (expand.expand, "_expand", EXPAND(recipe="r"), {"no_report": False, "check_bytes": False}),
        (
            expand.expand,
            "_expand",
            EXPAND(recipe="r", report=False, check_bytes=True, accept_changes=True),
            {"recipe": "r", "no_report": True, "check_bytes": True, "accept_changes": True},
        ),
    ],
)
def test_the_command_that_goes_on_does_what_the_flow_was_asked_for(
    artifacts, monkeypatch, flow, stage, parameters, flags
):
    """That of a validation with a CLIP model and a seed had another model, or none, and another choice."""
    monkeypatch.setattr(sys.modules[flow.fn.__module__], stage, fail)
    program, *words = shlex.split(flow.fn(parameters).message.partition("no. To go on: ")[2])
    assert program == "gex"
    assert flags.items() <= vars(_parser().parse_args(words)).items()
    assert artifacts == {}


@pytest.mark.parametrize(
    ("errors", "may_pass"),
    [((TransientError("busy"), TransientError("away")), True), ((TransientError("busy"), GexError("no")), False)],
)
def test_an_assessment_may_pass_only_where_every_candidate_that_failed_may(artifacts, monkeypatch, errors, may_pass):
    found = Assessment({}, [], dict(zip(("one", "two"), errors, strict=True)))
    monkeypatch.setattr(assess, "load_assessment", lambda _: None)
    monkeypatch.setattr(assess, "read_tasks", lambda *_: ([], []))
    monkeypatch.setattr(assess, "assess", lambda *_: found)
    monkeypatch.setattr(assess, "write_page", lambda *_: "page.html")
    with pytest.raises(GexError) as error:
        assess.assess_stage.fn(assess.AssessParameters(file="tasks.toml", output="/data"))
    one, two = errors
    what = f"one did not run: {one}; two did not run: {two}"
    assert str(error.value) == f"{what}. What ran is in page.html; run again for what is missing"
    assert error.value.transient is may_pass


def test_what_tries_rejects_again_by_hand_has_its_flags(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    recipe = recipe_of(tmp_path)
    (tmp_path / "r.toml").write_text(
        f'name = "test"\noutput = "{recipe.output_uri}"\n[source]\nclips = "clips.jsonl"\n'
        'media = { kind = "files", uri = "clips/{YoutubeID}.mp4" }\n[granularity.SVST]\n'
    )
    retry = Retry(("media_missing",), ("LVLT",))
    again = expand.ExpandParameters(recipe=str(tmp_path / "r.toml"), retry=retry)
    command = ["gex", "retry", recipe.output_uri, "--reason", "media_missing", "--granularity", "LVLT"]
    assert expand._command(again) == command
    assert expand._command(again.model_copy(update={"report": False})) == [*command, "--no-report"]


def test_the_balance_has_a_column_for_each_end():
    account = Account("integrate", "LVLT", "clips", 12, 4, {"too_few_clips": 3}, {"media_missing": 2}, num_known=2)
    line = balance_markdown(SimpleNamespace(accounts=(account,))).splitlines()[-1]
    assert line == "| integrate | LVLT | 12 clips | 4 | 2 | 3 too_few_clips | 2 media_missing | 1 |"
