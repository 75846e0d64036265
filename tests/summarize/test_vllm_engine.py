"""What engines are started with, and where: on the objects that Ray Data gets, without an engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gex_pipeline.errors import GexError, MissingExtraError, RecipeError
from gex_pipeline.summarize import vllm_backend
from gex_pipeline.summarize.backends import Cluster, backend
from gex_pipeline.summarize.chat_template import chat_template_text
from gex_pipeline.summarize.engine_arguments import argument_names, check_arguments
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.vllm_backend import check_nodes, engine_config, engine_resources, processor
from tests.summarize.test_vllm_backend import MODEL, a_ray, needs_model, needs_vllm, settings, story

ROOT = Path(__file__).parents[2]
TWO_GPUS = {"tensor_parallel_size": 2}
EIGHT: Mapping[str, float] = {"GPU": 8.0, "CPU": 64.0}


@pytest.fixture(scope="module")
def ray_once() -> Iterator[None]:
    with a_ray():
        yield


def stages(chosen: SummarizerSettings, resources: Mapping[str, float] = EIGHT) -> dict[str, dict[str, Any]]:
    """What Ray Data's `map_batches` gets for each stage."""
    built = processor(engine_config(chosen, dict(resources)), chosen)
    return {name: built.get_stage_by_name(name).map_batches_kwargs for name in ("ChatTemplateStage", "vLLMEngineStage")}


@needs_model
@needs_vllm
@pytest.mark.parametrize("more", [{}, {"pipeline_parallel_size": 2}])
def test_an_engine_of_several_gpus_holds_them_itself_and_leaves_no_placement_group(
    ray_once: None, more: dict[str, int]
) -> None:
    """Each pass left a placement group with its GPUs behind: on eight of them, the third with two engines hung."""
    chosen = settings(engine=TWO_GPUS | more)
    engine = stages(chosen)["vLLMEngineStage"]
    assert engine["num_gpus"] == chosen.engine_gpus == 2 * more.get("pipeline_parallel_size", 1)
    assert "ray_remote_args_fn" not in engine
    assert engine_config(chosen, dict(EIGHT))["engine_kwargs"]["distributed_executor_backend"] == "mp"
    on_cpus = stages(chosen, {"CPU": 8.0})["vLLMEngineStage"]
    assert on_cpus["num_cpus"] == chosen.engine_gpus
    assert "ray_remote_args_fn" not in on_cpus


@needs_model
def test_an_executor_that_a_recipe_names_stays() -> None:
    chosen = settings(engine=TWO_GPUS | {"distributed_executor_backend": "ray"})
    assert engine_config(chosen, dict(EIGHT))["engine_kwargs"]["distributed_executor_backend"] == "ray"
    assert "distributed_executor_backend" not in engine_config(settings(), dict(EIGHT))["engine_kwargs"]


def pool(stage: dict[str, Any]) -> tuple[int, int]:
    return stage["compute"].min_size, stage["compute"].max_size


@needs_model
@needs_vllm
def test_so_many_engines_start_at_once_as_the_recipe_says_and_few_that_render_prompts(ray_once: None) -> None:
    """`concurrency = 3` was one to three engines, of which the first did everything."""
    built = stages(settings(concurrency=3))
    assert [pool(stage) for stage in built.values()] == [(1, 1), (3, 3)]
    assert built["vLLMEngineStage"]["max_restarts"] == 3
    built = stages(settings(concurrency=3, max_concurrency=20))
    assert [pool(stage) for stage in built.values()] == [(1, 3), (3, 20)]


@needs_model
@pytest.mark.parametrize(("num_requests", "engines"), [(1, (1, 1)), (256, (1, 1)), (700, (3, 3)), (99_999, (4, 9))])
def test_a_last_attempt_over_a_few_texts_starts_no_engine_that_would_get_none(
    num_requests: int, engines: tuple[int, int]
) -> None:
    chosen = settings(concurrency=4, max_concurrency=9)
    assert engine_config(chosen, dict(EIGHT), num_requests)["concurrency"] == engines


@needs_model
@needs_vllm
def test_bad_nodes_of_many_do_not_end_the_run(ray_once: None) -> None:
    """Two engines that did not start, of a hundred, ended it: Ray counts deaths over all that start together."""
    requests = [story(number) for number in range(3)]
    for chosen, num_deaths in ((settings(), 1), (settings(concurrency=3, engine={"max_num_seqs": 1}), 3)):
        answers = vllm_backend._pipeline(requests, chosen, dict(EIGHT))
        assert answers.context.max_consecutive_actor_init_deaths == num_deaths


@needs_model
@pytest.mark.parametrize(
    ("given", "at_once"),
    [
        ({}, (256, 8192)),
        ({"max_num_seqs": 1024, "max_num_batched_tokens": 16384}, (1024, 16384)),
        ({"max_num_seqs": 9000}, (9000, 9000)),  # vLLM refuses more sequences than tokens
        ({"max_num_batched_tokens": 100}, (100, 100)),
        ({"enable_chunked_prefill": False}, (256, None)),  # then a whole context has to fit: vLLM sees to that
    ],
)
def test_an_engine_on_a_gpu_does_as_much_at_once_as_vllm_alone(
    given: dict[str, Any], at_once: tuple[int, int | None]
) -> None:
    """As Ray starts it, vLLM takes the sizes that it has for hardware it does not know: 128 and 2048."""
    engine = engine_config(settings(engine=given), dict(EIGHT))["engine_kwargs"]
    assert (engine["max_num_seqs"], engine.get("max_num_batched_tokens")) == at_once


