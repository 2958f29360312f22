"""Which figures of captions are given, and by which process, where Java is missing."""

import json

import pytest

from coca_jax.evaluation import captioning
from coca_jax.evaluation.metrics.captions import java, scores

GENERATED, CAPTIONS = ["a red thing", "two cats"], [("a red thing", "one"), ("a dog", "a cat")]


def test_without_java_all_other_figures_are_given_and_what_to_install(monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: None)
    wanted = ("meteor", "bleu", "spice", "cider", "rouge_l")
    found, missing = captioning.reference_scores(GENERATED, CAPTIONS, wanted)
    assert set(found) == {*(f"caption_bleu_{n}" for n in (1, 2, 3, 4)), "caption_cider", "caption_rouge_l"}
    assert [sentence.split(" needs ")[0] for sentence in missing] == ["METEOR", "SPICE"]
    assert missing == captioning.lacking(wanted)
    assert captioning.lacking(("bleu", "cider")) == [] and len(captioning.lacking({"spice"})) == 1
    found, missing = captioning.reference_scores(GENERATED, CAPTIONS, ("spice",))
    assert not found and len(missing) == 1


def test_captions_without_references_are_no_error_where_no_score_is_wanted():
    assert captioning.reference_scores(GENERATED, [(), ()], ()) == ({}, [])


def test_java_runs_on_the_first_host_alone_and_all_have_its_figures(monkeypatch):
    monkeypatch.setitem(scores._SCORERS, "meteor", lambda captions: ({"meteor": 0.1 + 0.2}, [{}, {}]))
    monkeypatch.setattr(scores.external, "check_available", lambda name: None)
    wanted, sent = ("bleu", "meteor"), []
    monkeypatch.setattr(captioning.hosts, "from_first", lambda make: sent.append(make()) or sent[0])
    first = captioning.reference_scores(GENERATED, CAPTIONS, wanted)
    assert first[0]["caption_meteor"] == 0.1 + 0.2
    monkeypatch.setitem(scores._SCORERS, "meteor", lambda captions: pytest.fail("Java ran on another host"))
    monkeypatch.setattr(captioning.hosts, "from_first", lambda make: sent[0])
    assert captioning.reference_scores(GENERATED, CAPTIONS, wanted) == first
    assert json.loads(sent[0]) == [{"meteor": 0.1 + 0.2}, []]
    monkeypatch.setattr(captioning.hosts, "from_first", lambda make: pytest.fail("nothing needs Java"))
    assert captioning.reference_scores(GENERATED, CAPTIONS, ("bleu",))[1] == []
