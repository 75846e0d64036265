"""Compares two outputs as a stranger would: with `tarfile`, `json` and SHA-256, and nothing of the pipeline's."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Difference:
    """What a killed and repeated run published, against the undisturbed one."""

    lost: int
    duplicated: int
    differing: int
    tars: tuple[str, ...]  # whose bytes differ, that are missing, or that nobody listed
    leftovers: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """Whether there is no difference at all."""
        return not (self.lost or self.duplicated or self.differing or self.tars or self.leftovers)


def samples_of(output: Path) -> Counter[tuple[str, str, str]]:
    """(granularity, key, digest of its members) of everything that `dataset.json` lists."""
    found: Counter[tuple[str, str, str]] = Counter()
    for name, path in listed(output):
        members: dict[str, list[str]] = {}
        with tarfile.open(output / path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                digest = hashlib.sha256(stream.read() if stream else b"").hexdigest()
                members.setdefault(member.name.partition(".")[0], []).append(f"{member.name} {digest}")
        found.update((name, key, "\n".join(sorted(lines))) for key, lines in members.items())
    return found


def listed(output: Path) -> list[tuple[str, str]]:
    """(granularity, path) of every tar that `dataset.json` names."""
    manifest = json.loads((output / "dataset.json").read_text(encoding="utf-8"))
    return [
        (name, shard["path"])
        for snapshot in manifest["snapshots"]
        for name, entry in snapshot["granularities"].items()
        for shard in entry["shards"]
    ]


def compare(output: Path, reference: Path) -> Difference:
    """Count what was lost, doubled or changed, and name tars and temporary files that should not be."""
    if not (output / "dataset.json").exists():
        return Difference(samples_of(reference).total(), 0, 0, (), ())
    ours, wanted = samples_of(output), samples_of(reference)
    our_keys, keys = (Counter((name, key) for name, key, _ in found.elements()) for found in (ours, wanted))
    sums, wanted_sums = (
        {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.tar")}
        for folder in (output, reference)
    )
    tars = {path for path in sums.keys() | wanted_sums.keys() if sums.get(path) != wanted_sums.get(path)}
    tars |= sums.keys() - {path for _, path in listed(output)}
    left = [path for pattern in ("*.part", "run.lock") for path in output.rglob(pattern)]
    return Difference(
        lost=len(keys.keys() - our_keys.keys()),
        duplicated=sum(count - 1 for count in our_keys.values()),
        differing=len([1 for name, key, digest in ours if (name, key, digest) not in wanted]),
        tars=tuple(sorted(tars)),
        leftovers=tuple(sorted(str(path.relative_to(output)) for path in left)),
    )
