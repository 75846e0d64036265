"""Summaries from vLLM engines on Ray workers, through `ray.data.llm`.

Requests enter as small rows and answers leave as they are ready, in any order; key and digests travel
with each row. A request that the engine refuses costs its own row. An engine that dies is started again by Ray
and asked again for what it had not answered, a bounded number of times; one that gives no answer for
`engine_timeout_s` ends the run. Ray must have been started by the caller; whether engines take GPUs or CPUs follows
from what the cluster has at that moment.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gex_pipeline.errors import GexError, MissingExtraError, Reason, TransientError
from gex_pipeline.summarize.chat_template import chat_template_text
from gex_pipeline.summarize.http import TOO_LONG
from gex_pipeline.summarize.prompt import build_messages
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest, request_digest, sampling
from gex_pipeline.summarize.settings import SummarizerSettings

_SMALL_CPUS = 0.1  # of every stage but the engine: whole CPUs leave none for the engine on a small machine
_KV_CACHE_BYTES = 64 << 20  # of an engine on a CPU; the default there is sized for a machine of its own
_GPU_SEQUENCES = 1024  # vLLM's own default there, at most
_MIN_BATCHES = 4  # in flight at an engine, so that it never waits for the slowest of one
_ERROR_COLUMN = "__inference_error__"
_ERROR_LINE = re.compile(r"[\w.]*(?:Error|Exception)\b.*:")
_ENGINE_STAGE = "vLLMEngineStage"
_MAX_RESTARTS = 3  # of one engine in one pass; by default Ray Data restarts what a prompt kills for ever
_MAX_START_DEATHS = 1  # engines in a row that die before they are up: a wrong setting, or once an accident


class VllmBackend:
    """Runs one Ray Data pipeline a call; engines start with it and end with it."""

    name = "vllm"

    def __init__(self, settings: SummarizerSettings) -> None:
        self.max_attempts = settings.max_attempts

    def check_ready(self, settings: SummarizerSettings) -> None:
        """Raises GexError when vLLM, a local model directory or the chat template is missing."""
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError("vllm", "vllm")
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
            TransientError: no answer comes for `engine_timeout_s`.
        """
        import ray
        from ray.data.exceptions import ExecutionTimeoutError

        self.check_ready(settings)
        if not ray.is_initialized():
            raise GexError("Ray is not started; a summarizer with backend 'vllm' runs inside a Ray job")
        rows = [_row(request, settings) for request in requests]
        if not rows:
            return
        try:
            for row in _pipeline(rows, settings).iter_rows():
                yield _answer(row, settings)
        except ExecutionTimeoutError as error:
            raise TransientError(
                f"the engine for model {settings.model!r} gave no answer for {settings.engine_timeout_s:g} s; answers "
                "given before are kept. Run the same command again, with a longer engine_timeout_s if it was working"
            ) from error
        except ray.exceptions.RayError as error:
            raise GexError(
                f"the engine for model {settings.model!r} {what_happened(error)}; answers given before are kept. "
                "Ray's worker logs say more"
            ) from error


