"""Validation as a Prefect flow: an output in, its figures beside the paper's out. Fails when it drifts."""

from __future__ import annotations

from typing import Any

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from pydantic import BaseModel, ConfigDict, Field

from flows.stages import Filled, failed, flags_of, stage
from gex_pipeline.errors import GexError
from gex_pipeline.report.build import build_report
from gex_pipeline.stages.drift import drift_markdown, in_words
from gex_pipeline.stages.validation import ValidationOptions, validate_output
from gex_pipeline.validate.settings import Seed


class ValidateParameters(BaseModel):
    """What is validated, and how closely."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Filled  # folder or URI of a data set
    clip_model: str | None = None  # none: that of the recipe
    num_videos: int = Field(default=100, ge=1)  # of every granularity
    num_texts: int = Field(default=1000, ge=1)  # pairs of a long and a short text
    seed: Seed = 0  # of the choice and the picture


@stage("validate")
def validate_stage(parameters: ValidateParameters) -> dict[str, Any]:
    """Published samples → ``report/validation.json``."""
    options = parameters.model_dump(exclude={"output"})
    return validate_output(parameters.output, ValidationOptions(**options))


@stage("report")
def report_stage(output_uri: str) -> str:
    """``validation.json`` → ``report.html``."""
    return build_report(output_uri)


@flow(name="validate", description="Look at a published data set with models.", log_prints=False)
def validate(parameters: ValidateParameters) -> str | State[Any]:
    """Validate; returns where the report is, and fails when the newest snapshot is not like those before it."""
    try:
        content = validate_stage(parameters)
        page = report_stage(parameters.output)
    except GexError as error:
        return failed(error, *_command(parameters))
    for note in content["notes"]:
        get_run_logger().warning("%s", note)
    create_link_artifact(key="report", link=page, link_text="report with its validation")
    if content["drift"]:
        create_markdown_artifact(key="drift", markdown=drift_markdown(content["drift"]), description=parameters.output)
    alarms = [in_words(row) for row in content["drift"] if row["is_alarm"]]
    if alarms:
        drifted = GexError(f"snapshot {content['snapshot']} of {parameters.output} drifts: {'; '.join(alarms)}")
        return failed(drifted, *_command(parameters))
    return page


def _command(parameters: ValidateParameters) -> list[str]:
    """What does the same by hand."""
    flags = {"clip_model": "--clip", "num_videos": "--videos", "num_texts": "--texts", "seed": "--seed"}
    return ["gex", "validate", parameters.output, *flags_of(parameters, flags)]
