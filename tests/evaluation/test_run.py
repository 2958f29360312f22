import dataclasses
import io
import json
import logging
import shutil
import types
import weakref

import numpy as np
import pytest
from PIL import Image

from coca_jax import config as config_lib
from coca_jax import evaluate
from coca_jax.config import EvaluationDatasetConfig
from coca_jax.errors import CocaError
from coca_jax.evaluation import captioning, run
from coca_jax.evaluation.dataset import UnopenedSet
from coca_jax.evaluation.metrics.captions.result_files import read_results
from coca_jax.evaluation.open_dataset import evaluation_sets
from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.results import read_evaluation, table, write_evaluation
from coca_jax.evaluation.suite import EvaluationResult
from coca_jax.inference import model as inference
from coca_jax.presets import imagenet as evaluation_recipes
from coca_jax.trainer import checkpoint
from tests.data import builders
from tests.evaluation import tiny_coca
from tests.evaluation.fakes import FakeCoca, digit_set, opened_sets


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


def evaluation(**sets: EvaluationDatasetConfig) -> config_lib.EvaluationConfig:
    return config_lib.EvaluationConfig(datasets=sets)


def test_a_set_by_name_reads_its_records_on_the_way(tmp_path, caplog):
    asked = builders.evaluation_dataset(format="folder", path=photos(tmp_path / "photos"), match="image")
    (held_out,) = opened_sets(evaluation(things=asked), ["things"], tiny_coca.SIZE)
    assert held_out.images.shape == (6, 16, 16, 3) and held_out.captions[1] == ("a thing 1", "a red one")
    np.testing.assert_array_equal(held_out.images[np.array([3, 2, 3])][:, 0, 0, 0], [3, 0, 3])  # 2 is no picture
    (result,) = run.evaluate_sets(tiny_coca.coca(), [held_out], gallery=2)
    assert result.unreadable == {"not an image": 1} and result.metrics["things/unreadable"] == 1
    assert result.metrics["things/images"] == 5 and result.metrics["things/texts"] == 10
    assert set(result.captions) == {7, 8, 10, 11, 12} and "things/caption_bleu_4" in result.metrics
    assert "2.png" in caplog.text and "not an image" in caplog.text


def test_examples_captions_and_conditions_choose(tmp_path):
    path = photos(tmp_path / "photos")
    asked = builders.evaluation_dataset(format="folder", path=path, captions_per_image=1, only=("kind=b",))
    (held_out,) = opened_sets(evaluation(things=asked), ["things"], 16)
    assert [own[0] for own in held_out.captions] == ["a thing 1", "a thing 3", "a thing 5"]
    few = builders.with_keys(asked, only=(), examples=2)
    assert [own[0] for own in opened_sets(evaluation(few=few), ["few"], 16)[0].captions] == ["a thing 0", "a thing 5"]


@pytest.mark.parametrize(
    "names, changes, message",
    [
        (["thing"], {}, "no evaluation dataset 'thing': did you mean 'things'"),
        (
            ["things"],
            {"path": ""},
            r"things needs its records: pass --config.datasets.things.dataset.path=FOLDER \(get it gets",
        ),
        (["things"], {"path": "nowhere"}, r"things: .*nowhere.*\(this gets the records: get it\)"),
        (["things"], {"tasks": ("captions",)}, "datasets.things.tasks"),
        (["things"], {"tasks": ("classification",)}, "datasets.things.dataset.label_field"),
        (["things"], {"tasks": ("video_retrieval",)}, "datasets.things.dataset.frames"),
        (["things"], {"likelihood_prompt": "a"}, "datasets.things.classification.likelihood_prompt"),
        (["things"], {"scores": ("blue",)}, "datasets.things.captioning.scores .*choose among bleu"),
        (["things"], {"format": "tfds"}, "datasets.things.dataset.evaluation_files .*the split train: name the split"),
        (["things"], {"class_subset": True, "examples": 3}, "class_subset asks for the classes that occur"),
        (["things"], {"path": "nowhere"}, "set --config.datasets.things.dataset.path to"),
        (["things"], {"text_fields": ("words",)}, r"none of the 6 .* can be read \(6 empty caption\)"),
    ],
)
def test_what_is_wrong_with_a_set_is_said_in_a_sentence(tmp_path, names, changes, message):
    asked = builders.evaluation_dataset(format="folder", path=photos(tmp_path / "photos"), download="get it")
    with pytest.raises(CocaError, match=message) as caught:
        opened_sets(evaluation(things=builders.with_keys(asked, **changes)), names, 16)
    assert "\n" not in str(caught.value)


