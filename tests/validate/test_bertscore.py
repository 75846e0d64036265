from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from gex_pipeline.errors import GexError, MissingExtraError
from gex_pipeline.validate.bertscore import BERTSCORE_NAMES, BertScore
from tests.validate.groups import FOREIGN_TEXTS, GROUPS, LONG_TEXTS, MIXED_LENGTHS, SUMMARIES

# more texts than a batch, of few different lengths
MANY = (
    [f"{summary} {number}" for number in range(12) for summary in SUMMARIES],
    [f"{captions[number % 4]} {number}" for number in range(12) for captions, _ in GROUPS],
)
ZERO = dict.fromkeys(BERTSCORE_NAMES, 0.0)


def link_model(source: Path, folder: Path) -> Path:
    """A second directory with the files of `source`, without copying 90 MB."""
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    return folder


def write_tiny_encoder(folder: Path, kind: str) -> Path:
    """A seeded random two-layer RoBERTa or T5 encoder with 20 positions and a byte-level vocabulary."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer, T5Config, T5EncoderModel

    folder.mkdir(parents=True)
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(LONG_TEXTS * 3, vocab_size=600, special_tokens=special, show_progress=False)
    bpe.save_model(str(folder))
    tokenizer = RobertaTokenizer.from_pretrained(folder, model_max_length=512)
    tokenizer.save_pretrained(folder)
    size = bpe.get_vocab_size()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "t5":
            T5EncoderModel(
                T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
            ).save_pretrained(folder)
        else:
            config = RobertaConfig(
                vocab_size=size,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=22,
                pad_token_id=1,
            )
            RobertaModel(config).save_pretrained(folder)
    return folder


def assert_equal_rows(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert left == pytest.approx(right, abs=tolerance)


def test_a_text_against_itself_scores_one(bertscore):
    assert bertscore(["a potter shapes clay"], ["a potter shapes clay"])[0] == pytest.approx(
        dict.fromkeys(BERTSCORE_NAMES, 1.0), abs=1e-5
    )


def test_f1_is_the_harmonic_mean_of_precision_and_recall(bertscore):
    for row in bertscore(SUMMARIES, LONG_TEXTS):
        precision, recall, f1 = (row[name] for name in BERTSCORE_NAMES)
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)


def test_precision_belongs_to_the_summary_and_recall_to_the_long_text(bertscore):
    (row,) = bertscore(["a potter throws a lump of clay"], [LONG_TEXTS[0]])
    assert row["bertscore_precision"] > row["bertscore_recall"] + 0.1


def test_own_pairs_score_higher_than_foreign_pairs(bertscore):
    for own, foreign in zip(bertscore(SUMMARIES, LONG_TEXTS), bertscore(SUMMARIES, FOREIGN_TEXTS), strict=True):
        assert own["bertscore_f1"] > foreign["bertscore_f1"] + 0.1


def test_blank_texts_score_zero_and_leave_their_neighbours_alone(bertscore):
    """bert-score 0.3.13 raises AttributeError for a blank text under transformers 5."""
    rows = bertscore(
        [SUMMARIES[0], "", " \n", SUMMARIES[1], "\u200b"], [LONG_TEXTS[0], LONG_TEXTS[0], "", LONG_TEXTS[1], "a"]
    )
    assert [rows[1], rows[2], rows[4]] == [ZERO] * 3
    assert_equal_rows([rows[0], rows[3]], bertscore(SUMMARIES[:2], LONG_TEXTS[:2]))


def test_only_blank_texts_and_no_texts_are_no_error(bertscore):
    assert bertscore(["", " "], ["a", "b"]) == [ZERO, ZERO]
    assert bertscore([], []) == []


def test_a_pair_keeps_its_score_in_any_batch(bertscore):
    """torchmetrics' BERTScore pairs the texts of a mixed-length batch wrongly; the order is tested here for good."""
    together = bertscore(*map(list, zip(*MIXED_LENGTHS, strict=True)))
    assert_equal_rows(together, [bertscore([a], [b])[0] for a, b in MIXED_LENGTHS])
    order = random.Random(3).sample(range(len(MIXED_LENGTHS)), len(MIXED_LENGTHS))
    shuffled = bertscore([MIXED_LENGTHS[row][0] for row in order], [MIXED_LENGTHS[row][1] for row in order])
    assert_equal_rows(shuffled, [together[row] for row in order])


def test_pairs_keep_their_places_across_chunks(bertscore, monkeypatch):
    whole = bertscore(*map(list, zip(*MIXED_LENGTHS, strict=True)))
    monkeypatch.setattr("gex_pipeline.validate.bertscore._PAIRS_AT_ONCE", 2)
    assert_equal_rows(bertscore(*map(list, zip(*MIXED_LENGTHS, strict=True))), whole)


def test_the_same_inputs_give_the_same_scores(bertscore):
    assert bertscore(SUMMARIES, LONG_TEXTS) == bertscore(SUMMARIES, LONG_TEXTS)


