from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from trainer.byte_pairs import learn_byte_pairs
from trainer.settings import ClipShape
from trainer.small_clip import write_small_clip

ROOT = Path(__file__).parents[2]
TEXTS = [
    "A red circle moves to the left, and stops.",
    "a RED square; it's 42 metres away!",
    "Ein grüner Kreis wandert nach rechts",
    "左に動く赤い丸 🙂",
    "the circle moves, the circle stops, the circle moves again",
]
SHAPE = ClipShape(patch_px=16, width=16, num_layers=1, num_heads=2, max_tokens=24, num_merges=60)
PROGRAM = """
import json, sys
from trainer.byte_pairs import learn_byte_pairs
vocabulary, merges = learn_byte_pairs(json.load(sys.stdin), 60)
json.dump([list(vocabulary.items()), merges], sys.stdout)
"""


@pytest.fixture
def tokenizer(tmp_path):
    from transformers import CLIPTokenizer

    write_small_clip(tmp_path / "clip", SHAPE, TEXTS, 48)
    return CLIPTokenizer.from_pretrained(tmp_path / "clip")


def test_the_most_frequent_pair_is_joined_first_and_ties_go_by_letters():
    vocabulary, merges = learn_byte_pairs(["ab ab ab cd cd", "ef"], 10)
    assert merges == [("a", "b</w>"), ("c", "d</w>"), ("e", "f</w>")]
    assert len(vocabulary) == 512 + 3 + 2
    assert sorted(vocabulary.values()) == list(range(517))
    assert [vocabulary["ab</w>"], vocabulary["ef</w>"], vocabulary["<|endoftext|>"]] == [512, 514, 516]


def test_counts_follow_the_merges_that_came_before():
    """A plain counter, that looks at every word again after every merge, joins the same."""
    texts = ["abababab abab ab", "aaaa aaa", "banana bandana ananas", "the there then them"] * 3
    words = [[*word[:-1], word[-1] + "</w>"] for text in texts for word in text.split()]
    expected = []
    for _ in range(25):
        counts: dict[tuple[str, str], int] = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        expected.append(best)
        for at, word in enumerate(words):
            joined: list[str] = []
            for piece in word:
                if joined and (joined[-1], piece) == best:
                    joined[-1] += piece
                else:
                    joined.append(piece)
            words[at] = joined
    assert learn_byte_pairs(texts, 25)[1] == expected


def test_neither_the_order_of_the_texts_nor_the_process_changes_a_vocabulary():
    vocabulary, merges = learn_byte_pairs(TEXTS, 60)
    for seed, texts in (("1", TEXTS), ("77", TEXTS[::-1])):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        )
        assert json.loads(done.stdout) == [[list(item) for item in vocabulary.items()], [list(pair) for pair in merges]]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_encoded_and_read_back_in_lower_case(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert max(ids) < len(tokenizer)
    read = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(read.split()) == "".join(text.lower().split())


def test_words_that_are_frequent_take_fewer_tokens_than_letters(tokenizer):
    assert len(tokenizer("circle")["input_ids"]) == 3
    assert len(tokenizer("zqxwv")["input_ids"]) == 7


def test_a_small_clip_has_the_shape_that_is_asked_for_and_weights_of_the_size_that_is_asked_for(tmp_path):
    """The factor was written where CLIP does not look for it, so all sizes were the same."""
    import torch

    from trainer.settings import TowerSettings
    from trainer.towers import load_towers

    spreads = {}
    for factor in (1.0, 3.0):
        folder = tmp_path / str(factor)
        write_small_clip(folder, SHAPE.model_copy(update={"initializer_factor": factor}), TEXTS, 48)
        torch.manual_seed(0)
        towers = load_towers(TowerSettings(clip=str(folder), weights="random"))
        attention = towers.image.encoder.encoder.layers[0].self_attn
        words = towers.text.encoder.embeddings.token_embedding
        spreads[factor] = [part.weight.detach().std().item() for part in (attention.out_proj, words)]
        assert (towers.image.num_features, towers.image.image_px, towers.image.feature_dim) == (10, 48, 16)
        assert (towers.text.max_tokens, towers.text.feature_dim) == (24, 16)
    assert spreads[3.0] == pytest.approx([3 * spread for spread in spreads[1.0]])


def test_the_activation_is_that_of_the_settings(tmp_path):
    from trainer.settings import TowerSettings
    from trainer.towers import load_towers

    write_small_clip(tmp_path, SHAPE, TEXTS, 48, "gelu")
    assert load_towers(TowerSettings(clip=str(tmp_path), weights="random", activation="gelu"))


def test_patches_that_do_not_divide_the_frame_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"patch_px is 16, the side of a frame 50; the patches must divide it"):
        write_small_clip(tmp_path, SHAPE, TEXTS, 50)