def test_sets_of_a_training_config_follow_its_own(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(8)))
    values = config_lib.to_config_dict(builders.config(format="tars", path=str(tmp_path), name="greys"))
    values.evaluation.datasets = {
        "more": config_lib.evaluation_dataset(dataset={"format": "tars", "path": str(tmp_path)}).to_dict()
    }
    values.data.dataset.holdout = 0.5
    config = config_lib.from_config_dict(values.to_dict())
    own, more = evaluation_sets(config)
    assert (own.name, more.name) == ("greys", "more") and own.asked is None and len(own.images) < len(more.images) == 8
    values.evaluation.datasets.more.tasks = ("x",)
    with pytest.raises(CocaError, match="evaluation.datasets.more.tasks"):
        config_lib.from_config_dict(values.to_dict())


def test_classes_of_metadata_and_of_other_tars(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(4), kind="x"))
    builders.write_tar(tmp_path / "b.tar", builders.members(range(2, 9), kind="y"))
    asked = builders.evaluation_dataset(
        format="tars",
        path=str(tmp_path),
        evaluation_files=("b*",),
        tasks=("classification",),
        fields=("name", "kind"),
        candidate_files=("*",),
    )
    (held_out,) = opened_sets(evaluation(greys=asked), ["greys"], 16)
    by_name, by_kind = held_out.classifications
    assert by_name.labels == [f"shade {i}" for i in range(9)] and by_name.targets.tolist() == list(range(2, 9))
    assert (by_kind.name, by_kind.labels, by_kind.targets.tolist()) == ("kind", ["x", "y"], [1] * 7)


def test_a_group_gives_the_mean_of_its_sets():
    sets = [
        dataclasses.replace(
            digit_set(images), name=name, asked=builders.evaluation_dataset(group="both", tasks=("retrieval",))
        )
        for name, images in (("a", 60), ("b", 30))
    ]
    a, b, both = run.evaluate_sets(FakeCoca(sets[0], wrong_every=4), sets, gallery=0)
    assert both.name == "both" and both.metrics["both/sets"] == 2 and "both/images" not in both.metrics
    for key in ("image_to_text_r1", "text_to_image_r10"):
        assert both.metrics[f"both/{key}"] == pytest.approx((a.metrics[f"a/{key}"] + b.metrics[f"b/{key}"]) / 2)


def test_what_meteor_and_spice_need_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    asked = builders.evaluation_dataset(tasks=("captioning",), scores=("bleu", "meteor", "spice"))
    sets = [dataclasses.replace(digit_set(), name=name, asked=asked) for name in ("a", "b")]
    with caplog.at_level(logging.WARNING):
        first, second = run.evaluate_sets(FakeCoca(sets[0]), sets, gallery=0)
    assert caplog.text.count("METEOR needs a Java runtime") == caplog.text.count("SPICE needs a Java runtime") == 1
    assert len(first.notes) == len(second.notes) == 2 and first.metrics["a/caption_bleu_1"] == pytest.approx(1)
    assert "a/caption_meteor" not in first.metrics
    with pytest.raises(CocaError, match="no captioning metric 'blue'"):
        wrong = dataclasses.replace(sets[0], asked=builders.with_keys(asked, scores=("blue",)))
        run.evaluate_sets(FakeCoca(sets[0]), [wrong], gallery=0)


def test_a_model_that_cannot_do_what_is_asked_is_refused():
    held_out = dataclasses.replace(digit_set(), asked=EvaluationDatasetConfig(tasks=("captioning",)))
    with pytest.raises(CocaError, match="squares: the model was trained without its captioning loss"):
        run.evaluate_sets(FakeCoca(held_out, can_caption=False), [held_out], gallery=0)


