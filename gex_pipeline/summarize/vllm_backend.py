"""Summaries from vLLM engines on Ray workers, through `ray.data.llm`.

Requests enter as small rows and answers leave as they are ready, in any order; key and digests travel
with each row. A request that the engine refuses costs its own row. An engine that dies is started again by Ray
and asked again for what it had not answered, a bounded number of times; one that gives no answer for
`engine_timeout_s` ends the run. Ray must have been started by the caller; engines take GPUs where the cluster has any
at that moment, or adds nodes, else CPUs. An engine stays on one node.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gex_pipeline.errors import GexError, MissingExtraError, Reason, StuckError, innermost
from gex_pipeline.summarize.backends import Cluster
from gex_pipeline.summarize.chat_template import chat_template_text
from gex_pipeline.summarize.engine_arguments import check_arguments
from gex_pipeline.summarize.engine_logs import logged_cause
from gex_pipeline.summarize.http import TOO_LONG
from gex_pipeline.summarize.prompt import build_messages
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest, request_digest, sampling
from gex_pipeline.summarize.settings import SummarizerSettings

_SMALL_CPUS = 0.1  # of every stage but the engine: whole CPUs leave none for the engine on a small machine
_KV_CACHE_BYTES = 64 << 20  # of an engine on a CPU; the default there is sized for a machine of its own
# On GPUs; vLLM's own for an A100 in its offline mode. Through Ray it would take 128 and 2048 on any GPU, and the driver
# does not know which ones the engines will find.
_GPU_SEQUENCES = 256
_GPU_BATCHED_TOKENS = 8192
_MIN_BATCHES = 4  # in flight at an engine, so that it never waits for the slowest of one
_ERROR_COLUMN = "__inference_error__"
_ENGINE_STAGE = "vLLMEngineStage"
_MAX_RESTARTS = 3  # of one engine in one pass; by default Ray Data restarts what a prompt kills for ever
_ENGINES_A_TEMPLATER = 8  # rendering prompts is a small part of answering them


class VllmBackend:
    """Runs one Ray Data pipeline a call; engines start with it and end with it."""

    name = "vllm"

    def __init__(self, settings: SummarizerSettings, cluster: Cluster | None = None) -> None:
        self.max_attempts = settings.max_attempts
        self._cluster = cluster or Cluster()

    def check_ready(self, settings: SummarizerSettings) -> None:
        """Raises GexError when vLLM, a local model directory or the chat template is missing, or `engine` is wrong."""
        # On a cluster the engines' nodes have it; the one that the run is on need not.
        if self._cluster.is_private and importlib.util.find_spec("vllm") is None:
            raise MissingExtraError("vllm", "vllm")
        check_arguments(settings.engine)
        model = settings.model or ""
        folder = Path(model).expanduser()
        if model.startswith(("/", ".", "~")) and not folder.is_dir():
            raise GexError(f"model directory {model!r} does not exist")
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise GexError(f"model directory {model!r} holds no config.json, so it is no Hugging Face model")
        chat_template_text(settings)

    def answer(self, requests: Iterable[SummaryRequest], settings: SummarizerSettings) -> Iterator[SummaryAnswer]:
        """One answer a request, as batches get ready.

        Raises:
            GexError: Ray is not started, or the engines cannot start or keep dying.
            StuckError: no answer comes for `engine_timeout_s`.
        """
        import ray
        from ray.data.exceptions import ExecutionTimeoutError

        self.check_ready(settings)
        if not ray.is_initialized():
            raise GexError("Ray is not started; a summarizer with backend 'vllm' runs inside a Ray job")
        asked = list(requests)
        if not asked:
            return
        resources = engine_resources(settings, self._cluster)
        try:
            for row in _pipeline(asked, settings, resources).iter_rows():
                yield _answer(row, settings)
        except ExecutionTimeoutError as error:
            raise StuckError(
                f"the engine for model {settings.model!r} gave no answer for {settings.engine_timeout_s:g} s; answers "
                "given before are kept. Run the same command again, with a longer engine_timeout_s if it was working"
            ) from error
        except ray.exceptions.RayError as error:
            logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
            cause = logged_cause(str(error), logs)
            raise GexError(
                f"the engine for model {settings.model!r} {what_happened(error)}; answers given before are kept. "
                + (f"The root cause: {cause}" if cause else f"Ray's worker logs say more: {logs}")
            ) from error


def engine_resources(settings: SummarizerSettings, cluster: Cluster) -> dict[str, float]:
    """What the Ray that is started has for engines; GPUs, too, where it adds nodes and none with one is there yet.

    Raises:
        GexError: an engine would wait for ever.
    """
    import ray

    resources: dict[str, float] = ray.cluster_resources()
    if cluster.adds_nodes:
        return resources | {"GPU": max(resources.get("GPU", 0), settings.engine_gpus)}
    check_nodes(settings, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    return resources


def check_nodes(settings: SummarizerSettings, rooms: Sequence[dict[str, float]]) -> None:
    """Fail where an engine would wait for GPUs that no node has; `rooms` are the resources of the nodes.

    Raises:
        GexError: it would.
    """
    most = max((room.get("GPU", 0) for room in rooms), default=0)
    in_one_node = settings.engine.get("distributed_executor_backend") != "ray"
    if in_one_node and 0 < most < settings.engine_gpus:
        raise GexError(
            f"an engine for model {settings.model!r} takes {settings.engine_gpus} GPUs of one node "
            f"(tensor_parallel_size, pipeline_parallel_size) and no node of the Ray cluster has more than {most:g}; "
            "ask for less, or say [ray] autoscaling = true when the cluster adds nodes by itself"
        )


def what_happened(error: BaseException) -> str:
    """In one sentence: an engine that did not start ends with the innermost error, one that kept dying with none."""
    if "died" in str(error) and "creation task" not in str(error):
        return f"died {_MAX_RESTARTS + 1} times"
    return f"did not start: {innermost(error)}"


def _row(request: SummaryRequest, settings: SummarizerSettings) -> dict[str, Any]:
    return {
        "key": request.key,
        "source_digest": request.source_digest,
        "request_digest": request_digest(request, settings),
        "captions": list(request.captions),
        "attempt": request.attempt,
        "previous": str(request.previous or ""),
    }


def _pipeline(requests: Sequence[SummaryRequest], settings: SummarizerSettings, resources: dict[str, float]) -> Any:
    """The lazy Ray data set of answers, one row a request."""
    import pyarrow as pa
    import ray.data

    # A block a batch: Ray hands a block's answers on when all of it is answered.
    step = settings.batch_size
    blocks = [
        pa.Table.from_pylist([_row(request, settings) for request in requests[i : i + step]])
        for i in range(0, len(requests), step)
    ]
    config = engine_config(settings, resources, len(requests))
    answers = processor(config, settings)(ray.data.from_arrow(blocks))
    answers.context.execution_no_progress_timeout_s = settings.engine_timeout_s
    # Deaths in a row before any engine is up: a wrong setting, or a few bad nodes of many. Ray counts them together.
    answers.context.max_consecutive_actor_init_deaths = config["concurrency"][1]
    return answers


def processor(config: dict[str, Any], settings: SummarizerSettings) -> Any:
    """The stages that answer: prompts, engines, answers."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    stages = build_processor(
        vLLMEngineProcessorConfig(**config),
        preprocess=functools.partial(_prompt_columns, settings=settings),
        postprocess=_answer_columns,
        preprocess_map_kwargs={"num_cpus": _SMALL_CPUS},
        postprocess_map_kwargs={"num_cpus": _SMALL_CPUS},
    )
    # Changed in place: an assignment is validated, which works out the engine's placement once more, and wrong.
    bounds = {"max_restarts": _MAX_RESTARTS, "max_task_retries": _MAX_RESTARTS}
    stages.get_stage_by_name(_ENGINE_STAGE).map_batches_kwargs.update(bounds)
    return stages


