"""Near-duplicates of evaluation pictures are found, whatever was done to them, others are spared, and training leaves them out."""

import io
import json
import types

import numpy as np
import pytest
from PIL import Image, ImageOps

import coca_jax
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.records import open as records
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError
from coca_jax.tools import near_duplicates, sets
from coca_jax.tools.near_duplicates import Embedding, Held
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


def write(path, pictures: dict[str, bytes]) -> None:
    builders.write_tar(
        path,
        [
            member
            for key, data in pictures.items()
            for member in ((f"{key}.png", data), (f"{key}.txt", f"a picture {key}".encode("utf-8", "replace")))
        ],
    )


@pytest.fixture
def config(tmp_path):
    """Training pictures of which some are copies of held-out ones, one is plain, and one is no picture."""
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
    assert {pair["key"]: pair["held_index"] for pair in pairs} == {f"copy_{name}": i for i, name in enumerate(COPIES)}
    assert all(pair["distance"] <= 8 and pair["similarity"] is None for pair in pairs)
    said = capsys.readouterr().out
    assert "7 of 21 training pictures" in said and f"--config.data.exclude_keys={tmp_path}/out/tars.txt" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<img") == 2 * len(COPIES) and "copy_mirrored" in page and "not an image" in page
    assert page.count("<script") == 1 and "://" not in page

    (tmp_path / "drop.txt").write_text("\n".join([*listed, "h0"]))  # a held-out record's key, too: it stays
    less = builders.with_data(config, exclude_keys=str(tmp_path / "drop.txt"))
    before, after = (records.open_records(one.data, "train") for one in (config, less))
    assert keys(before) - keys(after) == set(listed) and len(after) == len(before) - len(listed)
    assert len(records.open_records(less.data, "evaluation")) == HELD + 2
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
    assert keys(records.open_records(less.data, "train")) == {"other"}


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
                builders.with_data(config, exclude_keys=str(tmp_path / name)).data, "train"
            ).fingerprint
        )
    assert len(found) == 2


def test_a_list_changes_the_fingerprint_of_a_folder_too(tmp_path):
    builders.write_folder(tmp_path / "photos", range(20))
    (tmp_path / "drop.txt").write_text("p003.jpg\np004.jpg\r\n\nnowhere.jpg\n")
    config = builders.config(format="folder", path=str(tmp_path / "photos"), holdout=0.01)
    less = builders.with_data(config, exclude_keys=str(tmp_path / "drop.txt"))
    stores = [records.open_records(one.data, "train") for one in (config, less)]
    assert keys(stores[0]) - keys(stores[1]) == {"p003.jpg", "p004.jpg"} & keys(stores[0]) != set()
    assert stores[0].fingerprint != stores[1].fingerprint
    missing = builders.with_data(config, exclude_keys=str(tmp_path / "none.txt"))
    with pytest.raises(CocaError, match="none.txt"):
        records.open_records(missing.data, "train")


def test_folders_and_config_files_are_compared_too(config, tmp_path):
    (tmp_path / "val").mkdir()
    photo(100).save(tmp_path / "val" / "a.jpg")
    builders.write_folder(tmp_path / "more", range(3))
    reencoded(photo(101)).save(tmp_path / "more" / "p001.jpg")
    (tmp_path / "eval.py").write_text(
        "from coca_jax import config\n"
        "def get_config(path):\n    return config.evaluation(more=config.held_out(format='folder', path=path, holdout=0.99))\n"
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


def embed(pictures: np.ndarray) -> np.ndarray:
    """Mean colours: the order of channels apart, other_color has those of its original."""
    means = np.sort(pictures.reshape(len(pictures), -1, 3).mean(1), axis=1) - 100.0
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def test_embeddings_find_what_hashes_do_not(config, monkeypatch):
    monkeypatch.setattr(near_duplicates, "_ROWS", 4)  # several chunks
    train = sets.stored(config, "train", "dedup")
    held = [Held("tars", config.data, records.open_records(config.data, "evaluation"))]
    found = near_duplicates.find(train, held, distance=8, embedding=Embedding(embed, 16, 0.9999))
    (pair,) = [pair for pair in found.pairs if pair.key == "other_color"]
    assert pair.distance is None and pair.similarity > 0.9999 and pair.held_name.endswith(f"h{HELD - 1}")
    assert {f"copy_{name}" for name in COPIES} < {pair.key for pair in found.pairs}
    assert found.unreadable == {"not an image": 2} and found.plain == 2


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
    from coca_jax.tools import picture_hashes
    from coca_jax.tools.hamming import HammingIndex

    photos = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))[:40]]
    library = picture_hashes.of_evaluation(np.stack([picture_hashes.thumbnails(image) for image in photos]))
    index, variants = HammingIndex(library.bits.reshape(-1), 8), library.bits.shape[1]
    for change in COPIES.values():
        copies = picture_hashes.of_training(np.stack([picture_hashes.thumbnails(change(image)) for image in photos]))
        rows, entries, _ = index.near(copies.bits.reshape(-1))
        found = {
            (row // copies.bits.shape[1], entry // variants)
            for row, entry in zip(rows.tolist(), entries.tolist(), strict=True)
        }
        assert found == {(i, i) for i in range(len(photos))}


def test_commands_say_what_is_missing(config, tmp_path):
    with pytest.raises(CocaError, match="--output is missing"):
        call("dedup", config)
    with pytest.raises(CocaError, match="digit_scenes has none"):
        call("dedup", builders.config(), "--output=x")
