from __future__ import annotations

import time

import pytest

from gex_pipeline.summarize.clean import Candidate, clean_summary


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('"A man rides a bike."', "A man rides a bike"),
        (
            "Sure! Here is a one-sentence summary of the captions: A man rides a bike down a hill and waves.",
            "A man rides a bike down a hill and waves",
        ),
        ("Summary: The video shows a woman cooking pasta. She then eats it.", "a woman cooking pasta"),
        ("\n\n1. a dog runs across a field\n2. x", "a dog runs across a field"),
        ("<think>hmm, a dog.</think>\n**A cat sleeps on a couch.**", "A cat sleeps on a couch"),
        ("so it is a cat.</think>A cat sleeps on a couch.", "A cat sleeps on a couch"),
        ("<think>never ends", ""),
        ("In this video clip, a man is fishing on a lake.", "a man is fishing on a lake"),
        ("The video is showing two dogs playing", "two dogs playing"),
        ("We can see a bird on a branch.", "a bird on a branch"),
        ("a man talks to Dr. Smith in a lab. He leaves.", "a man talks to Dr. Smith in a lab"),
        ("a man meets J. Smith at 5 p.m. in a lab.", "a man meets J. Smith at 5 p.m. in a lab"),
        ("One-sentence summary:\na woman paints a wall.", "a woman paints a wall"),
        ("**Summary:** a woman paints a wall.", "a woman paints a wall"),
        ("Certainly:\n- a woman paints a wall", "a woman paints a wall"),
        ("A man plays guitar , then sings .", "A man plays guitar, then sings"),
        ("a \x00man\u200b rides\u202e a\xad bike\ufeff.", "a man rides a bike"),
        ("a \U0001f469\u200d\U0001f467 family walks.", "a \U0001f469\u200d\U0001f467 family walks"),
        ("sure-footed goats climb a steep cliff", "sure-footed goats climb a steep cliff"),
        ("a man sees a video of his dog", "a man sees a video of his dog"),
        ("a dog barks!! Then it sleeps", "a dog barks"),
        ("a dog runs<|im_end|>", "a dog runs"),
        ("", ""),
        ("   \n ", ""),
        ("BANANA", "BANANA"),
        ('A man holds a sign that says "stop".', 'A man holds a sign that says "stop"'),
        ('A man holds a sign that says "stop."', 'A man holds a sign that says "stop"'),
        ("A man holds a sign that says 'stop'. He waves.", "A man holds a sign that says 'stop'"),
        ("A man holds a sign that says \u201cstop\u201d.", "A man holds a sign that says \u201cstop\u201d"),
        ('"Stop" says a sign.', '"Stop" says a sign'),
        ('"Stop" says a sign and a man shouts "go".', '"Stop" says a sign and a man shouts "go"'),
        ('"A man holds a sign that says "stop"."', 'A man holds a sign that says "stop"'),
        ('A sign says "stop!" and a man walks on. He waves.', 'A sign says "stop!" and a man walks on'),
        ('**Summary:** "A dog runs."', "A dog runs"),
        ('"A man rides a bike', "A man rides a bike"),
        ("a man walks the dogs'", "a man walks the dogs"),
        ("A Ph.D. student speaks in a hall. He waves.", "A Ph.D. student speaks in a hall"),
        ("A woman has a Ph.D. She teaches.", "A woman has a Ph.D"),
        ("A Sgt. Pepper poster hangs on a wall.", "A Sgt. Pepper poster hangs on a wall"),
        ("Gov. Smith and Lt. Col. Jones talk to Rev. Brown.", "Gov. Smith and Lt. Col. Jones talk to Rev. Brown"),
        ("a bus with No. 5 on it stops. It waits.", "a bus with No. 5 on it stops"),
        ("a woman shakes her head for no. She leaves.", "a woman shakes her head for no"),
        ("a man lifts approx. ten boxes. He rests.", "a man lifts approx. ten boxes"),
    ],
)
def test_an_answer_becomes_the_sentence_it_meant(raw: str, text: str) -> None:
    assert clean_summary(raw).text == text
    assert clean_summary(text).text == text


def test_the_end_of_a_sentence_is_seen_by_its_stop_or_by_what_follows() -> None:
    assert clean_summary("a dog runs. It then").ended
    assert clean_summary("a dog runs away\nHope this").ended
    assert clean_summary("a dog runs and then") == Candidate("a dog runs and then", ended=False)


ENDLESS = ["." * 20_000 + "x", '"' * 20_000, "b. " * 7000, "'a' " * 5000, '"a ' * 7000, "- " * 20_000, "sure, " * 9000]


@pytest.mark.parametrize("raw", ENDLESS)
def test_an_endless_answer_is_cleaned_at_once(raw: str) -> None:
    started_s = time.process_time()
    clean_summary(raw)
    assert time.process_time() - started_s < 1
