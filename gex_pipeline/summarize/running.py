"""Which settings of a summarizer say only where it runs, how wide and how patiently.

One list for two digests: a recipe's hash and the digest of a request (the key of the response cache) both leave these
out, so that a longer wait or another server throws nothing away. Imports nothing, since the recipe imports this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The same prompt gives the same answer, whoever is asked, and however long one waits.
RUNNING = frozenset(
    {
        "api_key_env",
        "batch_size",
        "concurrency",
        "engine_timeout_s",
        "max_concurrency",
        "max_in_flight",
        "max_retries",
        "timeout_s",
        "url",
    }
)
# The same of the keyword arguments in `engine`, up to floating point.
ENGINE_RUNNING = frozenset(
    {
        "block_size",
        "data_parallel_size",
        "disable_log_stats",
        "distributed_executor_backend",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "pipeline_parallel_size",
        "stream_interval",
        "swap_space",
        "tensor_parallel_size",
    }
)
# An answer is the same in any context that it fits in; which texts fit, and so what becomes of them, is not.
_DECIDES_WHAT_FITS = "max_model_len"


def deciding_engine(engine: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of an engine that decide an answer."""
    return {name: value for name, value in engine.items() if name not in ENGINE_RUNNING}


def deciding(summarizer: Mapping[str, Any]) -> dict[str, Any]:
    """A summarizer's table without what says only how it runs; an engine of nothing else is left out with it."""
    kept = {name: value for name, value in summarizer.items() if name not in RUNNING and name != "engine"}
    given = summarizer.get("engine") or {}
    engine = deciding_engine(given) | {name: given[name] for name in given if name == _DECIDES_WHAT_FITS}
    return kept | ({"engine": engine} if engine else {})