def engine_config(
    settings: SummarizerSettings, resources: dict[str, float], num_requests: int | None = None
) -> dict[str, Any]:
    """Arguments of `vLLMEngineProcessorConfig` on these resources of a cluster; no more engines than requests need."""
    on_gpu = resources.get("GPU", 0) >= 1
    engine = _engine_arguments(settings, on_gpu=on_gpu)
    model, environment = settings.model or "", _environment(on_gpu=on_gpu)
    if Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().absolute())
        environment["HF_HUB_OFFLINE"] = "1"
    at_once = engine.get("max_num_seqs") or _GPU_SEQUENCES
    num_batches = max(_MIN_BATCHES, math.ceil(2 * at_once / settings.batch_size))
    fewest, most = _num_engines(settings, at_once, num_requests)
    tokenizer = _tokenizer(model, settings)
    config: dict[str, Any] = {
        "model_source": model,
        "engine_kwargs": engine,
        "concurrency": (fewest, most),
        "batch_size": settings.batch_size,
        # As many requests at an engine as it answers at once, and as many again for when some of these are done.
        "max_concurrent_batches": num_batches,
        "max_pending_requests": num_batches * settings.batch_size,
        "should_continue_on_error": True,
        "log_engine_metrics": False,
        "runtime_env": {"env_vars": environment},
        "chat_template_stage": {
            "num_cpus": _SMALL_CPUS,
            "concurrency": math.ceil(most / _ENGINES_A_TEMPLATER),  # at most; it starts with one
            "chat_template": _template(tokenizer, settings),
            "chat_template_kwargs": _template_arguments(tokenizer, settings),
        },
        # The engine does both itself; two actors less to start.
        "tokenize_stage": False,
        "detokenize_stage": False,
    }
    if not on_gpu:
        cpus = 1.0 if resources.get("CPU", 0) >= 2 else 0.5
        config["placement_group_config"] = {"bundle_per_worker": {"CPU": cpus}}
    return config


