"""The captions that a vocabulary is trained on."""

import threading

from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord, RecordText
from coca_jax.data.text import corpus
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
    monkeypatch.setattr(records, "open_records", lambda source, split: SlowStore())
    config = builders.config(format="tars", path="nowhere")
    expected = [f"{kind} {i}" for i in range(1_500) if i % 10 < 9 for kind in "ab"]
    assert list(corpus.training_captions(config)) == expected
    monkeypatch.setattr(corpus, "_MOST_CAPTIONS", 1_501)
    assert list(corpus.training_captions(config)) == expected[:1_501]
