"""Near-duplicates of evaluation images are found, whatever was done to them, others are spared, and training leaves them out."""

import dataclasses
import io
import json
import types

import numpy as np
import pytest
from PIL import Image, ImageOps

import coca_jax
from coca_jax.config import DatasetConfig, EvaluationDatasetConfig
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.records import open as records
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError
from coca_jax.tools.dedup import hashing, search
from tests.data import builders
from tests.tools.commands import call, photo

HELD, OTHERS = 7, 12


def reencoded(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(builders.encoded(image, "JPEG", quality=35)))


def cropped(image: Image.Image) -> Image.Image:
    """6 % of the width and 5 % of the height less, not from the middle."""
    return image.crop((round(0.05 * image.width), 0, round(0.99 * image.width), round(0.95 * image.height)))


COPIES = {
    "same": lambda image: image,
    "reencoded": reencoded,
    "resized": lambda image: image.resize((97, 71)),
    "mirrored": lambda image: reencoded(ImageOps.mirror(image)),
    "cropped": lambda image: reencoded(cropped(image)),
    "mirrored_crop": lambda image: ImageOps.mirror(cropped(image)),
    "squared": lambda image: ImageOps.fit(image, (90, 90)),
}


def write(path, images: dict[str, bytes]) -> None:
    builders.write_tar(
        path,
        [
            member
            for key, data in images.items()
            for member in ((f"{key}.png", data), (f"{key}.txt", f"a picture {key}".encode("utf-8", "replace")))
        ],
    )


@pytest.fixture
def config(tmp_path):
    """Training images of which some are copies of held-out ones, one is plain, and one is no image."""
    held = [photo(seed) for seed in range(HELD)]
    training = {
        f"copy_{name}": builders.encoded(change(image))
        for (name, change), image in zip(COPIES.items(), held, strict=True)
    }
    training |= {f"other_{seed}": builders.encoded(photo(100 + seed)) for seed in range(OTHERS)}
    training["other_color"] = builders.encoded(
        Image.fromarray(np.asarray(held[-1])[:, :, ::-1])
    )  # another colour: no copy
    training["plain"] = builders.picture(90)
    training["broken"] = b"<html>"
    write(tmp_path / "train.tar", training)
    write(
        tmp_path / "held.tar",
        {f"h{i}": builders.encoded(image) for i, image in enumerate(held)}
        | {"plain": builders.picture(90), "broken": b"<html>"},
    )
    return builders.config(format="tars", path=str(tmp_path), evaluation_files=("held*",), max_bad_ratio=0.5)


def keys(store) -> set[str]:
    return {store.key(i) for i in range(len(store))}


def test_the_copies_and_nothing_else_are_listed_shown_and_left_out(config, tmp_path, capsys):
    call("dedup", config, f"--output={tmp_path / 'out'}", "--workers=2")
    listed = (tmp_path / "out" / "tars.txt").read_text().split()
    assert listed == sorted(f"copy_{name}" for name in COPIES)
    pairs = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert {pair["key"]: pair["evaluation_index"] for pair in pairs} == {
        f"copy_{name}": i for i, name in enumerate(COPIES)
    }
    assert all(pair["distance"] <= 8 and pair["similarity"] is None for pair in pairs)
    said = capsys.readouterr().out
    assert "7 of 21 training images" in said and f"--config.data.dataset.exclude_keys={tmp_path}/out/tars.txt" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<img") == 2 * len(COPIES) and "copy_mirrored" in page and "not an image" in page
    assert page.count("<script") == 1 and "://" not in page

    (tmp_path / "drop.txt").write_text("\n".join([*listed, "h0"]))  # a held-out record's key, too: it stays
    less = builders.with_data(config, exclude_keys=str(tmp_path / "drop.txt"))
    before, after = (records.open_records(one.data.dataset, "train") for one in (config, less))
    assert keys(before) - keys(after) == set(listed) and len(after) == len(before) - len(listed)
    assert len(records.open_records(less.data.dataset, "evaluation")) == HELD + 2
    vocabulary = train_vocabulary([f"a picture {key}" for key in keys(before)], 200)
    pipelines = [Pipeline(one, vocabulary) for one in (config, less)]
    assert pipelines[0].fingerprint != pipelines[1].fingerprint
    seen = {text for step in range(4) for text in vocabulary.decode(pipelines[1].batch(step)["text"])}
    assert seen == {f"a picture {key}" for key in keys(after) - {"broken"}}


