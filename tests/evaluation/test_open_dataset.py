"""Evaluation datasets opened from configs: their texts and classes, read once; and what is wrong with them."""

import collections
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from coca_jax import config as config_lib
from coca_jax.config import EvaluationConfig, EvaluationDatasetConfig
from coca_jax.data.records.formats import tf_example as example_records
from coca_jax.data.records.formats import tfds as tfds_records
from coca_jax.data.records.formats import tfrecord
from coca_jax.data.text import class_names as class_files
from coca_jax.errors import CocaError, DataError
from coca_jax.evaluation import open_dataset
from coca_jax.evaluation.open_dataset import check_same_datasets, named_datasets, run_datasets
from coca_jax.evaluation.runner import evaluate_datasets
from tests.data import builders
from tests.evaluation import tiny_coca
from tests.evaluation.fakes import digit_dataset, opened, run


def photos(path, count: int = 6):
    """Grey squares, an HTML page among them, with a manifest: two captions each and an id."""
    path.mkdir()
    rows = []
    for i in range(count):
        file = io.BytesIO()
        Image.new("RGB", (20, 20), (i, i, i)).save(file, "PNG")
        (path / f"{i}.png").write_bytes(file.getvalue() if i != 2 else b"<html>")
        row = {
            "file_name": f"{i}.png",
            "captions": [f"a thing {i}", "a red one"],
            "image_id": 7 + i,
            "kind": "ab"[i % 2],
        }
        rows.append(json.dumps(row))
    (path / "captions.jsonl").write_text("\n".join(rows))
    return str(path)


def evaluation(**datasets: EvaluationDatasetConfig) -> EvaluationConfig:
    return EvaluationConfig(datasets=datasets)


def test_a_dataset_by_name_reads_its_records_on_the_way(tmp_path, caplog):
    config = builders.evaluation_dataset(format="folder", path=photos(tmp_path / "photos"), match="image")
    (dataset,) = opened(evaluation(things=config), ["things"])
    assert dataset.images.shape == (6, 16, 16, 3) and dataset.captions[1] == ("a thing 1", "a red one")
    np.testing.assert_array_equal(dataset.images[np.array([3, 2, 3])][:, 0, 0, 0], [3, 0, 3])  # 2 is no image
    (result,) = evaluate_datasets(tiny_coca.coca(), [dataset], gallery=2)
    assert result.unreadable == {"not an image": 1} and result.metrics["things/unreadable"] == 1
    assert result.metrics["things/images"] == 5 and result.metrics["things/texts"] == 10
    assert set(result.submissions["captions"]) == {7, 8, 10, 11, 12} and "things/caption_bleu_4" in result.metrics
    assert "2.png" in caplog.text and "not an image" in caplog.text


def test_examples_captions_and_conditions_choose(tmp_path):
    path = photos(tmp_path / "photos")
    config = builders.evaluation_dataset(format="folder", path=path, captions_per_image=1, only=("kind=b",))
    (dataset,) = opened(evaluation(things=config), ["things"])
    assert [own[0] for own in dataset.captions] == ["a thing 1", "a thing 3", "a thing 5"]
    few = builders.with_keys(config, only=(), examples=2)
    assert [own[0] for own in opened(evaluation(few=few), ["few"])[0].captions] == ["a thing 0", "a thing 5"]


