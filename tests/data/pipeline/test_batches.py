"""Batches are a function of (config, seed, step); dirt is replaced, counted and, in bulk, refused."""

import itertools
import json
import pathlib
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import seqio

from coca_jax.data import seqio_tasks as tasks
from coca_jax.data.images import video
from coca_jax.data.pipeline import batches as pipeline_lib
from coca_jax.data.pipeline import examples
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.pipeline.examples import StoredExamples
from coca_jax.data.records.record import Census, Record
from coca_jax.data.text import corpus
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError, DataError
from tests.data import builders


@pytest.fixture(scope="module")
def vocabulary():
    texts = [*corpus.training_captions(builders.config()), *(f"shade {i}" for i in range(256))]
    return train_vocabulary(texts, 512)


@pytest.fixture
def tar_config(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(20)))
    builders.write_tar(tmp_path / "b.tar", builders.members(range(100, 121)))
    builders.write_tar(tmp_path / "z.tar", builders.members(range(200, 210)))
    return builders.config(format="tars", path=str(tmp_path), evaluation_files=("z*",), crop="drawing")


def mixture_config(tmp_path):
    """Numbers below 100 from tars, above from a folder, and scenes: 3, 4 and 1 of 8 rows."""
    builders.write_tar(tmp_path / "a.tar", builders.members(range(97)))
    builders.write_folder(tmp_path / "own", range(100, 150))
    web = builders.source(format="tars", path=str(tmp_path), holdout=1e-9, share=0.3, crop="random", clean="alt_text")
    own = builders.source(
        format="folder",
        path=str(tmp_path / "own"),
        holdout=1e-9,
        share=0.4,
        label_field="stem",
        prompts=("shade {}", "{} shade"),
    )
    return builders.config(block=4, mixture={"own": own, "scenes": builders.source(share=0.1), "web": web})


def skipped(pipeline):
    (only,) = pipeline.skipped_by_source.values()
    return only


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def run(program):
    root = pathlib.Path(__file__).resolve().parents[3]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


class CountingStore:
    """Plain pictures without files, counted when they are read; reads take times that differ."""

    class_names, fingerprint, census = None, "counting", Census(0)

    def __init__(self, count, delay=0.0):
        self.count, self.delay, self.calls = count, delay, []
        self.pictures = [builders.picture(i) for i in range(256)]

    def __len__(self):
        return self.count

    def read(self, indices):
        self.calls.append(list(indices))
        time.sleep(self.delay * (indices[0] % 5))
        return [Record(str(i), self.pictures[i % 256], (f"shade {i % 256}",), {}) for i in indices]

    def name(self, index):
        return f"record {index}"


def counted(monkeypatch, count, delay=0.0):
    store = CountingStore(count, delay)
    monkeypatch.setattr(examples, "open_records", lambda source, split: store)
    return store


def test_a_late_start_reads_as_little_as_an_early_one(monkeypatch, vocabulary):
    store = counted(monkeypatch, 100_003)
    config = builders.config(format="tars", path="nowhere", long_text="truncate")
    monkeypatch.setattr(pipeline_lib, "_THREADS", 1)
    read = {}
    for start in (0, 1_000_000):
        pipeline = Pipeline(config, vocabulary)
        assert not store.calls, "opening reads no record"
        batches = pipeline.iterate(start, prefetch=0)
        next(batches)
        read[start] = [len(call) for call in store.calls]
        store.calls.clear()
        pipeline.batch(start)
        assert [len(call) for call in store.calls] == [1] * 8
        store.calls.clear()
    assert len(read[0]) == len(read[1_000_000]) == 8 and sum(read[1_000_000]) <= sum(read[0]) <= 8 * 16