def test_what_is_written_says_which_model_it_was(tmp_path):
    asked = builders.evaluation_dataset(
        format="folder", path=photos(tmp_path / "photos"), tasks=("captioning",), scores=()
    )
    coca, folder = tiny_coca.coca(), tmp_path / "out"
    folder.mkdir()
    results = run.evaluate_sets(coca, opened_sets(evaluation(things=asked), ["things"], 16), gallery=2)
    assert set(results[0].metrics) == {"things/images", "things/unreadable"}
    run.write_results(folder, coca, results, "A run", name="mine", checkpoint="runs/x")
    written = read_evaluation(folder / "evaluation_mine.json")
    assert written["checkpoint"] == "runs/x" and written["checkpoint_step"] == 7
    assert written["checkpoint_digest"] == coca.digest and written["things/images"] == 5
    assert set(read_results(folder / "captions_things_results.json")) == {7, 8, 10, 11, 12}
    page = (folder / "report_mine.html").read_text()
    assert coca.digest in page and "Records that could not be used: 1 not an image" in page
    run.write_results(folder, coca, results, "A run", checkpoint="runs/x")
    assert read_evaluation(folder / "evaluation.json") == written


def test_the_table_is_for_people():
    found = table(
        {
            "a/images": 1_200,
            "a/image_to_text_r1": 0.5,
            "a/image_to_text_mean_rank": 1_234.0,
            "a/caption_cider": 1.25,
            "a/zero_shot_x": float("nan"),
        },
        {"a/image_to_text_r1": 0.001},
    )
    assert [line.split() for line in found.splitlines()] == [
        ["set", "figure", "value", "chance"],
        ["a", "images", "1,200"],
        ["a", "image_to_text_r1", "50.00", "%", "0.10", "%"],
        ["a", "image_to_text_mean_rank", "1,234.0"],
        ["a", "caption_cider", "1.2500"],
        ["a", "zero_shot_x", "–"],
    ]


def test_the_imagenet_family_says_where_its_names_are_and_which_command_gets_it():
    values = evaluation_recipes.imagenet_family("names=files")
    values.datasets.objectnet.dataset.path = "images"
    config = config_lib.evaluation_from_config_dict(values)
    assert set(config.datasets) == {
        "imagenet",
        "imagenet_v2",
        "imagenet_a",
        "imagenet_r",
        "imagenet_sketch",
        "objectnet",
    }
    assert config.datasets["imagenet_r"].classification.class_subset
    assert not config.datasets["imagenet_v2"].classification.class_subset
    assert config.datasets["imagenet_a"].dataset.class_names == "files/en_classnames.json:imagenet1k"
    assert config.datasets["imagenet_a"].download == "tfds build imagenet_a"
    assert config.datasets["objectnet"].dataset.crop_border == 2 and not config.datasets["imagenet"].dataset.crop_border
    corrupted = config_lib.evaluation_from_config_dict(evaluation_recipes.imagenet_c(None)).datasets
    assert len(corrupted) == 75 and {one.group for one in corrupted.values()} == {"imagenet_c"}
    assert corrupted["imagenet_c_fog_3"].dataset.path == "imagenet2012_corrupted/fog_3"
    with pytest.raises(CocaError, match="names=FOLDER"):
        evaluation_recipes.imagenet_family("files")


def test_references_of_captions_are_all_and_ranked_ones_the_first_few(tmp_path):
    path = photos(tmp_path / "photos")
    asked = builders.evaluation_dataset(
        format="folder", path=path, captions_per_image=1, match="image", scores=("bleu",)
    )
    sets = opened_sets(evaluation(one=asked, all=builders.with_keys(asked, captions_per_image=0)), ["one", "all"], 16)
    one, every = run.evaluate_sets(tiny_coca.coca(), sets, gallery=0)
    assert one.metrics["one/texts"] == 5 and every.metrics["all/texts"] == 10
    assert sets[0].captions == sets[1].captions
    for key in ("caption_bleu_1", "caption_bleu_4", "caption_equivalent"):
        assert one.metrics[f"one/{key}"] == every.metrics[f"all/{key}"]


