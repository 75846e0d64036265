"""Clip metadata in, ``clips`` table and losses out. Every input row is accepted, known, excluded or rejected.

Reads Parquet, CSV and JSON Lines, one file or many, compressed or not. The four columns GEX needs are
read as text whatever their type, so that ids keep their zeros; all input columns are kept.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import PurePosixPath

from gex_pipeline import registry, storage
from gex_pipeline.clip_places import no_clip_moved, publish_moved, view_placed
from gex_pipeline.errors import RecipeError
from gex_pipeline.inputs import metadata_uris, noted
from gex_pipeline.metadata import MetadataFiles, broken_file, first_file_with, first_line, read_metadata
from gex_pipeline.metadata_types import TEXT_OF, Named
from gex_pipeline.recipe import MediaColumn, MediaTars, Recipe
from gex_pipeline.run_state import Run
from gex_pipeline.shards.manifest import Account
from gex_pipeline.tables import Database, DatabaseError, identifier, literal

OURS = (
    "clip_id",
    "source_id",
    "start_s",
    "end_s",
    "text",
    "num_words",
    "text_cleaned",
    "media_uri",
    "media_offset_bytes",
    "media_size_bytes",
    "media_stamp",
)
_INPUT = "input_"  # before the names of input columns that are called like ours
_CONTROL = r"\p{Cc}\p{Zl}\p{Zp}"  # in a path: what acts on a terminal, or ends a line of a list of files
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 4000  # of Linux, less what may stand in front
_PASSES, _WHOLE = "as read: passes", "as read: row"  # unlike any column of the metadata
_NO_KNOWN_CLIPS = "SELECT NULL::VARCHAR AS clip_id"


@dataclass(frozen=True)
class Ingested:
    """What ingest found: the account, and what a person should know of."""

    account: Account
    notes: tuple[str, ...]


def ingest(database: Database, run: Run, *, keep_index: bool = False) -> Ingested:
    """Read and check all metadata into the tables ``clips_new``, ``ingest_losses`` and ``moved_clips``.

    Nothing is written to the output but, with `keep_index`, what was read of source tars, for whoever comes after.

    Raises:
        RecipeError: a column or the predicate of the recipe does not fit the metadata.
        GexError: the metadata cannot be read.
    """
    database.run("seconds_of")
    database.run("clean_text")
    files = _metadata_files(run)
    num_rows, num_bad_lines = read_metadata(database, files)
    try:
        _raw_view(database, run.recipe)
        database.run("ingest_read")
    except DatabaseError as error:
        if (broken := broken_file(database, files)) is not None:
            raise broken from error
        raise RecipeError(f"the metadata cannot be read as the recipe says: {first_line(error)}") from error
    database.view_parquet("known_clips", run.previous_tables("clips"), empty=_NO_KNOWN_CLIPS)
    view_placed(database, "known_places", run.previous_tables("clips"), run.previous_tables("media-moved"))
    tar_note = _find_in_tars(database, run, keep_index=keep_index)
    database.run("ingest_duplicates")
    database.run("ingest_accepted")
    granularity = run.recipe.graph.source.name
    database.run("ingest_losses", granularity=granularity, tar_note=tar_note)
    if database.count("bad_lines"):
        database.run("ingest_bad_json")
    if num_bad_lines:
        database.run("ingest_bad_lines", granularity=granularity)
    _clips_table(database)
    account = _account(database, granularity, num_rows + num_bad_lines)
    notes = [*_changes(database, run), *_lost_digits(database, files, run.recipe.source.columns.source_id)]
    return Ingested(account, tuple(notes))


def _lost_digits(database: Database, files: MetadataFiles, column: str) -> list[str]:
    """How many rows have an id that a program took for a floating number, and the first file of one of them.

    That costs another reading of the files up to it; the rows themselves do not know whose they are.
    """
    (found,) = database.query(
        "SELECT count(*) AS num_rows, min(source_id) AS id FROM ingest_losses "
        "WHERE reason = 'missing_source_id' AND source_id <> ''"
    )
    if not found["num_rows"]:
        return []
    name = first_file_with(database, files, column, found["id"]) or "one of the files"
    return [
        f"rows rejected: {found['num_rows']:,}, since their {column} lost its digits: it was read as a floating "
        f"number, such as {found['id']} in {name}. Write that column as text or as whole numbers"
    ]


def _changes(database: Database, run: Run) -> list[str]:
    """What the metadata said before and say no more, in words: a file that did not come is else seen by nobody.

    Where clips are files, those that lie elsewhere now get into the table ``moved_clips``.
    """
    if not run.previous_tables("clips"):
        return []
    notes, has_paths = [], not isinstance(run.recipe.source.media, MediaTars)
    now = {file["uri"] for file in noted(run.inputs, run.recipe)}
    gone = [file["uri"] for file in run.manifest.snapshots[-1].inputs if file["uri"] not in now]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        notes.append(f"files of the last snapshot that are no longer found: {gone[0]}{more}")
    (found,) = database.rows("ingest_changes", has_paths=has_paths)
    if found["num_unseen"]:
        notes.append(f"{found['num_unseen']:,} known clips are in the metadata no more; what was made of them stays")
    return notes + (_other_notes(database, has_paths) if found["num_other"] else [])


def _other_notes(database: Database, has_paths: bool) -> list[str]:
    """How many known clips have another caption now, and how many lie elsewhere, which ``moved_clips`` lists."""
    notes = []
    if num := database.rows("ingest_other_text")[0]["num_clips"]:
        notes.append(f"{num:,} known clips have another caption now; they keep the one they came with")
    if has_paths:
        database.run("ingest_moved_paths")
        if num := database.count("moved_clips"):
            notes.append(f"{num:,} known clips lie elsewhere now; what is not made of them yet is made from there")
    return notes


def _account(database: Database, granularity: str, num_in: int) -> Account:
    counts = database.query(
        "SELECT state, reason, count(*) AS n FROM ingest_losses GROUP BY ALL ORDER BY n DESC, reason"
    )
    num_known = int(
        database.value(
            "SELECT count(*) FROM read_clips AS r WHERE reason IS NULL "
            "AND r.rowid NOT IN (SELECT duplicate FROM duplicate_rows) "
            "AND clip_id IN (SELECT clip_id FROM known_clips)"
        )
    )
    return Account(
        stage="ingest",
        granularity=granularity,
        unit="rows",
        num_in=num_in,
        num_used=database.count("clips_new"),
        excluded={row["reason"]: row["n"] for row in counts if row["state"] == "excluded"},
        rejected={row["reason"]: row["n"] for row in counts if row["state"] == "rejected"},
        num_known=num_known,
    )


def _metadata_files(run: Run) -> MetadataFiles:
    recipe = run.recipe
    columns = (*recipe.source.columns.model_dump().values(), *_media_columns(recipe))
    nodes = recipe.graph.nodes.values()
    groups = {registry.load_operation(node.operation)(recipe, node.name).group_by for node in nodes}
    ids = (groups - {None, "source_id"}) | {recipe.source.columns.source_id}
    return MetadataFiles(metadata_uris(run.inputs), Named(frozenset(columns), frozenset(ids)))


def _media_columns(recipe: Recipe) -> list[str]:
    """The metadata columns that say where a clip's media is."""
    if isinstance(recipe.source.media, MediaColumn):
        return [recipe.source.media.column]
    return [name for _, name in _template(recipe) if name is not None]


