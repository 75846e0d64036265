"""Which Ray the engines of a run are in: from the recipe, and from where the run itself is."""

from __future__ import annotations

from gex_pipeline.ray_jobs import job_address
from gex_pipeline.recipe import RaySettings
from gex_pipeline.summarize.cluster import Cluster


def cluster_of(settings: RaySettings) -> Cluster:
    """What a summarizer's backend has to know of it."""
    return Cluster(is_private=(job_address() or settings.address) == "local", adds_nodes=settings.autoscaling)
