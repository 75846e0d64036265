"""``gex shards browse`` over a million samples, against plain DuckDB queries over the same receipts.

Writes an output of 250,000 LVLT, 250,000 LVST and 500,000 IT samples with their receipts, clips, rejects and
``dataset.json``, and no tars: what is measured needs no video. Starts the command as a person does, then asks it for
pages over HTTP, each several times with other parameters, and asks DuckDB for the same rows by OFFSET. Says how long
the start took, the largest memory the process had, and the median and worst time of each page.

Exits with 1 when a page holds other samples than DuckDB's answer, or a count differs, whatever the time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import duckdb
import pyarrow.parquet as pq

PAGE = 60
PER_SHARD = 1000
SHARES = {"LVLT": 0.25, "LVST": 0.25, "IT": 0.5}
_TEXT = (
    "a the man woman child dog cat car tree is are walking running sitting standing holding red blue green white "
    "on in near at table street room kitchen field with and talking playing small large"
)
WORDS = "[" + ", ".join(f"'{word}'" for word in _TEXT.split()) + "]"
_WORDS_OF = {"LVLT": (40, 40), "LVST": (10, 12), "IT": (7, 6)}  # the fewest, and up to how many more


def select(name: str, first: int, num: int) -> str:
    """The receipt rows of samples `first` to `first + num`: LVLT of five clips, LVST of one LVLT, IT of one clip."""
    fewest, more = _WORDS_OF[name]
    parents = {
        "LVLT": "[md5('clip' || (i * 5 + k)) FOR k IN range(5)]",
        "LVST": "[md5('LVLT' || i)]",
        "IT": "[md5('clip' || i)]",
    }[name]
    num_segments = 1 if name == "IT" else 5
    scores = (
        "json_object('rouge1', round((hash(i, 2) % 10000) / 10000, 4), 'rouge2', round((hash(i, 3) % 10000) / 10000, 4)"
        ", 'bertscore_f1', round((hash(i, 4) % 10000) / 10000, 4), 'sentence_cosine', "
        "round((hash(i, 5) % 10000) / 10000, 4))::VARCHAR"
    )
    segments = (
        "[{'clip_id': md5('clip' || (i * 5 + k)), 'source_id': 'source' || (i // 2), 'offset_s': k * 5.0::DOUBLE, "
        "'duration_s': 5.0::DOUBLE, 'start_s': k * 7.0::DOUBLE, 'end_s': k * 7.0::DOUBLE + 5, "
        f"'text': 'a caption of this clip'}} FOR k IN range({num_segments})]"
    )
    return f"""
        SELECT md5('{name}' || i) AS key, '{name}' AS granularity, (i // {PER_SHARD})::BIGINT AS shard,
          'source' || (i // 2) AS source_id, {parents} AS parents, {segments} AS segments,
          array_to_string([{WORDS}[1 + (hash(k, i) % len({WORDS}))::BIGINT]
            FOR k IN range({fewest} + (hash(i, 'n') % {more})::BIGINT)], ' ')
            || CASE WHEN i % 50000 = 7 THEN ' zebra' ELSE '' END AS text,
          md5('text' || i) AS text_digest, {"'x'" if name == "LVST" else "NULL::VARCHAR"} AS source_text_digest,
          len(string_split(text, ' ')) AS num_words,
          {"0.0" if name == "IT" else "(5000 + hash(i, 1) % 60000) / 1000"}::DOUBLE AS duration_s,
          320::BIGINT AS width_px, 240::BIGINT AS height_px, 25.0::DOUBLE AS fps, 'h264' AS codec, 'copy' AS made_by,
          {scores if name == "LVST" else "'{}'"} AS scores, '{"jpg" if name == "IT" else "mp4"}' AS media_extension,
          '{name}/none.tar' AS media_uri, i * 1000 AS media_offset_bytes, 900::BIGINT AS media_size_bytes,
          NULL AS frames, NULL::BIGINT AS frames_offset_bytes, NULL::BIGINT AS frames_size_bytes
        FROM range({first}, {first + num}) AS r(i) ORDER BY i
    """


def generate(output: Path, num_samples: int) -> None:
    """Write receipts, tables and the manifest."""
    from gex_pipeline.receipts import RECEIPT_SCHEMA
    from gex_pipeline.shard_format import Receipt
    from gex_pipeline.shards.manifest import GranularityEntry, Manifest, ShardEntry, Snapshot

    nodes = {}
    with duckdb.connect() as connection:
        for name, share in SHARES.items():
            (output / name).mkdir(parents=True)
            shards = []
            for first in range(0, round(num_samples * share), 50 * PER_SHARD):
                num = min(50 * PER_SHARD, round(num_samples * share) - first)
                table = connection.sql(select(name, first, num)).to_arrow_table().cast(RECEIPT_SCHEMA)
                for start in range(0, num, PER_SHARD):
                    rows = table.slice(start, PER_SHARD)
                    number = (first + start) // PER_SHARD
                    receipt = Receipt(name, number, "plan", "recipe", len(rows), 0, "0" * 64)
                    stem = f"{name}/{receipt.name}"
                    metadata = {b"gex": json.dumps(vars(receipt)).encode()}
                    pq.write_table(
                        rows.replace_schema_metadata(metadata), output / f"{stem}.parquet", compression="zstd"
                    )
                    shards.append(ShardEntry(f"{stem}.tar", f"{stem}.parquet", len(rows), 0, "0" * 64))
            nodes[name] = GranularityEntry("integrate", "SVST", "mp4", tuple(shards), {"samples": len(shards)})
        (output / "tables").mkdir()
        connection.execute(f"""
            COPY (SELECT md5('clip' || i) AS clip_id, 'source' || (i // 10) AS source_id, i * 7.0::DOUBLE AS start_s,
              i * 7.0::DOUBLE + 5 AS end_s, 'a caption of this clip' AS text, 5 AS num_words, 0.5 AS "UMT_Score"
              FROM range({num_samples * 5 // 4}) AS r(i))
            TO '{output}/tables/clips-000000.parquet' (FORMAT parquet, COMPRESSION zstd)""")
        connection.execute(f"""
            COPY (SELECT 'LVLT' AS granularity, 'plan' AS stage, 'excluded' AS state, 'too_few_clips' AS reason,
              '' AS detail, md5('lost' || i) AS id, 'source' || i AS source_id, '' AS row
              FROM range({num_samples}) AS r(i))
            TO '{output}/tables/excluded-LVLT-000000.parquet' (FORMAT parquet, COMPRESSION zstd)""")
    tables = ("tables/clips-000000.parquet", "tables/excluded-LVLT-000000.parquet")
    snapshot = Snapshot(0, "2026-01-01T00:00:00+00:00", "recipe", {"granularity": {}}, (), nodes, (), tables, {})
    (output / "dataset.json").write_bytes(Manifest("a million", (snapshot,)).to_json())


@dataclass
class Site:
    """The running command and the connection to it."""

    process: subprocess.Popen[str]
    start_s: float
    connection: http.client.HTTPConnection

    def get(self, path: str, **parameters: Any) -> Any:
        """An answer's content."""
        self.connection.request("GET", f"{path}?{urlencode(parameters)}")
        answer = self.connection.getresponse()
        content = json.load(answer)
        if answer.status != 200:
            raise SystemExit(f"WRONG {path}: {content}")
        return content

    def processor_s(self) -> float:
        """Seconds of processor so far: on a machine that others use too, the honest cost."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """The largest resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM"))


def start(output: Path) -> Site:
    """Start the command and wait until it says its address."""
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "shards", "browse", str(output), "--json"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line == "}\n":
            break
    seconds = time.perf_counter() - begun
    address = urlsplit(json.loads(said)["address"])
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    return Site(process, seconds, connection)


@dataclass
class Question:
    """One kind of page: what is asked of the site and of DuckDB, as functions of the number of the try."""

    name: str
    ask: Callable[[Site, int], list[Any]]
    statement: Callable[[int], str]  # over `samples`, the view of all receipts


_RARE = ("zebra", "zebra dog", "zebra cat", "zebra table", "zebra tree")
_FREQUENT = ("dog", "table", "field", "running", "child")


def listed(**parameters: Any) -> Callable[[Site, int], list[Any]]:
    """Asks for the keys of a page; a parameter may be a function of the number of the try."""

    def ask(site: Site, number: int) -> list[Any]:
        return [sample["key"] for sample in site.get("/api/samples", **_filled(parameters, number))["samples"]]

    return ask


def counted(**parameters: Any) -> Callable[[Site, int], list[Any]]:
    """Asks how many samples match."""
    return lambda site, number: [site.get("/api/count", **_filled(parameters, number))["num"]]


def _filled(parameters: dict[str, Any], number: int) -> dict[str, Any]:
    return {name: value(number) if callable(value) else value for name, value in parameters.items()}


def pages(num_samples: int) -> list[Question]:
    """What is measured, with answers that both sides must give alike."""
    far = num_samples * 3 // 5 // PAGE * PAGE
    score = "(scores ->> '$.rouge1')::DOUBLE"
    filtered: dict[str, Any] = {
        "granularity": "LVST", "sort": "score.rouge1", "min.words": lambda n: 12 + n, "max.duration": 40,
    }  # fmt: skip
    where = "granularity = 'LVST' AND num_words >= {} AND duration_s <= 40"
    ordered = f"SELECT key FROM samples WHERE {{}} ORDER BY key LIMIT {PAGE}"
    total = "SELECT count(*) FROM samples WHERE {}"
    return [
        Question("first page", listed(), lambda n: ordered.format("true")),
        Question(
            f"page {far // PAGE + 1:,}",
            listed(after=lambda n: f"{far + n * PAGE}.0,{far + n * PAGE}"),
            lambda n: ordered.format("true") + f" OFFSET {far + n * PAGE}",
        ),
        Question(
            "filtered by three columns, lowest score first",
            listed(**filtered),
            lambda n: f"SELECT key FROM samples WHERE {where.format(12 + n)} ORDER BY {score}, key LIMIT {PAGE}",
        ),
        Question("its count", counted(**filtered), lambda n: total.format(where.format(12 + n))),
        Question(
            "text search, a rare word", listed(q=lambda n: _RARE[n % 5]), lambda n: ordered.format(_has(_RARE, n))
        ),
        Question("its count", counted(q=lambda n: _RARE[n % 5]), lambda n: total.format(_has(_RARE, n))),
        Question(
            "text search, a frequent word",
            listed(q=lambda n: _FREQUENT[n % 5]),
            lambda n: ordered.format(_has(_FREQUENT, n)),
        ),
        *_others(num_samples),
    ]


def _has(words: tuple[str, ...], number: int) -> str:
    return " AND ".join(f"contains(lower(text), '{word}')" for word in words[number % 5].split())


def _others(num_samples: int) -> list[Question]:
    """A sample, lineage and rejects."""
    return [
        Question(
            "a sample's page",
            lambda site, n: [site.get("/api/sample", granularity="LVST", key=_key("LVST", n * 1234))["text"]],
            lambda n: f"SELECT text FROM samples WHERE key = md5('LVST{n * 1234}')",
        ),
        Question(
            "its lineage, both ways",
            lambda site, n: _lineage(site.get("/api/lineage", granularity="LVLT", key=_key("LVLT", n * 1234))),
            lambda n: f"SELECT key FROM samples WHERE list_contains(parents, md5('LVLT{n * 1234}'))",
        ),
        Question(
            "rejects counted (the first time reads their tables)",
            lambda site, n: [row["num"] for row in site.get("/api/losses/counts")["counts"]],
            lambda n: f"SELECT {num_samples}",
        ),
        Question(
            "a page of rejects",
            lambda site, n: [len(site.get("/api/losses", limit=100)["losses"])],
            lambda n: "SELECT 100",
        ),
    ]


def _key(name: str, number: int) -> str:
    import hashlib

    return hashlib.md5(f"{name}{number}".encode(), usedforsecurity=False).hexdigest()


def _lineage(content: dict[str, Any]) -> list[Any]:
    if len(content["parents"]) != 5 or any(item["kind"] != "clip" for item in content["parents"]):
        raise SystemExit(f"WRONG lineage: {content['parents']}")
    return [child["key"] for child in content["children"]]


def measure(output: Path, num_samples: int, repeats: int) -> int:
    """Ask both, print a line a question; returns how many answers differ."""
    site = start(output)
    wrong = 0
    try:
        print(
            f"start {site.start_s:.1f} s, {site.processor_s():.1f} s of processor, peak {site.peak_mb():.0f} MB; "
            f"processes that want a core: {os.getloadavg()[0]:.1f} of {os.cpu_count()}",
            flush=True,
        )
        with duckdb.connect() as connection:
            connection.execute("SET enable_progress_bar = false")
            globs = ", ".join(f"'{output}/{name}/*.parquet'" for name in SHARES)
            connection.execute(f"CREATE VIEW samples AS SELECT * FROM read_parquet([{globs}])")
            for question in pages(num_samples):
                ours, theirs, before_s = [], [], site.processor_s()
                for number in range(repeats):
                    begun = time.perf_counter()
                    found = question.ask(site, number)
                    ours.append((time.perf_counter() - begun) * 1000)
                    begun = time.perf_counter()
                    expected = [row[0] for row in connection.execute(question.statement(number)).fetchall()]
                    theirs.append((time.perf_counter() - begun) * 1000)
                    if found != expected:
                        wrong += 1
                        print(f"WRONG {question.name}: {str(found)[:200]} is not {str(expected)[:200]}")
                print(
                    f"{question.name:<52} median {statistics.median(ours):6.0f} ms  worst {max(ours):6.0f} ms  "
                    f"processor {(site.processor_s() - before_s) * 1000 / repeats:5.0f} ms   "
                    f"DuckDB over the receipts {statistics.median(theirs):6.0f} ms",
                    flush=True,
                )
        print(f"peak at the end {site.peak_mb():.0f} MB")
    finally:
        site.process.send_signal(signal.SIGINT)
        site.process.wait(timeout=60)
    return wrong


def main() -> int:
    """Parse, generate, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000, help="samples in all (default 1000000)")
    parser.add_argument("--repeats", type=int, default=5, help="tries of each page (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as scratch:
        output = Path(scratch) / "output"
        begun = time.perf_counter()
        generate(output, arguments.samples)
        print(f"{arguments.samples:,} samples written in {time.perf_counter() - begun:.0f} s", flush=True)
        return 1 if measure(output, arguments.samples, arguments.repeats) else 0


if __name__ == "__main__":
    sys.exit(main())
