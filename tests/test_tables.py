from __future__ import annotations

import re
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.tables import Database, DatabaseError, files_to_read, identifier, literal, sql_text

SQL = Path(__file__).parent.parent / "sql"


@pytest.fixture
def database():
    with Database(threads=1) as opened:
        opened.execute("CREATE TEMP TABLE clips AS SELECT 0.5 AS UMT_Score, 'a' AS Caption, 'C' AS \"Channel Name\"")
        yield opened


@pytest.mark.parametrize(
    "predicate",
    [
        "UMT_Score > 0.3",
        "UMT_Score > 0.3 AND Caption NOT LIKE '%(%'",
        "\"Channel Name\" IN ('C', 'D')",
        "(UMT_Score > 0.3) OR (UMT_Score < 0.1)",
        "UMT_Score BETWEEN 0.1 AND 0.9 -- the good ones",
        "Caption = ';'",
        "length(Caption) < 5",
        "CASE WHEN UMT_Score > 1 THEN false ELSE true END",
        "Caption = 'it''s) OR (1=1'",
    ],
)
def test_one_condition_over_the_columns_is_a_predicate(database, predicate):
    database.check_predicate(predicate)
    assert database.value(f"SELECT count(*) FROM clips WHERE {predicate}\n") in (0, 1)  # DuckDB takes it, too


@pytest.mark.parametrize(
    "predicate",
    [
        "",
        "UMT_Score >",
        "true; DROP TABLE clips",
        "true); DROP TABLE clips; --",
        "true); SELECT (1",
        "true) UNION SELECT (1",
        "true) UNION ALL SELECT 1 FROM clips WHERE (true",
        "true) AS passes, (true",
        "true) OR (true",
        "UMT_Score > 1 AS x",
        "true ORDER BY 1",
        "-- nothing",
        "true) ORDER BY (1",
        "true) GROUP BY (1",
        "true) LIMIT (1",
        "true /* open",
        "Caption IN (SELECT content FROM read_text('/etc/passwd'))",
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
        "EXISTS (FROM '/etc/passwd')",
        "EXISTS (SELECT 1 FROM glob('*'))",
        "CASE WHEN true THEN (SELECT true FROM duckdb_settings() LIMIT 1) END",
        "list_transform([1], x -> (SELECT 1))[1] = 1",
        "UMT_Score > $seed",
        "UMT_Score > ?",
        "row_number() OVER () > 1",
    ],
)
def test_what_is_more_than_one_condition_over_a_row_is_refused(database, predicate):
    with pytest.raises(RecipeError, match=re.escape(f"where = {predicate!r}")):
        database.check_predicate(predicate)


def test_names_and_texts_are_quoted():
    assert identifier('a"b') == '"a""b"'
    assert literal("it's") == "'it''s'"
    assert files_to_read([Path("a'b.csv"), Path("c")]) == "['a''b.csv', 'c'], hive_partitioning = false"


def test_a_column_may_have_any_name(database):
    name = 'x"; DROP TABLE clips; --'
    database.execute(f"CREATE TEMP TABLE t AS SELECT 1 AS {identifier(name)}")
    assert database.columns("t") == [name]
    assert database.count("clips") == 1


def test_a_statement_that_is_not_there_is_said_by_name():
    with pytest.raises(GexError, match=r"sql/nothing.sql is not part of this installation"):
        sql_text("nothing")


@pytest.mark.parametrize("file", sorted(SQL.glob("*.sql")), ids=lambda file: file.stem)
def test_every_statement_is_one_statement_and_says_what_it_answers(file):
    import duckdb

    text = file.read_text()
    assert text.startswith("-- Question: "), "the header says which question the statement answers"
    assert re.search(r"^-- (Grain|Takes|Reads)", text, re.M) or file.stem.endswith("_none"), "and its grain"
    assert len(duckdb.extract_statements(text)) == 1


