"""``gex embed``: vectors of a data set, of texts or of video files, as Parquet."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gex_pipeline import storage
from gex_pipeline.cli.model_tools import note_damaged, one_granularity
from gex_pipeline.cli.show import say, say_note
from gex_pipeline.errors import GexError
from gex_pipeline.progress import LineProgress, progress, shown_by
from gex_pipeline.stages.models import open_model, require_train_extra

if TYPE_CHECKING:
    from trainer.embed import Counted
    from trainer.pretrained import Pretrained


def command(arguments: argparse.Namespace) -> int:
    """Encode and publish."""
    require_train_extra()
    sources = [arguments.source, arguments.texts, arguments.videos]
    if sum(source is not None for source in sources) != 1:
        raise GexError("name what to embed: a published data set, or --texts FILE, or --videos FILE...")
    if not arguments.out.endswith(".parquet"):
        raise GexError(f"-o is {arguments.out!r}; expected the name of a .parquet file")
    model, out = open_model(arguments.model), storage.absolute(arguments.out)
    with shown_by(LineProgress()):
        found = _dataset(arguments, model, out) if arguments.source else _others(arguments, model, out)
    for name, counted in found.items():
        note_damaged(counted.damaged)
        if counted.num_truncated_texts:
            what = f"{counted.num_truncated_texts:,} of {counted.num_rows:,} texts"
            of = "" if name == "texts" else f" of {name}"
            say_note(f"{what}{of} do not fit the text tower; their ends are not read")
        left_out = f", {len(counted.damaged):,} left out" if counted.damaged else ""
        say(f"{name}: {counted.num_rows:,} rows{left_out}")
    say(out)
    return 0


def _dataset(arguments: argparse.Namespace, model: Pretrained, out: str) -> dict[str, Counted]:
    from trainer.catalog import read_catalog
    from trainer.embed import embed_dataset, granularities_of

    source = storage.absolute(arguments.source)
    names, unknown = granularities_of(model, source, arguments.granularity or ())
    for name in unknown:
        progress().note(f"gex: note: {name} is left out: the model was not trained on it, so its #iter is not known")
    with read_catalog(source, granularities=names) as catalog:
        return embed_dataset(model, arguments.model, catalog, out, arguments.workers)


def _others(arguments: argparse.Namespace, model: Pretrained, out: str) -> dict[str, Counted]:
    """Texts or files, read as samples of one granularity are."""
    from trainer.embed import embed_files, embed_texts, reading_of, text_columns, video_columns
    from trainer.vectors import Facts, facts_of, model_digest, publishing

    named = arguments.granularity or []
    if len(named) > 1:
        raise GexError(f"texts and files are read as one granularity; found {len(named)}: {', '.join(named)}")
    # one that is named may be the paper's, which the model need not know
    name = named[0] if named else one_granularity(list(model.granularities), None)
    reading, dim = reading_of(model, name), model.settings.iam.dim
    facts = Facts(model_digest(arguments.model), {name: facts_of(reading)})
    if arguments.texts:
        texts = _lines(arguments.texts)
        with publishing(out, text_columns(dim), facts) as writer:
            return {"texts": embed_texts(model, texts, reading.n_iter_text, writer)}
    with publishing(out, video_columns(dim), facts) as writer:
        counted = embed_files(model, arguments.videos, reading, writer)
        if not counted.num_rows:
            first = counted.damaged[0]
            raise GexError(f"none of {len(arguments.videos)} files can be read; {first.key}: {first.reason}")
    return {"files": counted}


def _lines(uri: str) -> list[str]:
    """The texts of a file, one a line; empty lines are left out. Only a line feed ends one: captions hold others."""
    try:
        lines = storage.read_bytes(uri).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise GexError(f"{uri!r} is not text in UTF-8: {error}") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise GexError(f"{uri!r} holds no text; expected one a line")
    return texts