def _template(recipe: Recipe) -> list[tuple[str, str | None]]:
    """The media template as pieces: text, and the column whose value follows it."""
    media = recipe.source.media
    if isinstance(media, MediaColumn):
        return []
    folder, template = ("", media.key) if isinstance(media, MediaTars) else _located(recipe, media.uri)
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(f"source.media: the template {template!r} cannot be read: {error}") from error
    for _, name, form, conversion in pieces:
        if form or conversion:
            written = f"{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}"
            raise RecipeError(
                f"source.media: the field {{{written}}} says how to write a value, which a template cannot; "
                f"say {{{name}}}. {{start_s}} and {{end_s}} give seconds with three decimals, as in 1.500; "
                "for another form, add a column to the metadata"
            )
    return [(folder, None), *((text, name) for text, name, _, _ in pieces)]


def _located(recipe: Recipe, template: str) -> tuple[str, str]:
    """The folder that a template is relative to, if any, and the template: braces of the folder's name are no field."""
    if recipe.locate(template) == template:
        return "", template
    return recipe.locate(".").rstrip("/") + "/", str(PurePosixPath(template))


def _raw_view(database: Database, recipe: Recipe) -> None:
    """The view ``raw_clips``: the needed columns by our names, the media's place, the predicate, the whole row."""
    columns = recipe.source.columns
    found = database.columns("input_rows")
    names = [name for name in found if not name.startswith(TEXT_OF)]
    for key, column in columns.model_dump().items():
        if column not in names:
            raise RecipeError(
                f"source.columns.{key}: the metadata has no column {column!r}; it has: {', '.join(names)}. "
                f'Map it with columns = {{ {key} = "..." }}'
            )
    where = recipe.source.where
    if where is not None:
        database.check_predicate(where)
    media, unsafe = _media_expression(recipe, names)
    if not isinstance(recipe.source.media, MediaTars) and storage.is_local(_media_root(recipe)):
        # A path that no file can have would be an error of the disk, at every look.
        media = (
            f"CASE WHEN strlen({media}) <= {_MAX_NAME_BYTES} OR strlen({media}) <= {_MAX_PATH_BYTES} AND list_max("
            f"[strlen(part) FOR part IN string_split({media}, '/')]) <= {_MAX_NAME_BYTES} THEN {media} END"
        )
    whole = ", ".join(f"{literal(name)}: {identifier(name)}" for name in names)
    texts = ", ".join(
        f"{identifier(name)} AS {identifier(name.removeprefix(TEXT_OF))}" for name in found if name.startswith(TEXT_OF)
    )
    # The predicate and the whole row have the columns as they are, everything else what they say as text.
    rows = (
        f"SELECT *{f' REPLACE ({texts})' if texts else ''}, ({where or 'true'}\n) AS {identifier(_PASSES)}, "
        f"{{{whole}}} AS {identifier(_WHOLE)} FROM input_rows"
    )
    database.execute(
        "CREATE OR REPLACE TEMP VIEW raw_clips AS SELECT "
        f"{identifier(columns.source_id)}::VARCHAR AS source_text, {identifier(columns.start)}::VARCHAR AS start_text, "
        f"{identifier(columns.end)}::VARCHAR AS end_text, {identifier(columns.caption)}::VARCHAR AS caption_text, "
        f"{media} AS media_text, {unsafe} AS media_unsafe, {identifier(_PASSES)} AS passes, "
        f"{identifier(_WHOLE)} AS input FROM ({rows})"
    )


