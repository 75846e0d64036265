"""Tokens a second of the vLLM stage against the bare engine: how much of the engine Ray Data leaves to the summaries.

The same requests are answered twice a round, in turn (A B A B): by `VllmBackend`, a Ray Data job as a run starts it,
and by `LLM.chat` in a process of its own, with the same model, messages, sampling and engine settings; what Ray finds
on the machine decides for both whether these are a GPU's. Prompts are whole ones: rules, example and captions. Both
start an engine; starting is timed apart, and one start that is not counted leaves compiled kernels to both. Tokens are
those of prompts and answers. On a machine that others use too, wall time says little: processor time of all processes
of a side, per token, is given as well (of the stage from its first block of answers on, without what it did before).
Ends with 1 when a side leaves a request unanswered, when prompts have other lengths, when answers are other ones
than rounding explains, or when the ratio of wall time is under `--least`.

On a GPU, with a model of 7e9 parameters that is made up in the engine (nothing of them is on disk), about ten minutes:
`python benchmarks/vllm_stage.py --wide 4096x32 --rounds 1 --requests 4000`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gex_pipeline.demo.captions import caption
from gex_pipeline.demo.stories import make_story, seeded
from gex_pipeline.shard_format import text_digest
from gex_pipeline.summarize.backends import Cluster
from gex_pipeline.summarize.compress import Compression, Progress, summarise
from gex_pipeline.summarize.prompt import build_messages
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest, sampling
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.summarize.vllm_backend import VllmBackend, engine_config, engine_resources

ROOT = Path(__file__).parent.parent
_TOLD = "SIDE "
TINY = ROOT / "tests" / "tiny_lm" / "model"
_WIDE_VOCABULARY = 32_000  # of Llama and Vicuna; the head and sampling cost next to nothing with the tiny model's 700
_CONTEXT = 2048  # tokens; the tests' model was made for half of it, and says nothing sensible to whole prompts anyway
_ONE_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"
_BATCH_SIZES = ("max_num_seqs", "max_num_batched_tokens")
_LEAST_CPU, _LEAST_GPU = 0.9, 0.95
_NUM_FIRST = 64  # requests of the start that is not counted
_MOST_OTHER = 0.01  # of the tokens of answers: on a GPU, other batches round otherwise
# The tests' model is handed the captions alone by its own; what the stage sends has eight times as many tokens.
_TEMPLATE = """{% for message in messages -%}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@dataclasses.dataclass(frozen=True)
class Side:
    """What one side did with all requests."""

    num_answers: int
    num_prompt_tokens: int
    num_generated_tokens: int
    startup_s: float
    answering_s: float
    cpu_tokens: int = 0  # tokens of the answers that `cpu_s` was taken for
    cpu_s: float = 0.0  # of this process and all below it
    digests: dict[str, str] = dataclasses.field(default_factory=dict)  # of the answers' texts, by key

    @property
    def cpu_us_a_token(self) -> float:
        """Microseconds of processor a token."""
        return 1e6 * self.cpu_s / self.cpu_tokens

    @property
    def tokens_per_s(self) -> float:
        """Tokens read and written a second."""
        return (self.num_prompt_tokens + self.num_generated_tokens) / self.answering_s


def tree_cpu_s() -> float:
    """Processor seconds of this process and of all that live below it."""
    stats: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        stats[int(entry.name)] = (int(fields[1]), int(fields[11]) + int(fields[12]))
    ours, size = {os.getpid()}, 0
    while size != len(ours):
        size = len(ours)
        ours |= {pid for pid, (parent, _) in stats.items() if parent in ours}
    return sum(stats[pid][1] for pid in ours) / os.sysconf("SC_CLK_TCK")


