"""Batches are a function of (config, seed, step); dirt is replaced, counted and, in bulk, refused."""

import itertools
import pathlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import seqio

from coca_jax.data import corpus, tasks
from coca_jax.data.pipeline import Pipeline
from coca_jax.data.vocabulary import train_vocabulary
from coca_jax.errors import CocaError, DataError

from tests.data import builders


@pytest.fixture(scope="module")
def vocabulary():
    texts = [*corpus.training_captions(builders.config()), *(f"shade {i}" for i in range(256))]
    return train_vocabulary(texts, 512)


@pytest.fixture
def tar_config(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(20)))
    builders.write_tar(tmp_path / "b.tar", builders.members(range(100, 120)))
    builders.write_tar(tmp_path / "z.tar", builders.members(range(200, 210)))
    return builders.config(task="tars", path=str(tmp_path), evaluation_files=("z*",), augment="drawing")


def same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in ("image", "text"))


@pytest.mark.parametrize("task", ["digit_scenes", "tars"])
def test_a_batch_depends_on_its_step_alone(task, tar_config, vocabulary):
    config = builders.config() if task == "digit_scenes" else tar_config
    pipeline = Pipeline(config, vocabulary)
    straight = list(itertools.islice(pipeline.iterate(0), 8))
    assert straight[0]["image"].shape == (8, 16, 16, 3) and straight[0]["image"].dtype == np.uint8
    assert straight[0]["text"].shape == (8, 32) and straight[0]["text"].dtype == np.int32
    for step in (5, 0, 7):
        assert same(pipeline.batch(step), straight[step])
        assert same(Pipeline(config, vocabulary).batch(step), straight[step])
    assert all(same(a, b) for a, b in zip(pipeline.iterate(3), straight[3:6]))
    assert not same(straight[0], straight[1])
    far = pipeline.batch(10**12)
    assert same(far, next(pipeline.iterate(10**12))) and not same(far, straight[0])


@pytest.mark.parametrize("task", ["digit_scenes", "tars"])
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_see_the_same_batch(task, hosts, tar_config, vocabulary):
    config = builders.config() if task == "digit_scenes" else tar_config
    whole = Pipeline(config, vocabulary)
    parts = [Pipeline(config, vocabulary, rows=rows) for rows in np.split(np.arange(8), hosts)]
    assert {part.fingerprint for part in parts} == {whole.fingerprint}
    for step in (0, 6):
        batches = [part.batch(step) for part in parts]
        together = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        assert same(together, whole.batch(step))