def _num_engines(settings: SummarizerSettings, at_once: int, num_requests: int | None) -> tuple[int, int]:
    """Engines to begin with, and at most. Ray takes a number that is no range for a range from one."""
    useful = settings.most_engines if num_requests is None else max(1, math.ceil(num_requests / at_once))
    return min(settings.concurrency, useful), min(settings.most_engines, useful)


def _engine_arguments(settings: SummarizerSettings, *, on_gpu: bool) -> dict[str, Any]:
    # Whole answers are wanted: an engine that hands on every token, and counts them, spends its time on that.
    engine: dict[str, Any] = {"disable_log_stats": True, "stream_interval": settings.max_tokens}
    engine |= _gpu_engine(settings.engine) if on_gpu else _cpu_engine()
    if settings.engine_gpus > 1:
        # With Ray's own executor, every pass would leave a placement group with its GPUs behind.
        engine["distributed_executor_backend"] = "mp"
    if settings.max_model_len:
        engine["max_model_len"] = settings.max_model_len
    if settings.revision:
        engine |= {"revision": settings.revision, "tokenizer_revision": settings.revision}
    return engine | settings.engine


def _environment(*, on_gpu: bool) -> dict[str, str]:
    # FlashInfer's sampler compiles itself with nvcc when the engine starts, and never serves requests with a seed.
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
    if not on_gpu:
        # The model inside the engine's process: one process less that imports torch, and half of the start.
        environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    return environment


def _gpu_engine(given: dict[str, Any]) -> dict[str, Any]:
    """How much an engine does at once, as far as `given` leaves it open; vLLM refuses more sequences than tokens."""
    tokens, sequences = given.get("max_num_batched_tokens"), given.get("max_num_seqs")
    engine = {"max_num_seqs": min(_GPU_SEQUENCES, tokens or _GPU_SEQUENCES)}
    if given.get("enable_chunked_prefill", True):  # else a whole prompt has to fit, which vLLM sees to
        engine["max_num_batched_tokens"] = max(_GPU_BATCHED_TOKENS, sequences or 0)
    return engine


def _cpu_engine() -> dict[str, Any]:
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "kv_cache_memory_bytes": _KV_CACHE_BYTES,
        "max_num_seqs": 32,
    }


def _tokenizer(model: str, settings: SummarizerSettings) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            model,
            revision=settings.revision or "main",
            trust_remote_code=bool(settings.engine.get("trust_remote_code", False)),
        )
    except (OSError, ValueError) as error:
        raise GexError(f"no tokenizer for model {settings.model!r}: {' '.join(str(error).split())[:400]}") from error


def _template(tokenizer: Any, settings: SummarizerSettings) -> str | None:
    """The template's text; of a revision its own, since the stage that renders prompts reads the model's newest."""
    text = chat_template_text(settings)
    if text is None and settings.revision:
        with suppress(ValueError):  # it has none
            text = tokenizer.get_chat_template()
    return text


def _template_arguments(tokenizer: Any, settings: SummarizerSettings) -> dict[str, Any]:
    """No thinking aloud, and one token of sequence start: where the tokenizer adds it, the template must not."""
    arguments: dict[str, Any] = {"enable_thinking": False}
    if settings.revision:
        arguments |= {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    start = tokenizer.bos_token_id
    if start is not None and tokenizer("x")["input_ids"][:1] == [start]:
        arguments["bos_token"] = ""
    return arguments


def _prompt_columns(row: dict[str, Any], settings: SummarizerSettings) -> dict[str, Any]:
    request = SummaryRequest(
        key=row["key"],
        source_digest=row["source_digest"],
        captions=tuple(row["captions"]),
        text="",  # no part of the prompt, so it does not travel
        attempt=int(row["attempt"]),
        previous=Reason(row["previous"]) if row["previous"] else None,
    )
    return {"messages": build_messages(request, settings), "sampling_params": sampling(request, settings)}


def _answer_columns(row: dict[str, Any]) -> dict[str, Any]:
    names = ("key", "source_digest", "request_digest", "generated_text")
    numbers = ("num_input_tokens", "num_generated_tokens", "time_taken_llm")
    return {name: row[name] for name in (*names, *numbers)}


def _answer(row: dict[str, Any], settings: SummarizerSettings) -> SummaryAnswer:
    """One row of the pipeline, whose failed rows carry other columns than its good ones."""
    identity = {name: row[name] for name in ("request_digest", "key", "source_digest")}
    if error := row.get(_ERROR_COLUMN):
        kind = Reason.prompt_too_long if TOO_LONG.search(error) else Reason.engine_error
        return SummaryAnswer(**identity, error=" ".join(error.split())[:500], error_kind=kind)
    num_generated = int(row["num_generated_tokens"])
    return SummaryAnswer(
        **identity,
        raw_text=row["generated_text"] or "",
        num_prompt_tokens=int(row["num_input_tokens"]),
        num_generated_tokens=num_generated,
        # Ray's stage drops the engine's own reason to stop.
        finish="length" if num_generated >= settings.max_tokens else "stop",
        seconds=float(row["time_taken_llm"]),
    )
