"""Captions judged by a grammar, by words and by references; which process runs Java, and what happens without it."""

import json

import numpy as np
import pytest

from coca_jax.config import CaptioningConfig
from coca_jax.errors import CocaError
from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics.captions import java_metrics, scores
from coca_jax.evaluation.predict import Predictions
from coca_jax.evaluation.tasks import captioning
from coca_jax.evaluation.tasks.captioning import Captioning, reference_scores
from coca_jax.pages.blocks import Table
from tests.evaluation.fakes import with_tasks

GENERATED, CAPTIONS = ["a red thing", "two cats"], [("a red thing", "one"), ("a dog", "a cat")]


def computed(generated, captions, grammar=None, names=(), **fields):
    config = with_tasks("captioning", captioning=CaptioningConfig(scores=names))
    images = np.zeros((len(captions), 2, 2, 3), np.uint8)
    dataset = EvaluationDataset("x", config, images, captions, grammar, **fields)
    return Captioning().compute(dataset, Predictions(np.arange(len(captions)), captions=generated))


def test_captions_of_a_grammar_are_judged_by_meaning_and_by_word():
    grammar = {"a three": 3, "one three": 3, "a four": 4}.get
    generated = ["one three", "a  three", "a four", "xyzzy", "A dog"]
    captions = [("a three",), ("a three",), ("a three",), ("a three",), ("two cats", "a dog")]
    result = computed(generated, captions, grammar)
    assert result.metrics == {
        "distinct_captions": 3,
        "distinct_meanings": 3,
        "caption_equivalent": 2 / 5,
        "caption_exact": 1 / 5,
        "caption_parsed": 2 / 5,
    }
    assert result.baselines == {"caption_equivalent": 4 / 5}
    assert result.image_texts[0].right.tolist() == [True, False, False, False, True]
    assert [tile.label for tile in result.tiles] == ["Captions right"]


def test_free_captions_are_scored_by_references_and_by_no_grammar():
    result = computed(GENERATED, CAPTIONS, names=("bleu", "rouge_l", "cider"))
    names = {*(f"bleu_{n}" for n in (1, 2, 3, 4)), "rouge_l", "cider", "exact"}
    assert set(result.metrics) == {"distinct_captions", "distinct_meanings", *(f"caption_{name}" for name in names)}
    (table,) = (block for block in result.blocks if isinstance(block, Table))
    assert list(table.head) == ["", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert result.image_texts[0].right.tolist() == [True, False] and not result.tiles and not result.baselines
    assert computed(["x", "y"], CAPTIONS, names=("bleu",)).image_texts[0].right is None  # all wrong tells nothing


def test_captions_for_a_server_need_no_references():
    result = computed(GENERATED, [("",), ("",)], image_ids=[7, 9])
    assert result.submissions == {"captions": {7: "a red thing", 9: "two cats"}} and not result.metrics


def test_without_java_all_other_scores_are_given_and_what_to_install(monkeypatch):
    monkeypatch.setattr(java_metrics, "find_java", lambda: None)
    wanted = ("meteor", "bleu", "spice", "cider", "rouge_l")
    values, notes = reference_scores(GENERATED, CAPTIONS, wanted)
    assert set(values) == {*(f"caption_bleu_{n}" for n in (1, 2, 3, 4)), "caption_cider", "caption_rouge_l"}
    assert [sentence.split(" needs ")[0] for sentence in notes] == ["METEOR", "SPICE"]
    values, notes = reference_scores(GENERATED, CAPTIONS, ("spice",))
    assert not values and len(notes) == 1


def test_captions_without_references_are_no_error_if_no_score_is_wanted():
    assert reference_scores(GENERATED, [(), ()], ()) == ({}, [])


def with_java(monkeypatch, **scorers):
    monkeypatch.setattr(java_metrics, "check_available", lambda name: None)
    monkeypatch.setattr(scores, "METRICS", {**scores.METRICS, **scorers})


def test_java_runs_on_the_first_host_alone_and_all_have_its_scores(monkeypatch):
    with_java(monkeypatch, meteor=lambda *_: 0.1 + 0.2)
    wanted, sent = ("bleu", "meteor"), []
    monkeypatch.setattr(captioning.hosts, "from_first", lambda make: sent.append(make()) or sent[0])
    first = reference_scores(GENERATED, CAPTIONS, wanted)
    assert first[0]["caption_meteor"] == 0.1 + 0.2
    with_java(monkeypatch, meteor=lambda *_: pytest.fail("Java ran on another host"))
    monkeypatch.setattr(captioning.hosts, "from_first", lambda make: sent[0])
    assert reference_scores(GENERATED, CAPTIONS, wanted) == first
    assert json.loads(sent[0]) == [{"meteor": 0.1 + 0.2}, []]
    monkeypatch.setattr(captioning.hosts, "from_first", lambda make: pytest.fail("nothing needs Java"))
    assert reference_scores(GENERATED, CAPTIONS, ("bleu",))[1] == []


def test_a_failure_of_java_costs_no_other_score(monkeypatch):
    def broken(*_):
        raise CocaError("METEOR's Java program failed")

    with_java(monkeypatch, meteor=broken, spice=lambda *_: 0.5)
    wanted = ("bleu", "meteor", "spice", "cider")
    values, notes = reference_scores(["a red thing"], [("a red thing",)], wanted)
    assert notes == ["METEOR's Java program failed"]
    assert values["caption_bleu_1"] == pytest.approx(1) and values["caption_spice"] == 0.5 and "caption_cider" in values