def test_names_that_are_not_utf_8_are_listed_and_left_out(tmp_path):
    image = builders.encoded(photo(0))
    write(tmp_path / "train.tar", {"caf\udce9": image, "other": builders.encoded(photo(1))})
    write(tmp_path / "held.tar", {"h\udcff": image})
    config = builders.config(format="tars", path=str(tmp_path), evaluation_files=("held*",))
    call("dedup", config, f"--output={tmp_path / 'out'}")
    assert (tmp_path / "out" / "tars.txt").read_bytes() == b"caf\xe9\n"
    assert (tmp_path / "out" / "report.html").read_text().count(r"caf\udce9") >= 1
    less = builders.with_data(config, exclude_keys=f"{tmp_path}/out/tars.txt")
    assert keys(records.open_records(less.data.dataset, "train")) == {"other"}


def test_a_second_search_repeats_what_the_list_leaves_out_already(config, tmp_path):
    call("dedup", config, f"--output={tmp_path / 'a'}", "--pairs=0")
    less = builders.with_data(config, exclude_keys=f"{tmp_path}/a/tars.txt")
    call("dedup", less, f"--output={tmp_path / 'b'}", "--pairs=0")
    assert (tmp_path / "a" / "tars.txt").read_text() == (tmp_path / "b" / "tars.txt").read_text()


def test_lists_that_leave_out_as_many_records_differ(config, tmp_path):
    found = set()
    for name in ("a", "b"):
        (tmp_path / name).write_text({"a": "other_1\n", "b": "other_2\n"}[name])
        found.add(
            records.open_records(
                builders.with_data(config, exclude_keys=str(tmp_path / name)).data.dataset, "train"
            ).fingerprint
        )
    assert len(found) == 2


def test_a_list_changes_the_fingerprint_of_a_folder_too(tmp_path):
    builders.write_folder(tmp_path / "photos", range(20))
    (tmp_path / "drop.txt").write_text("p003.jpg\np004.jpg\r\n\nnowhere.jpg\n")
    config = builders.config(format="folder", path=str(tmp_path / "photos"), holdout=0.01)
    less = builders.with_data(config, exclude_keys=str(tmp_path / "drop.txt"))
    stores = [records.open_records(one.data.dataset, "train") for one in (config, less)]
    assert keys(stores[0]) - keys(stores[1]) == {"p003.jpg", "p004.jpg"} & keys(stores[0]) != set()
    assert stores[0].fingerprint != stores[1].fingerprint
    missing = builders.with_data(config, exclude_keys=str(tmp_path / "none.txt"))
    with pytest.raises(CocaError, match=r"none\.txt"):
        records.open_records(missing.data.dataset, "train")


def test_folders_and_config_files_are_compared_too(config, tmp_path):
    (tmp_path / "val").mkdir()
    photo(100).save(tmp_path / "val" / "a.jpg")
    builders.write_folder(tmp_path / "more", range(3))
    reencoded(photo(101)).save(tmp_path / "more" / "p001.jpg")
    (tmp_path / "eval.py").write_text(
        "from coca_jax import config\n"
        "def get_config(path):\n    return config.evaluation_config(more=config.evaluation_dataset(dataset=dict(format='folder', path=path)))\n"
    )
    call(
        "dedup",
        config,
        f"--output={tmp_path / 'out'}",
        f"--against={tmp_path / 'val'}",
        f"--against={tmp_path / 'eval.py'}:{tmp_path / 'more'}",
        "--pairs=0",
    )
    listed = (tmp_path / "out" / "tars.txt").read_text().split()
    assert {"other_0", "other_1"} < set(listed) and len(listed) == len(COPIES) + 2
    call("dedup", config, f"--output={tmp_path / 'out'}", "--noown", f"--against={tmp_path / 'val'}")
    assert (tmp_path / "out" / "tars.txt").read_text() == "other_0\n"
    assert (tmp_path / "out" / "report.html").read_text().count("<img") == 2
    for wrong in ([f"--against={tmp_path / 'nothing.py'}"], [f"--against={tmp_path / 'nothing'}"], ["--noown"]):
        with pytest.raises(CocaError, match="nothing"):
            call("dedup", config, f"--output={tmp_path / 'out'}", *wrong)


