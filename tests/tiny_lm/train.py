"""Trains the tiny language model that sums up the demo's captions, so that tests have a real model behind vLLM.

In: nothing but the demo's own grammar (`gex_pipeline.demo`), from which captions and their reference sentence are drawn
without drawing pictures. Out: `model/` (safetensors, tokenizer.json, chat template), and figures on held-out groups.
Invariant: the prompt is what the chat template makes of the block that the pipeline sends, and training and held-out
groups come from seeds that never meet. Run: python -m tests.tiny_lm.train
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import torch
from rouge_score import rouge_scorer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from gex_pipeline.demo.captions import caption, reference
from gex_pipeline.demo.stories import make_story

HERE = Path(__file__).parent
SPECIAL = ["<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Only the numbered lines of the last user message reach the model: no system message, no one-shot example, no marks.
CHAT_TEMPLATE = (
    "{%- set asked = messages | selectattr('role', 'equalto', 'user') | list | last -%}"
    "<|im_start|>user\n"
    "{%- for line in asked['content'].split('\\n') if line and line[0] in '0123456789' %}{{ '\\n' + line }}{% endfor %}"
    "<|im_end|>\n"
    "{%- if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
)
MIN_CLIPS, MAX_CLIPS = 4, 8
# Curriculum: up to which share of the steps which group sizes. Short groups teach what a word means, long ones where
# to look; with long ones from the start the model never learned to tell left from right.
LESSONS = ((0.3, (2, 3)), (0.6, (2, 3, 4, 5)), (1.0, (4, 5, 6, 7, 8)))
BATCH_CLIPS = 96  # captions in a batch
PEAK_LR = 3e-3
PROMPT_WEIGHT = 0.3


def draw_group(rng, num_clips=None):
    """The captions of one group of clips, and the sentence that sums them up."""
    num_clips = num_clips or rng.randint(MIN_CLIPS, MAX_CLIPS)
    scenes = make_story(rng.randint(num_clips, MAX_CLIPS), rng)
    kept = sorted(rng.sample(range(len(scenes)), num_clips))  # as when clips are rejected
    scenes = [scenes[position] for position in kept]
    return [caption(scene, rng) for scene in scenes], reference(scenes)


def user_block(captions, mark):
    """The user message of the pipeline's prompt."""
    lines = "\n".join(f"{number}. {text}" for number, text in enumerate(captions, 1))
    return f"[captions {mark}]\n{lines}\n[end {mark}]\nOne-sentence summary:"


def prompt_of(tokenizer, captions):
    messages = [{"role": "user", "content": user_block(captions, "a1b2c3")}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def train_tokenizer(vocab_size=700):
    """Byte-level BPE in which each word of the closed vocabulary becomes one token, and any other text still fits."""
    rng = random.Random("tokenizer")
    texts = []
    for _ in range(3000):
        captions, answer = draw_group(rng)
        texts += [f"{number}. {text}\n" for number, text in enumerate(captions, 1)] + [answer, f"\n{answer}"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=sorted(alphabet))
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<pad>", model_max_length=1024
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer):
    """0.7 M parameters, an architecture that every engine knows."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config)


def make_batch(tokenizer, rng, num_clips):
    """Token ids [B, L], where the prompts end and where the answers end [B]; groups of one length, to pad little."""
    batch_size = BATCH_CLIPS // num_clips
    pairs = []
    for _ in range(batch_size):
        captions, answer = draw_group(rng, num_clips)
        prompt = tokenizer(prompt_of(tokenizer, captions), add_special_tokens=False)["input_ids"]
        pairs.append((prompt, tokenizer(f"{answer}<|im_end|>", add_special_tokens=False)["input_ids"]))
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.full((batch_size, length), tokenizer.pad_token_id)
    ends = torch.tensor([[len(prompt), len(prompt) + len(answer)] for prompt, answer in pairs])
    for row, (prompt, answer) in enumerate(pairs):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
    return ids, ends[:, 0], ends[:, 1]


def loss_of(model, ids, prompt_ends, answer_ends, prompt_weight):
    """Cross-entropy of the answer's tokens, plus a share of the prompt's.

    Captions of one group say the same things again, so reading them teaches to look back and copy; without it the
    answers began to follow the captions only after most of the steps. Right padding needs no mask: attention is causal.
    """
    logits = model(input_ids=ids).logits[:, :-1]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    place = torch.arange(1, ids.shape[1])
    is_answer = (place >= prompt_ends[:, None]) & (place < answer_ends[:, None])
    is_prompt = place < prompt_ends[:, None]
    answer_loss = each[is_answer].mean()
    return answer_loss + prompt_weight * each[is_prompt].mean(), answer_loss


def train(model, tokenizer, steps):
    """AdamW with warm-up and a cosine; the prompt's share of the loss falls to zero on the way."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random("train")
    for step in range(steps):
        done = step / steps
        lr = PEAK_LR * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * done) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = lr
        num_clips = rng.choice(next(sizes for until, sizes in LESSONS if done < until))
        batch = make_batch(tokenizer, rng, num_clips)
        loss, answer_loss = loss_of(model, *batch, PROMPT_WEIGHT * (1 - done))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            cpu_s = time.process_time()
            print(f"step {step + 1} loss of answers {answer_loss.item():.4f} cpu {cpu_s:.0f} s", flush=True)


@torch.no_grad()
def answer_all(model, tokenizer, groups):
    """The greedy answers."""
    tokenizer.padding_side = "left"
    prompts = [prompt_of(tokenizer, captions) for captions, _ in groups]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=48, do_sample=False)
    return tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)


def evaluate(model, tokenizer, num_groups=200):
    """Print exact match and ROUGE-L of groups that training never saw."""
    rng = random.Random("held out")
    groups = [draw_group(rng) for _ in range(num_groups)]
    answers = answer_all(model.eval(), tokenizer, groups)
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    pairs = [(wanted, answer) for (_, wanted), answer in zip(groups, answers, strict=True)]
    exact = sum(wanted == answer for wanted, answer in pairs) / num_groups
    rouge_l = sum(scorer.score(wanted, answer)["rougeL"].fmeasure for wanted, answer in pairs) / num_groups
    print(f"held out: {num_groups} groups, exact {exact:.3f}, ROUGE-L {rouge_l:.4f}")
    for wanted, answer in [pair for pair in pairs if pair[0] != pair[1]][:8]:
        print(f"  wanted  {wanted}\n  answer  {answer}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1150)
    parser.add_argument("--out", type=Path, default=HERE / "model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = train_tokenizer()
    model = make_model(tokenizer)
    print(f"{len(tokenizer)} tokens, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    train(model, tokenizer, arguments.steps)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    evaluate(model, tokenizer)


if __name__ == "__main__":
    main()
