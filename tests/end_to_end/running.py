"""Writes recipes, runs the real flow, and counts again what came out, with code that shares nothing with the pipeline.

`counted_again` reads an output as a stranger would: JSON, Parquet and tar files. Everything that went in must be found
in exactly one place; whatever the project says of its own accounts is only compared with that.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

NO_MODELS = "[scores]\nsentence_model = false\nbertscore_model = false\n"
COLON = 'colon = "-"'


def media_of(corpus: Path) -> str:
    """The recipe line for clips as the demo corpus names them."""
    uri = f"{corpus}/clips/{{YoutubeID}}_{{Start_timestamp}}_{{End_timestamp}}.mp4"
    return f'media = {{ kind = "files", uri = "{uri}", {COLON} }}'


def write_recipe(folder: Path, body: str, output: str = "output") -> Path:
    """A recipe file in `folder`; `body` follows name and output."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(f'name = "end to end"\noutput = "{output}"\n{body}', encoding="utf-8")
    return path


def source_table(corpus: Path, clips: Path | None = None) -> str:
    """[source] over the drawn corpus, with other metadata where `clips` says so."""
    return f'[source]\nclips = "{clips or corpus / "clips.jsonl"}"\n{media_of(corpus)}\n'


def run_flow(recipe: Path, *, report: bool = False, **parameters: Any) -> Any:
    """The flow's final state."""
    from flows.expand import ExpandParameters, expand

    return expand(ExpandParameters(recipe=recipe, report=report, **parameters), return_state=True)


def error_of(state: Any) -> BaseException:
    assert state.is_failed(), state
    error = state.result(raise_on_failure=False)
    assert isinstance(error, BaseException)
    return error


def expand_to(recipe: Path, *, report: bool = False, output: Path | None = None, **parameters: Any) -> Output:
    """Run the flow to its end and count again."""
    state = run_flow(recipe, report=report, **parameters)
    assert state.is_completed(), state.result(raise_on_failure=False)
    return counted_again(output or recipe.parent / "output")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(path).read().to_pylist()


def metadata_of(corpus: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (corpus / "clips.jsonl").read_text(encoding="utf-8").splitlines()]


