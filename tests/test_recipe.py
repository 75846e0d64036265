from __future__ import annotations

import copy

import pytest
from pydantic import ValidationError

from gex_pipeline.errors import RecipeError
from gex_pipeline.recipe import Bound, load_recipe, make_recipe

BASE = {
    "name": "test",
    "output": "output",
    "source": {"clips": "clips.jsonl", "media": {"kind": "files", "uri": "clips/{YoutubeID}.mp4"}},
    "granularity": {"SVST": {}, "LVLT": {"operation": "integrate", "from": "SVST"}},
}
SHORT = {"operation": "compress_text", "from": "LVLT", "summarizer": {"backend": "extractive"}}
FIVE = """
name = "five"
output = "s3://bucket/five"
[source]
clips = ["a.parquet", "b/*.csv"]
media = { kind = "tars", uri = "tars/*.tar" }
where = "UMT_Score > 0.3"
[granularity.IT]
operation = "compress_video"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.CHANNEL]
operation = "integrate"
from = "LVLT"
by = "Channel"
min_clips = 2
[granularity.SVST]
pack = true
"""


def changed(path: str, value):
    """The base recipe with one key set; a value of None removes it."""
    content = copy.deepcopy(BASE)
    *folders, last = path.split("/")
    table = content
    for folder in folders:
        table = table.setdefault(folder, {})
    if value is None:
        del table[last]
    else:
        table[last] = value
    return content


def test_a_recipe_of_three_lines_a_granularity_has_the_papers_defaults():
    recipe = make_recipe(BASE)
    assert recipe.granularity["LVLT"].min_clips == 4
    assert recipe.granularity["LVLT"].by == "source_id"
    assert recipe.granularity["LVLT"].overlap == "keep"
    assert recipe.source.columns.source_id == "YoutubeID"
    assert recipe.video.audio == "drop"
    assert recipe.shards.max_samples == 1000