def test_a_training_and_an_evaluation_dataset_may_share_a_name(config, tmp_path):
    builders.write_folder(tmp_path / "more", range(3))
    reencoded(photo(101)).save(tmp_path / "more" / "p001.jpg")
    more = EvaluationDatasetConfig(DatasetConfig(format="folder", path=str(tmp_path / "more"), holdout=0.99))
    evaluation = dataclasses.replace(config.evaluation, datasets={"tars": more})
    call("dedup", dataclasses.replace(config, evaluation=evaluation), f"--output={tmp_path / 'out'}")
    pairs = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert {pair["evaluation"] for pair in pairs if pair["key"] != "other_1"} == {"tars"}
    assert [pair["evaluation"] for pair in pairs if pair["key"] == "other_1"] == ["evaluation.datasets.tars"]
    assert (tmp_path / "out" / "report.html").read_text().count("<img") == 2 * len(pairs) == 2 * (len(COPIES) + 1)


def embed(images: np.ndarray) -> np.ndarray:
    """Mean colours: the order of channels apart, other_color has those of its original."""
    means = np.sort(images.reshape(len(images), -1, 3).mean(1), axis=1) - 100.0
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def test_embeddings_find_what_hashes_do_not(config):
    training, evaluation = ([("tars", records.open_records(config.data.dataset, split))] for split in records.SPLITS)
    embedding = search.Embedding(embed, 16, 0.9999)
    result = search.find_duplicates(training, evaluation, distance=8, embedding=embedding)
    (pair,) = [pair for pair in result.pairs if pair.key == "other_color"]
    assert pair.distance is None and pair.similarity > 0.9999 and pair.evaluation_name.endswith(f"h{HELD - 1}")
    assert {f"copy_{name}" for name in COPIES} < {pair.key for pair in result.pairs}
    assert result.skipped == {"not an image": 2, "no structure to compare": 2}


def test_a_checkpoint_gives_the_embeddings(config, tmp_path, monkeypatch):
    coca = types.SimpleNamespace(embed_images=embed, config=builders.config())
    monkeypatch.setattr(coca_jax, "load", {"runs/x": coca}.get)
    call("dedup", config, f"--output={tmp_path / 'out'}", "--checkpoint=runs/x", "--similarity=0.9999", "--pairs=50")
    assert "other_color" in (tmp_path / "out" / "tars.txt").read_text().split()
    assert "cosine 1.000" in (tmp_path / "out" / "report.html").read_text()


def test_real_photographs(shared_data):
    folder = shared_data / "data" / "coco_photos" / "images"
    if not folder.is_dir():
        pytest.skip(f"no photographs at {folder}")
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))[:40]]
    library = [hashing.evaluation_hashes(image) for image in photos]
    bits = np.concatenate([hashes.bits for hashes in library])
    owners = np.repeat(np.arange(len(photos)), [len(hashes.bits) for hashes in library])
    for change in COPIES.values():
        for number, image in enumerate(photos):
            _, entries, _ = search.within_distance(bits, hashing.training_hashes(change(image)).bits, 8)
            assert set(owners[entries]) == {number}


@pytest.mark.parametrize("distance", [0, 3, 8, 15, 64])
def test_every_hash_within_the_distance_is_found_and_no_other(distance, monkeypatch):
    monkeypatch.setattr(search, "_ENTRIES", 50)  # several chunks
    rng = np.random.default_rng(distance)
    entries = rng.integers(0, 2**64, 300, np.uint64)
    entries[5:9] = entries[4]  # one hash several times
    queries = entries[:40].copy()
    for bit in range(distance):  # as many differences as are allowed
        queries ^= np.uint64(1 << bit)
    found = search.within_distance(entries, queries, distance)
    distances = np.array([[(int(query) ^ int(entry)).bit_count() for entry in entries] for query in queries])
    expected = {(query, entry, distances[query, entry]) for query, entry in np.argwhere(distances <= distance)}
    assert set(zip(*found, strict=True)) == expected and len(found[0]) == len(expected) >= 40
    nothing = np.zeros(0, np.uint64)
    assert [len(part) for part in search.within_distance(nothing, queries, 8)] == [0, 0, 0]
    assert [len(part) for part in search.within_distance(entries, nothing, 8)] == [0, 0, 0]


def test_commands_say_what_is_missing(config, tmp_path):
    with pytest.raises(CocaError, match="--output is missing"):
        call("dedup", config)
    with pytest.raises(CocaError, match="digit_scenes has none"):
        call("dedup", builders.config(), "--output=x")
