import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from coca_jax.embedding_index import folder
from coca_jax.embedding_index.index import Index
from coca_jax.errors import CocaError
from tests.embedding_index.fakes import FakeModel, index_of, random_images


@pytest.fixture
def photos(tmp_path):
    """Seven images, one of them in a folder of its own, and files that are hidden or not images."""
    path = tmp_path / "photos"
    (path / "more").mkdir(parents=True)
    (path / ".hidden").mkdir()
    for i, picture in enumerate(random_images(7)):
        Image.fromarray(picture).save(path / ("more" if i == 3 else "") / f"{i}.png")
    Image.fromarray(random_images(1)[0]).save(path / ".hidden" / "x.png")
    (path / "broken.jpg").write_bytes(b"<html>not found</html>")
    (path / "notes.txt").write_text("no picture")
    return path


@pytest.fixture
def update(caplog):
    """Updates an index; returns it, and the numbers of new, kept and removed images that the log has."""

    def updated(model, photos, place=""):
        caplog.clear()
        with caplog.at_level("INFO", "coca_jax"):
            index = folder.update(model, 8, photos, place)
        (line,) = (line for line in caplog.messages if "images in the index" in line)
        return index, tuple(int(number) for number in re.findall(r"\d+", line)[1:])

    return updated


def test_only_what_is_new_or_has_changed_is_embedded(photos, update, caplog):
    model = FakeModel()
    first, counts = update(model, photos)
    assert counts == (7, 0, 0) and model.embedded == 7
    names = [entry.name for entry in first.entries]
    assert names == ["0.png", "1.png", "2.png", "4.png", "5.png", "6.png", "more/3.png"]
    assert "left out 1 of 8 images: " in caplog.text and "broken.jpg cannot be read as an image" in caplog.text
    assert update(model, photos)[1] == (0, 7, 0) and model.embedded == 7
    (photos / "1.png").unlink()
    os.utime(photos / "2.png", ns=(0, 1))
    Image.fromarray(random_images(9)[8]).save(photos / "new.png")
    shutil.copy(photos / "0.png", photos / "broken.jpg")
    changed, counts = update(model, photos)
    assert counts == (3, 5, 2) and model.embedded == 10 and "left out" not in caplog.text
    # The same as an index made at once, but for the order.
    names = [entry.name for entry in changed.entries]
    anew = index_of(model, [photos / name for name in names], names)
    assert changed.search(["a", "bb"], 9) == anew.search(["a", "bb"], 9)
    assert changed.search(["a"], 9) == Index.load(model, photos / folder.PLACE).search(["a"], 9)


def test_an_interrupted_update_goes_on_where_it_was(photos, monkeypatch, update):
    monkeypatch.setattr(folder, "_BATCH", 2)
    monkeypatch.setattr(folder, "_SAVE_EVERY", 2)

    class Interrupted(FakeModel):
        def embed_images(self, images):
            if self.embedded >= 4:
                raise KeyboardInterrupt
            return super().embed_images(images)

    with pytest.raises(KeyboardInterrupt):
        update(Interrupted(), photos)
    model = FakeModel()
    found, counts = update(model, photos)
    assert counts == (3, 4, 0) and model.embedded == 3
    assert sorted(entry.name for entry in found.entries)[0] == "0.png"
    np.testing.assert_array_equal(
        np.concatenate(found._parts),
        FakeModel().embed_images([photos / entry.name for entry in found.entries]),
    )


def test_hidden_names_are_left_out_and_links_are_followed_once(photos, tmp_path, update):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.fromarray(random_images(1)[0]).save(outside / "linked.png")
    (photos / ".ipynb_checkpoints").mkdir()
    shutil.copy(photos / "0.png", photos / ".ipynb_checkpoints" / "copy.png")
    shutil.copy(photos / "0.png", photos / ".hidden.png")
    (photos / "link").symlink_to(outside)
    (photos / "link.png").symlink_to(outside / "linked.png")
    (photos / "again").symlink_to(photos / "more")
    (photos / "loop").symlink_to(photos)
    found, _ = update(FakeModel(), photos)
    names = {entry.name for entry in found.entries}
    assert names == {"link.png", "link/linked.png", "more/3.png", *(f"{i}.png" for i in (0, 1, 2, 4, 5, 6))}


def test_the_log_counts_what_was_indexed_and_what_could_not_be_read(photos, caplog, update):
    update(FakeModel(), photos)
    assert caplog.messages[:2] == [
        "7 of 8 new images indexed, 1 unreadable",
        "7 images in the index: 7 new, 0 as before, 0 gone or changed",
    ]
    caplog.clear()
    for path in photos.rglob("*.png"):
        path.write_bytes(b"not an image")
    with caplog.at_level("INFO", "coca_jax"), pytest.raises(CocaError, match=r"none of the 8 images .* can be read"):
        update(FakeModel(), photos)
    assert [record.getMessage() for record in caplog.records] == ["0 of 8 new images indexed, 8 unreadable"]


def test_a_folder_may_move_with_its_index_but_not_take_another_s(photos, tmp_path, update):
    model = FakeModel()
    update(model, photos, tmp_path / "index")
    update(model, photos)
    moved = photos.rename(tmp_path / "moved")
    found, counts = update(model, moved)
    assert counts == (0, 7, 0) and found.folder == str(moved)
    with pytest.raises(CocaError, match=f"is of the images in {photos}, not of {moved}.*--index"):
        update(model, moved, tmp_path / "index")
    with pytest.raises(CocaError, match="another checkpoint"):
        update(FakeModel("another"), moved)


def test_a_place_that_cannot_be_written_to_is_named_before_the_work(photos, update):
    model = FakeModel()
    with pytest.raises(
        CocaError, match=r"cannot be written to .* \(.*0.png is not a writable folder\): name another place"
    ):
        update(model, photos, photos / "0.png" / "index")
    assert not model.embedded


def test_folders_without_pictures_are_named(tmp_path, update):
    with pytest.raises(CocaError, match="absent does not exist"):
        update(FakeModel(), tmp_path / "absent")
    with pytest.raises(CocaError, match="there is no image below"):
        update(FakeModel(), tmp_path)
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(CocaError, match=r"none of the 1 images .* can be read: .*a.png"):
        update(FakeModel(), tmp_path)
    assert not (tmp_path / folder.PLACE).exists()