@pytest.mark.parametrize(
    "names, changes, message",
    [
        (["thing"], {}, "no evaluation dataset 'thing': did you mean 'things'"),
        (
            ["things"],
            {"path": ""},
            r"things needs its records: pass --config.datasets.things.dataset.path=FOLDER \(this gets the records: get it\)",
        ),
        (["things"], {"path": "nowhere"}, r"things: .*nowhere.*\(this gets the records: get it\)"),
        (["things"], {"tasks": ("captions",)}, "datasets.things.tasks"),
        (["things"], {"tasks": ("classification",)}, "datasets.things.dataset.label_field"),
        (["things"], {"tasks": ("video_retrieval",)}, "datasets.things.dataset.frames"),
        (["things"], {"likelihood_prompt": "a"}, "datasets.things.classification.likelihood_prompt"),
        (["things"], {"scores": ("blue",)}, "datasets.things.captioning.scores .*choose among bleu"),
        (["things"], {"format": "tfds"}, "datasets.things.dataset.evaluation_files .*the split train: name another"),
        (["things"], {"class_subset": True, "examples": 3}, "class_subset takes the classes that occur"),
        (["things"], {"path": "nowhere"}, "things: nowhere does not exist"),
        (["things"], {"text_fields": ("words",)}, r"things: .* has no field 'words' .*get it\)$"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_said_in_a_sentence(tmp_path, names, changes, message):
    config = builders.evaluation_dataset(format="folder", path=photos(tmp_path / "photos"), download="get it")
    with pytest.raises(CocaError, match=message) as caught:
        opened(evaluation(things=builders.with_keys(config, **changes)), names)
    assert "\n" not in str(caught.value)


def test_datasets_of_a_training_config_follow_its_own(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(8)))
    values = config_lib.to_config_dict(builders.config(format="tars", path=str(tmp_path), name="greys"))
    values.evaluation.datasets = {
        "more": config_lib.evaluation_dataset(dataset={"format": "tars", "path": str(tmp_path)}).to_dict()
    }
    values.data.dataset.holdout = 0.5
    config = config_lib.from_config_dict(values.to_dict())
    own, more = run_datasets(config)
    assert (own.name, more.name) == ("greys", "more") and len(own.images) < len(more.images) == 8
    values.evaluation.datasets.more.tasks = ("x",)
    with pytest.raises(CocaError, match=r"evaluation\.datasets\.more\.tasks"):
        config_lib.from_config_dict(values.to_dict())


def test_classes_of_metadata_and_of_other_tars(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(4), kind="x"))
    builders.write_tar(tmp_path / "b.tar", builders.members(range(2, 9), kind="y"))
    config = builders.evaluation_dataset(
        format="tars",
        path=str(tmp_path),
        evaluation_files=("b*",),
        tasks=("classification",),
        fields=("name", "kind"),
        candidate_files=("*",),
    )
    (dataset,) = opened(evaluation(greys=config), ["greys"])
    by_name, by_kind = dataset.classifications
    assert by_name.labels == [f"shade {i}" for i in range(9)] and by_name.targets.tolist() == list(range(2, 9))
    assert (by_kind.name, by_kind.labels, by_kind.targets.tolist()) == ("kind", ["x", "y"], [1] * 7)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({5: {"image_id": 7}}, "7 is the number of several images"),
        ({5: {"image_id": "7b"}}, "'7b' is no whole number"),
        ({5: {"image_id": None}}, "1 records have no 'image_id'"),
    ],
)
def test_a_server_s_file_that_cannot_be_written_is_said_before_the_work(tmp_path, caplog, changes, why):
    path = photos(tmp_path / "photos")
    manifest = tmp_path / "photos" / "captions.jsonl"
    rows = [json.loads(row) for row in manifest.read_text().splitlines()]
    manifest.write_text("\n".join(json.dumps(row | changes.get(i, {})) for i, row in enumerate(rows)))
    config = builders.evaluation_dataset(format="folder", path=path, tasks=("captioning",), scores=())
    with pytest.raises(CocaError, match=f"things: captions cannot be written for a server, for {why}"):
        opened(evaluation(things=config), ["things"])
    scored = builders.with_keys(config, scores=("bleu",))
    (dataset,) = opened(evaluation(things=scored), ["things"])
    assert not dataset.image_ids and why in caplog.text


def test_classes_of_a_run_s_own_dataset_do_not_shrink_with_its_examples(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(12)))
    (tmp_path / "names.txt").write_text("\n".join(f"grey {i}" for i in range(30)))
    config = builders.config(
        format="tars",
        path=str(tmp_path),
        evaluation_files=("*",),
        label_field="number",
        examples=4,
        class_names=str(tmp_path / "names.txt"),
    )
    (dataset,) = run_datasets(config)
    (task,) = dataset.classifications
    assert len(dataset.images) == 4 and sorted(task.labels) == sorted(f"grey {i}" for i in range(30))
    assert [task.labels[i] for i in task.targets] == ["grey 0", "grey 4", "grey 7", "grey 11"]


def test_hosts_that_see_other_records_are_told_apart(monkeypatch):
    seen = []
    monkeypatch.setattr(open_dataset.hosts, "check_same", lambda value, message: seen.append((value, message)))
    own = digit_dataset()
    (task,) = own.classifications
    others = [
        own,
        dataclasses.replace(own, captions=[*own.captions[:-1], ("a three, too",)]),
        digit_dataset(30),
        dataclasses.replace(own, classifications=(dataclasses.replace(task, targets=(task.targets + 1) % 10),)),
    ]
    for dataset in [*others, digit_dataset()]:
        check_same_datasets([dataset])
    digests = [value for value, _ in seen]
    assert len(set(digests)) == 4 and digests[0] == digests[-1]
    assert "the hosts see different held-out records" in seen[0][1]


