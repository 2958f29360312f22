"""A batch depends on its step alone: a process that starts there makes it too, whatever the store and the hosts."""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
import running

from coca_jax.data.digit_scenes.language import phrasings
from coca_jax.data.digit_scenes.scenes import scene
from coca_jax.data.images.inputs import input_shape
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.text.vocabulary import train_vocabulary
from tests.data import builders, fresh_process
from tests.data.images import test_video

COUNT = 131  # records of each set: a prime
FIRST, RUN = 1_000_016, 8  # a start that is followed for some steps, across the end of an epoch of COUNT records


def picture(number: int, kind: str) -> bytes:
    """No two views of it are the same."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return builders.encoded(builders.Image.fromarray(noise).resize((22, 20)), kind)


def write_sets(folder: pathlib.Path) -> None:
    """The sets of `fresh_process.config`, most with two captions a record."""
    numbers = range(COUNT)
    for name in ("tars", "folder", "clips", "tfrecords", "array_records"):
        (folder / name).mkdir()
    captions = [[f"shade {i}", f"{i} shade"] for i in numbers]
    said = [json.dumps({"captions": several}).encode() for several in captions]
    for first, end in ((0, 50), (50, COUNT)):
        builders.write_tar(
            folder / f"tars/{first}.tar",
            [
                member
                for i in numbers[first:end]
                for member in ((f"{i:03d}.png", picture(i, "PNG")), (f"{i:03d}.json", said[i]))
            ],
        )
    for i in numbers:
        (folder / f"folder/{i:03d}.jpg").write_bytes(picture(i, "JPEG"))
        (folder / f"folder/{i:03d}.txt").write_text("\n".join(captions[i]))
    (folder / "folder/list.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{i:03d}.jpg", "captions": captions[i]}) + "\n" for i in numbers)
    )
    (folder / "folder/list.csv").write_text(
        "file_name,caption,label\n" + "".join(f"{i:03d}.jpg,shade,{i}\n" for i in numbers)
    )
    clips = [test_video.clip("mp4", length=length, size=(32, 20)) for length in (3, 5, 8)]
    builders.write_tar(
        folder / "clips/0.tar",
        [member for i in numbers for member in ((f"{i:03d}.mp4", clips[i % 3]), (f"{i:03d}.json", said[i]))],
    )
    payloads = [builders.example(image=picture(i, "PNG"), caption=captions[i]) for i in numbers]
    builders.write_tfrecord(folder / "tfrecords/a.tfrecord", payloads)
    builders.write_array_record(folder / "array_records/a.array_record", payloads)
    for kind in ("tfrecord", "array_record"):
        builders.write_tfds(folder / kind, kind, train=numbers)


def made(config, vocabulary, steps: list[int]) -> dict:
    """What a fresh process should find, from whole batches in another order than it makes them; see `fresh_process`."""
    pipeline = Pipeline(config, vocabulary)
    starts = fresh_process.schedule(steps, RUN)
    whole, frames = {}, next(iter(config.data.sources.values())).dataset.frames
    for step in sorted({*steps, *range(steps[0], steps[0] + RUN)}, reverse=True):
        batch = whole[step] = pipeline.batch(step)
        assert batch["image"].shape == (4, *input_shape(config.model, frames)) and batch["image"].dtype == np.uint8
        assert batch["text"].shape == (4, 32) and batch["text"].dtype == batch["source"].dtype == np.int32
        assert np.bincount(batch["source"]).tolist() == list(pipeline.layout.quotas)
    assert not any(skipped.by_cause for skipped in pipeline.skipped_by_source.values())
    assert len({fresh_process.digests(batch)[0] for batch in whole.values()}) == len(whole)
    return {
        "fingerprint": pipeline.fingerprint,
        "hosts": {
            f"{host} of {hosts}": [
                [fresh_process.digests(whole[step], hosts)[host] for step in range(first, first + count)]
                for first, count in starts[hosts]
            ]
            for hosts in starts
            for host in range(hosts)
        },
    }


def test_a_process_that_starts_at_a_step_makes_the_batch_of_that_step(tmp_path):
    pytest.importorskip("array_record")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    write_sets(here)
    scenes = [text for i in range(40) for text in phrasings(scene(i).form)]
    vocabulary = train_vocabulary([*scenes, *(f"shade grey {i}" for i in range(COUNT))], 512)
    (here / "vocabulary.model").write_bytes(vocabulary.model_bytes)
    shutil.copytree(here, there)  # before any index is made: the other process makes its own
    steps = [FIRST, *np.random.default_rng(0).integers(0, 2_000_000, 200).tolist(), 0, 1_000_000, 10**12]
    plan = {kind: steps[::3] if kind == "clips" else steps for kind in fresh_process.LIGHT + fresh_process.HEAVY}
    (there / "plan.json").write_text(json.dumps({"steps": plan, "length": RUN}))
    program = [sys.executable, "-m", "tests.data.fresh_process", str(there)]
    process = running.start(program, COCA_CACHE=tmp_path / "cache")
    try:
        expected = {kind: made(fresh_process.config(here, kind), vocabulary, some) for kind, some in plan.items()}
    finally:
        status, out, error = running.finish(process)
    assert status == 0, error[-2_000:]
    found = json.loads(out)
    assert found.pop("tensorflow") == [], "sets of tars, folders and scenes need no tensorflow"
    assert found.keys() == expected.keys()
    for kind, one in expected.items():
        assert found[kind]["fingerprint"] == one["fingerprint"], kind
        for name, host in one["hosts"].items():
            assert found[kind]["hosts"][name] == host, (kind, name)