def test_an_epoch_reads_every_record_once_neighbours_together(monkeypatch, vocabulary):
    store = counted(monkeypatch, 1_009)
    monkeypatch.setattr(pipeline_lib, "_THREADS", 4)
    pipeline = Pipeline(builders.config(format="tars", path="nowhere", block=8), vocabulary)
    batches = pipeline.iterate()
    shades = [shade for _ in range(126) for shade in builders.shades(next(batches))]
    batches.close()
    firsts = list(itertools.islice((i for call in store.calls for i in call), 1_000))
    assert len(set(firsts)) > 950  # but for what the next epoch already read
    assert len(shades) == 1_008 and not Counter(shades) - Counter(i % 256 for i in range(1_009))
    assert len(store.calls) < 1_009 / 4
    assert all(max(call) - min(call) < 8 or max(call) - min(call) > 900 for call in store.calls)


def test_threads_and_limits_of_memory_change_nothing(monkeypatch, vocabulary):
    counted(monkeypatch, 1_009, delay=0.002)
    config = builders.config(format="tars", path="nowhere", block=8, crop="random")
    expected = [Pipeline(config, vocabulary).batch(step) for step in range(5, 25)]
    monkeypatch.setattr(pipeline_lib, "_THREADS", 8)
    for kept in (pipeline_lib._AHEAD_BYTES, 5_000, 1):
        monkeypatch.setattr(pipeline_lib, "_AHEAD_BYTES", kept)
        found = itertools.islice(Pipeline(config, vocabulary).iterate(5), 20)
        assert all(same(one, other) for one, other in zip(found, expected, strict=True))


def test_a_mixture_gives_exact_quotas(tmp_path, vocabulary):
    config = mixture_config(tmp_path)
    pipeline = Pipeline(config, vocabulary)
    assert pipeline.layout.names == ("own", "scenes", "web") and pipeline.layout.quotas == (4, 1, 3)
    seen = {0: [], 2: []}
    for batch in itertools.islice(pipeline.iterate(), 100):
        assert np.bincount(batch["source"]).tolist() == [4, 1, 3]
        texts = vocabulary.decode(batch["text"])
        for number, source, text in zip(builders.shades(batch), batch["source"], texts, strict=True):
            if source != 1:
                seen[source].append(number)
                assert text in ([f"shade {number}"] if source == 2 else [f"shade p{number}", f"p{number} shade"])
    assert sorted(seen[0][:50]) == list(range(100, 150)) and len(seen[0]) == 400
    assert sorted(seen[2][:97]) == list(range(97)) and len(seen[2]) == 300
    assert pipeline.metrics(100) == {
        "data/own/pairs": 4,
        "data/own/epoch": 8.0,
        "data/own/skipped": 0,
        "data/scenes/pairs": 1,
        "data/web/pairs": 3,
        "data/web/epoch": 300 / 97,
        "data/web/skipped": 0,
    }
    batch, origins = pipeline.traced(7)
    assert same(batch, pipeline.batch(7))
    for origin, text in zip(origins, vocabulary.decode(batch["text"]), strict=True):
        assert origin.text == text and origin.source == pipeline.layout.names[pipeline.layout.source[origin.row]]
        assert origin.source == "scenes" or text.removeprefix("shade ").removesuffix(" shade").zfill(3) in origin.record
    for changed in ({"share": 0.9}, {"prompts": ("a {}",)}, {"crop": "random"}):
        own = builders.with_keys(config.data.mixture["own"], **changed)
        other = builders.with_data(config, mixture={**config.data.mixture, "own": own})
        assert Pipeline(other, vocabulary).fingerprint != pipeline.fingerprint


def test_each_source_has_its_own_limit_of_bad_records(tmp_path, vocabulary):
    config = mixture_config(tmp_path)
    for i in (100, 101, 102):
        (tmp_path / "own" / f"p{i}.jpg").write_bytes(b"<html>")
    pipeline = Pipeline(builders.with_data(config, max_bad_ratio=0.1), vocabulary)
    for _ in itertools.islice(pipeline.iterate(), 20):
        pass
    assert pipeline.skipped_by_source["own"].by_cause == {"not an image": 3}
    assert not pipeline.skipped_by_source["web"].by_cause and pipeline.metrics(20)["data/own/skipped"] == 3
    # 3 of all 147 would be allowed; 3 of this source's 50 are not.
    with pytest.raises(DataError, match=r"more than 3\.00% of the records of .*own .*p10"):
        for _ in itertools.islice(Pipeline(builders.with_data(config, max_bad_ratio=0.03), vocabulary).iterate(), 20):
            pass