def open_one(name: str, config: EvaluationDatasetConfig):
    (dataset,) = opened(EvaluationConfig(datasets={name: config}))
    return dataset


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
    by_name, by_kind = open_one("greys", tars).classifications
    assert not by_name.members and len(by_name.labels) == 9
    assert by_kind.labels == ["dark", "light", "mid"] and by_kind.targets.tolist() == [2, 2, 2, 1, 1, 1]
    assert by_kind.members == [("shade 0", "shade 1", "shade 2"), ("light",), ("shade 3",)]
    assert "kind: no training record names the members of light" in caplog.text
    (task,) = open_one("x", builders.with_keys(tars, exclude=(), fields=("kind",))).classifications
    assert task.members[2] == ("shade 3", "shade 4", "shade 5")


def test_a_description_that_no_record_has_is_an_error(tars):
    with pytest.raises(CocaError, match=r"greys: no training record of .* has both 'species' and a class"):
        open_one("greys", builders.with_keys(tars, described_by="species"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"class_names": "names.txt", "fields": ("kind",)}, "both name the classes"),
        ({"evaluation_files": ("*",)}, "records that are not evaluated: name fewer"),
        ({"tasks": ("likelihood_classification",)}, "described_by has no effect on likelihood_classification: add"),
    ],
)
def test_a_description_that_contradicts_the_config(tars, changes, message):
    with pytest.raises(CocaError, match=message):
        opened(EvaluationConfig(datasets={"greys": builders.with_keys(tars, **changes)}), ("greys",))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    return str(builders.write_tfds(folder, "tfrecord", train=range(120, 124), test=range(100, 200)))


def test_what_records_say_is_read_once_and_in_blocks(prepared, monkeypatch):
    """Of a TFDS set that is the whole row, the image too."""
    config = builders.evaluation_dataset(
        format="tfds", path=prepared, evaluation_files=("test",), text_fields=("captions/text",)
    )
    rows, calls, read = collections.Counter(), [], tfrecord.payloads

    def counted(file, index, wanted):
        calls.append(len(wanted))
        rows.update((file.name, row) for row in wanted)
        return read(file, index, wanted)

    monkeypatch.setattr(tfrecord, "payloads", counted)
    monkeypatch.setattr(example_records.ExampleRecords, "_check_fields", lambda self, images: None)
    found = open_one("shades", config)
    assert sorted(found.captions)[0] == ("shade 100", "grey 100") and len(found.captions) == 100
    assert len(rows) == 100 and set(rows.values()) == {1} and len(calls) == 2
    labels = builders.with_keys(config, text_fields=(), label_field="label", tasks=("classification",))
    (task,) = open_one("shades", labels).classifications
    assert set(rows.values()) == {2} and np.bincount(task.targets).tolist() == [28, 72]
    assert open_one("shades", labels).images[np.arange(100)].shape[0] == 100
    assert set(rows.values()) == {4}


def test_no_record_is_read_and_no_store_opened_before_a_dataset_s_turn(prepared, tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text("dark\nlight\n")
    config = builders.evaluation_dataset(
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
    datasets = named_datasets(EvaluationConfig(datasets={"a": config, "b": config}), run(16))
    assert [(one.name, one.config) for one in datasets] == [("a", config), ("b", config)] and len(named) == 2
    with pytest.raises(CocaError, match="a: opened label"):
        datasets[0].open()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"path": "nowhere"}, r"shades: .*nowhere.*\(this gets the records: get it\)"),
        (
            {"format": "tars", "path": "nowhere"},
            r"shades: nowhere does not exist: set the dataset's path .*get it\)$",
        ),
        ({"evaluation_files": ("dev",)}, "has no split 'dev'"),
        ({"label_field": "kind"}, r"has no field 'kind' \(there is .*label"),
        ({"label_field": "label", "class_names": "none.json"}, "none.json cannot be read"),
        ({"label_field": "label", "prompts": ("none.json",)}, "none.json cannot be read"),
    ],
)
def test_what_shows_without_records_is_said_at_once(prepared, changes, message):
    config = builders.evaluation_dataset(
        format="tfds",
        path=prepared,
        evaluation_files=("test",),
        tasks=("classification",),
        label_field="label",
        download="get it",
    )
    with pytest.raises(CocaError, match=message):
        named_datasets(EvaluationConfig(datasets={"shades": builders.with_keys(config, **changes)}), run(16))


