"""BERTScore of summaries against long texts: bert-score 0.3.13 made safe with transformers 5.

Precision, recall and F1 a pair, raw (no baseline, no idf): comparable only under one `signature`.
Precision is the half that falls when a summary says what the long text does not. A text is cut at
the model's own length.

bert-score is unmaintained; what would go wrong without this wrapper, each with its own test:

- a blank text raises AttributeError;
- a tokenizer that knows no maximal length overflows;
- a model is chosen by what its *path* contains: any directory under ``.../test5/...`` is loaded as
  a T5 with random weights, whose scores look plausible; ``scibert...`` starts wget in a shell;
- RoBERTa's first word is tokenised as a word's middle, since transformers 5 ignores add_prefix_space in encode;
- a layer out of range fails an assertion or a lookup inside the library;
- the order of a Python set, another in every process, decides which texts share a batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from gex_pipeline.errors import GexError
from gex_pipeline.validate.pairs import rows_to_score
from gex_pipeline.validate.weights import MINILM_NAME, Weights, find_weights, loading, need_module, pick_device

BERTSCORE_NAMES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
# The last layer was trained for sentence cosine and repeats that score; this one keeps BERTScore's token character,
# and is bert-score's own choice for models of six layers.
_MINILM_LAYERS = 5
_BATCH = 64
_PAIRS_AT_ONCE = 1024  # bert-score holds every token embedding of one call: about 0.1 MB a text
_DEFAULT_TOKENS = 512
_T5_KINDS = ("t5", "mt5", "umt5", "byt5")
# their positions start after the padding index, so two of max_position_embeddings are never used
_OFFSET_KINDS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet", "data2vec-text")


class _StableText(str):
    """A text whose hash is the same in every process.

    bert-score batches its texts in the order of a set of them: with the usual, seeded hash the last digits of a score
    differ from run to run, and with them the checksum of every shard that carries it.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        return zlib.crc32(self.encode("utf-8", "surrogatepass"))


class BertScore:
    """None or "minilm" is the packaged MiniLM at its known layer; else a local directory or a hub id.

    `num_layers` may be None where bert-score's table knows the model (for example roberta-large).

    Raises:
        MissingExtraError: bert-score, transformers or the packaged weights are not installed.
        GexError: the model cannot be loaded, its path misleads bert-score, or the layer is out of range.
    """

    def __init__(self, model: str | None = None, num_layers: int | None = None, *, device: str | None = None) -> None:
        library = need_module("bert_score", "bert-score")
        weights = find_weights(model)
        config = _read_config(weights)
        _check_name(weights, config.model_type)
        layers = _check_layers(weights, config, num_layers)
        with loading(weights):
            self._scorer = library.BERTScorer(
                model_type=weights.source, num_layers=layers, device=pick_device(device), nthreads=0
            )
            self._scorer._tokenizer = _mend_tokenizer(self._scorer._tokenizer, weights, config)
        self._scorer._model.float()  # half precision checkpoints would give other scores on other devices
        self._signature = f"{weights.name}_L{layers}_no-idf_raw"

    @property
    def signature(self) -> str:
        """Model name, layer and mode: scores under different signatures must not be compared."""
        return self._signature

    def __call__(self, summaries: Sequence[str], long_texts: Sequence[str]) -> list[dict[str, float]]:
        """Scores a pair, keyed by `BERTSCORE_NAMES`; 0 where either text is blank.

        Raises:
            ValueError: the lists differ in length.
        """
        rows = [dict.fromkeys(BERTSCORE_NAMES, 0.0) for _ in summaries]
        filled = rows_to_score(summaries, long_texts)
        for start in range(0, len(filled), _PAIRS_AT_ONCE):
            chunk = filled[start : start + _PAIRS_AT_ONCE]
            columns = self._scorer.score(
                [_StableText(summaries[row]) for row in chunk],
                [_StableText(long_texts[row]) for row in chunk],
                batch_size=_BATCH,
            )
            for row, values in zip(chunk, zip(*(column.tolist() for column in columns), strict=True), strict=True):
                rows[row] = dict(zip(BERTSCORE_NAMES, values, strict=True))
        return rows


def _read_config(weights: Weights) -> Any:
    if weights.source.startswith("scibert"):
        raise GexError(
            f"BERTScore model {weights.source!r}: bert-score would fetch this name through a shell; "
            "use the hub id allenai/scibert_scivocab_uncased or a local directory"
        )
    with loading(weights):
        return need_module("transformers", "transformers").AutoConfig.from_pretrained(
            weights.source, trust_remote_code=False
        )


def _check_name(weights: Weights, kind: str) -> None:
    """Refuse a name from which bert-score would load another architecture than the configuration says."""
    named_t5, is_t5 = "t5" in weights.source, kind in _T5_KINDS
    if named_t5 and not is_t5:
        raise GexError(
            f"BERTScore model {weights.source!r} is a {kind!r} model, but bert-score would load it as a T5 with random "
            "weights because its path contains 't5'; use a path (or a link to it) without 't5'"
        )
    if is_t5 and not named_t5:
        raise GexError(
            f"BERTScore model {weights.source!r} is a {kind!r} model, which bert-score recognises only by 't5' in its "
            "path; use a path (or a link to it) that contains 't5'"
        )


def _check_layers(weights: Weights, config: Any, num_layers: int | None) -> int:
    depth = getattr(config, "num_hidden_layers", None)
    if not isinstance(depth, int):
        raise GexError(f"BERTScore model {weights.name!r} is a {config.model_type!r} model, expected a text encoder")
    if num_layers is None:
        known = {**need_module("bert_score.utils", "bert-score").model2layers, MINILM_NAME: _MINILM_LAYERS}
        num_layers = known.get(weights.name)
    if num_layers is None:
        raise GexError(f"BERTScore model {weights.name!r}: set bertscore_layers, a layer from 1 to {depth}")
    if not 1 <= num_layers <= depth:
        raise GexError(f"BERTScore model {weights.name!r}: bertscore_layers is {num_layers}, expected 1 to {depth}")
    return num_layers


def _mend_tokenizer(tokenizer: Any, weights: Weights, config: Any) -> Any:
    transformers = need_module("transformers", "transformers")
    if isinstance(tokenizer, (transformers.RobertaTokenizer, transformers.GPT2Tokenizer)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            weights.source, add_prefix_space=True, trust_remote_code=False
        )
    if tokenizer.pad_token_id is None:
        raise GexError(f"BERTScore model {weights.name!r}: its tokenizer has no padding token; use an encoder model")
    positions = getattr(config, "max_position_embeddings", None)
    limit = positions if isinstance(positions, int) and positions > 2 else _DEFAULT_TOKENS
    if config.model_type in _OFFSET_KINDS:
        limit -= 2
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    return tokenizer
