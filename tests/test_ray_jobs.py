from __future__ import annotations

import pytest

from gex_pipeline.ray_jobs import cluster_of
from gex_pipeline.recipe import RaySettings
from gex_pipeline.summarize.backends import Cluster


def test_a_ray_is_private_only_where_the_run_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert cluster_of(RaySettings()) == Cluster(is_private=True, adds_nodes=False)
    assert cluster_of(RaySettings(address="auto", autoscaling=True)) == Cluster(is_private=False, adds_nodes=True)
    # A run that was submitted to a cluster runs there, whatever its recipe says.
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not cluster_of(RaySettings()).is_private