def what_happened(error: BaseException) -> str:
    """In one sentence: an engine that did not start ends with the innermost error, one that kept dying with none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "died" in str(error) and not any("creation task" in line for line in lines):
        return f"died {_MAX_RESTARTS + 1} times"
    start = max((number for number, line in enumerate(lines) if _ERROR_LINE.match(line)), default=0)
    return f"did not start: {' '.join(lines[start:])[:600]}"


def _row(request: SummaryRequest, settings: SummarizerSettings) -> dict[str, Any]:
    return {
        "key": request.key,
        "source_digest": request.source_digest,
        "request_digest": request_digest(request, settings),
        "captions": list(request.captions),
        "attempt": request.attempt,
        "previous": str(request.previous or ""),
    }


def _pipeline(rows: list[dict[str, Any]], settings: SummarizerSettings) -> Any:
    """The lazy Ray data set of answers, one row a request."""
    import pyarrow as pa
    import ray.data
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    config = vLLMEngineProcessorConfig(**engine_config(settings, ray.cluster_resources()))
    processor = build_processor(
        config,
        preprocess=functools.partial(_prompt_columns, settings=settings),
        postprocess=_answer_columns,
        preprocess_map_kwargs={"num_cpus": _SMALL_CPUS},
        postprocess_map_kwargs={"num_cpus": _SMALL_CPUS},
    )
    # Changed in place: an assignment is validated, which works out the engine's placement once more, and wrong.
    bounds = {"max_restarts": _MAX_RESTARTS, "max_task_retries": _MAX_RESTARTS}
    processor.get_stage_by_name(_ENGINE_STAGE).map_batches_kwargs.update(bounds)
    # A block a batch: Ray hands a block's answers on when all of it is answered.
    step = settings.batch_size
    blocks = [pa.Table.from_pylist(rows[i : i + step]) for i in range(0, len(rows), step)]
    answers = processor(ray.data.from_arrow(blocks))
    answers.context.execution_no_progress_timeout_s = settings.engine_timeout_s
    answers.context.max_consecutive_actor_init_deaths = _MAX_START_DEATHS
    return answers


def engine_config(settings: SummarizerSettings, cluster: dict[str, float]) -> dict[str, Any]:
    """Arguments of `vLLMEngineProcessorConfig` for a cluster with these resources."""
    on_gpu = cluster.get("GPU", 0) >= 1
    # Whole answers are wanted: an engine that hands on every token, and counts them, spends its time on that.
    engine: dict[str, Any] = {"disable_log_stats": True, "stream_interval": settings.max_tokens}
    engine |= {} if on_gpu else _cpu_engine()
    if settings.max_model_len:
        engine["max_model_len"] = settings.max_model_len
    if settings.revision:
        engine |= {"revision": settings.revision, "tokenizer_revision": settings.revision}
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if not on_gpu:
        # The model inside the engine's process: one process less that imports torch, and half of the start.
        environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    model = settings.model or ""
    if Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().absolute())
        environment["HF_HUB_OFFLINE"] = "1"
    num_at_once = (engine | settings.engine).get("max_num_seqs") or _GPU_SEQUENCES
    num_batches = max(_MIN_BATCHES, math.ceil(2 * num_at_once / settings.batch_size))
    config: dict[str, Any] = {
        "model_source": model,
        "engine_kwargs": engine | settings.engine,
        "concurrency": _num_engines(settings),
        "batch_size": settings.batch_size,
        # As many requests at an engine as it answers at once, and as many again for when some of these are done.
        "max_concurrent_batches": num_batches,
        "max_pending_requests": num_batches * settings.batch_size,
        "should_continue_on_error": True,
        "log_engine_metrics": False,
        "runtime_env": {"env_vars": environment},
        "chat_template_stage": {
            "num_cpus": _SMALL_CPUS,
            "chat_template": chat_template_text(settings),
            "chat_template_kwargs": _template_arguments(model, settings),
        },
        # The engine does both itself; two actors less to start.
        "tokenize_stage": False,
        "detokenize_stage": False,
    }
    if not on_gpu:
        cpus = 1.0 if cluster.get("CPU", 0) >= 2 else 0.5
        config["placement_group_config"] = {"bundle_per_worker": {"CPU": cpus}}
    return config


def _num_engines(settings: SummarizerSettings) -> int | tuple[int, int]:
    if settings.max_concurrency is None:
        return settings.concurrency
    return settings.concurrency, settings.max_concurrency


def _cpu_engine() -> dict[str, Any]:
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "kv_cache_memory_bytes": _KV_CACHE_BYTES,
        "max_num_seqs": 32,
    }


def _template_arguments(model: str, settings: SummarizerSettings) -> dict[str, Any]:
    """No thinking aloud, and one token of sequence start: where the tokenizer adds it, the template must not."""
    from transformers import AutoTokenizer

    arguments: dict[str, Any] = {"enable_thinking": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model,
            revision=settings.revision or "main",
            trust_remote_code=bool(settings.engine.get("trust_remote_code", False)),
        )
    except (OSError, ValueError) as error:
        raise GexError(f"no tokenizer for model {settings.model!r}: {' '.join(str(error).split())[:400]}") from error
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