def test_the_held_out_records_of_a_run(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members([0]))
    dirt = [("bad.png", b"<html>"), ("bad.txt", b"x"), ("bad.json", b'{"name": "x"}')]
    builders.write_tar(tmp_path / "b.tar", builders.members(range(10)) + dirt)
    config = builders.config(format="tars", name="greys", path=str(tmp_path), evaluation_files=("b*",))
    (dataset,) = run_datasets(config)
    assert dataset.name == "greys" and dataset.images.shape == (11, builders.SIZE, builders.SIZE, 3)
    assert dataset.images[np.arange(10)][:, 0, 0, 0].tolist() == list(range(10))
    assert dataset.captions[3] == ("shade 3",) and dataset.images.unreadable == {10: "not an image"}
    assert dataset.grammar is None and not dataset.image_ids
    (by_name,) = dataset.classifications
    assert [by_name.labels[t] for t in by_name.targets[:10]] == [f"shade {i}" for i in range(10)]
    few = builders.config(format="tars", path=str(tmp_path), evaluation_files=("b*",), examples=4)
    (dataset,) = run_datasets(few)
    assert len(dataset.images) == 4 and list(dataset.images.unreadable) == [3]  # evenly; the last one is the dirt
    builders.write_tar(tmp_path / "b.tar", dirt)
    with pytest.raises(CocaError, match=r"none of the 1 held-out records of .* can be read \(1 not an image\)"):
        run_datasets(config)


def test_images_of_a_run_are_read_before_it_and_not_again(tmp_path, monkeypatch):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(6)))
    (dataset,) = run_datasets(builders.config(format="tars", path=str(tmp_path), evaluation_files=("*",)))
    monkeypatch.setattr(dataset.images._store, "read", lambda indices: pytest.fail("read again") if indices else [])
    assert dataset.images[np.array([5, 0])][:, 0, 0, 0].tolist() == [5, 0]


def test_own_photos_are_scored_by_references_and_digit_scenes_by_their_grammar(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(6)))
    config = builders.config(format="tars", path=str(tmp_path), evaluation_files=("*",))
    (result,) = evaluate_datasets(tiny_coca.coca(), run_datasets(config), gallery=0)
    assert "tars/caption_cider" in result.metrics and "tars/caption_bleu_4" in result.metrics
    assert not {"tars/caption_parsed", "tars/caption_equivalent"}.intersection(result.metrics)
    (scenes,) = run_datasets(builders.config(format="digit_scenes", examples=4))
    assert scenes.grammar is not None and scenes.config.captioning.scores == ()


@pytest.mark.parametrize("others", [False, True])
def test_a_dataset_that_holds_nothing_out_is_not_evaluated_and_a_line_says_so(tmp_path, caplog, others):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(6)))
    config = builders.config(format="tars", path=str(tmp_path), name="photos", holdout=0.0)
    if others:
        more = builders.evaluation_dataset(format="tars", path=str(tmp_path))
        config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, datasets={"more": more}))
    with caplog.at_level("INFO"):
        names = [dataset.name for dataset in run_datasets(config)]
    assert names == (["more"] if others else [])
    assert caplog.text.count("photos is not evaluated: all of its records train, since its holdout is 0") == 1


def test_a_share_of_few_records_that_holds_out_none_stops_no_run(tmp_path, caplog):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(3)))
    config = builders.config(format="tars", path=str(tmp_path), name="photos", holdout=1e-9)
    assert run_datasets(config) == []
    assert "photos is trained on and not evaluated: none of the 3 records of" in caplog.text
    for named in ({"evaluation_files": ("b*",)}, {"holdout_where": ("number=7",)}):
        with pytest.raises(CocaError):
            run_datasets(builders.config(format="tars", path=str(tmp_path), name="photos", **named))


def test_an_outage_leaves_no_source_of_a_mixture_out(monkeypatch, caplog):
    """Else a run, or one host of several, would go on without its evaluation."""

    def fail(*_):
        raise failure("nothing of gs://bucket could be read")

    monkeypatch.setattr(open_dataset, "open_records", fail)
    mixture = {"scenes": builders.source(share=0.5), "web": builders.source(format="tars", path="x")}
    config = builders.config(mixture=mixture, examples=2)
    failure = CocaError
    assert [dataset.name for dataset in run_datasets(config)] == ["scenes"]
    assert "web is trained on and not evaluated: nothing" in caplog.text
    failure = DataError
    with pytest.raises(DataError, match="nothing of gs://bucket"):
        run_datasets(config)
