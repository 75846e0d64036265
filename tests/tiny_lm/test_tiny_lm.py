from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from gex_pipeline.summarize.prompt import user_block

MODEL = Path(__file__).parent / "model"
CAPTIONS = ["a red ring blinks on and off over gray dots", "over gray dots a red ring slowly fades away"]


@pytest.fixture(scope="module")
def training():
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("tests.tiny_lm.train", reason="needs torch, tokenizers and transformers")


@pytest.fixture(scope="module")
def tokenizer(training):
    return training.PreTrainedTokenizerFast.from_pretrained(MODEL)


def undirected(sentence):
    return " ".join(word for word in sentence.replace(",", "").split() if word not in {"left", "right"})


def test_it_was_trained_on_the_block_that_the_pipeline_sends(training):
    assert training.user_block(CAPTIONS, "0a1b2c") == user_block(CAPTIONS, "0a1b2c")


def test_only_the_captions_of_the_last_message_reach_it(tokenizer):
    messages = [
        {"role": "system", "content": "1. be brief"},
        {"role": "user", "content": user_block(["an example"], "000000")},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": user_block(CAPTIONS, "f00baa", "Your last sentence was too long.")},
    ]
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asked == (f"<|im_start|>user\n1. {CAPTIONS[0]}\n2. {CAPTIONS[1]}<|im_end|>\n<|im_start|>assistant\n")


def test_it_sums_up_groups_it_has_never_seen(training, tokenizer):
    training.torch.set_num_threads(1)
    model = training.Qwen2ForCausalLM.from_pretrained(MODEL).eval()
    rng = random.Random("tests of the tiny language model")
    groups = [training.draw_group(rng) for _ in range(24)]
    answers = training.answer_all(model, tokenizer, groups)
    # Left and right are what it still confuses; shapes, colours, deeds and backgrounds it gets right.
    told = [(undirected(answer), undirected(wanted)) for answer, (_, wanted) in zip(answers, groups, strict=True)]
    assert sum(answer == wanted for answer, wanted in told) >= 20
    assert all(8 <= len(answer.split()) <= 20 for answer in answers)


def test_its_weights_fit_a_repository():
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 4_000_000