def test_java_s_trouble_costs_no_other_score(monkeypatch):
    def broken(captions):
        raise CocaError("METEOR's Java program failed")

    monkeypatch.setattr(captioning.scores.external, "check_available", lambda name: None)
    monkeypatch.setitem(captioning.scores._SCORERS, "meteor", broken)
    monkeypatch.setitem(captioning.scores._SCORERS, "spice", lambda captions: ({"spice": 0.5}, []))
    wanted = ("bleu", "meteor", "spice", "cider")
    found, missing = captioning.reference_scores(["a red thing"], [("a red thing",)], wanted)
    assert missing == ["METEOR's Java program failed"]
    assert found["caption_bleu_1"] == pytest.approx(1) and found["caption_spice"] == 0.5 and "caption_cider" in found


def test_what_scores_lack_is_said_once_and_first(monkeypatch, caplog):
    monkeypatch.setattr(captioning, "lacking", lambda wanted: ["METEOR needs Java"] if "meteor" in wanted else [])
    monkeypatch.setattr(captioning, "reference_scores", lambda *_: ({}, ["METEOR needs Java"]))
    coca = FakeCoca(digit_set())
    said, caption = [], coca.caption
    coca.caption = lambda *args, **kwargs: said.append(caplog.text) or caption(*args, **kwargs)
    asked = builders.evaluation_dataset(tasks=("captioning",), scores=("meteor",))
    run.evaluate_sets(coca, [dataclasses.replace(digit_set(), asked=asked)], gallery=0)
    assert "METEOR needs Java" in said[0] and caplog.text.count("METEOR needs Java") == 1


def three(**tasks) -> list:
    return [
        dataclasses.replace(digit_set(), name=name, asked=builders.evaluation_dataset(tasks=(task,), group="all"))
        for name, task in tasks.items()
    ]


def test_a_set_beyond_the_model_is_left_out_before_the_others_begin(caplog):
    sets = three(a="captioning", b="classification")
    (b, both) = run.evaluate_sets(FakeCoca(sets[0], can_caption=False), sets, gallery=0)
    assert b.metrics["b/zero_shot_digit"] == 1 and both.metrics["all/sets"] == 1
    assert "a is left out: the model was trained without its captioning loss" in caplog.text


def test_a_set_that_fails_costs_no_other_and_no_mean_passes_for_all(caplog, tmp_path):
    sets = three(a="classification", b="retrieval", c="retrieval")
    coca = FakeCoca(sets[0])
    sets[0] = dataclasses.replace(sets[0], images=Unreadable(len(sets[0].images)))
    failed, b, c = run.evaluate_sets(coca, sets, gallery=0)
    assert "none of the 60 held-out records of a can be read" in failed.failed and not failed.metrics
    assert b.metrics["b/image_to_text_r1"] == c.metrics["c/image_to_text_r1"] == 1
    assert "a is not evaluated: none" in caplog.text
    write_report(tmp_path / "report.html", title="x", results=[failed, b], history=[], info={})
    assert "Not evaluated: none of the 60" in (tmp_path / "report.html").read_text()
    with pytest.raises(CocaError, match="none of the 60"):
        run.evaluate_sets(coca, sets[:1], gallery=0)


def test_of_unopened_sets_one_is_open_at_a_time_and_one_that_cannot_be_opened_fails_alone(caplog, monkeypatch):
    checked, sets, alive = [], three(a="retrieval", b="retrieval", c="captioning", d="retrieval"), []
    monkeypatch.setattr(run.hosts, "check_same", lambda value, message: checked.append(message))

    def waiting(held_out, fails=False):
        def opened():
            assert not [one for one in alive if one() is not None]
            if fails:
                raise CocaError("no field 'x'")
            found = dataclasses.replace(held_out)
            alive.append(weakref.ref(found))
            return found

        return UnopenedSet(held_out.name, held_out.asked, opened)

    coca = FakeCoca(sets[0], can_caption=False)
    a, b, d = run.evaluate_sets(coca, [waiting(one, fails=one.name == "b") for one in sets], gallery=0)
    assert a.metrics["a/image_to_text_r1"] == d.metrics["d/image_to_text_r1"] == 1 and b.failed == "no field 'x'"
    assert "b is not evaluated: no field 'x'" in caplog.text and "c is left out" in caplog.text and len(alive) == 2
    assert len(checked) == 3 and "b cannot be opened on every host: no field 'x'" in checked[1]


