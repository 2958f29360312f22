"""Text classifiers: built once, kept for their model alone, rebuilt if a file cannot be used."""

import dataclasses
import pathlib

import numpy as np

from coca_jax.evaluation.text_classifiers import TextClassifiers
from tests.evaluation.conftest import CLASSES, normalised


def test_a_classifier_is_built_once_and_kept_for_its_model_alone(random_task, tmp_path, monkeypatch):
    coca, dataset, _ = random_task
    (task,) = dataset.classifications
    monkeypatch.setattr("coca_jax.evaluation.text_classifiers._WORTH_KEEPING", 12)
    classifiers = TextClassifiers(coca, tmp_path)
    first = classifiers(task)
    np.testing.assert_array_equal(classifiers(task), first)
    assert coca.embedded == CLASSES
    np.testing.assert_array_equal(TextClassifiers(coca, tmp_path)(task), first)  # from the file
    assert coca.embedded == CLASSES
    (file,) = (tmp_path / "classifiers").iterdir()
    file.write_bytes(b"\x93NUMPY no array")
    np.testing.assert_array_equal(TextClassifiers(coca, tmp_path)(task), first)
    assert coca.embedded == 2 * CLASSES
    coca.digest = "another"
    TextClassifiers(coca, tmp_path)(task)
    TextClassifiers(coca, tmp_path)(dataclasses.replace(task, templates=("{}", "{}")))
    assert coca.embedded == 5 * CLASSES


def test_synonyms_count_alike(random_task):
    coca, dataset, _ = random_task
    task = dataclasses.replace(
        dataset.classifications[0], labels=["a", "b"], synonyms=[("class 0", "class 1"), ("class 2",)]
    )
    table = {name: coca.embed_texts([name])[0] for name in ("class 0", "class 1", "class 2")}
    expected = normalised(np.stack([table["class 0"] + table["class 1"], table["class 2"]]))
    np.testing.assert_allclose(TextClassifiers(coca)(task), expected, atol=1e-6)


def test_a_kept_classifier_that_cannot_be_read_or_written_is_made_anew(random_task, monkeypatch, caplog):
    class Denied(type(pathlib.Path())):
        def exists(self):
            return True

        def read_bytes(self):
            raise PermissionError("denied")

        write_bytes = mkdir = lambda self, *_, **__: self.read_bytes()

    coca, dataset, _ = random_task
    (task,) = dataset.classifications
    monkeypatch.setattr("coca_jax.evaluation.text_classifiers._WORTH_KEEPING", 12)
    np.testing.assert_array_equal(TextClassifiers(coca, Denied("/x"))(task), TextClassifiers(coca)(task))
    assert "cannot be read and is built anew: denied" in caplog.text and "cannot be kept: denied" in caplog.text