def test_another_process_gives_the_same_scores_to_the_last_bit(bertscore):
    """Batches followed the seeded order of a set, so that scores moved in the last digits from run to run."""
    code = (
        "import json; from gex_pipeline.validate.bertscore import BertScore; "
        "from tests.validate.test_bertscore import MANY; print(json.dumps(BertScore()(*MANY)))"
    )
    other_seed = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=other_seed)
    assert json.loads(done.stdout.splitlines()[-1]) == bertscore(*MANY)


def test_lists_of_different_length_are_refused(bertscore):
    with pytest.raises(ValueError, match="expected pairs"):
        bertscore(["a"], ["a", "b"])


def test_the_signature_names_model_and_layer_and_no_path(bertscore, minilm_folder, tmp_path):
    assert bertscore.signature == "all-MiniLM-L6-v2_L5_no-idf_raw"
    linked = BertScore(str(link_model(minilm_folder, tmp_path / "mine")), 3)
    assert linked.signature == "mine_L3_no-idf_raw"


def test_a_tokenizer_without_a_maximal_length_is_cut_at_the_model_s(bertscore, minilm_folder, tmp_path):
    """Such a tokenizer claims 1e30 tokens, which overflows in the tokenizer library."""
    folder = link_model(minilm_folder, tmp_path / "boundless")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    boundless = BertScore(str(folder), 5)
    pairs = [SUMMARIES[0], SUMMARIES[1]], [LONG_TEXTS[0] * 30, LONG_TEXTS[1]]
    assert_equal_rows(boundless(*pairs), bertscore(*pairs))


# A test's name is part of the path that it gets, so these two must not contain the two characters they are about.
@pytest.mark.parametrize("part", ["test5", "has_t5_dir", "ext5"], ids=["end", "middle", "hidden"])
def test_a_path_that_looks_like_another_architecture_is_refused(minilm_folder, tmp_path, part):
    """bert-score would load a BERT under such a path as a T5 with random weights and return plausible scores."""
    assert "t5" not in str(tmp_path)
    assert BertScore(str(link_model(minilm_folder, tmp_path / "clean" / "encoder")), 5).signature.startswith("encoder")
    folder = link_model(minilm_folder, tmp_path / part / "encoder")
    with pytest.raises(GexError, match=r"is a 'bert' model.*random weights because its path contains 't5'"):
        BertScore(str(folder), 5)


def test_an_encoder_is_accepted_only_where_its_path_tells_its_kind(tmp_path):
    named = write_tiny_encoder(tmp_path / "tiny-t5", "t5")
    (row,) = BertScore(str(named), 2)(["a potter shapes clay"], ["a potter shapes clay"])
    assert row["bertscore_f1"] == pytest.approx(1.0, abs=1e-5)
    hidden = tmp_path / "tiny-encoder"
    named.rename(hidden)
    with pytest.raises(GexError, match=r"'t5' model, which bert-score recognises only by 't5' in its path"):
        BertScore(str(hidden), 2)


def test_a_scibert_name_starts_no_shell():
    with pytest.raises(GexError, match="through a shell"):
        BertScore("scibert-scivocab-uncased", 5)


def test_roberta_s_first_word_is_tokenised_as_a_word(tmp_path):
    """bert-score asks for it in encode(), which transformers 5 ignores: scores drift from the published ones."""
    roberta = BertScore(str(write_tiny_encoder(tmp_path / "roberta", "roberta")), 2)
    assert roberta._scorer._tokenizer.tokenize("potter pulls a potter")[0] == "\u0120potter"


def test_roberta_cuts_a_long_text_at_its_usable_positions(tmp_path):
    roberta = BertScore(str(write_tiny_encoder(tmp_path / "roberta", "roberta")), 2)
    cut, longer = roberta([SUMMARIES[0]] * 2, [LONG_TEXTS[0], LONG_TEXTS[0] + " and more of it"])
    assert cut["bertscore_f1"] > 0
    assert cut == pytest.approx(longer, abs=1e-4)


@pytest.mark.parametrize("layer", [0, 7])
def test_a_layer_out_of_range_is_refused(layer):
    with pytest.raises(GexError, match=f"bertscore_layers is {layer}, expected 1 to 6"):
        BertScore(None, layer)


def test_an_unknown_model_needs_a_layer(minilm_folder, tmp_path):
    with pytest.raises(GexError, match="set bertscore_layers, a layer from 1 to 6"):
        BertScore(str(link_model(minilm_folder, tmp_path / "mine")), None)


def test_a_model_that_is_no_text_encoder_is_refused(tiny_clip_folder):
    with pytest.raises(GexError, match="is a 'clip' model, expected a text encoder"):
        BertScore(str(tiny_clip_folder), 1)


def test_damaged_weights_are_one_clear_error(minilm_folder, tmp_path):
    folder = link_model(minilm_folder, tmp_path / "damaged")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"\x10" * 200)
    with pytest.raises(GexError, match=r"model 'damaged' cannot be loaded.*check the directory"):
        BertScore(str(folder), 5)


def test_a_hub_id_without_a_hub_is_one_clear_error():
    with pytest.raises(GexError, match=r"model 'nobody/no-such-model' cannot be loaded.*HF_HUB_OFFLINE"):
        BertScore("nobody/no-such-model", 5)


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(MissingExtraError, match=r"bert-score is not installed.*-e .\.\[score\]"):
        BertScore()
