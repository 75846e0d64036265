"""Verification as a Prefect flow: an output in, findings out. Fails when anything is wrong, and says what to do."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from flows.stages import Filled, failed, flags_of, stage
from gex_pipeline.errors import GexError
from gex_pipeline.ray_jobs import verify_shards
from gex_pipeline.recipe import RaySettings
from gex_pipeline.report.wording import markdown_table
from gex_pipeline.shards.findings import Finding, is_of_table, is_rebuilt
from gex_pipeline.shards.target import open_target
from gex_pipeline.shards.verify import on_cores
from gex_pipeline.shards.verify import verify as verify_target

_SHOWN = 100


class VerifyParameters(BaseModel):
    """What is verified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Filled  # folder or URI of a data set
    deep: bool = False  # decode every frame and look at every joint, beside digests and texts
    ray: str | None = None  # address of a Ray cluster; none: the cores of this machine


@stage("verify")
def verify_stage(parameters: VerifyParameters) -> tuple[int, list[Finding]]:
    """Shards → how many there are, and findings."""
    target = open_target([parameters.output])
    runner = on_cores
    if parameters.ray is not None:
        runner = partial(verify_shards, settings=RaySettings(address=parameters.ray))
    return len(target.shards), verify_target(target, target, runner, is_deep=parameters.deep)


@flow(name="verify", description="Check every published shard.", log_prints=False)
def verify(parameters: VerifyParameters) -> int | State[Any]:
    """Verify; returns how many shards hold nothing wrong.

    Raises:
        GexError: something is wrong.
    """
    logger = get_run_logger()
    try:
        num_shards, findings = verify_stage(parameters)
    except GexError as error:
        flags = flags_of(parameters, {"deep": "--deep", "ray": "--ray"})
        return failed(error, "gex", "shards", "verify", parameters.output, *flags)
    wrong = [finding for finding in findings if not finding.is_note]
    for finding in _first(findings):
        logger.log(20 if finding.is_note else 40, "%s %s %s: found %s, expected %s", *_words(finding))
    if num_more := _num_more(findings):
        logger.log(40 if wrong else 20, "and %d more", num_more)
    create_markdown_artifact(key="findings", markdown=findings_markdown(findings), description=parameters.output)
    if wrong:
        shards = {finding.shard for finding in wrong if finding.shard}
        num, first = sum(finding.num for finding in wrong), " ".join(_words(wrong[0]))
        said = f"{num} findings in {len(shards)} places of {parameters.output}, first {first}"
        if any(is_of_table(finding.shard) for finding in wrong):
            said += "; put the tables back from a copy, they are not built again"
        if any(is_rebuilt(finding.shard, finding.check) for finding in wrong):
            said += f"; build damaged shards again with: gex run {parameters.output} --check-bytes"
        raise GexError(said)
    return num_shards


def findings_markdown(findings: list[Finding]) -> str:
    """Findings as a Markdown table; the first hundred, and how many there are besides."""
    if not findings:
        return "Nothing is wrong."
    columns = ("shard", "sample", "check", "found", "expected")
    shown = markdown_table(columns, map(_words, _first(findings)))
    num_more = _num_more(findings)
    return shown + (f"\n\nand {num_more} more" if num_more else "")


def _first(findings: list[Finding]) -> list[Finding]:
    """The first hundred; without those that only count."""
    return [finding for finding in findings if finding.shard][:_SHOWN]


def _num_more(findings: list[Finding]) -> int:
    return sum(finding.num for finding in findings) - len(_first(findings))


def _words(finding: Finding) -> tuple[str, str, str, str, str]:
    return finding.shard, finding.key, finding.check, finding.found, finding.expected