class Watched(VllmBackend):
    """The backend, whose processor time is taken from its first block of answers to its last."""

    first_s = last_s = 0.0
    cpu_tokens = 0

    def answer(self, requests: Iterable[SummaryRequest], settings: SummarizerSettings) -> Iterator[SummaryAnswer]:
        """The same answers."""
        listed, self.digests = list(requests), {}
        for number, answer in enumerate(super().answer(listed, settings), 1):
            self.digests[answer.key] = text_digest(answer.raw_text)
            if number <= settings.batch_size:  # a block is there at once
                self.first_s = self.first_s or tree_cpu_s()
            else:
                self.cpu_tokens += answer.num_prompt_tokens + answer.num_generated_tokens
            if number == len(listed):
                self.last_s = tree_cpu_s()  # while its processes live
            yield answer


def draw_requests(num: int) -> list[SummaryRequest]:
    """Caption groups of drawn videos, in the words that the tiny model knows."""
    requests = []
    for number in range(num):
        rng = seeded("vllm stage", number)
        captions = tuple(caption(scene, rng) for scene in make_story(rng.randint(4, 8), rng))
        text = " ".join(f"{one}." for one in captions)
        requests.append(SummaryRequest(f"k{number}", text_digest(text), captions, text))
    return requests


def make_tiny_model(folder: Path) -> Path:
    """The tests' model, handed whole prompts, and with a context in which they have room."""
    shutil.copytree(TINY, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"max_position_embeddings": _CONTEXT}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def make_wide_model(folder: Path, hidden: int, layers: int) -> Path:
    """A model of that width and depth with the tiny model's tokenizer and without weights: `load_format` is "dummy"."""
    from transformers import Qwen2Config

    make_tiny_model(folder)
    (folder / "model.safetensors").unlink()
    known = Qwen2Config.from_pretrained(folder).to_dict()
    del known["layer_types"]  # one a layer
    wide = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers}
    heads = dict.fromkeys(("num_attention_heads", "num_key_value_heads"), hidden // 64)
    more = {"max_window_layers": layers, "vocab_size": _WIDE_VOCABULARY, "dtype": "bfloat16"}
    Qwen2Config(**{**known, **wide, **heads, **more}).save_pretrained(folder)
    return folder


def run_stage(requests: list[SummaryRequest], settings: SummarizerSettings) -> Side:
    """One pass of the stage's own loop over the backend; nothing is checked, so every request is asked once."""
    seen = Progress()

    def keep(progress: Progress) -> None:
        nonlocal seen
        seen = progress

    watched = Watched(settings)
    job = Compression(settings, on_progress=keep, backend=watched)
    num = sum(1 for _ in summarise(requests, job))
    assert num == len(requests)
    return Side(
        seen.num_answers,
        seen.num_prompt_tokens,
        seen.num_generated_tokens,
        seen.startup_s,
        seen.answering_s,
        watched.cpu_tokens,
        watched.last_s - watched.first_s,
        watched.digests,
    )


def bare_engine(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of `LLM` and variables of its process, for the stage's engine by that configuration."""
    arguments = {"model": config["model_source"], **config["engine_kwargs"]}
    variables = dict(config["runtime_env"]["env_vars"])
    if variables.pop(_ONE_PROCESS, None) == "0":
        # As in the stage, whatever that variable says: the engine in a process of its own, the model inside it.
        arguments["distributed_executor_backend"] = "uni"
    return arguments, variables


def with_batch_sizes(arguments: dict[str, Any]) -> dict[str, Any]:
    """What vLLM chooses by who starts the engine as it chooses for Ray's, where the arguments leave it open."""
    if arguments.keys() >= set(_BATCH_SIZES):
        return arguments
    from vllm import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    chosen = EngineArgs(**arguments).create_engine_config(UsageContext.ENGINE_CONTEXT).scheduler_config
    return arguments | {name: getattr(chosen, name) for name in _BATCH_SIZES}


def run_bare(requests: list[SummaryRequest], settings: SummarizerSettings, resources: dict[str, float]) -> Side:
    """The engine alone, in this process, which must be a fresh one; on the resources that Ray had for the stage's."""
    from gex_pipeline.summarize.chat_template import chat_template_text

    config = engine_config(settings, resources)
    arguments, variables = bare_engine(config)
    os.environ.pop(_ONE_PROCESS, None)
    os.environ.update(variables)
    arguments = with_batch_sizes(arguments)
    from vllm import LLM, SamplingParams

    started_s = time.monotonic()
    engine = LLM(**arguments)
    messages: list[Any] = [build_messages(request, settings) for request in requests]
    params = [SamplingParams(**sampling(request, settings)) for request in requests]
    begun_s, cpu_before_s = time.monotonic(), tree_cpu_s()
    outputs = engine.chat(
        messages,
        params,
        use_tqdm=False,
        chat_template=chat_template_text(settings),
        chat_template_kwargs=config["chat_template_stage"]["chat_template_kwargs"],
    )
    answering_s, cpu_s = time.monotonic() - begun_s, tree_cpu_s() - cpu_before_s
    num_prompt = sum(len(output.prompt_token_ids or ()) for output in outputs)
    num_generated = sum(len(output.outputs[0].token_ids) for output in outputs)
    tokens = num_prompt + num_generated
    texts = zip(requests, outputs, strict=True)
    digests = {request.key: text_digest(output.outputs[0].text) for request, output in texts}
    return Side(len(outputs), num_prompt, num_generated, begun_s - started_s, answering_s, tokens, cpu_s, digests)


def run_bare_apart(arguments: list[str], resources: dict[str, float]) -> Side:
    """`run_bare` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, __file__, *arguments, "--bare", json.dumps(resources)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    told = [line for line in done.stdout.splitlines() if line.startswith(_TOLD)]  # engines log there too
    return Side(**json.loads(told[-1].removeprefix(_TOLD)))


def _settings(arguments: argparse.Namespace) -> SummarizerSettings:
    values: dict[str, Any] = {"max_attempts": 1, "max_tokens": 48, "min_grounding": 0.0, "batch_size": arguments.batch}
    if arguments.max_model_len:
        values["max_model_len"] = arguments.max_model_len
    values["engine"] = {"load_format": "dummy"} if arguments.wide else {}
    if arguments.engine:
        values["engine"] |= json.loads(arguments.engine)
    return SummarizerSettings(backend="vllm", model=arguments.model, **values)


def num_other_texts(stage: Side, bare: Side) -> int:
    """Answers that are not the same text on both sides."""
    return sum(stage.digests.get(key) != digest for key, digest in bare.digests.items())


def differences(stage: Side, bare: Side, num_requests: int, *, on_gpu: bool) -> list[str]:
    """What the sides did not do alike, in words; texts are compared where they are the same to the bit: on a CPU."""
    wrong = []
    if (stage.num_answers, bare.num_answers) != (num_requests, num_requests):
        wrong.append(f"{num_requests} requests, {stage.num_answers} and {bare.num_answers} answers")
    if stage.num_prompt_tokens != bare.num_prompt_tokens:
        wrong.append(f"{stage.num_prompt_tokens} and {bare.num_prompt_tokens} tokens of prompts")
    if abs(stage.num_generated_tokens - bare.num_generated_tokens) > _MOST_OTHER * bare.num_generated_tokens:
        wrong.append(f"{stage.num_generated_tokens} and {bare.num_generated_tokens} tokens of answers")
    if not on_gpu and (num_other := num_other_texts(stage, bare)):
        wrong.append(f"{num_other} of {num_requests} answers are other texts")
    return wrong


def least_ratio(given: float | None, *, on_gpu: bool) -> float:
    """The smallest ratio that is no failure."""
    return given if given is not None else _LEAST_GPU if on_gpu else _LEAST_CPU


def compare(arguments: argparse.Namespace, words: list[str]) -> int:
    """Both sides in turn; prints a line a round and the median ratio."""
    from gex_pipeline.ray_jobs import ray_session
    from gex_pipeline.recipe import RaySettings

    # Ray's workers step back (nice 15) before whatever else runs on the machine, which the bare engine does not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    requests, settings = draw_requests(arguments.requests), _settings(arguments)
    ratios, wrong = [], []
    with ray_session(RaySettings(num_cpus=arguments.cpus)):
        resources = engine_resources(settings, Cluster())
    run_bare_apart([*words, "--requests", str(_NUM_FIRST)], resources)
    on_gpu = resources.get("GPU", 0) >= 1
    for number in range(arguments.rounds):
        with ray_session(RaySettings(num_cpus=arguments.cpus)):
            stage = run_stage(requests, settings)
        bare = run_bare_apart(words, resources)
        ratios.append(stage.tokens_per_s / bare.tokens_per_s)
        print(
            f"round {number}: stage {stage.tokens_per_s:,.0f} tokens/s in {stage.answering_s:.1f} s (start "
            f"{stage.startup_s:.1f} s), bare {bare.tokens_per_s:,.0f} tokens/s in {bare.answering_s:.1f} s (start "
            f"{bare.startup_s:.1f} s), ratio {ratios[-1]:.3f}; processor {stage.cpu_us_a_token:.0f} and "
            f"{bare.cpu_us_a_token:.0f} us a token, ratio {bare.cpu_us_a_token / stage.cpu_us_a_token:.3f}; "
            f"prompts of {bare.num_prompt_tokens / len(requests):.0f} tokens, answers of "
            f"{stage.num_generated_tokens / len(requests):.1f} and {bare.num_generated_tokens / len(requests):.1f}, "
            f"{num_other_texts(stage, bare)} other texts; "
            f"{resources.get('GPU', 0):g} GPUs, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        wrong += differences(stage, bare, len(requests), on_gpu=on_gpu)
    median = statistics.median(ratios)
    print(f"ratio {median:.3f} (median of {len(ratios)}; {min(ratios):.3f} to {max(ratios):.3f})")
    for text in wrong:
        print(f"WRONG {text}")
    return 1 if wrong or median < least_ratio(arguments.least, on_gpu=on_gpu) else 0


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory or hub id (default: the tests' tiny model, with whole prompts)")
    parser.add_argument("--wide", metavar="HIDDENxLAYERS", help="instead: made-up weights of this size, as 512x8")
    parser.add_argument("--requests", type=int, default=4000, help="texts to summarise (default 4000)")
    parser.add_argument("--rounds", type=int, default=3, help="times that both sides run (default 3)")
    parser.add_argument("--batch", type=int, default=64, help="batch_size of the summarizer (default 64)")
    parser.add_argument("--engine", metavar="JSON", help="more settings of both engines, as in a recipe")
    parser.add_argument("--max-model-len", type=int, default=_CONTEXT, help=f"of the engine (default {_CONTEXT})")
    parser.add_argument("--cpus", type=int, help="logical CPUs of Ray (default: the machine's)")
    parser.add_argument("--least", type=float, help="smallest ratio that is no failure (default 0.9, on a GPU 0.95)")
    parser.add_argument("--bare", type=json.loads, metavar="RESOURCES", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare is not None:
        side = run_bare(draw_requests(arguments.requests), _settings(arguments), arguments.bare)
        print(f"\n{_TOLD}{json.dumps(dataclasses.asdict(side))}", flush=True)
        return 0
    with tempfile.TemporaryDirectory(prefix="gex-bench-") as folder:
        words = sys.argv[1:]
        if arguments.wide:
            hidden, _, layers = arguments.wide.partition("x")
            arguments.model = str(make_wide_model(Path(folder), int(hidden), int(layers)))
        elif not arguments.model:
            arguments.model = str(make_tiny_model(Path(folder)))
        words = [*words, "--model", arguments.model]
        return compare(arguments, words)


if __name__ == "__main__":
    sys.exit(main())