def test_a_view_over_no_file_has_the_columns_of_its_empty_form(database):
    database.view_parquet("nothing", [], empty="SELECT 'x' AS id, 1 AS n")
    assert database.columns("nothing") == ["id", "n"]
    assert database.count("nothing") == 0
    schema = pa.schema([("parents", pa.list_(pa.string())), ("n", pa.int64())])
    database.view_parquet("nothing", [], empty=schema, numbered=True)
    assert database.columns("nothing") == ["parents", "n", "snapshot"]
    assert database.count("nothing") == 0
    with pytest.raises(GexError, match=r"no file for the table 'nothing'"):
        database.view_parquet("nothing", [])


def test_a_table_is_published_in_its_order_and_read_again(database, tmp_path):
    database.execute("CREATE TEMP TABLE t AS SELECT unnest([3, 1, 2]) AS n")
    database.publish_table("t", f"{tmp_path}/it's/t.parquet", "n")
    assert pq.read_table(tmp_path / "it's/t.parquet")["n"].to_pylist() == [1, 2, 3]
    database.view_parquet("again", [f"{tmp_path}/it's/t.parquet"])
    assert database.count("again") == 3


@pytest.mark.parametrize("place", ["n=5/t.parquet", "run [2]/t-?.parquet", "a*/t{1,2}.parquet", "**/[t].parquet"])
def test_a_files_name_and_folders_are_neither_columns_nor_patterns(database, tmp_path, place):
    """A folder called like a column replaced it in all rows, and a name with a sign read the files beside it too."""
    for name in (place, "run 2/t-1.parquet", "run [2]/t-1.parquet", "ab/t1.parquet", "b/t.parquet"):
        database.execute(f"CREATE OR REPLACE TEMP TABLE t AS SELECT {7 if name == place else 1} AS n")
        database.publish_table("t", f"{tmp_path}/{name}")
    for is_alike in (False, True):
        database.view_parquet("one", [f"{tmp_path}/{place}"], is_alike=is_alike)
        assert database.query('SELECT * FROM "one"') == [{"n": 7}]


def test_files_of_different_columns_are_one_view(database, tmp_path):
    for name, column in (("a", "x"), ("b", "y")):
        database.execute(f"CREATE OR REPLACE TEMP TABLE t AS SELECT 1 AS {column}")
        database.publish_table("t", f"{tmp_path}/{name}.parquet")
    database.view_parquet("both", [f"{tmp_path}/a.parquet", f"{tmp_path}/b.parquet"])
    assert database.query('SELECT x, y FROM "both" ORDER BY x') == [{"x": 1, "y": None}, {"x": None, "y": 1}]


def test_tables_and_views_are_dropped_alike(database):
    database.execute("CREATE TEMP VIEW v AS SELECT 1 AS n")
    database.execute("CREATE TEMP TABLE t AS SELECT 1 AS n")
    database.drop("v", "t", "neither")
    names = database.query(
        "SELECT table_name AS n FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() WHERE temporary"
    )
    assert not {"v", "t"} & {row["n"] for row in names}


@pytest.mark.parametrize(("given", "limit"), [("1", "953.6 MiB"), (None, "2.3 GiB")])
def test_the_memory_limit_is_that_of_the_environment(monkeypatch, given, limit):
    monkeypatch.delenv("GEX_DATABASE_GB", raising=False)
    if given:
        monkeypatch.setenv("GEX_DATABASE_GB", given)
    with Database() as opened:
        assert opened.value("SELECT current_setting('memory_limit')") == limit


@pytest.mark.parametrize("given", ["", "8GB", "0", "-1", "nan", "inf"])
def test_a_memory_limit_that_is_none_is_refused_by_name(monkeypatch, given):
    monkeypatch.setenv("GEX_DATABASE_GB", given)
    with pytest.raises(GexError, match=f"GEX_DATABASE_GB is '{given}'; expected gigabytes"):
        Database()


