"""Integrating by stream copy against a shell loop of the bare ffmpeg, over the same groups.

Draws a few ten-second clips (320x180, H.264) with PyAV and links them under many names, groups of four to
six. The loop is ``xargs`` with one ``ffmpeg -f concat -c copy`` process a core, its lists written before.
Ours is the run's own path: `gex_pipeline.stages.build.build_shards` over a written plan in a Ray of this
machine; beyond the loop's work it reads the plan, probes every clip, reads every joined video again,
hashes, packs tars and writes receipts. The two alternate. Starting Ray and the first, smaller build (which
starts the workers) are timed apart. Ours also waits for the disk to have every shard (fsync); the loop does not.

Also measured: the peak memory of a worker by shard size, each in a fresh Ray, and the high-water mark of
Ray's object store, as the pages that its shared memory has ever touched (a put of known size is the
control). Exits with 1 when videos are missing, were re-encoded, or the store held more than rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

NUM_DRAWN = 12
CLIP_S = 10
FPS = 25
WIDTH_PX, HEIGHT_PX = 320, 180
CONTROL_BYTES = 20_000_000
# Rows of a shard's number and figures pass through the store; one drawn video is larger than this.
STORE_LIMIT_BYTES = 200_000


def draw_clip(
    path: Path, seed: int, *, duration_s: int = CLIP_S, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX
) -> None:
    """Write one clip: drifting waves with grain, so that it compresses about as filmed video does."""
    import av
    import numpy as np

    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        for index in range(duration_s * FPS):
            wave = np.sin((columns + index * (2 + seed % 3)) / 17) + np.cos((rows + index) / (11 + seed % 5))
            grain = random.integers(0, 24, (height_px // 4, width_px // 4, 1)).repeat(4, axis=0).repeat(4, axis=1)
            picture = (wave[..., None] * (40, 30, 20) + 110 + grain).clip(0, 255)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode())


def group_sizes(num_groups: int) -> list[int]:
    """Clips of each group: four, five, six, four, ..."""
    return [4 + group % 3 for group in range(num_groups)]


def make_input(folder: Path, num_groups: int) -> None:
    """Draw clips, link them under the names of all groups, write metadata and ffmpeg's lists."""
    (folder / "drawn").mkdir(parents=True, exist_ok=True)
    (folder / "clips").mkdir(exist_ok=True)
    (folder / "lists").mkdir(exist_ok=True)
    drawn = [folder / "drawn" / f"{seed}.mp4" for seed in range(NUM_DRAWN)]
    for seed, path in enumerate(drawn):
        if not path.exists():
            draw_clip(path, seed)
    rows, taken = [], 0
    for group, size in enumerate(group_sizes(num_groups)):
        names = []
        for index in range(size):
            start_s = index * CLIP_S
            row = {
                "YoutubeID": f"video{group:06d}",
                "Start_timestamp": str(start_s),
                "End_timestamp": str(start_s + CLIP_S),
                "Caption": f"clip {index} of {size} of a drawn video",
            }
            path = folder / "clips" / f"{row['YoutubeID']}_{row['Start_timestamp']}_{row['End_timestamp']}.mp4"
            path.unlink(missing_ok=True)
            path.hardlink_to(drawn[taken % NUM_DRAWN])
            taken += 1
            rows.append(row)
            names.append(path.name)
        (folder / "lists" / f"{group:06d}.txt").write_text("".join(f"file '../clips/{name}'\n" for name in names))
    pq.write_table(pa.Table.from_pylist(rows), folder / "clips.parquet")
    pq.write_table(pa.Table.from_pylist(rows[: sum(group_sizes(6))]), folder / "few.parquet")


