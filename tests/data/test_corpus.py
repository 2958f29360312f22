"""The captions that a vocabulary is trained on."""

from coca_jax.data import corpus

from tests.data import builders


def test_captions_for_a_vocabulary_come_from_training_records_alone(tmp_path):
    builders.write_tar(tmp_path / "a.tar", [*builders.members(range(3)), ("bad.png", b""), ("bad.txt", b"")])
    builders.write_tar(tmp_path / "b.tar", builders.members(range(3, 9)))
    config = builders.config(task="tars", path=str(tmp_path), evaluation_files=("b*",))
    assert list(corpus.training_captions(config)) == ["shade 0", "shade 1", "shade 2"]
