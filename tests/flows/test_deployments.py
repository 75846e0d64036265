"""prefect.yaml and automations.yaml as they lie in the repository, without a server."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import jsonschema
import pytest
import yaml
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.client.schemas.actions import DeploymentScheduleUpdate
from pydantic import ValidationError

from flows.evaluate import EvaluateParameters
from flows.expand import ExpandParameters
from flows.retire import RetireParameters
from flows.stages import failed, need_variables
from gex_pipeline.errors import GexError
from gex_pipeline.retry import Retry

FLOWS = Path(__file__).parents[2] / "flows"
CONTENT = yaml.safe_load((FLOWS / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS = {one["name"]: one for one in CONTENT["deployments"]}


def test_each_deployment_has_a_name_of_its_own_so_that_it_can_be_made_alone():
    assert len(DEPLOYMENTS) == len(CONTENT["deployments"])


def test_every_flow_has_a_deployment():
    modules = {path.stem for path in FLOWS.glob("*.py")} - {"__init__", "stages", "server"}
    assert sorted(one["entrypoint"].split(".")[1] for one in DEPLOYMENTS.values()) == sorted(modules)


def test_the_operating_guide_says_of_every_deployment_whether_and_when_it_runs_by_itself():
    guide = (FLOWS.parent / "docs" / "operating.md").read_text(encoding="utf-8")
    rows = [line for line in guide.splitlines() if line.startswith("| `")]
    for name, deployment in DEPLOYMENTS.items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        when = row.split("|")[3]
        schedules = deployment.get("schedules", [])
        assert ("on demand" in when) == (not schedules), name
        for schedule in schedules:
            minute, hour = schedule["cron"].split()[:2]
            assert f"{int(hour):02d}:{int(minute):02d} {schedule['timezone']}" in when, name
            assert ("begins paused" in when) == (not schedule.get("active", True)), name


def test_what_costs_a_model_or_takes_something_away_begins_paused():
    schedules = [(name, schedule) for name, one in DEPLOYMENTS.items() for schedule in one.get("schedules", [])]
    assert {name for name, schedule in schedules if "active" not in schedule} == {"nightly", "weekly"}
    assert {name for name, schedule in schedules if schedule.get("active") is False} == {"monthly", "validate"}


def test_a_deployment_that_is_made_again_lets_no_schedule_go_on_that_was_paused_by_hand():
    """A schedule that says that it is active sets the server's; one without a word leaves it, by its slug."""
    for deployment in DEPLOYMENTS.values():
        for schedule in deployment.get("schedules", []):
            asked = DeploymentScheduleUpdate(**_schedule_config_to_deployment_schedule(schedule))
            assert asked.slug
            assert asked.model_dump(exclude_unset=True).get("active", False) is False


def test_what_writes_runs_once_at_a_time_and_what_is_due_meanwhile_is_cancelled():
    once = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert {name for name, one in DEPLOYMENTS.items() if one.get("concurrency_limit") != once} == {"evaluate"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_names_a_flow_and_parameters_that_it_takes(name):
    deployment = DEPLOYMENTS[name]
    module, _, function = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), function)
    schema = flow.parameters.model_dump()["definitions"]
    (model,) = [one for title, one in schema.items() if title.endswith("Parameters")]
    given = deployment.get("parameters", {}).get("parameters", {})
    assert set(given) <= set(model["properties"])
    assert deployment["work_pool"]["name"] == "gex"
    assert deployment["enforce_parameter_schema"]


@pytest.mark.parametrize("name", [name for name, one in DEPLOYMENTS.items() if "{{" in json.dumps(one)])
def test_every_variable_of_a_deployment_is_asked_for_before_it_is_made(name):
    text = json.dumps(DEPLOYMENTS[name]["parameters"])
    ((asked,),) = [step.values() for step in DEPLOYMENTS[name]["build"]]
    assert [f"{{{{ ${variable} }}}}" in text for variable in asked["names"]] == [True]
    assert text.count("{{") == 1