def test_a_recipe_of_five_granularities_needs_no_code(tmp_path):
    file = tmp_path / "five.toml"
    file.write_text(FIVE)
    recipe = load_recipe(file)
    assert set(recipe.graph.nodes) == {"SVST", "IT", "LVLT", "LVST", "CHANNEL"}
    order = list(recipe.graph.nodes)
    assert order.index("SVST") < order.index("LVLT") < min(order.index("LVST"), order.index("CHANNEL"))
    assert recipe.granularity["CHANNEL"].by == "Channel"
    assert recipe.granularity["SVST"].pack is True
    assert recipe.source.clips == ("a.parquet", "b/*.csv")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sede", 1, "sede: unknown key; did you mean 'seed'"),
        ("shard", {}, "shard: unknown key; did you mean 'shards'"),
        ("base", "x", "base: unknown key"),
        ("source/clip", "x", "source.clip: unknown key; did you mean 'clips'"),
        ("source/columns", {"captions": "x"}, "source.columns.captions: unknown key; did you mean 'caption'"),
        ("source/media/colons", "-", "source.media.colons: unknown key; did you mean 'colon'"),
        ("video", {"hieght_px": 100}, "video.hieght_px: unknown key; did you mean 'height_px'"),
        ("shards", {"max_sample": 5}, "shards.max_sample: unknown key; did you mean 'max_samples'"),
        ("granularity/LVLT/min_clip", 3, "granularity.LVLT.min_clip: unknown key; did you mean 'min_clips'"),
        ("granularity/LVLT/form", "SVST", "granularity.LVLT.form: unknown key; did you mean 'from'"),
        ("granularity/LVST", SHORT | {"gates": {"rouge1": {"mn": 1}}}, "LVST.gates.rouge1.mn: unknown key; .*'min'"),
        ("granularity/LVLT/gates", {"rouge1": {"min": 1}}, "granularity.LVLT.gates: unknown key"),
        ("granularity/SVST/packed", True, "granularity.SVST.packed: unknown key; did you mean 'pack'"),
        ("qqqqqq", 1, "qqqqqq: unknown key; known keys: name, output, seed, source"),
    ],
)
def test_an_unknown_key_is_refused_naming_the_nearest_known_one(path, value, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", None, "^name: missing; expected a value"),
        ("source", None, "^source: missing"),
        ("source/clips", None, "^source.clips: missing"),
        ("source/media/uri", None, "^source.media.uri: missing"),
        ("source/media", {"kind": "column"}, "^source.media.column: missing"),
        ("source/media", {"kind": "tars"}, "^source.media.uri: missing"),
        ("seed", "seven", "^seed = 'seven': .*integer"),
        ("source/clips", 5, "^source.clips = 5: "),
        ("source/media", {"uri": "x"}, "^source.media = .*kind"),
        ("source/media/kind", "folder", "^source.media = .*'folder'.*'files'"),
        ("source/media/colon", ".", "^source.media.colon = '.': .*'-'"),
        ("shards", {"max_samples": 0}, "^shards.max_samples = 0: .*greater than or equal to 1"),
        ("ray", {"num_cpus": 0}, "^ray.num_cpus = 0: "),
        ("granularity/LVLT/min_clips", 0, "^granularity.LVLT.min_clips = 0: .*greater than or equal to 1"),
        ("granularity/LVLT/max_gap_s", -1, "^granularity.LVLT.max_gap_s = -1: "),
        ("granularity/LVLT/overlap", "drop", "^granularity.LVLT.overlap = 'drop': .*'keep' or 'reject'"),
        ("granularity/LVLT/max_clips", 3, "^granularity.LVLT.?: .*max_clips = 3 is less than min_clips = 4"),
        ("granularity/LVLT", 5, r"^\[granularity.LVLT\] must be a table, found 5"),
        ("granularity/LVLT/operation", "fly", "^granularity.LVLT.operation = 'fly' is not known; .*compress_text"),
        ("granularity/LVLT/operation", ["a"], r"^granularity.LVLT.operation = \['a'\] is not known"),
        ("granularity/SVST/operation", "source", "leave 'operation' out for the source granularity"),
        ("granularity/LVLT/from", "X", r"\[granularity.LVLT\]: from = 'X' is not a granularity of this recipe"),
        ("granularity/LVLT/from", None, r"\[granularity.LVLT\]: operation 'integrate' needs 'from'"),
        ("granularity/OTHER", {}, "exactly one source granularity.*found: SVST, OTHER"),
        ("granularity/SVST", {"operation": "integrate", "from": "LVLT"}, "exactly one source.*found: none"),
        ("granularity", None, r"no \[granularity.NAME\] table"),
        ("granularity", {}, r"no \[granularity.NAME\] table"),
        ("granularity", [1], r"no \[granularity.NAME\] table"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_expectation(path, value, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(changed(path, value))


def test_clips_are_summarised_only_when_they_are_written_as_shards():
    content = changed("granularity/SHORT", SHORT | {"from": "SVST"})
    with pytest.raises(
        RecipeError, match=r"\[granularity.SHORT\]: compress_text reads the shards of SVST.*pack = true"
    ):
        make_recipe(content)
    content["granularity"]["SVST"] = {"pack": True}
    assert make_recipe(content).graph.nodes["SHORT"].parent == "SVST"


def test_a_circle_of_granularities_is_refused():
    content = changed("granularity/LVLT/from", "B")
    content["granularity"]["B"] = {"operation": "integrate", "from": "LVLT"}
    with pytest.raises(RecipeError, match=r"made from each other in a circle: LVLT, B"):
        make_recipe(content)


def test_every_wrong_key_is_said_at_once():
    content = changed("sede", 1)
    content["shards"] = {"max_samples": -1}
    with pytest.raises(RecipeError, match=r"sede") as caught:
        make_recipe(content)
    assert "shards.max_samples = -1" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("output", "s3://AKIA:secret@bucket/out"),
        ("output", "s3://AKIA:se/cret@bucket/out"),
        ("output", "s3://AKIA:12/cret@bucket/out"),
        ("output", "abfs://c@account.dfs.core.windows.net/out?account_key=abc"),
        ("source/clips", "s3://bucket/c.parquet?secret_key=abc"),
        ("source/clips", ["a.csv", "s3://u:p@bucket/c.parquet"]),
        ("source/media/uri", "https://host/x.mp4?sig=abc"),
        ("source/media/uri", "https://host/x.mp4?X-Amz-Date=1&X-Amz-Signature=abc"),
        ("source/media/uro", "https://host/x.mp4?token=abc"),
        ("source/media", {"kind": "column", "column": "f", "root": "s3://k:s@bucket/"}),
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(path, value):
    with pytest.raises(RecipeError, match=r"a URI carries credentials") as caught:
        make_recipe(changed(path, value))
    assert "cret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_an_engine_s_argument_that_is_a_secret_is_refused_and_not_repeated():
    content = changed("summarizer", {"backend": "vllm", "model": "m", "engine": {"hf_token": "secret"}})
    with pytest.raises(RecipeError, match=r"summarizer.engine.hf_token: looks like credentials; .*HF_TOKEN") as caught:
        make_recipe(content)
    assert "secret" not in str(caught.value)


def test_a_colon_and_an_at_sign_in_a_path_are_no_credentials():
    assert make_recipe(changed("source/clips", "s3://bucket/a:b/c@d.parquet")).source.clips.endswith("c@d.parquet")


def test_a_message_names_the_file(tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text(FIVE.replace("pack", "pakc"))
    with pytest.raises(RecipeError, match=r"wrong.toml: granularity.SVST.pakc: unknown key; did you mean 'pack'"):
        load_recipe(file)


def test_a_recipe_that_is_not_there_not_a_file_or_not_toml_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"none.toml' does not exist"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match=r"cannot be read"):
        load_recipe(tmp_path)
    (tmp_path / "bad.toml").write_text("name = \n")
    with pytest.raises(RecipeError, match=r"bad.toml: not a TOML file: .*line 1"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(RecipeError, match=r"latin.toml: not a TOML file"):
        load_recipe(tmp_path / "latin.toml")


@pytest.mark.parametrize(("path", "value"), [("output", "elsewhere"), ("name", "other"), ("ray", {"num_cpus": 7})])
def test_the_hash_does_not_depend_on_where_and_how_wide_a_run_is(path, value):
    assert make_recipe(changed(path, value), base="/elsewhere").hash == make_recipe(BASE).hash


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("source/clips", "other.jsonl"),
        ("source/where", "true"),
        ("source/media/colon", "-"),
        ("shards", {"max_samples": 10}),
        ("video", {"crf": 30}),
        ("granularity/LVLT/min_clips", 5),
        ("granularity/SVST/pack", True),
        ("granularity/IT", {"operation": "compress_video", "from": "SVST"}),
        ("granularity/LVLT/by", "random"),
    ],
)
def test_the_hash_depends_on_what_decides_the_output(path, value):
    assert make_recipe(changed(path, value)).hash != make_recipe(BASE).hash


def test_the_order_of_keys_and_written_out_defaults_change_no_hash():
    written = changed("seed", 0)
    written["granularity"] = {
        "SVST": {"pack": False},
        "LVLT": {"from": "SVST", "min_clips": 4, "operation": "integrate"},
    }
    assert make_recipe(dict(reversed(written.items()))).hash == make_recipe(BASE).hash


def summarised(summarizer, **more):
    node = {"operation": "compress_text", "from": "LVLT", "summarizer": {"model": "m", **summarizer}}
    return make_recipe(changed("granularity/LVST", node) | more)


VLLM, HTTP = {"backend": "vllm"}, {"backend": "http", "url": "http://one/v1"}


@pytest.mark.parametrize(
    ("plain", "change"),
    [
        (VLLM, {"engine_timeout_s": 7200}),
        (VLLM, {"concurrency": 2, "max_concurrency": 4, "batch_size": 8}),
        (VLLM, {"engine": {"gpu_memory_utilization": 0.8, "tensor_parallel_size": 2, "max_num_seqs": 64}}),
        (HTTP, {"url": "http://two/v1", "api_key_env": "KEY", "timeout_s": 9, "max_retries": 9, "max_in_flight": 2}),
    ],
)
def test_the_hash_does_not_depend_on_where_and_how_patiently_summaries_are_asked_for(plain, change):
    """The advice to wait longer for an engine threw away what had been built before it stuck."""
    assert summarised({**plain, **change}).hash == summarised(plain).hash


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"revision": "abc"},
        {"max_attempts": 2},
        {"fallback": "extractive"},
        {"max_model_len": 512},
        {"engine": {"quantization": "fp8"}},
        {"engine": {"max_model_len": 512}},
    ],
)
def test_the_hash_depends_on_what_decides_a_summary(change):
    assert summarised({**VLLM, **change}).hash != summarised(VLLM).hash


