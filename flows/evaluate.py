"""Evaluation as a Prefect flow: a trained model and a published data set in, figures by granularity out."""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict, Field

from flows.stages import Filled, failed, flags_of, stage
from gex_pipeline.errors import GexError
from gex_pipeline.report.wording import markdown_table
from gex_pipeline.stages.models import evaluate_model


class EvaluateParameters(BaseModel):
    """What is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Filled  # the output of a training, or an exported model
    dataset: Filled  # folder or URI of a data set
    max_samples: int | None = Field(default=None, ge=1)  # of a granularity at most, chosen by a seed; none: all


@stage("evaluate")
def evaluate_stage(parameters: EvaluateParameters) -> list[dict[str, Any]]:
    """Samples → vectors → figures."""
    return evaluate_model(parameters.model, parameters.dataset, parameters.max_samples)


@flow(name="evaluate", description="Measure a trained model on a published data set.", log_prints=False)
def evaluate(parameters: EvaluateParameters) -> list[dict[str, Any]] | State[Any]:
    """Measure; returns an evaluation a granularity."""
    try:
        found = evaluate_stage(parameters)
    except GexError as error:
        flags = flags_of(parameters, {"max_samples": "--max-samples"})
        return failed(error, "gex", "eval", parameters.model, parameters.dataset, *flags)
    create_markdown_artifact(key="evaluation", markdown=evaluation_markdown(found), description=parameters.model)
    return found


def evaluation_markdown(found: list[dict[str, Any]]) -> str:
    """Figures as a Markdown table."""
    rows = [
        (one["data"]["granularity"], one["num_samples"], figure, f"{value:.4g}")
        for one in found
        for figure, value in _flat(one["figures"])
    ]
    return markdown_table(("granularity", "samples", "figure", "value"), rows, numbers=(1, 3))


def _flat(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Numbers under joined names."""
    flat: list[tuple[str, float]] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat.append((f"{prefix}{name}", float(value)))
    return flat
