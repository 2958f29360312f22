import json

import numpy as np
import pytest

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.data.text import class_names as class_files
from coca_jax.errors import CocaError
from coca_jax.evaluation.labels import classification, record_labels
from tests.data import builders

PAGE = """# Prompts

## Faces

```bash
classes = [
    ['happy', 'smiling'],
    'sad',
]

templates = [
    'a photo of a {} face.',
]
```

## Other

classes = [
    'x',
]
"""


def write(path, what) -> str:
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    return str(path)


def test_the_forms_of_files_of_names_and_prompts(tmp_path):
    several = write(tmp_path / "names.json", {"pets": ["cat", "dog"], "cars": ["van"]})
    assert class_files.class_names(f"{several}:pets") == [("cat",), ("dog",)]
    assert class_files.class_names(write(tmp_path / "list.json", ["cat", "dog"])) == [("cat",), ("dog",)]
    assert class_files.class_names(write(tmp_path / "lines.txt", "cat\n sea lion \n")) == [("cat",), ("sea lion",)]
    assert class_files.class_names(write(tmp_path / "map.json", {"n1": "cat"})) == {"n1": ("cat",)}
    half = write(tmp_path / "half.json", '["cat \\ud83d"]')  # of a pair, which no tokeniser takes
    assert class_files.class_names(half) == [("cat ?",)]
    page = write(tmp_path / "prompts.md", PAGE)
    assert class_files.class_names(f"{page}:Faces") == [("happy", "smiling"), ("sad",)]
    assert class_files.prompts((f"{page}:Faces",)) == ("a photo of a {} face.",)
    templates = write(tmp_path / "templates.json", {"pets": ["a {c}.", "the {}"]})
    assert class_files.prompts((f"{templates}:pets",)) == ("a {}.", "the {}")


def test_the_customers_own_files(shared_data):
    folder = shared_data / "data/classnames"
    names = class_files.class_names(f"{folder}/en_classnames.json:imagenet1k")
    prompts = class_files.prompts((f"{folder}/en_zeroshot_classification_templates.json:imagenet1k",))
    assert len(names) == 1_000 and names[0] == ("tench",) and len(prompts) == 80 and all("{}" in one for one in prompts)
    assert len(class_files.class_names(f"{folder}/imagenet-simple-labels.json")) == 1_000
    assert len(class_files.class_names(f"{folder}/openai_prompts.md:CIFAR10")) == 10
    assert class_files.class_names(f"{folder}/openai_prompts.md:FacialEmotionRecognition2013")[3] == (
        "happy",
        "smiling",
    )


@pytest.mark.parametrize(
    "name, content, key, message",
    [
        ("a.json", {"pets": ["cat"]}, ":cars", "no key 'cars': choose one of pets"),
        ("a.json", {"pets": [1]}, ":pets", "holds no class names"),
        ("a.json", [], "", "holds no class names"),
        ("a.json", "{", "", "is not JSON"),
        ("a.md", PAGE, ":Cars", "no heading 'Cars': name one of Faces, Other"),
        ("a.md", "## X\nclasses = [__import__('os'),\n]\n", ":X", "holds no class names"),
    ],
)
def test_a_file_that_holds_no_names(tmp_path, name, content, key, message):
    with pytest.raises(CocaError, match=message):
        class_files.class_names(write(tmp_path / name, content) + key)


def test_a_missing_file_and_a_template_without_a_place(tmp_path):
    with pytest.raises(CocaError, match=r"none.json cannot be read"):
        class_files.class_names(str(tmp_path / "none.json:pets"))
    with pytest.raises(CocaError, match="'a cat'"):
        class_files.prompts((write(tmp_path / "t.json", ["a cat"]),))


def test_the_forms_of_class_numbers(tmp_path):
    for name in ("n2", "n1"):
        (tmp_path / "val" / name).mkdir(parents=True)
    assert class_files.class_numbers(str(tmp_path / "val")) == {"n1": (0,), "n2": (1,)}
    forms = ["n1 tench, Tinca\nn2 goldfish\n", ["n1", "n2"], {"n1": 0, "n2": 1}, {"0": ["n1", "x"], "1": ["n2", "y"]}]
    for number, form in enumerate(forms):
        path = tmp_path / f"{number}.{'txt' if isinstance(form, str) else 'json'}"
        assert class_files.class_numbers(write(path, form)) == {"n1": (0,), "n2": (1,)}
    assert class_files.class_numbers(write(tmp_path / "o.json", {"alarm": [409, 530]})) == {"alarm": (409, 530)}
    with pytest.raises(CocaError, match="no class numbers"):
        class_files.class_numbers(write(tmp_path / "x.json", {"n1": "tench"}))


