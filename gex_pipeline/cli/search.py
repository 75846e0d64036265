"""``gex search``: the videos of a data set that are nearest to a text, as a table and a contact sheet."""

from __future__ import annotations

import argparse
import io
from typing import TYPE_CHECKING

from gex_pipeline import storage
from gex_pipeline.cli.model_tools import note_damaged, one_granularity
from gex_pipeline.cli.show import say, say_json, say_note, table
from gex_pipeline.errors import GexError
from gex_pipeline.progress import LineProgress, shown_by
from gex_pipeline.shards.manifest import published_manifest
from gex_pipeline.stages.models import open_model, require_train_extra

if TYPE_CHECKING:
    from trainer.catalog import Catalog
    from trainer.embed import Counted
    from trainer.pretrained import Pretrained
    from trainer.search import Match, Shown


def command(arguments: argparse.Namespace) -> int:
    """Search and show."""
    require_train_extra()
    from trainer.catalog import read_catalog
    from trainer.embed import Counted
    from trainer.search import Shown, frames_of

    query, dataset = arguments.text.strip(), storage.absolute(arguments.dataset)
    if not query:
        raise GexError("expected a text that is not empty")
    name = one_granularity(published_manifest(dataset).granularity_names(), arguments.granularity)
    model, counted = open_model(arguments.model), Counted()
    with read_catalog(dataset, granularities=[name]) as catalog:
        with shown_by(LineProgress()):
            matches = _matches(arguments, model, catalog, counted)
        samples = [(match, catalog.sample(name, match.number)) for match in matches]
        shown = frames_of(samples) if arguments.out else [Shown(match, sample, None) for match, sample in samples]
    note_damaged(counted.damaged)
    if not shown:
        raise GexError(f"no sample of {name} can be read")
    file = _draw(arguments, query, f"{name} of {arguments.dataset} · {counted.num_rows:,} videos searched", shown)
    _show(arguments, shown, file)
    return 0


def _matches(arguments: argparse.Namespace, model: Pretrained, catalog: Catalog, counted: Counted) -> list[Match]:
    from trainer.embed import reading_of
    from trainer.encoding import encode_texts
    from trainer.search import encoded_blocks, stored_blocks, top_matches
    from trainer.vectors import VectorFile, dataset_digest, facts_of, model_digest

    name = catalog.names[0]
    reading = reading_of(model, name)
    query = arguments.text.strip()
    encoded = encode_texts(model, [query], reading.n_iter_text)
    if encoded.num_truncated:
        say_note(f"the end of {query[:40]!r}... does not fit the text tower and is not read")
    query_D = encoded.text_TD[0]
    if arguments.vectors is None:
        blocks = encoded_blocks(model, catalog, name, counted, arguments.workers)
        return top_matches(blocks, query_D, arguments.num)
    with storage.local_copy(storage.absolute(arguments.vectors)) as path:
        file = VectorFile(path, arguments.vectors)
        wanted = facts_of(reading, dataset_digest(catalog.dataset_uri, name))
        file.check(model_digest(arguments.model), name, wanted)
        return top_matches(stored_blocks(file, name, counted), query_D, arguments.num)


def _draw(arguments: argparse.Namespace, query: str, facts: str, shown: list[Shown]) -> str | None:
    from trainer.search import sheet

    if arguments.out is None:
        return None
    picture = io.BytesIO()
    sheet(query, facts, shown).save(picture, "PNG", optimize=True)
    uri = storage.join(storage.absolute(arguments.out), "search.png")
    storage.publish_bytes(picture.getvalue(), uri)
    return uri


def _show(arguments: argparse.Namespace, shown: list[Shown], file: str | None) -> None:
    if arguments.json:
        rows = [
            {"score": row.match.score, "key": row.match.key, "source_id": row.sample.source_id, "text": row.sample.text}
            for row in shown
        ]
        say_json({"matches": rows, "sheet": file})
        return
    lines = [
        (str(rank + 1), f"{row.match.score:.4f}", row.match.key, row.sample.source_id, row.sample.text)
        for rank, row in enumerate(shown)
    ]
    table(("rank", "score", "key", "source", "text"), lines, numbers=(0, 1))
    if file is not None:
        say(file)
