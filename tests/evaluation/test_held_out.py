"""Sets of an evaluation: what their records say, read once; what their classes comprise; what is wrong with them."""

import collections

import numpy as np
import pytest

from coca_jax.config import EvaluationConfig, EvaluationDatasetConfig
from coca_jax.data.records.formats import tf_example as example_records
from coca_jax.data.records.formats import tfds as tfds_records
from coca_jax.data.text import class_names as class_files
from coca_jax.errors import CocaError
from coca_jax.evaluation import held_out
from coca_jax.evaluation.open_dataset import named_sets
from tests.data import builders
from tests.evaluation.fakes import opened_sets


@pytest.fixture
def tars(tmp_path) -> EvaluationDatasetConfig:
    """Shades 0 to 5 train (4 and 5 do not), 3 to 8 are evaluated; their kinds are dark below 3, mid below 6, light."""
    for name, numbers, split in (("a", range(4), "train"), ("b", (4, 5), "unseen"), ("held", range(3, 9), "test")):
        kinds = {i: ("dark", "mid", "light")[i // 3] for i in numbers}
        rows = [row for i in numbers for row in builders.members([i], kind=kinds[i], split=split)]
        builders.write_tar(tmp_path / f"{name}.tar", rows)
    return builders.evaluation_dataset(
        format="tars",
        path=str(tmp_path),
        evaluation_files=("held*",),
        exclude=("split=unseen",),
        described_by="name",
        tasks=("classification",),
        fields=("name", "kind"),
        candidate_files=("*",),
    )


def test_classes_are_described_by_members_that_may_have_trained_and_by_no_other(tars, caplog):
    by_name, by_kind = held_out.named_set("greys", tars, builders.SIZE).classifications
    assert not by_name.members and len(by_name.labels) == 9
    assert by_kind.labels == ["dark", "light", "mid"] and by_kind.targets.tolist() == [2, 2, 2, 1, 1, 1]
    assert by_kind.members == [("shade 0", "shade 1", "shade 2"), ("light",), ("shade 3",)]
    assert "kind: no training record says which members light has" in caplog.text
    (task,) = held_out.named_set("x", builders.with_keys(tars, exclude=(), fields=("kind",)), 16).classifications
    assert task.members[2] == ("shade 3", "shade 4", "shade 5")


def test_a_description_that_no_record_has_is_an_error(tars):
    with pytest.raises(CocaError, match="greys: no training record of .* has both 'species' and a class"):
        held_out.named_set("greys", builders.with_keys(tars, described_by="species"), builders.SIZE)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"class_names": "names.txt", "fields": ("kind",)}, "both name the classes"),
        ({"evaluation_files": ("*",)}, "evaluation_files leaves none"),
        ({"tasks": ("likelihood_classification",)}, "described_by has no effect on likelihood_classification: add"),
    ],
)
def test_a_description_that_contradicts_the_config(tars, changes, message):
    with pytest.raises(CocaError, match=message):
        opened_sets(EvaluationConfig(datasets={"greys": builders.with_keys(tars, **changes)}), ("greys",), 16)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    return str(builders.write_tfds(folder, "tfrecord", train=range(120, 124), test=range(100, 200)))


def test_what_records_say_is_read_once_and_in_blocks(prepared, monkeypatch):
    """Of a TFDS set that is the whole row, the picture too."""
    asked = builders.evaluation_dataset(
        format="tfds", path=prepared, evaluation_files=("test",), text_fields=("captions/text",)
    )
    rows, calls, read = collections.Counter(), [], example_records.TFRecordFiles.payloads

    def counted(self, file, index, wanted):
        calls.append(len(wanted))
        rows.update((file.name, row) for row in wanted)
        return read(self, file, index, wanted)

    monkeypatch.setattr(example_records.TFRecordFiles, "payloads", counted)
    monkeypatch.setattr(example_records.ExampleRecords, "_check_first", lambda self: None)
    found = held_out.named_set("shades", asked, builders.SIZE)
    assert sorted(found.captions)[0] == ("shade 100", "grey 100") and len(found.captions) == 100
    assert len(rows) == 100 and set(rows.values()) == {1} and len(calls) == 2
    labels = builders.with_keys(asked, text_fields=(), label_field="label", tasks=("classification",))
    (task,) = held_out.named_set("shades", labels, builders.SIZE).classifications
    assert set(rows.values()) == {2} and np.bincount(task.targets).tolist() == [28, 72]
    assert held_out.named_set("shades", labels, builders.SIZE).images[np.arange(100)].shape[0] == 100
    assert set(rows.values()) == {4}


def test_no_record_is_read_and_no_store_opened_before_a_set_s_turn(prepared, tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text("dark\nlight\n")
    asked = builders.evaluation_dataset(
        format="tfds",
        path=prepared,
        evaluation_files=("test",),
        tasks=("classification",),
        label_field="label",
        class_names=str(tmp_path / "names.txt"),
    )
    named, read = [], class_files.class_names

    def opened(self, source, *_):
        raise CocaError(f"opened {source.label_field}")

    monkeypatch.setattr(tfds_records.TfdsRecords, "__init__", opened)
    monkeypatch.setattr(class_files, "class_names", lambda spec: named.append(spec) or read(spec))
    sets = named_sets(EvaluationConfig(datasets={"a": asked, "b": asked}), builders.SIZE)
    assert [(one.name, one.asked) for one in sets] == [("a", asked), ("b", asked)] and len(named) == 1
    with pytest.raises(CocaError, match="a: opened label"):
        sets[0].open()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"path": "nowhere"}, r"shades: .*nowhere.*\(this gets the records: get it\)"),
        (
            {"format": "tars", "path": "nowhere"},
            r"shades: nowhere does not exist: set --config.datasets.shades.dataset.path to",
        ),
        ({"evaluation_files": ("dev",)}, "has no split 'dev'"),
        ({"label_field": "kind"}, r"have no feature 'kind' \(there is .*label"),
        ({"label_field": "label", "class_names": "none.json"}, "none.json cannot be read"),
        ({"label_field": "label", "prompts": ("none.json",)}, "none.json cannot be read"),
    ],
)
def test_what_shows_without_records_is_said_at_once(prepared, changes, message):
    asked = builders.evaluation_dataset(
        format="tfds",
        path=prepared,
        evaluation_files=("test",),
        tasks=("classification",),
        label_field="label",
        download="get it",
    )
    with pytest.raises(CocaError, match=message):
        named_sets(EvaluationConfig(datasets={"shades": builders.with_keys(asked, **changes)}), 16)
