"""A chat server that does everything wrong at once, in a real run: no text is lost, none gets another one's summary.

Every text has words of its own and the server makes an answer out of the prompt's captions, so that a summary says
which text it was made from.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kill_test import Place, end, start
from tests.end_to_end.running import NO_MODELS, counted_again, rows_of, write_recipe
from tests.making_runs import clip_row, write_jsonl
from tests.summarize.chat_server import ChatServer, Reply, captions_of, joined_captions

ANIMALS = "otter lynx heron badger weasel falcon beaver hamster donkey gecko lobster moose parrot rabbit salmon tiger "
PLACES = (
    "quarry harbor meadow canyon chapel garage orchard stadium tunnel island bakery castle desert temple market farm "
)
THINGS = (
    "kettle violin ladder helmet candle basket hammer mirror pencil wallet anchor bottle carpet button drum engine "
)
ANIMALS += "walrus zebra ferret goose jackal"
PLACES += "museum prison library palace village"
THINGS += "funnel guitar hanger jacket lantern"
NAMES = list(zip(ANIMALS.split(), PLACES.split(), THINGS.split(), strict=True))


def captions(number: int) -> list[str]:
    animal, place, thing = NAMES[number]
    return [
        f"a {animal} near the {place} at noon",
        f"a {animal} with a {thing} under the old bridge before the rain comes",
    ]


def answer_to(said: list[str]) -> str:
    """What the server makes of captions, without the full stop that cleaning takes off."""
    return joined_captions({"messages": [{"content": "\n".join(f"{i}. {c}" for i, c in enumerate(said, 1))}]}).text[:-1]


def with_message(reply: Reply, finish: str = "stop", **message) -> Reply:
    body = json.loads(reply.encoded())
    body["choices"][0]["message"] |= message
    body["choices"][0]["finish_reason"] = finish
    return replace(reply, body=json.dumps(body))


def other_model(reply: Reply) -> Reply:
    return replace(reply, body=json.dumps(json.loads(reply.encoded()) | {"model": "another-name"}))


def two_choices(reply: Reply) -> Reply:
    body = json.loads(reply.encoded())
    body["choices"].append(json.loads(Reply(answer_to(captions(0))).encoded())["choices"][0])
    return replace(reply, body=json.dumps(body))


Fault = Callable[[Reply, int], Reply]  # a good reply and how often this text was asked before -> what is sent
FAULTS: dict[str, tuple[Fault, str | None]] = {
    "good": (lambda good, _: good, None),
    "slow": (lambda good, _: replace(good, delay_s=0.7), None),
    "busy once": (lambda good, n: good if n else Reply("busy", status=429), None),
    "failing once": (lambda good, n: good if n else Reply("down", status=500), None),
    "silent once": (lambda good, n: good if n else replace(good, delay_s=5), None),
    "silent": (lambda good, _: replace(good, delay_s=5), "no_answer"),
    "failing": (lambda good, _: Reply("down", status=500), "engine_error"),
    "a page": (lambda *_: Reply(body="<html>sorry</html>", headers={"Content-Type": "text/html"}), "engine_error"),
    "cut JSON": (lambda good, _: replace(good, body=good.encoded().decode()[:150]), "engine_error"),
    "cut body": (lambda good, _: replace(good, sent_bytes=100), "engine_error"),
    "no choices": (lambda *_: Reply(body='{"id": "x", "choices": []}'), "engine_error"),
    "parts": (lambda good, _: with_message(good, content=[{"type": "text", "text": good.text}]), "engine_error"),
    "half a character": (lambda good, _: with_message(good, content=f"\ud83d {good.text}"), "engine_error"),
    "lost characters": (lambda good, _: replace(good, text=f"\ufffd\ufffd {good.text}"), "engine_error"),
    "refusing": (lambda good, _: with_message(good, content=None, refusal="I cannot help with it."), "summary_refusal"),
    "filtered": (
        lambda good, _: with_message(good, finish="content_filter", content=good.text[:-20]),
        "summary_truncated",
    ),
    "another id": (lambda good, _: replace(good, id="chatcmpl-gex-" + "0" * 32), "engine_error"),
    "another text": (lambda *_: Reply(answer_to(captions(0)) + "."), "summary_ungrounded"),
    "another model": (lambda good, _: other_model(good), None),  # servers answer with a longer name than was asked
    "twice": (lambda good, _: replace(good, times=2), None),
    "two choices": (lambda good, _: two_choices(good), None),
}


@pytest.fixture
def where():
    """A place with a short name, since Ray's sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="gexb-"))
    yield Place(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_text_ends_once_with_its_own_summary_or_the_right_reason(where, small_clips, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    kinds, asked = list(FAULTS), Counter()
    rows = [
        clip_row(f"v{number:02d}", clip, clip + 0.48, caption, file=f"a-{clip}.mp4")
        for number in range(len(kinds))
        for clip, caption in enumerate(captions(number))
    ]
    write_jsonl(where.folder / "clips.jsonl", rows)

    def reply(body: dict) -> Reply:
        if (number := next((n for n in range(len(kinds)) if captions_of(body) == captions(n)), None)) is None:
            return joined_captions(body)  # what is asked to see whether the server answers at all
        asked[number] += 1
        return FAULTS[kinds[number]][0](joined_captions(body), asked[number] - 1)

    server = ChatServer(reply)
    recipe = write_recipe(
        where.folder / "run",
        f"""{NO_MODELS}
[source]
clips = "{where.folder}/clips.jsonl"
media = {{ kind = "column", column = "file", root = "{small_clips}" }}
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
min_clips = 2
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
gates = {{}}
summarizer = {{ backend = "http", model = "m", url = "{server.url}", api_key_env = "", max_attempts = 2, \
max_retries = 1, timeout_s = 3.5, max_in_flight = 6, accept_max_words = 40 }}
""",
    )
    code = end(start(where, recipe))
    server.close()
    assert code == 0, (recipe.parent / "log").read_text()[-3000:]

    output = counted_again(recipe.parent / "output")  # the balance, counted by another's hand
    long = {row["key"]: kinds[int(row["source_id"][1:])] for row in output.samples("LVLT")}
    assert sorted(long.values()) == sorted(kinds)
    ends = {long[row["parents"][0]]: (row["text"], None) for row in output.samples("LVST")}
    rejects = [row for row in output.table("rejects") if row["granularity"] == "LVST"]
    ends |= {long[row["id"]]: (None, row["reason"]) for row in rejects}
    wanted = {
        kind: (None, reason) if reason else (answer_to(captions(number)), None)
        for number, (kind, (_, reason)) in enumerate(FAULTS.items())
    }
    assert ends == wanted
    digests = {
        row["parent_id"]: row["source_digest"]
        for row in rows_of(output.folder / "tables/summaries-LVST-000000.parquet")
    }
    assert digests.items() <= {row["key"]: row["text_digest"] for row in output.samples("LVLT")}.items()
    assert max(asked.values()) <= 4  # two attempts, each repeated once at most