@needs_model
def test_no_engine_compiles_a_sampler_that_no_request_uses() -> None:
    """FlashInfer's wants nvcc, which the image has not: no engine came up in it."""
    for resources in (dict(EIGHT), {"CPU": 2.0}):
        environment = engine_config(settings(), resources)["runtime_env"]["env_vars"]
        assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "    VLLM_USE_FLASHINFER_SAMPLER=0\n" in (ROOT / "docker/Dockerfile.gpu").read_text()


def test_on_a_cluster_the_machine_that_runs_the_flow_needs_no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs the CPU image in the shipped cluster, and every run with vLLM ended there at once."""
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    argument_names.cache_clear()
    chosen = settings(model="org/name")
    with pytest.raises(MissingExtraError, match="vllm is not installed"):
        backend(chosen, Cluster(is_private=True)).check_ready(chosen)
    backend(chosen, Cluster(is_private=False)).check_ready(chosen)
    argument_names.cache_clear()


@needs_vllm
@pytest.mark.parametrize(
    ("name", "meant"), [("tensor_paralel_size", "; did you mean 'tensor_parallel_size'?"), ("temperature_of_tea", "$")]
)
def test_a_misspelt_argument_of_the_engine_is_told_before_anything_is_built(name: str, meant: str) -> None:
    """It was found when the first engine started, with all long videos made."""
    chosen = settings(model="org/name", engine={"max_num_seqs": 8, name: 2})
    with pytest.raises(RecipeError, match=rf"engine\.{name} is no argument of a vLLM engine{meant}"):
        backend(chosen).check_ready(chosen)
    check_arguments(["max_num_seqs", "distributed_executor_backend", "enable_log_requests", "load_format"])


@needs_vllm
def test_the_names_of_an_engines_arguments_are_those_that_vllm_takes_and_cost_no_import() -> None:
    code = (
        "import sys; from gex_pipeline.summarize.engine_arguments import argument_names; names = argument_names();"
        "assert not {'torch', 'vllm'} & set(sys.modules);"
        "import dataclasses; from vllm.engine.arg_utils import AsyncEngineArgs;"
        "assert names == {field.name for field in dataclasses.fields(AsyncEngineArgs)}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=120)


def test_engines_ask_for_gpus_where_nodes_are_still_to_come(ray_once: None) -> None:
    """Without a GPU at that second a model of 13 billion parameters went to a CPU, and no GPU was ever asked for."""
    import ray

    chosen = settings(engine=TWO_GPUS)
    assert engine_resources(chosen, Cluster(adds_nodes=True)) == ray.cluster_resources() | {"GPU": 2}
    assert engine_resources(chosen, Cluster()) == ray.cluster_resources()


def test_gpus_of_several_nodes_are_not_those_of_one() -> None:
    """Four nodes of one GPU passed as four GPUs, and the engine of two waited for half an hour."""
    chosen = settings(engine=TWO_GPUS)
    rooms = [{"CPU": 8.0}, *({"CPU": 8.0, "GPU": 1.0} for _ in range(4))]
    with pytest.raises(
        GexError, match=r"takes 2 GPUs of one node .* no node of the Ray cluster has more than 1; ask for"
    ):
        check_nodes(chosen, rooms)
    check_nodes(chosen, [*rooms, {"GPU": 2.0}])
    check_nodes(chosen, rooms[:1])  # on CPUs
    check_nodes(settings(engine=TWO_GPUS | {"distributed_executor_backend": "ray"}), rooms)  # an engine over nodes


TEMPLATES = """
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.vllm_backend import engine_config
for revision in ("v2", None):
    stage = engine_config(SummarizerSettings(model="org/name", revision=revision), {})["chat_template_stage"]
    print(stage["chat_template"], stage["chat_template_kwargs"].get("eos_token"))
"""


@needs_model
def test_a_revision_brings_its_own_chat_template(tmp_path: Path) -> None:
    """The stage that renders prompts took the template of `main`, whatever the revision."""
    folder = tmp_path / "hub/models--org--name"
    (folder / "refs").mkdir(parents=True)
    for name in ("main", "v2"):
        (folder / "refs" / name).write_text(f"commit-{name}")
        snapshot = folder / f"snapshots/commit-{name}"
        snapshot.mkdir(parents=True)
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (snapshot / file).write_bytes((MODEL / file).read_bytes())
        (snapshot / "chat_template.jinja").write_text(f"template of {name}")
    done = subprocess.run(
        [sys.executable, "-c", TEMPLATES],
        env={"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["template of v2 <|im_end|>", "None None"]
    named = settings(revision="v2", chat_template="vicuna_v1.5")
    assert engine_config(named, {})["chat_template_stage"]["chat_template"] == chat_template_text(named)


@needs_model
def test_a_context_may_be_what_the_memory_has_room_for() -> None:
    assert engine_config(settings(max_model_len=-1), dict(EIGHT))["engine_kwargs"]["max_model_len"] == -1
    assert "max_model_len" not in engine_config(settings(max_model_len=None), dict(EIGHT))["engine_kwargs"]
