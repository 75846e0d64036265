"""Retirement as a Prefect flow: an output and an age in; old snapshots out of the data set."""

from __future__ import annotations

from typing import Any, Self

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.stages import Filled, failed, flags_of, stage
from gex_pipeline.errors import GexError
from gex_pipeline.stages.retire import Retirement, retire_snapshots


class RetireParameters(BaseModel):
    """What is retired."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Filled  # folder or URI of a data set
    older_than_days: float | None = Field(default=None, ge=0)  # snapshots published before; or `snapshots`
    snapshots: tuple[int, ...] = ()  # these, whatever their age
    dry_run: bool = False  # say what would be done

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.older_than_days is None) == (not self.snapshots):
            raise ValueError("say either older_than_days or snapshots")
        return self


@stage("retire")
def retire_stage(parameters: RetireParameters) -> Retirement:
    """Snapshots → their shards out of dataset.json, then off the disk."""
    return retire_snapshots(
        parameters.output, parameters.older_than_days, parameters.snapshots, dry_run=parameters.dry_run
    )


@flow(name="retire", description="Take old snapshots out of a data set.", log_prints=False)
def retire(parameters: RetireParameters) -> list[int] | State[Any]:
    """Retire; returns the numbers of the snapshots."""
    try:
        found = retire_stage(parameters)
    except GexError as error:
        flags = {"older_than_days": "--older-than-days", "snapshots": "--snapshot", "dry_run": "--dry-run"}
        return failed(error, "gex", "shards", "retire", parameters.output, *flags_of(parameters, flags))
    get_run_logger().info(found.words)
    create_markdown_artifact(key="retired", markdown=found.words, description=parameters.output)
    return list(found.snapshots)