def test_each_epoch_visits_every_record_once_in_its_own_order(tar_config, vocabulary):
    plain = builders.with_data(tar_config, augment="none")
    batches = itertools.islice(Pipeline(plain, vocabulary).iterate(), 15)
    shades = [shade for batch in batches for shade in builders.shades(batch)]
    epochs = [shades[i : i + 40] for i in (0, 40, 80)]
    for epoch in epochs:
        assert sorted(epoch) == [*range(20), *range(100, 120)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = builders.config(seed=1, **vars(plain.data))
    assert builders.shades(Pipeline(other, vocabulary).batch(0)) != shades[:8]
    held_out = Pipeline(plain, vocabulary, split="evaluation")
    assert builders.shades(held_out.batch(0)) == list(range(200, 208))


def test_orders_are_as_mixed_as_random_ones():
    for count, seed in itertools.product((10, 40, 1_000), (0, 1, 2**31, 2**62)):
        orders = tasks.record_indices(np.arange(100 * count), count, seed).numpy().reshape(100, count)
        assert (np.sort(orders, axis=1) == np.arange(count)).all()
        assert (orders == np.arange(count)).sum(1).mean() < 2.5  # one record stays in its place, on average
        assert abs((np.diff(orders, axis=1) == 1).mean() - 1 / count) < 0.05
        assert abs(np.mean([np.corrcoef(order, np.arange(count))[0, 1] for order in orders])) < 0.15


def test_the_caption_belongs_to_the_picture_and_is_tokenised_as_the_vocabulary_does(tar_config, vocabulary):
    batch = Pipeline(builders.with_data(tar_config, augment="none"), vocabulary).batch(2)
    texts = vocabulary.decode(batch["text"])
    assert texts == [f"shade {shade}" for shade in builders.shades(batch)]
    scenes = Pipeline(builders.config(), vocabulary).batch(1)["text"]
    assert np.array_equal(vocabulary.encode(vocabulary.decode(scenes), 32), scenes)


def test_seeds_and_epochs_change_the_views(tar_config, vocabulary):
    first, second = (Pipeline(builders.config(seed=seed), vocabulary) for seed in (0, 1))
    assert not same(first.batch(0), second.batch(0)) and first.fingerprint != second.fingerprint
    whole = builders.config(batch_size=40, **vars(tar_config.data))
    pipeline = Pipeline(whole, vocabulary)
    views = [{tuple(text): image for image, text in zip(b["image"], b["text"].tolist())}
             for b in (pipeline.batch(0), pipeline.batch(1))]
    assert views[0].keys() == views[1].keys()
    assert any(not np.array_equal(views[0][text], views[1][text]) for text in views[0])


def dirty_tar(path: pathlib.Path, clean: int) -> None:
    truncated = builders.encoded(builders.Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")[:-900]
    builders.write_tar(path, [
        *builders.members(range(clean)),
        ("cut.jpg", truncated), ("cut.txt", b"cut"),
        ("page.jpg", b"<html>404</html>"), ("page.txt", b"page"),
        ("mute.png", builders.picture(250)), ("mute.txt", b"  "),
        ("lost.txt", b"lost"), ("lost.png", bytes(50_000)),
    ])
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 30_000)  # the transfer broke off


def test_bad_records_are_replaced_counted_and_named(tmp_path, vocabulary, caplog):
    dirty_tar(tmp_path / "a.tar", 37)
    config = builders.config(task="tars", path=str(tmp_path), evaluation_files=("z*",), max_bad_ratio=0.1)
    pipeline = Pipeline(config, vocabulary)
    with caplog.at_level("WARNING"):
        epoch = [s for batch in itertools.islice(pipeline.iterate(), 10) for s in builders.shades(batch)][:40]
    assert set(epoch) == set(range(37)) and len(epoch) == 40
    assert pipeline.skipped.by_cause == {
        "damaged picture": 1, "not a picture": 1, "empty caption": 1, "broken tar tail": 1}
    assert pipeline.skipped.names["not a picture"] == [f"{tmp_path}/a.tar:page"]
    assert sum("a.tar:page is skipped: not a picture" in line for line in caplog.messages) == 1
    fresh = Pipeline(config, vocabulary)
    assert [s for step in (4, 3, 2, 1, 0) for s in builders.shades(fresh.batch(step))[::-1]] == epoch[::-1]


def test_too_many_bad_records_stop_the_run(tmp_path, vocabulary):
    dirty_tar(tmp_path / "a.tar", 37)
    config = builders.config(task="tars", path=str(tmp_path), evaluation_files=("z*",), max_bad_ratio=0.01)
    with pytest.raises(DataError, match=r"more than 1\.00% of the records .*not a picture: 1.*a\.tar:page.*data\.max"):
        list(itertools.islice(Pipeline(config, vocabulary).iterate(), 10))


def test_a_small_folder_survives_one_corrupt_picture_but_not_only_those(tmp_path, vocabulary):
    builders.write_folder(tmp_path, range(12))
    (tmp_path / "p005.jpg").write_bytes(b"")
    config = builders.config(task="folder", path=str(tmp_path), holdout=1e-9)
    pipeline = Pipeline(config, vocabulary)
    assert len(list(itertools.islice(pipeline.iterate(), 20))) == 20
    assert pipeline.skipped.by_cause == {"not a picture": 1}
    for path in tmp_path.glob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="replace them"):
        Pipeline(builders.with_data(config, max_bad_ratio=1.0), vocabulary).batch(0)


