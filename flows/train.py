"""Training as a Prefect flow: a training recipe in, a model out. A run that failed goes on when it is run again."""

from __future__ import annotations

from typing import Any

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from flows.stages import Filled, failed, stage
from gex_pipeline.errors import GexError
from gex_pipeline.report.wording import markdown_table
from gex_pipeline.stages.models import train_model


class TrainParameters(BaseModel):
    """What a training needs to know; checked before it starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Filled  # a training recipe (TOML), or a published data set: the paper's recipe over it


@stage("train")
def train_stage(recipe: str) -> tuple[str, dict[str, float]]:
    """Steps → checkpoints → the model; where it is, and its figures.

    Raises:
        GexError: it was told to stop before its end; nobody wants it to be tried again at once.
    """
    logger = get_run_logger()
    outcome = train_model(recipe, logger.info)
    if outcome.stopped_by:
        raise GexError(f"it was told to stop ({outcome.stopped_by}) and wrote a checkpoint")
    logger.info(outcome.describe())
    return outcome.model, outcome.figures


@flow(name="train", description="Train the model of the paper on a published data set.", log_prints=False)
def train(parameters: TrainParameters) -> str | State[Any]:
    """Train to the end, or go on; returns where the model is."""
    try:
        model, figures = train_stage(parameters.recipe)
    except GexError as error:
        return failed(error, "gex", "train", parameters.recipe)
    if figures:
        create_markdown_artifact(key="held-out", markdown=figures_markdown(figures), description="held-out sources")
    if model:
        create_link_artifact(key="model", link=f"{model}/README.md", link_text="model card")
    return model


def figures_markdown(figures: dict[str, float]) -> str:
    """Figures as a Markdown table."""
    rows = [(name, f"{value:.4g}") for name, value in figures.items()]
    return markdown_table(("figure", "value"), rows, numbers=(1,))
