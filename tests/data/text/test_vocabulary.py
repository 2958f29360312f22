"""SentencePiece vocabularies: special ids, lengths, round trips, and agreement with seqio's view of them."""

import io

import numpy as np
import pytest
import sentencepiece

from coca_jax.config import TextConfig
from coca_jax.data.text import corpus
from coca_jax.data.text.vocabulary import Vocabulary, check_against_model, train_vocabulary
from coca_jax.errors import CocaError
from tests.data import builders


@pytest.fixture(scope="module")
def captions():
    return list(corpus.training_captions(builders.config()))


@pytest.fixture(scope="module")
def vocabulary(captions):
    return train_vocabulary(captions, 512)


def test_rows_are_bos_tokens_eos_pads(vocabulary, captions):
    v = vocabulary
    rows = v.encode(captions[:100], 40)
    assert rows.shape == (100, 40) and rows.dtype == np.int32
    for row in rows:
        end = row.tolist().index(v.eos_id)
        assert row[0] == v.bos_id and (row[end + 1 :] == v.pad_id).all()
        assert not {v.pad_id, v.bos_id, v.eos_id, v.unk_id} & set(row[1:end].tolist())
    assert v.decode(rows) == captions[:100]


def test_special_ids_are_distinct_and_reloading_changes_nothing(vocabulary, tmp_path):
    assert len({vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id}) == 4
    (tmp_path / "v.model").write_bytes(vocabulary.model_bytes)
    for again in Vocabulary.from_file(tmp_path / "v.model"), Vocabulary(vocabulary.model_bytes):
        assert (again.encode(["a red one"], 12) == vocabulary.encode(["a red one"], 12)).all()


def test_a_vocabulary_lies_on_a_disk_or_in_a_bucket(vocabulary, tmp_path):
    for path in (tmp_path / "new" / "v.model", f"memory://{tmp_path.name}/new/v.model"):
        vocabulary.save(path)
        assert Vocabulary.from_file(path).model_bytes == vocabulary.model_bytes
    (tmp_path / "file").write_text("")
    with pytest.raises(CocaError, match=r"cannot be written to .*file/v\.model .*: choose another path"):
        vocabulary.save(tmp_path / "file" / "v.model")
    with pytest.raises(CocaError, match=r"memory://none/v\.model cannot be read \(missing file\)"):
        Vocabulary.from_file("memory://none/v.model")


def test_training_is_deterministic_and_true_about_its_size(vocabulary, captions):
    assert train_vocabulary(captions, 512).model_bytes == vocabulary.model_bytes
    assert 40 < vocabulary.size < 512  # the scenes' language supports no more
    words = len(
        [
            "a",
            "small",
            "green",
            "seven",
            "above",
            "a",
            "large",
            "cyan",
            "five",
            "on",
            "the",
            "left",
            "and",
            "a",
            "small",
            "purple",
            "six",
            "on",
            "the",
            "right",
        ]
    )
    rows = vocabulary.encode(
        ["a small green seven above a large cyan five on the left and a small purple six on the right"], 40
    )
    assert (rows != vocabulary.pad_id).sum() == words + 2  # a word is a token


def test_a_long_text_is_refused_or_cut_before_its_eos(vocabulary):
    text = "a small red three above a large blue seven"
    with pytest.raises(CocaError, match=r"'a small red three .* takes 11 tokens and the model reads 6: raise model"):
        vocabulary.encode(["a", text], 6)
    with pytest.raises(CocaError):
        vocabulary.encode([text], 10)
    row = vocabulary.encode([text], 6, "truncate")[0]
    assert row[-1] == vocabulary.eos_id and vocabulary.decode(row[None]) == ["a small red three"]
    assert (vocabulary.encode([text], 11) == vocabulary.encode([text], 11, "truncate")).all()


def test_large_vocabularies_spell_unknown_characters(captions):
    large = train_vocabulary(captions, 4_096)
    assert large.decode(large.encode(["Łódź ☃"], 40)) == ["Łódź ☃"]


def test_nothing_to_train_on_and_too_small_a_size(captions):
    with pytest.raises(CocaError, match="no caption"):
        train_vocabulary(["", "  "], 100)
    with pytest.raises(CocaError, match=r"vocabulary of 10 pieces cannot .*choose another size$"):
        train_vocabulary(captions, 10)


def test_models_without_special_ids_are_refused(captions, tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions), model_writer=model, vocab_size=60, model_type="bpe", minloglevel=2
    )
    with pytest.raises(CocaError, match="'pad': -1"):
        Vocabulary(model.getvalue())
    (tmp_path / "no.model").write_bytes(b"<html>")
    with pytest.raises(CocaError, match=r"no\.model is not a SentencePiece model"):
        Vocabulary.from_file(tmp_path / "no.model")
    with pytest.raises(CocaError, match=r"absent\.model cannot be read"):
        Vocabulary.from_file(tmp_path / "absent.model")


def test_a_vocabulary_larger_than_the_model_is_named(vocabulary):
    check_against_model(vocabulary, TextConfig(vocabulary_size=vocabulary.size))
    with pytest.raises(CocaError, match=f"set it to at least {vocabulary.size}"):
        check_against_model(vocabulary, TextConfig(vocabulary_size=vocabulary.size - 1))
