"""The captions that a vocabulary is trained on."""

import threading

import pytest

from coca_jax.data.records.record import BadRecord, RecordText
from coca_jax.data.text import corpus
from coca_jax.errors import CocaError
from tests.data import builders


def test_captions_for_a_vocabulary_come_from_training_records_alone(tmp_path):
    builders.write_tar(tmp_path / "a.tar", [*builders.members(range(3)), ("bad.png", b""), ("bad.txt", b"")])
    builders.write_tar(tmp_path / "b.tar", builders.members(range(3, 9)))
    config = builders.config(format="tars", path=str(tmp_path), evaluation_files=("b*",))
    assert list(corpus.training_captions(config)) == ["shade 0", "shade 1", "shade 2"]


class SlowStore:
    """Captions that several threads must ask for at the same time; every tenth record is bad."""

    class_names = None

    def __init__(self):
        self.together = threading.Barrier(2)

    def __len__(self):
        return 1_500

    def read_texts(self, indices):
        if indices[0] in (0, corpus._GROUP):
            self.together.wait(timeout=60)
        return [
            BadRecord("empty caption") if index % 10 == 9 else RecordText((f"a {index}", f"b {index}"), {})
            for index in indices
        ]


def test_captions_are_read_together_and_come_in_order(monkeypatch):
    monkeypatch.setattr(corpus, "open_records", lambda source, split: SlowStore())
    config = builders.config(format="tars", path="nowhere")
    expected = [f"{kind} {i}" for i in range(1_500) if i % 10 < 9 for kind in "ab"]
    assert list(corpus.training_captions(config)) == expected
    monkeypatch.setattr(corpus, "_MAX_TEXTS", 1_501)
    assert list(corpus.training_captions(config)) == expected[:1_501]


def test_a_dataset_without_a_text_is_refused_with_the_causes(tmp_path):
    members = builders.members(range(3))
    silent = [
        (name, b"\xe9" if name.endswith("txt") else b"{}" if name.endswith("json") else data) for name, data in members
    ]
    builders.write_tar(tmp_path / "a.tar", [*silent, ("x.png", builders.picture(1)), ("x.txt", b" ")])
    config = builders.config(format="tars", path=str(tmp_path), holdout=0.0)
    message = r"none of the 4 records of .* has a text .*\(caption is not UTF-8: 3, empty caption: 1\): save the texts as UTF-8$"
    with pytest.raises(CocaError, match=message):
        list(corpus.training_captions(config))
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    labelled = builders.with_data(config, label_field="number", class_names=str(tmp_path / "names.txt"))
    builders.write_tar(tmp_path / "a.tar", builders.members(range(2, 5)))
    with pytest.raises(
        CocaError, match=r"\(number has a value that class_names does not name: 3\): check .*label_field"
    ):
        list(corpus.training_captions(labelled))