def test_neither_patience_with_a_sample_nor_a_publication_gate_is_part_of_the_hash():
    assert make_recipe(changed("video", {"timeout_s": 30})).hash == make_recipe(BASE).hash
    assert make_recipe(changed("video", {"timeout_s": 30, "crf": 30})).hash != make_recipe(BASE).hash
    gated = changed("granularity/LVST", SHORT | {"publication": {"rouge1": {"min": 0.2}}})
    assert make_recipe(gated).hash == make_recipe(changed("granularity/LVST", SHORT)).hash
    assert make_recipe(changed("granularity/LVST", SHORT | {"gates": {}})).hash != make_recipe(gated).hash


def test_the_resolved_recipe_is_plain_json_with_every_default():
    resolved = make_recipe(BASE).resolved()
    assert resolved["granularity"]["SVST"] == {"operation": "source", "from": None, "frames": None, "pack": False}
    assert resolved["granularity"]["LVLT"]["from"] == "SVST"
    assert resolved["granularity"]["LVLT"]["min_clips"] == 4
    assert "base" not in resolved


def test_relative_places_start_at_the_recipes_folder(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(FIVE.replace("s3://bucket/five", "out"))
    recipe = load_recipe(file)
    assert recipe.output_uri == str(tmp_path / "out")
    assert recipe.locate("s3://b/x") == "s3://b/x"
    assert recipe.locate("/x") == "/x"


def test_a_recipe_is_frozen():
    recipe = make_recipe(BASE)
    with pytest.raises(ValidationError, match=r"frozen"):
        recipe.seed = 5
    with pytest.raises(ValidationError, match=r"frozen"):
        recipe.granularity["LVLT"].min_clips = 1


def test_a_bound_says_by_how_much_a_value_breaks_it():
    assert Bound(min=0.5, max=0.7).broken_by(0.6) is None
    assert Bound(min=0.5).broken_by(0.5) is None
    assert Bound(min=0.5).broken_by(0.25) == "0.2500 is under 0.5 by 0.2500"
    assert Bound(max=0.5).broken_by(0.75) == "0.7500 is over 0.5 by 0.2500"
    assert "nan" in Bound(min=0.5).broken_by(float("nan"))


def test_a_bound_holds_its_ends():
    bound = Bound(min=0.25, max=0.5)
    assert [bound.broken_by(value) for value in (0.25, 0.3, 0.5)] == [None] * 3
    assert bound.broken_by(0.125) == "0.1250 is under 0.25 by 0.1250"
    assert bound.broken_by(0.75) == "0.7500 is over 0.5 by 0.2500"
    assert bound.broken_by(float("nan")) is not None
