"""Features of a frozen encoder: the same numbers kept as computed anew, on one device and on many."""

import functools
import itertools

import jax
import numpy as np
import pytest
import tiny
import tiny_tasks
from PIL import Image

from coca_jax.data.images import video
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.pipeline.examples import StoredExamples
from coca_jax.errors import CocaError
from coca_jax.trainer import train_step
from coca_jax.trainer.features import Features, check_memory

STEPS = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return tiny_tasks.write_labelled(tmp_path_factory.mktemp("images") / "own", 46)


def _trained(config, *mesh_shape: int, start: int = 0, steps: int = STEPS) -> tuple[list[dict[str, float]], Features]:
    """The metrics of each step, as the loop takes them, and the features after the last."""
    mesh, pad = tiny.mesh(*mesh_shape), tiny_tasks.vocabulary().pad_id
    pipeline = Pipeline(config, tiny_tasks.vocabulary(), classes=("dark", "light"))
    with jax.set_mesh(mesh):
        built = train_step.build(config, mesh, pad)
        state, compiled, features, history = built.init(), built.compile(), Features(built), []
        batches = pipeline.iterate(start, known=features.known)
        for local in itertools.islice(batches, steps):
            batch = {name: jax.device_put(local[name], x.sharding) for name, x in built.batch.items()}
            state, metrics = compiled(state, features(state.params, local, batch))
            history.append({name: float(value) for name, value in metrics.items()})
        batches.close()
    return history, features


@functools.cache
def _cached(folder: str):
    return _trained(tiny_tasks.stored(folder, train__cache_features=True), 1, 1, 1)


def test_kept_features_are_those_computed_anew_bit_for_bit(folder, monkeypatch):
    decoded, decode = [], StoredExamples._decode
    monkeypatch.setattr(
        StoredExamples, "_decode", lambda self, *args: decoded.append(args[0].index) or decode(self, *args)
    )
    expected, _ = _trained(tiny_tasks.stored(folder), 1, 1, 1)
    assert len(decoded) >= 8 * STEPS
    decoded.clear()
    _cached.cache_clear()
    found, features = _cached(folder)
    # Several epochs in batches of 8. The batch at the first one's end has new records, and known ones that are not decoded:
    # an epoch is longer than the batches that are prepared ahead.
    count = len(features._kept)
    assert 40 < count < 8 * STEPS / 2 and count % 8
    assert found == expected
    assert len({row["loss"] for row in found}) == STEPS
    # Of what is known no image is decoded; those that were under way when it became known may have been.
    assert set(decoded) == {index for _, index in features._kept} and len(decoded) < 8 * STEPS - 8


def test_a_known_records_image_is_not_decoded(folder):
    config = tiny_tasks.stored(folder)
    pipeline = Pipeline(config, tiny_tasks.vocabulary(), classes=("dark", "light"))
    whole = pipeline.batch(0)
    known = {int(index) for _, index in whole["record"][::2]}
    batches = pipeline.iterate(known=lambda source, index: source == 0 and index in known)
    part = next(batches)
    batches.close()
    for name in ("label", "record", "source"):
        np.testing.assert_array_equal(part[name], whole[name])
    np.testing.assert_array_equal(part["image"][1::2], whole["image"][1::2])
    assert not np.array_equal(part["image"][::2], whole["image"][::2])


def test_on_a_mesh_the_losses_are_those_of_one_device(folder):
    expected, one = _cached(folder)
    found, several = _trained(tiny_tasks.stored(folder, train__cache_features=True), 2, 2, 2)
    for row, other in zip(found, expected, strict=True):
        for name in other:
            assert row[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), name
    assert several._kept.keys() == one._kept.keys()
    for record, tokens in one._kept.items():
        np.testing.assert_allclose(several._kept[record], tokens, rtol=1e-4, atol=1e-5)


def test_more_than_half_of_the_memory_is_refused_before_anything_is_read(monkeypatch):
    row_bytes = 4 * 16 * 4  # tokens, width, float32
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": row_bytes, "SC_PHYS_PAGES": 2 * 12}[name])
    config, mesh = tiny_tasks.stored("somewhere", train__cache_features=True), tiny.mesh(1, 1, 1)
    built = train_step.build(config, mesh)
    check_memory(built, 12)
    with pytest.raises(
        CocaError, match=r"the tokens of 13 records take 3.33e-06 GB, more than half .*cache_features = F"
    ):
        check_memory(built, 13)
    check_memory(train_step.build(tiny_tasks.stored("somewhere"), mesh), 13)  # they are not kept


def test_without_the_key_nothing_is_kept(folder):
    _, features = _trained(tiny_tasks.stored(folder), 1, 1, 1, steps=1)
    assert not features.known(0, 0) and features._kept is None
    _, features = _cached(folder)
    assert all(features.known(*record) for record in features._kept) and not features.known(1, 0)


@pytest.mark.skipif(not video.AVAILABLE, reason=video.NEEDS_PYAV)
def test_a_clips_frames_are_drawn_once(tmp_path):
    """Its features are then the same in every epoch, and after a restart, when they are computed again."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(8):
        frames = [Image.new("RGB", (20, 20), (10 * number, 20 * frame, 0)) for frame in range(12)]
        frames[0].save(folder / f"{number}.gif", save_all=True, append_images=frames[1:])
        (folder / f"{number}.txt").write_text("a clip")

    def epochs(**changes) -> list[np.ndarray]:
        fixed = dict(data__dataset__frames=2, data__dataset__label_field="stem", data__dataset__holdout=0.0)
        config = tiny_tasks.stored(str(folder), **fixed, **changes)
        pipeline = Pipeline(config, tiny_tasks.vocabulary(), classes=tuple("01234567"))
        batches = [pipeline.batch(step) for step in (0, 1)]
        return [batch["image"][np.argsort(batch["record"][:, 1])] for batch in batches]

    first, second = epochs(train__cache_features=True)
    np.testing.assert_array_equal(first, second)
    first, second = epochs()
    assert not np.array_equal(first, second)