def _media_root(recipe: Recipe) -> str:
    media = recipe.source.media
    return recipe.locate(media.root if isinstance(media, MediaColumn) else media.uri)


def _media_expression(recipe: Recipe, names: list[str]) -> tuple[str, str]:
    """SQL for a clip's media (path, URI or tar key), and for whether a value in it leads somewhere it must not."""
    media = recipe.source.media
    if isinstance(media, MediaColumn):
        _known_field(media.column, names)
        value = f"nullif({identifier(media.column)}::VARCHAR, '')"
        unsafe = f"regexp_matches({value}, '^/|^[.][.]/|/[.][.]/|/[.][.]$|^[.][.]$|://|[{_CONTROL}\\\\]')"
        return f"{literal(recipe.locate(media.root).rstrip('/') + '/')} || {value}", unsafe
    colon = getattr(media, "colon", ":")
    parts, fields = [], []
    for text, name in _template(recipe):
        if text:
            parts.append(literal(text))
        if name is not None:
            fields.append(_field(name, names, recipe, colon))
            parts.append(fields[-1])
    unsafe = " OR ".join(f"regexp_matches({value}, '[/\\\\{_CONTROL}]|^[.][.]?$')" for value in fields) or "false"
    return " || ".join(parts), f"coalesce({unsafe}, false)"