def test_the_host_that_alone_cannot_open_a_set_says_why(caplog, monkeypatch):
    def differ(value, message):
        raise CocaError(message)

    def fail():
        raise CocaError("no disk")

    monkeypatch.setattr(run.hosts, "check_same", differ)
    monkeypatch.setattr(run.hosts, "is_first", lambda: False)
    (held_out,) = three(a="retrieval")
    sets = [UnopenedSet("a", held_out.asked, fail), held_out]
    results = run.evaluate_sets(FakeCoca(held_out), sets, gallery=0)
    assert results[0].failed == "a cannot be opened on every host: no disk" and results[0].failed in caplog.text


def test_an_evaluation_that_fails_ends_no_training(caplog):
    held_out = dataclasses.replace(digit_set(), images=Unreadable(60))
    evaluated = object.__new__(run.RunEvaluation)
    evaluated._gallery, evaluated._sets = 0, [held_out]
    coca = FakeCoca(digit_set())
    coca.step = 12
    assert evaluated(coca) == []
    assert "step 12 is not evaluated: none of the 60" in caplog.text


class Unreadable:
    """Pictures of which none can be read."""

    def __init__(self, count: int):
        self._black, self.unreadable = digit_set(count).images, {}
        self.shape, self.dtype = self._black.shape, self._black.dtype

    def __len__(self):
        return len(self._black)

    def __getitem__(self, rows):
        self.unreadable |= {int(row): "not an image" for row in np.atleast_1d(rows)}
        return self._black[rows]


@pytest.mark.parametrize(
    "changes, why",
    [
        ({5: {"image_id": 7}}, "7 is the number of several pictures"),
        ({5: {"image_id": "7b"}}, "'7b' is no whole number"),
        ({5: {"image_id": None}}, "1 records have no 'image_id'"),
    ],
)
def test_a_server_s_file_that_cannot_be_written_is_said_before_the_work(tmp_path, caplog, changes, why):
    path = photos(tmp_path / "photos")
    manifest = tmp_path / "photos" / "captions.jsonl"
    rows = [json.loads(row) for row in manifest.read_text().splitlines()]
    manifest.write_text("\n".join(json.dumps(row | changes.get(i, {})) for i, row in enumerate(rows)))
    asked = builders.evaluation_dataset(format="folder", path=path, tasks=("captioning",), scores=())
    with pytest.raises(CocaError, match=f"things: captions cannot be written for a server, for {why}"):
        opened_sets(evaluation(things=asked), ["things"], 16)
    scored = builders.with_keys(asked, scores=("bleu",))
    (held_out,) = opened_sets(evaluation(things=scored), ["things"], 16)
    assert not held_out.image_ids and why in caplog.text


def test_a_server_s_file_that_lacks_pictures_is_said(tmp_path, caplog):
    path = photos(tmp_path / "photos")
    asked = builders.evaluation_dataset(format="folder", path=path, tasks=("captioning",), scores=())
    results = run.evaluate_sets(tiny_coca.coca(), opened_sets(evaluation(things=asked), ["things"], 16), gallery=0)
    run.write_results(tmp_path, tiny_coca.coca(), results, "A run", name="mine", checkpoint="runs/x")
    assert "captions_things_results.json lacks 1 pictures" in caplog.text


def test_two_figures_never_have_one_key():
    values = config_lib.evaluation_config(
        one=config_lib.evaluation_dataset(group="two"), two=config_lib.evaluation_dataset()
    )
    with pytest.raises(CocaError, match="the group 'two' of the evaluation 'one' is a dataset's name"):
        config_lib.evaluation_from_config_dict(values)
    own = config_lib.default()
    own.data.name = "photos"
    own.evaluation.datasets = {"photos": config_lib.evaluation_dataset().to_dict()}
    with pytest.raises(CocaError, match="'photos', which is the name of the run's own data"):
        config_lib.from_config_dict(own.to_dict())


