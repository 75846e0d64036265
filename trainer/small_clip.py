"""A CLIP from scratch: a shape and texts in; a folder with a configuration and a tokenizer out, as a checkpoint has.

The vocabulary is learned from the texts of the data set, so that a small model spends no weights on words it never
meets. The folder holds no weights: they start at random where the model is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from trainer.byte_pairs import learn_byte_pairs
from trainer.settings import ClipShape


def write_small_clip(
    folder: Path, shape: ClipShape, texts: Iterable[str], image_size_px: int, activation: str = "quick_gelu"
) -> None:
    """Write configuration and tokenizer into a folder.

    Raises:
        ValueError: the patches do not divide the frame.
    """
    from transformers import CLIPConfig, CLIPTokenizer

    if image_size_px % shape.patch_px:
        raise ValueError(
            f"patch_px is {shape.patch_px}, the side of a frame {image_size_px}; the patches must divide it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = learn_byte_pairs(texts, shape.num_merges)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]), encoding="utf-8")
    # from files: the constructor's arguments differ between versions of transformers
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=shape.max_tokens)
    tokenizer.save_pretrained(folder)
    tower = {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "hidden_act": activation,
        # each tower looks for it in its own part of the configuration
        "initializer_factor": shape.initializer_factor,
    }
    text = {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": shape.max_tokens,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    CLIPConfig(
        text_config={**tower, **text},
        vision_config={**tower, "image_size": image_size_px, "patch_size": shape.patch_px},
        projection_dim=shape.width,
        initializer_factor=shape.initializer_factor,  # of the projections
    ).save_pretrained(folder)
