"""The assessment of summarisers as a Prefect flow: a TOML file in; a table, a page and a recommendation out."""

from __future__ import annotations

from typing import Any

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from pydantic import BaseModel, ConfigDict, Field

from flows.stages import Filled, failed, flags_of, stage
from gex_pipeline.errors import GexError
from gex_pipeline.report.assessment_page import table_markdown, write_page
from gex_pipeline.stages.assessment import assess
from gex_pipeline.stages.assessment_recipe import load_assessment, read_tasks


class AssessParameters(BaseModel):
    """What is assessed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Filled  # the assessment's TOML file
    output: Filled  # folder or URI of the results; what is there already is not made again
    num_tasks: int | None = Field(default=None, ge=1)  # so many, chosen by the file's seed; none: as the file says


@stage("assess")
def assess_stage(parameters: AssessParameters) -> tuple[dict[str, Any], str]:
    """Tasks and candidates → figures; and where the page is.

    Raises:
        GexError: a candidate did not run; the others are written.
    """
    logger = get_run_logger()
    recipe = load_assessment(parameters.file)
    tasks, notes = read_tasks(recipe, parameters.num_tasks)
    for note in notes:
        logger.warning("%s", note)
    found = assess(recipe, tasks, parameters.output)
    page = write_page(found.content, found.rows, parameters.output)
    failure = found.failure(page)
    if failure is not None:
        raise failure
    return found.content, page


@flow(name="assess summarisers", description="Compare summarisers on tasks with references.", log_prints=False)
def assess_summarisers(parameters: AssessParameters) -> str | State[Any] | None:
    """Assess; returns the name of the recommended candidate."""
    try:
        content, page = assess_stage(parameters)
    except GexError as error:
        flags = flags_of(parameters, {"output": "-o", "num_tasks": "--tasks"})
        return failed(error, "gex", "assess-summarisers", parameters.file, *flags)
    create_markdown_artifact(key="summarisers", markdown=table_markdown(content), description=content["name"])
    create_link_artifact(key="assessment", link=page, link_text=content["name"])
    recommended: str | None = content["recommendation"]["candidate"]
    return recommended


if __name__ == "__main__":
    import sys

    assess_summarisers(AssessParameters(file=sys.argv[1], output=sys.argv[2]))
