"""What the recipe's `where` bars from new samples: clips that earlier snapshots accepted under another predicate.

Ingest asks the predicate of every row that it reads; a clip that it accepted once stays known. Here it is asked again
of the stored clips, under the names that the columns had in the metadata. A sample is barred with any of its clips.
Published samples stay as they are. Clips accepted under the predicate of now are not asked: a recipe without `where`,
or with the same one ever since, pays nothing.
"""

from __future__ import annotations

from gex_pipeline.errors import RecipeError
from gex_pipeline.ingest import OURS
from gex_pipeline.metadata import first_line
from gex_pipeline.metadata_types import EXACT_BELOW, if_number, types_of
from gex_pipeline.run_state import Run
from gex_pipeline.tables import Database, DatabaseError, identifier

_STORED_PREFIX = "input_"  # of input columns whose names are ours
_ID = identifier("id of the clip")  # among columns of whatever names
_NOTHING = "CREATE OR REPLACE TEMP TABLE barred (id VARCHAR, source_id VARCHAR)"


def can_bar(run: Run) -> bool:
    """Whether any clip was accepted under another predicate than the recipe's."""
    return bool(_other_tables(run))


def bar_clips(database: Database, run: Run) -> bool:
    """Make the table ``barred`` (id, source_id) of the clips in ``unsettled``; whether there is any in it.

    Reads the view ``clips``.

    Raises:
        RecipeError: the predicate cannot be asked of clips of earlier snapshots.
    """
    return _bar(database, run, "plan_barred_clips")


def bar_samples(database: Database, run: Run) -> bool:
    """Make the table ``barred`` (id, source_id) of those in ``samples`` that are not ``settled``; whether any is in it.

    Reads the view ``clips``, where `can_bar` says so.

    Raises:
        RecipeError: the predicate cannot be asked of clips of earlier snapshots.
    """
    return _bar(database, run, "plan_barred_samples")


def bar_nothing(database: Database) -> bool:
    """Make the table ``barred`` with nothing in it."""
    database.execute(_NOTHING)
    return False


def _bar(database: Database, run: Run, statement: str) -> bool:
    if not can_bar(run) or not _find_clips(database, run):
        return bar_nothing(database)
    database.run(statement)
    return database.count("barred") > 0


def _other_tables(run: Run) -> list[str]:
    """The clips tables of snapshots whose recipe had another predicate."""
    where = run.recipe.source.where
    if where is None:
        return []
    others = {
        run.layout.table("clips", entry.snapshot)
        for entry in run.manifest.snapshots
        if entry.recipe.get("source", {}).get("where") != where
    }
    return [uri for uri in run.previous_tables("clips") if uri in others]


def _find_clips(database: Database, run: Run) -> int:
    """Make the table ``barred_clips`` (clip_id) of known clips that fail the predicate; how many there are."""
    where = run.recipe.source.where or "true"
    database.check_predicate(where)
    database.view_parquet("clips_to_ask", _other_tables(run))
    # The clips of all snapshots lend columns that came later, NULL for these, and types that hold all values.
    known = "SELECT * FROM clips_to_ask UNION ALL BY NAME SELECT * FROM clips WHERE false"
    database.execute(f"CREATE OR REPLACE TEMP VIEW clips_asked AS {known}")
    types = types_of(database, "clips_asked")
    # Earlier versions stored values that are no numbers, which pass every threshold.
    columns = ", ".join(
        f"{if_number(identifier(stored)) if types[stored] in EXACT_BELOW else identifier(stored)} AS {identifier(name)}"
        for name, stored in _input_names(list(types))
    )
    try:
        database.execute(
            f"CREATE OR REPLACE TEMP TABLE barred_clips AS SELECT {_ID} AS clip_id "
            f"FROM (SELECT clip_id AS {_ID}, {columns} FROM clips_asked) AS input_rows WHERE ({where}\n) IS NOT TRUE"
        )
    except DatabaseError as error:
        raise RecipeError(
            f"where = {where!r} cannot be asked of the clips that earlier snapshots accepted: {first_line(error)}. "
            "A cast of the column to the type that is meant may help"
        ) from error
    return database.count("barred_clips")


def _input_names(stored: list[str]) -> list[tuple[str, str]]:
    """The names that columns of the clips had in the metadata, each with the name it is stored by."""
    taken = {name.lower() for name in OURS}
    names = [(name, name) for name in stored if name.lower() not in taken]
    renamed = [(name.removeprefix(_STORED_PREFIX), name) for name, _ in names if name.startswith(_STORED_PREFIX)]
    return names + [(name, kept) for name, kept in renamed if name.lower() in taken]