def test_a_long_caption_stops_the_run_or_is_cut(tmp_path, vocabulary):
    builders.write_folder(tmp_path, range(6))
    text = "a small red three above a large blue seven"
    (tmp_path / "p002.txt").write_text(text)
    config = builders.config(task="folder", path=str(tmp_path), holdout=1e-9, length=8)
    with pytest.raises(DataError, match=f"the text '{text}' takes 11 tokens and the model reads 8"):
        Pipeline(config, vocabulary).batch(0)
    cut = builders.with_data(config, long_text="truncate")
    texts = vocabulary.decode(Pipeline(cut, vocabulary).batch(0)["text"])
    assert "a small red three above a" in texts
    # A run that was stopped for it continues as the same run.
    assert Pipeline(cut, vocabulary).fingerprint == Pipeline(config, vocabulary).fingerprint


def test_several_captions_take_turns(tmp_path, vocabulary):
    builders.write_folder(tmp_path, [1])
    (tmp_path / "captions.csv").write_text("file_name,caption\np001.jpg,shade 1\np001.jpg,shade 2\n")
    config = builders.config(batch_size=40, task="folder", path=str(tmp_path), holdout=1e-9)
    said = Counter(vocabulary.decode(Pipeline(config, vocabulary).batch(0)["text"]))
    assert set(said) == {"shade 1", "shade 2"} and min(said.values()) > 5


def test_contradictions_are_found_at_the_start(vocabulary):
    small = builders.config()
    small = builders.dataclasses.replace(small, model=builders.ModelConfig(text=builders.TextConfig(vocabulary_size=9)))
    with pytest.raises(CocaError, match="model.text.vocabulary_size is 9"):
        Pipeline(small, vocabulary)


def test_seqio_knows_the_task(vocabulary, tar_config):
    tasks.register(builders.config(), vocabulary)
    task = seqio.get_mixture_or_task("digit_scenes")
    feature = task.output_features["text"].vocabulary
    assert isinstance(feature, seqio.SentencePieceVocabulary)
    assert (feature.pad_id, feature.bos_id, feature.eos_id, feature.unk_id, feature.vocab_size) == (
        vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.size)
    tasks.register(builders.with_data(tar_config, name="greys", augment="none"), vocabulary)
    dataset = seqio.get_mixture_or_task("greys").get_dataset({"text": 12}, split="train", shuffle=True, seed=3)
    examples = list(dataset.as_numpy_iterator())
    assert sorted(int(e["image"][8, 8, 0]) for e in examples) == [*range(20), *range(100, 120)]
    assert all(e["text"].shape == (12,) for e in examples)
    unordered = seqio.get_mixture_or_task("greys").get_dataset({"text": 12}, split="evaluation", shuffle=False)
    assert [int(e["image"][8, 8, 0]) for e in unordered.as_numpy_iterator()] == list(range(200, 210))


def test_a_program_ends_while_batches_are_being_made(tmp_path):
    program = """
import itertools
from tests.data import builders
from coca_jax.data import corpus, pipeline, vocabulary
config = builders.config(batch_size=256)
words = vocabulary.train_vocabulary(itertools.islice(corpus.training_captions(config), 500), 512)
batches = pipeline.Pipeline(config, words).iterate()
next(batches)
print("done", flush=True)
"""
    root = pathlib.Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0 and result.stdout == "done\n", result.stderr[-2000:]


def test_the_emoji_train(shared_data, vocabulary):
    config = builders.config(
        task="tars", path=str(shared_data / "data/emoji"), evaluation_files=("twemoji*",), augment="drawing")
    texts = list(corpus.training_captions(config))
    assert len(texts) == 5_661
    pipeline = Pipeline(config, train_vocabulary(texts, 512))
    assert len(list(itertools.islice(pipeline.iterate(), 5))) == 5 and not pipeline.skipped.by_cause
