"""``gex demo``: a drawn corpus, a recipe for it, and the run."""

from __future__ import annotations

import argparse
from pathlib import Path

from gex_pipeline.cli.run import run_recipe
from gex_pipeline.cli.show import say
from gex_pipeline.progress import LineProgress, shown_by
from gex_pipeline.storage_failures import explained

_RECIPE = """\
# The demo: what the paper makes of InternVid, made of a small drawn corpus.
name = "gex-demo"
output = "output"

[source]
clips = "corpus/clips.jsonl"
media = { kind = "files", uri = "corpus/clips/{YoutubeID}_{Start_timestamp}_{End_timestamp}.mp4", colon = "-" }

[shards]
max_samples = 16                # small, so that there is more than one; real runs keep the default of 1000

[granularity.SVST]              # short video, short text: the clips
pack = true                     # write them as shards too, so that a trainer finds every granularity in one place

[granularity.LVLT]              # long video, long text: the clips of one source, joined
operation = "integrate"
from = "SVST"
min_clips = 4

[granularity.LVST]              # long video, short text: the long text summarised
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }

[granularity.IT]                # image, text: the middle frame
operation = "compress_video"
from = "SVST"
"""


def command(arguments: argparse.Namespace) -> int:
    """Draw, expand, show."""
    from gex_pipeline.demo.corpus import CorpusSettings, draw_corpus

    folder: Path = arguments.folder
    recipe = folder / "recipe.toml"
    settings = CorpusSettings(num_sources=arguments.sources, seed=arguments.seed)
    with explained(str(folder)), shown_by(LineProgress()):
        folder.mkdir(parents=True, exist_ok=True)
        draw_corpus(folder / "corpus", settings)
        if not recipe.exists():
            recipe.write_text(_RECIPE, encoding="utf-8")
    say(f"corpus   {folder / 'corpus'}")
    say(f"recipe   {recipe}")
    return run_recipe(str(recipe))
