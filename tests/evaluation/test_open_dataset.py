"""The held-out records of a store as an evaluation set."""

import pytest

from coca_jax.errors import CocaError, DataError
from coca_jax.evaluation import held_out
from coca_jax.evaluation import open_dataset as evaluation_sets
from tests.data import builders


def test_the_evaluation_set_of_a_store(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members([0]))
    dirt = [("bad.png", b"<html>"), ("bad.txt", b"x"), ("bad.json", b'{"name": "x"}')]
    builders.write_tar(tmp_path / "b.tar", builders.members(range(10)) + dirt)
    config = builders.config(format="tars", name="greys", path=str(tmp_path), evaluation_files=("b*",))
    (found,) = evaluation_sets.evaluation_sets(config)
    assert found.name == "greys" and found.images.shape == (10, builders.SIZE, builders.SIZE, 3)
    assert found.images[:, 0, 0, 0].tolist() == list(range(10)) and found.captions[3] == ("shade 3",)
    assert found.meaning(" Shade  3") == found.meaning("shade 3") != found.meaning("shade 4")
    assert found.meaning(" ") is None
    (by_name,) = found.classifications
    assert [by_name.labels[t] for t in by_name.targets] == [f"shade {i}" for i in range(10)]
    few = builders.config(format="tars", path=str(tmp_path), evaluation_files=("b*",), examples=4)
    assert len(evaluation_sets.evaluation_sets(few)[0].images) == 3  # four chosen, evenly; the last one is the dirt


def test_an_outage_leaves_no_source_of_a_mixture_out(monkeypatch, caplog):
    """Else a run, or one host of several, would go on without its evaluation."""

    def own_set(*_):
        raise failure("nothing of gs://bucket could be read")

    monkeypatch.setattr(held_out, "own_set", own_set)
    mixture = {"scenes": builders.source(share=0.5), "web": builders.source(format="tars", path="x")}
    config = builders.config(mixture=mixture, examples=2)
    failure = CocaError
    assert [found.name for found in evaluation_sets.evaluation_sets(config)] == ["scenes"]
    assert "web is trained on and not evaluated: nothing" in caplog.text
    failure = DataError
    with pytest.raises(DataError, match="nothing of gs://bucket"):
        evaluation_sets.evaluation_sets(config)