def test_each_epoch_visits_every_record_once_in_its_own_order(tar_config, vocabulary):
    plain = builders.with_data(tar_config, crop="none")
    batches = itertools.islice(Pipeline(plain, vocabulary).iterate(), 16)
    shades = [shade for batch in batches for shade in builders.shades(batch)]
    epochs = [shades[i : i + 41] for i in (0, 41, 82)]  # of a prime number of records: batches reach across their ends
    for epoch in epochs:
        assert sorted(epoch) == [*range(20), *range(100, 121)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = builders.config(seed=1, **vars(plain.data))
    assert builders.shades(Pipeline(other, vocabulary).batch(0)) != shades[:8]
    held_out = Pipeline(plain, vocabulary, split="evaluation")
    assert builders.shades(held_out.batch(0)) == list(range(200, 208))


def test_the_caption_belongs_to_the_picture_and_is_tokenised_as_the_vocabulary_does(tar_config, vocabulary):
    batch = Pipeline(builders.with_data(tar_config, crop="none"), vocabulary).batch(2)
    texts = vocabulary.decode(batch["text"])
    assert texts == [f"shade {shade}" for shade in builders.shades(batch)]
    scenes = Pipeline(builders.config(), vocabulary).batch(1)["text"]
    assert np.array_equal(vocabulary.encode(vocabulary.decode(scenes), 32), scenes)


def test_seeds_and_epochs_change_the_views(tar_config, vocabulary):
    first, second = (Pipeline(builders.config(seed=seed), vocabulary) for seed in (0, 1))
    assert not same(first.batch(0), second.batch(0)) and first.fingerprint != second.fingerprint
    whole = builders.config(batch_size=41, **vars(tar_config.data))
    pipeline = Pipeline(whole, vocabulary)
    views = [
        {tuple(text): image for image, text in zip(b["image"], b["text"].tolist(), strict=True)}
        for b in (pipeline.batch(0), pipeline.batch(1))
    ]
    assert views[0].keys() == views[1].keys()
    assert any(not np.array_equal(views[0][text], views[1][text]) for text in views[0])


def dirty_tar(path: pathlib.Path, clean: int) -> None:
    truncated = builders.encoded(builders.Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")[:-900]
    builders.write_tar(
        path,
        [
            *builders.members(range(clean)),
            ("cut.jpg", truncated),
            ("cut.txt", b"cut"),
            ("page.jpg", b"<html>404</html>"),
            ("page.txt", b"page"),
            ("mute.png", builders.picture(250)),
            ("mute.txt", b"  "),
            ("lost.txt", b"lost"),
            ("lost.png", bytes(50_000)),
        ],
    )
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 30_000)  # the transfer broke off


def test_bad_records_are_replaced_counted_and_named(tmp_path, vocabulary, caplog):
    dirty_tar(tmp_path / "a.tar", 37)
    config = builders.config(format="tars", path=str(tmp_path), evaluation_files=("z*",), max_bad_ratio=0.1)
    pipeline = Pipeline(config, vocabulary)
    with caplog.at_level("WARNING"):
        epoch = [s for batch in itertools.islice(pipeline.iterate(), 10) for s in builders.shades(batch)][:40]
    assert set(epoch) == set(range(37)) and len(epoch) == 40
    assert skipped(pipeline).by_cause == {
        "damaged image": 1,
        "not an image": 1,
        "empty caption": 1,
    }  # and not what the summary at the start counted as left out
    assert skipped(pipeline).names["not an image"] == [f"{tmp_path}/a.tar:page"]
    assert sum("a.tar:page is skipped: not an image" in line for line in caplog.messages) == 1
    fresh = Pipeline(config, vocabulary)
    assert [s for step in (4, 3, 2, 1, 0) for s in builders.shades(fresh.batch(step))[::-1]] == epoch[::-1]


def test_other_threads_go_on_while_a_bad_records_name_is_looked_up(tmp_path, vocabulary, monkeypatch):
    """A name may ask a silent bucket."""
    dirty_tar(tmp_path / "a.tar", 37)
    config = builders.config(format="tars", path=str(tmp_path), evaluation_files=("z*",), max_bad_ratio=0.1)
    pipeline = Pipeline(config, vocabulary)
    (source,), locked = pipeline._sources, []
    monkeypatch.setattr(source._store, "name", lambda index: locked.append(source._lock.locked()) or "a name")
    list(itertools.islice(pipeline.iterate(), 6))
    assert locked and not any(locked)


def test_a_lost_shard_costs_its_records_alone(tmp_path, vocabulary):
    for first in range(0, 1_800, 30):
        builders.write_tar(
            tmp_path / f"{first:04d}.tar",
            [
                (f"k{i:04d}.{kind}", builders.picture(i % 256) if kind == "png" else f"shade {i % 256}".encode())
                for i in range(first, first + 30)
                for kind in ("png", "txt")
            ],
        )
    config = builders.config(format="tars", path=str(tmp_path), holdout=1e-9, block=8, max_bad_ratio=0.05)
    running, epoch, other = (Pipeline(config, vocabulary) for _ in range(3))
    assert epoch._sources[0].order.block == 8
    batches = running.iterate()
    next(batches)
    (tmp_path / "0900.tar").unlink()
    for _ in itertools.islice(batches, 224):
        pass
    assert skipped(running).by_cause["missing file"] <= 30
    made = list(itertools.islice(epoch.iterate(), 225))
    assert skipped(epoch).by_cause == {"missing file": 30} and len(skipped(epoch).names["missing file"]) == 10
    assert all(same(other.batch(step), made[step]) for step in (*range(0, 225, 9), 224, 0))
    few = builders.with_data(config, max_bad_ratio=0.004)
    (tmp_path / "0900.tar").write_bytes((tmp_path / "0930.tar").read_bytes())
    strict = Pipeline(few, vocabulary)
    for first in range(0, 600, 30):
        (tmp_path / f"{first:04d}.tar").unlink()
    with pytest.raises(DataError, match=r"more than 0\.40% of the records .*missing file: "):
        list(itertools.islice(strict.iterate(), 225))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 36, 1_000, 1_024])