def write_metadata(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Output:
    """What lies in an output, read without the project's readers."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def last(self) -> dict[str, Any]:
        return self.manifest["snapshots"][-1]

    @property
    def granularities(self) -> list[str]:
        return list(self.last["granularities"])

    def shards(self, granularity: str) -> list[dict[str, Any]]:
        return [
            shard
            for snapshot in self.manifest["snapshots"]
            for shard in snapshot["granularities"].get(granularity, {"shards": []})["shards"]
        ]

    def tars(self, granularity: str) -> list[Path]:
        return [self.folder / shard["path"] for shard in self.shards(granularity)]

    def samples(self, granularity: str) -> list[dict[str, Any]]:
        """Receipt rows of everything published, by key."""
        rows = [row for shard in self.shards(granularity) for row in rows_of(self.folder / shard["receipt"])]
        return sorted(rows, key=lambda row: row["key"])

    def by_source(self, granularity: str) -> dict[str, dict[str, Any]]:
        return {row["source_id"]: row for row in self.samples(granularity)}

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table in all snapshots."""
        return [
            row
            for number in range(len(self.manifest["snapshots"]))
            if (path := self.folder / f"tables/{name}-{number:06d}.parquet").exists()
            for row in rows_of(path)
        ]

    def members(self, granularity: str) -> dict[str, dict[str, bytes]]:
        """Key → extension → bytes, out of the tars."""
        found: dict[str, dict[str, bytes]] = {}
        for path in self.tars(granularity):
            with tarfile.open(path) as archive:
                for member in archive:
                    key, _, extension = member.name.partition(".")
                    stream = archive.extractfile(member)
                    assert stream is not None
                    assert extension not in found.get(key, {}), f"{member.name} twice"
                    found.setdefault(key, {})[extension] = stream.read()
        return found

    def reasons(self, granularity: str | None = None) -> Counter[str]:
        """How many rows of the rejects tables have each reason."""
        rows = self.table("rejects")
        return Counter(row["reason"] for row in rows if granularity in (None, row["granularity"]))

    @property
    def ingest(self) -> dict[str, Any]:
        """The last snapshot's account of the input rows."""
        (found,) = [account for account in self.last["accounts"] if account["stage"] == "ingest"]
        return found

    def account(self, granularity: str) -> dict[str, Any]:
        """The last snapshot's account of the edge to a granularity."""
        (found,) = [a for a in self.last["accounts"] if a["granularity"] == granularity and a["stage"] != "ingest"]
        return found


def read_output(folder: Path) -> Output:
    return Output(folder, json.loads((folder / "dataset.json").read_text(encoding="utf-8")))


def counted_again(folder: Path) -> Output:
    """Read an output and check that everything is accounted for; raises AssertionError naming what is not."""
    output = read_output(folder)
    for account in output.last["accounts"]:
        ended = account["num_used"] + account["num_known"]
        ended += sum(account["excluded"].values()) + sum(account["rejected"].values())
        assert account["num_in"] == ended, account
    source = _source_of(output)
    _count_rows(output, source)
    for granularity in output.granularities:
        _count_parents(output, granularity, source)
        _check_shards(output, granularity)
    return output


def _source_of(output: Output) -> str:
    nodes = output.last["recipe"]["granularity"]
    (source,) = [name for name, node in nodes.items() if node["operation"] == "source"]
    return source


def _count_rows(output: Output, source: str) -> None:
    """Every input row is a clip of some snapshot, or a loss of the last ingest (which read all of them again)."""
    clips = [row["clip_id"] for row in output.table("clips")]
    assert len(clips) == len(set(clips)), "a clip stands in two clips tables"
    last = output.last["snapshot"]
    losses = [row for row in rows_of(output.folder / f"tables/rejects-{last:06d}.parquet") if row["stage"] == "ingest"]
    assert all(row["granularity"] == source for row in losses)
    account = output.ingest
    assert account["num_used"] == len(rows_of(output.folder / f"tables/clips-{last:06d}.parquet"))
    assert account["num_in"] == account["num_used"] + account["num_known"] + len(losses)
    assert account["num_known"] == len(clips) - account["num_used"]
    stated = Counter(account["excluded"]) + Counter(account["rejected"])
    assert stated == Counter(row["reason"] for row in losses)


def _count_parents(output: Output, granularity: str, source: str) -> None:
    """Every clip (or parent sample) is in one place: a published sample, the rejects, or what a rule excluded."""
    node = output.last["recipe"]["granularity"][granularity]
    of_clips = node["from"] == source and node["operation"] != "compress_text"  # which summarises packed clips
    if granularity == source or of_clips:
        parents = {row["clip_id"] for row in output.table("clips")}
    else:
        parents = {row["key"] for row in output.samples(node["from"])}
    used = Counter(parent for row in output.samples(granularity) for parent in row["parents"])
    last = output.last["snapshot"]
    rejected = Counter(_still_rejected(output, granularity))
    plan_path, lost_path = (
        output.folder / f"tables/{name}-{last:06d}.parquet" for name in (f"excluded-{granularity}", "rejects")
    )
    by_plan = [row for row in rows_of(plan_path) if row["state"] == "excluded"]
    by_build = [row for row in rows_of(lost_path) if (row["granularity"], row["state"]) == (granularity, "excluded")]
    excluded = Counter(row["id"] for row in [*by_plan, *by_build] if row["stage"] != "ingest")
    ends = used + rejected + excluded
    twice = {key: count for key, count in ends.items() if count != 1}
    assert not twice, f"{granularity}: counted more than once: {twice}"
    assert set(ends) == parents, (
        f"{granularity}: {len(parents - set(ends))} nowhere, {len(set(ends) - parents)} unknown"
    )
    if last == 0:
        account = output.account(granularity)
        assert (account["num_in"], account["num_used"]) == (len(parents), used.total())
        assert sum(account["rejected"].values()) == rejected.total()
        assert sum(account["excluded"].values()) == excluded.total()


def _still_rejected(output: Output, granularity: str) -> list[str]:
    """Rejected by some snapshot, and tried again by none after it."""
    standing: list[str] = []
    for number in range(len(output.manifest["snapshots"])):
        again = output.folder / f"tables/retried-{number:06d}.parquet"
        tried = {row["id"] for row in rows_of(again) if row["granularity"] == granularity} if again.exists() else set()
        standing = [name for name in standing if name not in tried]
        for row in rows_of(output.folder / f"tables/rejects-{number:06d}.parquet"):
            if (row["granularity"], row["state"]) == (granularity, "rejected") and row["stage"] != "ingest":
                standing.append(row["id"])
    return standing


def _check_shards(output: Output, granularity: str) -> None:
    for shard in output.shards(granularity):
        path = output.folder / shard["path"]
        assert path.stat().st_size == shard["num_bytes"], path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"], path
    members, samples = output.members(granularity), output.samples(granularity)
    assert set(members) == {row["key"] for row in samples}
    assert len(samples) == sum(shard["num_samples"] for shard in output.shards(granularity))
    for row in samples:
        assert members[row["key"]]["txt"].decode() == row["text"]
        assert json.loads(members[row["key"]]["json"])["key"] == row["key"]


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every tar below a folder, dataset.json or not."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.tar")
    }


def fingerprint(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below a folder with its modification time and digest."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def frames_of(video: bytes | Path) -> list[np.ndarray]:
    """Every picture of a video as RGB, and the times they are shown at strictly rise."""
    source = io.BytesIO(video) if isinstance(video, bytes) else str(video)
    with av.open(source) as container:
        frames = list(container.decode(video=0))
        times = [frame.time for frame in frames]
        assert times == sorted(set(times))
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def differ(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two pictures, in grey levels."""
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())
