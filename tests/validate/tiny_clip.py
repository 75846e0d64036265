"""A CLIP of a few thousand random weights with a tokenizer of its own, for tests that need a CLIP directory.

Same texts, same seed: same files. Its cosines mean nothing; shapes, truncation and pooling are a real CLIP's.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_WIDTH = 32
_IMAGE_PX = 32
_MAX_MERGES = 500
TINY_MAX_TOKENS = 24
TINY_DIM = 16


def write_tiny_clip(folder: Path, texts: Sequence[str]) -> Path:
    """Write a seeded random CLIP whose BPE vocabulary is trained on `texts`; returns `folder`."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _train_bpe(texts)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]), encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=TINY_MAX_TOKENS)
    tokenizer.save_pretrained(folder)

    tower = {"hidden_size": _WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": TINY_MAX_TOKENS,
            # the defaults are those of the real vocabulary: with them every text is pooled at its first token,
            # and all texts get one and the same vector
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**tower, "image_size": _IMAGE_PX, "patch_size": 8},
        projection_dim=TINY_DIM,
        initializer_factor=5.0,  # with the usual factor 1 all random images have nearly one vector
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    _write_image_processor(folder)
    return folder


def _train_bpe(texts: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's kind of vocabulary: bytes, bytes that end a word, merges, and the two special tokens last.

    In Python, since the tokenizers library breaks ties between equally frequent pairs differently in every process.
    """
    from tokenizers import pre_tokenizers

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    counts = Counter(word for text in texts for word in text.lower().split())
    words = []
    for word, count in sorted(counts.items()):
        letters = "".join(piece for piece, _ in to_bytes.pre_tokenize_str(word))
        words.append(([*letters[:-1], letters[-1] + "</w>"], count))
    merges: list[tuple[str, str]] = []
    while len(merges) < _MAX_MERGES:
        pairs: Counter[tuple[str, str]] = Counter()
        for pieces, count in words:
            for pair in itertools.pairwise(pieces):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [(_merge(pieces, best), count) for pieces, count in words]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *(a + b for a, b in merges)]
    ordered = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    return {piece: number for number, piece in enumerate(ordered)}, merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _write_image_processor(folder: Path) -> None:
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": _IMAGE_PX},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": _IMAGE_PX, "width": _IMAGE_PX},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
