import json
import pickle
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from coca_jax.embedding_index import files
from coca_jax.embedding_index.files import Entry
from coca_jax.embedding_index.index import Index
from coca_jax.errors import CocaError
from tests.embedding_index.fakes import WIDTH, FakeModel, index_of, random_images

QUERIES = ["a red three", "blue", "three more"]


def _brute_force(model, images, query, k):
    scores = model.embed_images(images) @ model.embed_texts([query])[0]
    order = np.argsort(-scores, kind="stable")[:k]
    return [(str(i), scores[i]) for i in order]


def _pairs(hits):
    return [(hit.name, hit.score) for hit in hits]


def test_a_search_equals_brute_force_with_ties():
    model, images = FakeModel(), random_images(40)
    index = index_of(model, images)
    assert len(index) == 40
    found = index.search(QUERIES, 12)
    for query, hits in zip(QUERIES, found, strict=True):
        assert _pairs(hits) == _brute_force(model, images, query, 12)
    assert index.search(QUERIES[0], 12) == found[0]
    assert len(index.search("a", 99)) == 40 and len(index.search("a")) == 10


def test_images_are_queries_alone_and_among_texts(tmp_path):
    index, path = index_of(FakeModel(), random_images(20)), tmp_path / "query.png"
    picture = Image.fromarray(random_images(20)[6])
    picture.save(path)
    alone = index.search(picture, 4)
    assert index.search([path, "blue", random_images(20)[6]], 4) == [alone, index.search("blue", 4), alone]
    # The same text is no path: only a pathlib.Path is.
    assert index.search(str(path), 4) == index.search([str(path)], 4)[0]


def test_names_and_images_may_come_from_generators(tmp_path):
    images = random_images(3)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    assert [entry.name for entry in index_of(FakeModel(), iter(paths)).entries] == [str(path) for path in paths]
    index = index_of(FakeModel(), (image for image in images), (name for name in "abc"))
    index.add(images[0])  # one array [H, W, 3] is one picture
    assert [entry.name for entry in index.entries] == ["a", "b", "c", "3"]
    np.testing.assert_array_equal(index._parts[-1], FakeModel().embed_images(images[:1]))
    for names in (["a", "b"], list("abcd")):
        with pytest.raises(CocaError, match=r"names.*one for each image"):
            index.add(images, names)
    assert len(index) == 4


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_save_load_add(dtype, tmp_path):
    model, images = FakeModel(), random_images(30)
    index_of(model, images[:20]).save(tmp_path / "index", dtype)
    index = Index.load(model, tmp_path / "index")
    (stored,) = index._parts
    assert isinstance(stored, np.memmap) and stored.dtype == index.dtype == dtype and len(stored) == 20
    for image in images[20:]:  # many small additions
        index.add([image])
    whole = index_of(model, images).search(QUERIES, 30)
    assert index.search(QUERIES, 30) == whole
    index.save(tmp_path / "index", dtype)  # in the place of the one that it reads
    assert Index.load(model, tmp_path / "index").search(QUERIES, 30) == whole == index.search(QUERIES, 30)
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        "embeddings-2.npy",
        "index.json",
    ]


def test_some_rows_of_several_parts_are_kept():
    model, images = FakeModel(), random_images(12)
    index = index_of(model, images[:4])
    index.add(images[4:9])
    index.add(images[9:])
    rows = np.array([0, 3, 4, 6, 9, 10, 11])
    index.keep(rows)
    assert index.search(QUERIES, 9) == index_of(model, images[rows], rows).search(QUERIES, 9)


def test_rows_of_an_index_on_a_disk_are_kept_without_reading_all(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_ROWS", 16)
    vectors = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    Index(FakeModel(), [Entry(str(row)) for row in range(512)], [vectors]).save(tmp_path)
    index, first, second = Index.load(FakeModel(), tmp_path), np.arange(3, 512), np.arange(0, 509, 2)
    tracemalloc.start()
    index.keep(first)
    index.keep(second)
    index.save(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < vectors.nbytes // 4
    kept = Index.load(FakeModel(), tmp_path)
    np.testing.assert_array_equal(kept._parts[0], vectors[first][second])
    assert [entry.name for entry in kept.entries] == [str(row) for row in first[second]]


def test_an_empty_index_is_an_index(tmp_path):
    index_of(FakeModel(), []).save(tmp_path)
    index = Index.load(FakeModel(), tmp_path)
    assert len(index) == 0 and index.search(["a", "b"]) == [[], []]
    index.add(random_images(2))
    assert len(index.search("a")) == 2


def test_the_index_of_another_checkpoint_is_refused(tmp_path):
    index_of(FakeModel(), random_images(3)).save(tmp_path)
    with pytest.raises(CocaError, match=r"made by another checkpoint \(step 7\) than this one \(step 1,000\)"):
        Index.load(FakeModel("another", 1_000), tmp_path)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _pickled(path):
    np.save(path, np.array([{}] * 3, object), allow_pickle=True)


def _as_json(change):
    def changed(path):
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return changed


@pytest.mark.parametrize(
    "file, damage",
    [
        ("embeddings-1.npy", _cut),
        ("embeddings-1.npy", lambda path: path.unlink()),
        ("embeddings-1.npy", lambda path: path.write_bytes(b"")),
        ("embeddings-1.npy", lambda path: path.write_bytes(pickle.dumps([1.0]))),
        ("embeddings-1.npy", _pickled),
        ("embeddings-1.npy", lambda path: np.save(path, np.zeros((3, WIDTH), np.int64))),
        ("embeddings-1.npy", lambda path: np.save(path, np.zeros((2, WIDTH), np.float32))),
        ("index.json", _cut),
        ("index.json", lambda path: path.write_bytes(b"\xff" * 3)),
        ("index.json", _as_json(lambda values: values["entries"].pop())),
        ("index.json", _as_json(lambda values: values.update(entries=[["a", ""], ["b", ""], [1, ""]]))),
        ("index.json", _as_json(lambda values: values.update(entries=[["a"]] * 3))),
        ("index.json", _as_json(lambda values: values.update(entries=3))),
        ("index.json", lambda path: path.write_text("[]")),
        ("index.json", _as_json(lambda values: values.pop("digest"))),
        ("index.json", _as_json(lambda values: values.update(number="../../secret"))),
        ("index.json", _as_json(lambda values: values.update(format=1))),
    ],
)
def test_a_damaged_index_is_named_in_one_sentence(file, damage, tmp_path):
    index_of(FakeModel(), random_images(3)).save(tmp_path)
    damage(tmp_path / file)
    with pytest.raises(CocaError, match=r"(damaged|format).*remove that folder and index the images again") as caught:
        Index.load(FakeModel(), tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_other_mistakes_are_named(tmp_path):
    index = index_of(FakeModel(), random_images(3))
    with pytest.raises(CocaError, match="there is no index in"):
        Index.load(FakeModel(), tmp_path / "absent")
    with pytest.raises(CocaError, match="at least 1"):
        index.search("a", 0)
    with pytest.raises(CocaError, match=r"float64.*float32, float16"):
        index.save(tmp_path / "index", "float64")
    with pytest.raises(CocaError, match="bucket"):
        index.save("gs://bucket/index")
    (tmp_path / "file").write_text("")
    with pytest.raises(CocaError, match="cannot be written"):
        index.save(tmp_path / "file")
    with pytest.raises(CocaError, match="not finite"):
        index.append(index.entries, [np.full((3, WIDTH), np.nan, np.float32)])