def _field(name: str, names: list[str], recipe: Recipe, colon: str) -> str:
    if name in ("start_s", "end_s") and name not in names:
        column = recipe.source.columns.start if name == "start_s" else recipe.source.columns.end
        return f"printf('%.3f', seconds_of(trim({identifier(column)}::VARCHAR)))"
    _known_field(name, names)
    return f"replace({identifier(name)}::VARCHAR, ':', {literal(colon)})"


def _known_field(name: str, names: list[str]) -> None:
    if name not in names:
        raise RecipeError(
            f"source.media: {{{name}}} is not a column of the metadata; there are: {', '.join(names)}, start_s, end_s"
        )


def _find_in_tars(database: Database, run: Run, *, keep_index: bool) -> str:
    """Clips in tars: find each clip's byte range, or a reason against it, and which known clips have moved.

    Returns what is wrong with whole tars.
    """
    if not isinstance(run.recipe.source.media, MediaTars):
        database.execute("CREATE OR REPLACE TEMP TABLE tar_problems (key VARCHAR, reason VARCHAR, detail VARCHAR)")
        no_clip_moved(database)  # unless `_changes` finds that some have
        return ""
    from gex_pipeline.media_index import media_index

    note = media_index(database, run, keep=keep_index)
    database.run("ingest_tar_reasons")
    database.run("ingest_moved_members")
    return note


def _clips_table(database: Database) -> None:
    """The view ``clips_new``: our columns first, then every input column under its name (or ``input_{name}``)."""
    inputs = [row["column_name"] for row in database.query("DESCRIBE SELECT unnest(input) FROM accepted")]
    kept = ", ".join(
        f"a.input[{literal(name)}] AS {identifier(f'{_INPUT}{name}' if name.lower() in OURS else name)}"
        for name in inputs
    )
    has_index = bool(database.query("SELECT 1 FROM duckdb_tables() WHERE table_name = 'media_index'"))
    place = (
        "m.uri AS media_uri, m.offset_bytes AS media_offset_bytes, m.size_bytes AS media_size_bytes, "
        "m.stamp AS media_stamp"
        if has_index
        else "a.media_text AS media_uri, NULL::BIGINT AS media_offset_bytes, NULL::BIGINT AS media_size_bytes, "
        "NULL::VARCHAR AS media_stamp"
    )
    join = "LEFT JOIN media_index AS m ON m.key = a.media_text" if has_index else ""
    database.execute(
        "CREATE OR REPLACE TEMP VIEW clips_new AS SELECT a.clip_id, a.source_id, a.start_s, a.end_s, a.text, "
        f"a.num_words, a.text_cleaned, {place}, {kept} FROM accepted AS a {join}"
    )


def input_name(stored: str) -> str:
    """The name that a column of the clips which is none of `OURS` had in the metadata."""
    name = stored.removeprefix(_INPUT)
    return name if name.lower() in OURS else stored


def publish_clips(database: Database, run: Run) -> None:
    """Write the snapshot's ``clips`` table, its ingest losses, which known clips moved, and what tars hold."""
    from gex_pipeline.media_index import publish_index

    publish_index(database, run)
    publish_moved(database, run)
    database.publish_table("ingest_losses", run.layout.table("losses-ingest", run.snapshot), order_by="reason, id, row")
    database.publish_table("clips_new", run.layout.table("clips", run.snapshot))


def clip_tables(run: Run) -> list[str]:
    """The clips tables of all snapshots with this run's."""
    return [*run.previous_tables("clips"), run.layout.table("clips", run.snapshot)]