def test_replacements_reach_every_record(count):
    stride = examples._stride(count)
    places = [attempt * stride % count for attempt in range(count)]
    assert sorted(places) == list(range(count))
    assert min((abs(place) for place in places[1:10]), default=1) >= count // 20


def test_too_many_bad_records_stop_the_run(tmp_path, vocabulary):
    dirty_tar(tmp_path / "a.tar", 37)
    config = builders.config(format="tars", path=str(tmp_path), evaluation_files=("z*",), max_bad_ratio=0.01)
    with pytest.raises(DataError, match=r"more than 1\.00% of the records .*not an image: 1.*a\.tar:page.*data\.max"):
        list(itertools.islice(Pipeline(config, vocabulary).iterate(), 10))


def test_a_small_folder_survives_one_corrupt_picture_but_not_only_those(tmp_path, vocabulary):
    builders.write_folder(tmp_path, range(12))
    (tmp_path / "p005.jpg").write_bytes(b"")
    config = builders.config(format="folder", path=str(tmp_path), holdout=1e-9)
    pipeline = Pipeline(config, vocabulary)
    assert len(list(itertools.islice(pipeline.iterate(), 20))) == 20
    assert skipped(pipeline).by_cause == {"not an image": 1}
    for path in tmp_path.glob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="replace them"):
        Pipeline(builders.with_data(config, max_bad_ratio=1.0), vocabulary).batch(0)


HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(500)
TOO_NEW = {"HEIC image (not supported)": HEIC, "JPEG XL image (not supported)": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99)}


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("cause", [*TOO_NEW, "clip"])
def test_a_file_of_another_kind_named_jpg_is_a_bad_record_with_its_name_in_the_log(
    tmp_path, vocabulary, caplog, monkeypatch, cause, installed
):
    monkeypatch.setattr(video, "AVAILABLE", installed and video.AVAILABLE)
    builders.write_folder(tmp_path, range(40))
    (tmp_path / "p007.jpg").write_bytes(TOO_NEW.get(cause, b"\0\0\0\x18ftypmp42" + bytes(99)))
    cause = cause if cause in TOO_NEW else "damaged clip" if video.AVAILABLE else video.NEEDS_PYAV
    pipeline = Pipeline(builders.config(format="folder", path=str(tmp_path), holdout=0.0), vocabulary)
    with caplog.at_level("WARNING"):
        shades = [s for batch in itertools.islice(pipeline.iterate(), 5) for s in builders.shades(batch)]
    assert len(shades) == 40 and skipped(pipeline).by_cause == {cause: 1}
    assert any(f"p007.jpg is skipped: {cause}" in line for line in caplog.messages)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_labels_from_1_to_3_for_three_names_stop_the_run_from_every_kind_of_table(tmp_path, vocabulary, suffix):
    builders.write_folder(tmp_path, range(40))
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    rows = [(f"p{i:03d}.jpg", i % 3 + 1) for i in range(40)]
    if suffix == "csv":
        text = "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in rows)
    else:
        text = "".join(f'{{"file_name": "{name}", "label": {label}}}\n' for name, label in rows)
    (tmp_path / f"list.{suffix}").write_text(text)
    names = str(tmp_path / "names.txt")
    config = builders.config(
        format="folder", path=str(tmp_path / f"list.{suffix}"), holdout=0.0, label_field="label", class_names=names
    )
    with pytest.raises(
        DataError, match=r"\(label has a value that class_names does not name: \d+; such as .*p\d+\.jpg"
    ):
        list(itertools.islice(Pipeline(config, vocabulary).iterate(), 5))


def test_a_summary_counts_what_trains_what_is_held_out_and_what_is_left_out(tmp_path, vocabulary):
    dirty_tar(tmp_path / "a.tar", 37)
    builders.write_tar(tmp_path / "z.tar", builders.members(range(40, 45)))
    config = builders.config(format="tars", path=str(tmp_path), evaluation_files=("z*",))
    line = Pipeline(config, vocabulary).summaries["tars"]
    assert "40 records train" in line and "held out" in line and "2 left out" in line and "a.tar" in line
    assert Pipeline(builders.config(), vocabulary).summaries == {
        "digit_scenes": "digit scenes, made as they are needed"
    }


def test_a_key_that_has_its_default_is_not_part_of_the_fingerprint(tmp_path, vocabulary, monkeypatch):
    """So that a later version's new keys change no data fingerprint."""
    builders.write_tar(tmp_path / "a.tar", builders.members(range(20)))
    config = builders.config(format="tars", path=str(tmp_path), holdout=0.0)
    before = Pipeline(config, vocabulary).fingerprint
    hashed = []
    monkeypatch.setattr(examples, "digest", lambda *parts: hashed.append(parts) or "x")
    Pipeline(config, vocabulary)
    Pipeline(builders.with_data(config, mirror=True, clean="alt_text"), vocabulary)
    assert [json.loads(parts[2]) for parts in hashed] == [
        [{"format": "tars", "holdout": 0.0}, {}],
        [{"format": "tars", "holdout": 0.0, "clean": "alt_text"}, {"mirror": True}],
    ]
    monkeypatch.undo()
    assert Pipeline(builders.with_data(config, mirror=True), vocabulary).fingerprint != before


def test_a_long_caption_stops_the_run_or_is_cut(tmp_path, vocabulary):
    builders.write_folder(tmp_path, range(6))
    text = "a small red three above a large blue seven"
    (tmp_path / "p002.txt").write_text(text)
    config = builders.config(format="folder", path=str(tmp_path), holdout=1e-9, length=8)
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
    config = builders.config(batch_size=40, format="folder", path=str(tmp_path), holdout=1e-9)
    said = Counter(vocabulary.decode(Pipeline(config, vocabulary).batch(0)["text"]))
    assert set(said) == {"shade 1", "shade 2"} and min(said.values()) > 5