def test_classes_of_a_run_s_own_set_do_not_shrink_with_its_examples(tmp_path):
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
    (held_out,) = evaluation_sets(config)
    (task,) = held_out.classifications
    assert len(held_out.images) == 4 and sorted(task.labels) == sorted(f"grey {i}" for i in range(30))
    assert [task.labels[i] for i in task.targets] == ["grey 0", "grey 4", "grey 7", "grey 11"]


def test_hosts_that_see_other_records_are_told_apart(monkeypatch):
    seen = []
    monkeypatch.setattr(run.hosts, "check_same", lambda value, message: seen.append((value, message)))
    own = digit_set()
    (task,) = own.classifications
    others = [
        own,
        dataclasses.replace(own, captions=[*own.captions[:-1], ("a three, too",)]),
        digit_set(30),
        dataclasses.replace(own, classifications=(dataclasses.replace(task, targets=(task.targets + 1) % 10),)),
    ]
    for held_out in [*others, digit_set()]:
        run.check_same_sets([held_out])
    digests = [value for value, _ in seen]
    assert len(set(digests)) == 4 and digests[0] == digests[-1]
    assert "the hosts see different held-out records" in seen[0][1]


def test_sets_evaluated_one_after_the_other_stay_together_while_the_model_is_the_same(tmp_path):
    coca = tiny_coca.coca()
    results = {name: [EvaluationResult(name, {f"{name}/images": 3}, {})] for name in "abc"}
    run.write_results(tmp_path, coca, results["a"], "x", name="mine", checkpoint="runs/x")
    run.write_results(tmp_path, coca, results["b"], "x", name="mine", checkpoint="runs/x")
    written = read_evaluation(tmp_path / "evaluation_mine.json")
    assert written["a/images"] == written["b/images"] == 3 and written["checkpoint_digest"] == coca.digest
    write_evaluation(tmp_path / "evaluation_mine.json", {**written, "checkpoint_digest": "another"})
    run.write_results(tmp_path, coca, results["c"], "x", name="mine", checkpoint="runs/x")
    assert "a/images" not in read_evaluation(tmp_path / "evaluation_mine.json")


@pytest.mark.parametrize(
    "checkpoint, folder",
    [
        ("runs/x", "runs/x"),
        ("/runs/x/", "/runs/x/"),
        ("runs/x/checkpoints/600", "runs/x"),
        ("runs/x/checkpoints", "runs/x"),
        ("gs://b/x/checkpoints/600/", "gs://b/x"),
        ("checkpoints/600", "."),
        ("/checkpoints", "/"),
    ],
)
def test_results_lie_in_the_run_s_folder_whichever_checkpoint_is_named(checkpoint, folder):
    assert evaluate._run_folder(checkpoint) == folder


def test_the_command_fails_after_it_has_written_what_it_could(tmp_path, monkeypatch, capsys):
    coca = tiny_coca.coca()
    good = builders.evaluation_dataset(
        format="folder", path=photos(tmp_path / "photos"), tasks=("captioning",), scores=()
    )
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.png").write_bytes(b"<html>")
    (tmp_path / "bad/captions.jsonl").write_text(json.dumps({"file_name": "x.png", "caption": "a", "image_id": 1}))
    bad = builders.with_keys(good, path=str(tmp_path / "bad"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x/metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n{"step": 7, "loss": 1.0}\n')
    monkeypatch.setattr(checkpoint, "load_record", lambda path: types.SimpleNamespace(config=coca.config))
    monkeypatch.setattr(inference, "load", lambda *_, **__: coca)
    with pytest.raises(
        CocaError, match="bad could not be evaluated, the rest is written: none of the 1 .* can be read"
    ):
        evaluate.evaluate(
            f"{tmp_path}/x/checkpoints/7", str(tmp_path / "out"), config=evaluation(bad=bad, good=good), name="mine"
        )
    written = read_evaluation(tmp_path / "out/evaluation_mine.json")
    assert written["good/images"] == 5 and "good" in capsys.readouterr().out
    assert (written["checkpoint"], written["checkpoint_step"]) == (str(tmp_path / "x"), 7)
    assert "weighted sum ends at 1" in (tmp_path / "out/report_mine.html").read_text()  # the run's curve