def labelled(*labels) -> list[tuple[str, ...]]:
    return [record_labels(label) for label in labels]


def test_numbers_names_and_sorted_folders_find_their_classes(tmp_path):
    names = write(tmp_path / "names.json", ["zebra", "ant", "cow"])
    asked = builders.evaluation_dataset(class_names=names, prompts=("a {}.",))
    for labels in ((2, 0, "1", 2), ("cow", "zebra", "ant", "cow"), ("n3", "n1", "n2", "n3")):
        found = classification("class", labelled(*labels), asked)
        assert found.targets.tolist() == [2, 0, 1, 2] and list(found.labels) == ["zebra", "ant", "cow"]
        assert found.candidates is None and tuple(found.templates) == ("a {}.",)
    with pytest.raises(CocaError, match="class_ids"):
        classification("class", labelled("n1", "n2"), asked)
    with pytest.raises(CocaError, match="class number 3"):
        classification("class", labelled(3), asked)


def test_a_subset_and_labels_that_stand_for_several_classes_or_none(tmp_path):
    names = write(tmp_path / "names.json", ["zebra", "ant", "cow", "elk"])
    ids = write(tmp_path / "ids.json", {"hoofs": [2, 3], "ant": [1]})
    asked = builders.evaluation_dataset(class_names=names, class_ids=ids, class_subset=True)
    found = classification("class", labelled("ant", "hoofs", "chair"), asked)
    assert found.indices.tolist() == [0, 1] and found.targets.tolist() == [[1, -1], [2, 3]]
    assert found.candidates.tolist() == [1, 2, 3]
    ids = write(tmp_path / "ids.json", {"ant": 1, "chair": -1})  # as some lists write "none of them"
    found = classification("class", labelled("ant", "chair"), builders.with_keys(asked, class_ids=ids))
    assert found.indices.tolist() == [0] and found.targets.tolist() == [1]


def test_names_by_label_and_the_classes_that_another_file_keeps(tmp_path):
    """ObjectNet's two files, as they come."""
    names = write(tmp_path / "folders.json", {"air_freshener": "Air freshener", "alarm_clock": "Alarm clock"})
    kept = write(tmp_path / "overlap.json", {"Alarm clock": "analog clock; digital clock"})
    labels = labelled("alarm_clock", "air_freshener", "alarm_clock")
    every = classification("class", labels, builders.evaluation_dataset(class_names=names))
    assert list(every.labels) == ["Air freshener", "Alarm clock"] and every.targets.tolist() == [1, 0, 1]
    found = classification("class", labels, builders.evaluation_dataset(class_names=names, class_ids=kept))
    assert list(found.labels) == ["Alarm clock"] and found.indices.tolist() == [0, 2]


def test_without_names_the_labels_are_the_classes_with_those_of_other_records():
    found = classification("name", labelled("b_c", "a", None), EvaluationDatasetConfig(), others={"d"})
    assert list(found.labels) == ["a", "b c", "d"]
    assert found.indices.tolist() == [0, 1] and found.targets.tolist() == [1, 0]
    known = classification("class", labelled(1, 0), EvaluationDatasetConfig(), known=("cat", "dog"))
    assert list(known.labels) == ["cat", "dog"] and known.targets.tolist() == [1, 0]
    with pytest.raises(CocaError, match="no record has a class for 'name'"):
        classification("name", labelled(None), EvaluationDatasetConfig())


def test_labels_of_metadata():
    assert record_labels(b"cat") == ("cat",) and record_labels(np.int64(3)) == ("3",) and record_labels("") == ()
    assert record_labels([1, "a"]) == record_labels(np.array(["1", "a"])) == ("1", "a")


@pytest.mark.parametrize("labels, said", [(("b", "c", "a"), True), (("n00000002", "n00000003", "n00000001"), False)])
def test_folders_that_are_matched_by_their_order_alone_are_said(tmp_path, caplog, labels, said):
    asked = builders.evaluation_dataset(class_names=write(tmp_path / "names.json", ["zebra", "ant", "cow"]))
    assert classification("class", labelled(*labels), asked).targets.tolist() == [1, 2, 0]
    assert (
        ("(a = zebra, b = ant, c = cow, …): set classification.class_ids" in caplog.text)
        == said
        == bool(caplog.records)
    )