def test_contradictions_are_found_at_the_start(vocabulary):
    small = builders.config()
    small = builders.dataclasses.replace(small, model=builders.ModelConfig(text=builders.TextConfig(vocabulary_size=9)))
    with pytest.raises(CocaError, match=r"model.text.vocabulary_size is 9"):
        Pipeline(small, vocabulary)


def test_seqio_knows_the_task(vocabulary, tar_config, monkeypatch):
    tasks.register(builders.config(), vocabulary)
    task = seqio.get_mixture_or_task("digit_scenes")
    feature = task.output_features["text"].vocabulary
    assert isinstance(feature, seqio.SentencePieceVocabulary)
    assert (feature.pad_id, feature.bos_id, feature.eos_id, feature.unk_id, feature.vocab_size) == (
        vocabulary.pad_id,
        vocabulary.bos_id,
        vocabulary.eos_id,
        vocabulary.unk_id,
        vocabulary.size,
    )
    greys = builders.with_data(tar_config, name="greys", crop="none")
    tasks.register(greys, vocabulary)
    dataset = seqio.get_mixture_or_task("greys").get_dataset({"text": 12}, split="train", shuffle=True, seed=0)
    examples = list(dataset.as_numpy_iterator())
    assert sorted(int(e["image"][8, 8, 0]) for e in examples) == [*range(20), *range(100, 121)]
    # The very examples that the pipeline makes batches of, with the same tokens.
    batches = list(itertools.islice(Pipeline(greys, vocabulary).iterate(), 6))
    texts, images = (np.concatenate([batch[key] for batch in batches])[:41] for key in ("text", "image"))
    assert [e["text"].tolist() for e in examples] == texts[:, :12].tolist()
    assert all(np.array_equal(e["image"], image) for e, image in zip(examples, images, strict=True))
    decoded = []  # of the epoch; the pipeline above may still be preparing batches of the next one
    decode = StoredExamples.decode
    monkeypatch.setattr(StoredExamples, "decode", lambda *args: decoded.append(args[1].position) or decode(*args))
    second = seqio.get_mixture_or_task("greys").get_dataset(
        {"text": 12}, split="train", shuffle=True, seed=0, shard_info=seqio.ShardInfo(1, 4)
    )
    own = [e["text"].tolist() for e in second.as_numpy_iterator()]
    assert own == [e["text"].tolist() for e in examples[1::4]] and [p for p in decoded if p < 41] == list(
        range(1, 41, 4)
    )
    unordered = seqio.get_mixture_or_task("greys").get_dataset({"text": 12}, split="evaluation", shuffle=False)
    assert [int(e["image"][8, 8, 0]) for e in unordered.as_numpy_iterator()] == list(range(200, 210))


def test_seqio_knows_the_mixture(tmp_path, vocabulary):
    mixture = tasks.register(mixture_config(tmp_path), vocabulary)
    assert seqio.get_mixture_or_task("mixture") is mixture
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == {"own": 0.4, "scenes": 0.1, "web": 0.3}
    dataset = mixture.get_dataset({"text": 12}, split="train", shuffle=True, seed=0, num_epochs=None)
    assert len(list(dataset.take(20).as_numpy_iterator())) == 20


def test_a_program_ends_while_batches_are_being_made():
    assert (
        run("""
import itertools
from tests.data import builders
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.text import corpus, vocabulary
config = builders.config(batch_size=256)
words = vocabulary.train_vocabulary(itertools.islice(corpus.training_captions(config), 500), 512)
batches = Pipeline(config, words).iterate()
next(batches)
print("done", flush=True)
""")
        == "done\n"
    )


def test_the_emoji_train(shared_data, vocabulary):
    config = builders.config(
        format="tars", path=str(shared_data / "data/emoji"), evaluation_files=("twemoji*",), crop="drawing"
    )
    texts = list(corpus.training_captions(config))
    assert len(texts) == 5_661
    pipeline = Pipeline(config, train_vocabulary(texts, 512))
    assert len(list(itertools.islice(pipeline.iterate(), 5))) == 5 and not skipped(pipeline).by_cause