def test_files_said_to_be_alike_that_are_not_are_an_error_and_no_loss(database, tmp_path):
    for name, columns in (("a", "1 AS x, 2 AS y"), ("b", "3 AS x")):
        database.execute(f"CREATE OR REPLACE TEMP TABLE t AS SELECT {columns}")
        database.publish_table("t", str(tmp_path / f"{name}.parquet"))
    database.view_parquet("pair", [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")], is_alike=True)
    with pytest.raises(DatabaseError, match="schema mismatch"):
        database.query("SELECT * FROM pair")


def test_a_databases_scratch_folder_goes_with_it():
    with Database(threads=1) as opened:
        scratch = opened.scratch
        assert scratch.is_dir()
    assert not scratch.exists()


def _published(database, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    database.execute("CREATE OR REPLACE TEMP TABLE made AS SELECT 'a text ' || hash(range) AS said FROM range(50000)")
    database.publish_table("made", str(path))
    return path.read_bytes()


@pytest.mark.parametrize("kept", [0, 5, 100, 5000])
def test_a_cut_table_is_named_with_what_to_do(database, tmp_path, kept):
    sound, cut = tmp_path / "out/tables/clips-000000.parquet", tmp_path / "out/tables/rejects-000000.parquet"
    _published(database, sound)
    cut.write_bytes(_published(database, cut)[:kept])
    with pytest.raises(GexError) as told:
        database.view_parquet("t", [str(sound), str(cut)])
    assert str(told.value) == (
        f"tables/rejects-000000.parquet of {tmp_path}/out is damaged; "
        "tables are not built again: put it back from a copy"
    )


def test_a_missing_table_is_named_with_what_to_do(database, tmp_path):
    sound = tmp_path / "out/tables/clips-000000.parquet"
    _published(database, sound)
    with pytest.raises(GexError) as told:
        database.view_parquet("t", [str(sound), f"{tmp_path}/out/tables/clips-000001.parquet"])
    assert str(told.value) == (
        f"tables/clips-000001.parquet of {tmp_path}/out is missing; tables are not built again: put it back from a copy"
    )


def test_a_table_that_goes_while_it_is_viewed_is_named_also_in_a_folder_called_like_a_pattern(database, tmp_path):
    path = tmp_path / "run [2]/tables/clips-000000.parquet"
    _published(database, path)
    database.view_parquet("t", [str(path)])
    path.unlink()
    with pytest.raises(GexError, match=r"^tables/clips-000000\.parquet of .*/run \[2\] is missing; tables are not"):
        database.count("t")


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_table_damaged_behind_a_whole_footer_is_named_when_its_rows_are_asked_for(database, tmp_path, place):
    path = tmp_path / "out/tables/clips-000000.parquet"
    content = bytearray(_published(database, path))
    at = int(place * len(content))
    content[at : at + 2000] = bytes(2000)
    path.write_bytes(content)
    database.view_parquet("t", [str(path)])
    for ask in (database.query, database.execute):
        with pytest.raises(GexError, match=r"^tables/clips-000000.parquet of .* is damaged; tables are not built"):
            ask("SELECT * FROM t" if ask == database.query else "CREATE OR REPLACE TEMP TABLE u AS SELECT * FROM t")


def test_a_damaged_receipt_is_named_with_the_command_that_mends_it(database, tmp_path):
    path = tmp_path / "out/LVLT/LVLT-000003.parquet"
    path.write_bytes(_published(database, path)[:100])
    with pytest.raises(GexError, match=r"^LVLT/LVLT-000003.parquet of .* is damaged .* --check-bytes$"):
        database.view_parquet("receipts", [str(path)])


def test_a_wrong_statement_over_sound_tables_is_still_one_of_the_database(database, tmp_path):
    path = tmp_path / "out/tables/clips-000000.parquet"
    _published(database, path)
    database.view_parquet("t", [str(path)])
    with pytest.raises(DatabaseError, match=r"(?i)could not convert|conversion"):
        database.query("SELECT said::INTEGER FROM t")


def test_a_damaged_file_that_is_not_ours_stays_its_callers_matter(database, tmp_path):
    path = tmp_path / "out/tables/clips-000000.parquet"  # the metadata of another run
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1")
    (local,) = database.local_files([str(path)])
    with pytest.raises(DatabaseError):
        database.query(f"SELECT * FROM read_parquet({files_to_read([local])})")


def test_an_interrupt_in_the_middle_of_a_query_is_one():
    """DuckDB makes a RuntimeError of it, which was told as a failure of the run."""
    with Database(threads=1) as database:
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                database.execute("CREATE TEMP TABLE x AS SELECT i, hash(i) % 7 AS j FROM range(300000000) AS r(i)")
        finally:
            signal.signal(signal.SIGALRM, before)