def test_variables_that_are_not_set_are_named(monkeypatch):
    monkeypatch.setenv("GEX_ONE", "x")
    monkeypatch.setenv("GEX_TWO", "")
    monkeypatch.delenv("GEX_THREE", raising=False)
    assert need_variables(["GEX_ONE"]) == {}
    with pytest.raises(ValueError, match=r"^set GEX_TWO and GEX_THREE, and deploy again"):
        need_variables(["GEX_ONE", "GEX_TWO", "GEX_THREE"])


def test_a_place_for_a_variable_is_no_parameter():
    for value in ("{{ $GEX_RECIPE }}", "a/{{x"):
        with pytest.raises(ValidationError, match="is a place for a variable that was not set"):
            ExpandParameters(recipe=value)
    assert ExpandParameters(recipe="/data/{a}/b{").recipe == "/data/{a}/b{"


def test_a_retirement_says_which_snapshots_in_one_way():
    for wrong in ({}, {"older_than_days": 3, "snapshots": [1]}):
        with pytest.raises(ValidationError, match="say either older_than_days or snapshots"):
            RetireParameters(output="/data", **wrong)


def test_a_run_that_would_try_nothing_again_or_measure_nothing_is_refused_before_it_starts():
    """The server knows it from the schema; -5 samples of 100 were 95, and no reason found nothing new."""
    for model, wrong in (
        (ExpandParameters, {"recipe": "r.toml", "retry": {"reasons": []}}),
        (EvaluateParameters, {"model": "m", "dataset": "d", "max_samples": 0}),
        (EvaluateParameters, {"model": "m", "dataset": "d", "max_samples": -5}),
    ):
        with pytest.raises(ValidationError, match=r"at least 1|greater than or equal to 1"):
            model(**wrong)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, model.model_json_schema())
    assert ExpandParameters(recipe="r", retry={"reasons": ["media_missing"]}).retry == Retry(("media_missing",))


def test_a_failure_is_told_with_its_stage_and_a_command_that_can_be_pasted():
    error = GexError("no room. ")
    error.add_note("build LVLT")
    state = failed(error, "gex", "run", "/data/a b.toml")
    assert state.is_failed()
    assert state.message == "stage 'build LVLT' failed: no room. To go on: gex run '/data/a b.toml'"
    assert state.data is error
    assert failed(GexError("no recipe"), "gex", "run", "x").message == "no recipe. To go on: gex run x"


def test_the_automations_are_ones():
    from prefect.events.schemas.automations import AutomationCore

    content = yaml.safe_load((FLOWS / "automations.yaml").read_text(encoding="utf-8"))
    (silent,) = [AutomationCore.model_validate(one) for one in content["automations"]]
    heartbeat_s = int(CONTENT["definitions"]["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert silent.trigger.within.total_seconds() == 3 * heartbeat_s
    assert silent.actions[0].state.value == "CRASHED"


@pytest.mark.parametrize(("tags", "is_ours"), [(["gex", "expand"], True), (["other"], False), ([], False)])
def test_only_runs_of_this_project_are_crashed_for_their_silence(tags, is_ours):
    """Whatever else a server ran fell silent by the same rule, at its own pace."""
    from prefect.events.related import tags_as_related_resources
    from prefect.server.events.schemas.automations import EventTrigger
    from prefect.server.events.schemas.events import ReceivedEvent

    content = yaml.safe_load((FLOWS / "automations.yaml").read_text(encoding="utf-8"))
    trigger = EventTrigger.model_validate(content["automations"][0]["trigger"])
    beat = ReceivedEvent(
        id=UUID(int=1),
        occurred=datetime.now(UTC),
        event="prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": "prefect.flow-run.1"},
        related=[one.model_dump() for one in tags_as_related_resources(tags)],
    )
    assert trigger.covers(beat) is is_ours
    assert all("gex" in deployment["tags"] for deployment in DEPLOYMENTS.values())