def bare_loop(folder: Path, num_groups: int, num_cores: int) -> float:
    """Seconds of the shell loop; its outputs are removed again."""
    from gex_pipeline.media.ffmpeg import ffmpeg_binary

    target = folder / "joined"
    target.mkdir()
    names = "\n".join(f"{group:06d}" for group in range(num_groups))
    command = [
        *("xargs", "-P", str(num_cores), "-I", "{}"),
        *(ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-f", "concat", "-safe", "0"),
        *("-i", str(folder / "lists" / "{}.txt"), "-c", "copy", str(target / "{}.mp4")),
    ]
    os.sync()  # what was written before is not this side's to wait for
    started = time.perf_counter()
    subprocess.run(command, input=names, text=True, check=True)
    seconds = time.perf_counter() - started
    made = list(target.iterdir())
    if len(made) != num_groups or min(path.stat().st_size for path in made) < 100_000:
        raise SystemExit(f"WRONG the loop made {len(made)} videos of {num_groups}")
    for path in made:
        path.unlink()
    target.rmdir()
    return seconds


def build(folder: Path, output: str, clips: str, max_samples: int, num_cores: int) -> dict[str, Any]:
    """Plan (not timed) and build the shards of a new output in the Ray that runs; figures of the build."""
    from gex_pipeline.recipe import make_recipe
    from gex_pipeline.run_state import begin, open_run
    from gex_pipeline.stages.build import build_shards, plan_shards
    from gex_pipeline.stages.prepare import ingest_clips

    content = {
        "name": "integration benchmark",
        "output": output,
        "source": {
            "clips": clips,
            "media": {"kind": "files", "uri": "clips/{YoutubeID}_{Start_timestamp}_{End_timestamp}.mp4"},
        },
        "shards": {"max_samples": max_samples, "max_bytes": 10**12},  # by number only
        "ray": {"num_cpus": num_cores},
        "granularity": {"SVST": {}, "LVLT": {"operation": "integrate", "from": "SVST"}},
    }
    run = begin(open_run(make_recipe(content, base=str(folder))))
    ingest_clips(run)
    node = run.recipe.graph.nodes["LVLT"]
    num_shards = len(plan_shards(run, node))
    os.sync()
    started = time.perf_counter()
    build_shards(run, node)
    seconds = time.perf_counter() - started
    receipts = [pq.read_table(path) for path in sorted((folder / output / "LVLT").glob("*.parquet"))]
    rows = pa.concat_tables(receipts).to_pylist()
    return {
        "seconds": seconds,
        "num_shards": num_shards,
        "num_samples": len(rows),
        "num_clips": sum(len(row["parents"]) for row in rows),
        "num_copied": sum(row["made_by"] == "copy" for row in rows),
        "smallest_bytes": min(row["media_size_bytes"] for row in rows),
        "num_bytes": sum(path.stat().st_size for path in (folder / output / "LVLT").glob("*.tar")),
    }


@contextmanager
def private_ray(num_cores: int) -> Iterator[float]:
    """A Ray as `gex run` starts it; gives the seconds that took."""
    from gex_pipeline.ray_jobs import ray_session
    from gex_pipeline.recipe import RaySettings

    started = time.perf_counter()
    with ray_session(RaySettings(num_cpus=num_cores)):
        yield time.perf_counter() - started


def store_pages() -> dict[str, int]:
    """Bytes of shared memory that each Ray object store of this machine has touched since its start."""
    touched = {}
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            name = str(entry.readlink())
            if "/plasma" in name:
                touched[name] = entry.stat().st_blocks * 512
        except OSError:
            continue  # the process ended, or is another user's
    return touched


def workers_peak_bytes() -> int:
    """The most memory that a worker of this process's own Ray has held: they are children of a child of ours."""
    found = []
    for file in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # the process ended
            found.append(dict(line.split(":\t", 1) for line in file.read_text().splitlines()))
    ours = {one["Pid"] for one in found if int(one["PPid"]) == os.getpid()}
    workers = [one for one in found if one["PPid"] in ours and one["Name"].startswith("ray::")]
    return max((int(one["VmHWM"].split()[0]) * 1024 for one in workers), default=0)


def step_memory(folder: Path, max_samples: int, num_cores: int) -> dict[str, Any]:
    """Peak memory of the workers while they build shards of this size, in this process's own Ray."""
    import gex_pipeline.stages.build as stage

    peaks: list[int] = []
    run_shards = stage.run_shards

    def listen(job: Any, shards: Any, settings: Any, on_done: Any) -> Any:
        def note(result: dict[str, Any]) -> None:
            peaks.append(workers_peak_bytes())
            on_done(result)

        return run_shards(job, shards, settings, note)

    stage.run_shards = listen  # a worker ends with the last of its shards
    with tempfile.TemporaryDirectory(dir=folder) as output, private_ray(num_cores):
        figures = build(folder, output, "clips.parquet", max_samples, num_cores)
    return {"peak_bytes": max(peaks), "shard_bytes": figures["num_bytes"] // figures["num_shards"], **figures}


def memory_by_shard_size(folder: Path, sizes: list[int], num_cores: int) -> dict[int, dict[str, Any]]:
    """`step_memory` of each size in a fresh process."""
    found = {}
    for size in sizes:
        command = [sys.executable, __file__, "--scratch", str(folder), "--step-memory", str(size)]
        command += ["--cores", str(num_cores)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[size] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(folder: Path, num_groups: int, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Loop and build in turn; the seconds of each, and what is wrong."""
    import numpy as np
    import ray

    loop, ours, wrong = [], [], []
    before = set(store_pages())
    with private_ray(arguments.cores) as ray_start_s:
        own = set(store_pages()) - before
        with tempfile.TemporaryDirectory(dir=folder) as output:
            warm = build(folder, output, "few.parquet", 3, arguments.cores)
        for _ in range(arguments.repeats):
            loop.append(bare_loop(folder, num_groups, arguments.cores))
            with tempfile.TemporaryDirectory(dir=folder) as output:
                figures = build(folder, output, "clips.parquet", arguments.shard_samples, arguments.cores)
            ours.append(figures["seconds"])
            found = (figures["num_samples"], figures["num_copied"], figures["num_clips"])
            if found != (expected := (num_groups, num_groups, sum(group_sizes(num_groups)))):
                wrong.append(f"(samples, copied, clips) are {found}, expected {expected}")
        pages = store_pages()
        store_bytes = sum(pages[name] for name in own)
        control = ray.put(np.zeros(CONTROL_BYTES, np.uint8))
        pages = store_pages()
        control_bytes = sum(pages[name] for name in own) - store_bytes
        del control
    if len(own) != 1 or control_bytes < CONTROL_BYTES * 0.9:
        wrong.append(f"the object store cannot be measured: {len(own)} found, control {control_bytes} bytes")
    if store_bytes >= min(STORE_LIMIT_BYTES, figures["smallest_bytes"]):
        wrong.append(f"the object store held {store_bytes} bytes, the smallest video has {figures['smallest_bytes']}")
    return {
        "loop": loop,
        "ours": ours,
        "ray_start_s": ray_start_s,
        "warm_s": warm["seconds"],
        "store_bytes": store_bytes,
        **figures,
    }, wrong


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=400, help="groups of four to six clips (default 400)")
    parser.add_argument("--shard-samples", type=int, default=50, help="samples a shard (default 50)")
    parser.add_argument("--repeats", type=int, default=5, help="times each side is timed (default 5)")
    parser.add_argument("--memory-sizes", type=int, nargs="*", default=[10, 100, 400], help="shard sizes for memory")
    parser.add_argument(
        "--cores", type=int, default=os.cpu_count() or 1, help="processes of each side (default: cores)"
    )
    parser.add_argument("--scratch", type=Path, help="folder for clips and outputs (about 1 GB)")
    parser.add_argument("--step-memory", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step_memory:
        print(json.dumps(step_memory(arguments.scratch, arguments.step_memory, arguments.cores)))
        return 0
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as scratch:
        folder = (arguments.scratch or Path(scratch)).absolute()
        make_input(folder, arguments.groups)
        figures, wrong = compare(folder, arguments.groups, arguments)
        memory = memory_by_shard_size(folder, arguments.memory_sizes, arguments.cores)
    report(figures, memory, arguments.groups)
    for text in wrong:
        print(f"WRONG {text}")
    return 1 if wrong else 0


def report(figures: dict[str, Any], memory: dict[int, dict[str, Any]], num_groups: int) -> None:
    """Print all figures."""
    loop, ours = statistics.median(figures["loop"]), statistics.median(figures["ours"])
    ratio = statistics.median(a / b for a, b in zip(figures["loop"], figures["ours"], strict=True))
    each = {name: " ".join(f"{num_groups / value:.1f}" for value in figures[name]) for name in ("loop", "ours")}
    print(
        f"{num_groups} groups, {figures['num_clips']} clips of {CLIP_S} s, {figures['num_bytes'] / 1e6:.0f} MB of tars"
    )
    print(f"  bare loop     {num_groups / loop:7.1f} groups/s   ({each['loop']})")
    print(f"  ours          {num_groups / ours:7.1f} groups/s   ({each['ours']})")
    print(f"  ours : loop   {ratio:7.2f}            (median of the pairs)")
    print(f"  Ray starts in {figures['ray_start_s']:.1f} s, the first small build takes {figures['warm_s']:.1f} s")
    print(f"  Ray's object store has touched {figures['store_bytes'] / 1e3:.0f} kB in all of it")
    for size, found in memory.items():
        shard_mb = found["shard_bytes"] / 1e6
        print(f"  worker's peak, {size:4d} samples a shard ({shard_mb:6.1f} MB): {found['peak_bytes'] / 1e6:6.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
