"""Evaluation of several datasets: what each gives, what fails alone, what is written of it."""

import dataclasses
import json
import logging
import shutil
import types
import weakref

import pytest

from coca_jax import config as config_lib
from coca_jax import evaluate as command
from coca_jax.errors import CocaError
from coca_jax.evaluation import runner
from coca_jax.evaluation.dataset import PendingDataset
from coca_jax.evaluation.metrics.captions import java_metrics
from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.results import write_results
from coca_jax.evaluation.runner import evaluate_datasets
from coca_jax.inference import loading
from coca_jax.pages.blocks import Gallery
from coca_jax.presets import imagenet as evaluation_recipes
from coca_jax.storage.files import as_path
from coca_jax.trainer import checkpoint
from tests.data import builders
from tests.evaluation import tiny_coca
from tests.evaluation.fakes import FakeCoca, Unreadable, blocks, digit_dataset, evaluate, gallery, opened, with_tasks
from tests.evaluation.test_open_dataset import evaluation, photos


@pytest.fixture(autouse=True)
def nothing_was_logged_before():
    runner._warn_once.cache_clear()


def scores_of(result) -> dict[str, float]:
    """The shares among the metrics."""
    counts = ("images", "texts", "distinct_captions", "distinct_meanings")
    return {
        key: value for key, value in result.metrics.items() if not key.endswith((*counts, "median_rank", "mean_rank"))
    }


def test_a_model_that_knows_everything_scores_one():
    dataset = digit_dataset()
    result = evaluate(FakeCoca(dataset), dataset, gallery=8)
    sizes = {"squares/images": 60, "squares/distinct_captions": 10, "squares/distinct_meanings": 10}
    assert sizes.items() <= result.metrics.items()
    scores = scores_of(result)
    assert set(scores) == {
        *(f"squares/{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
        *(f"squares/caption_{kind}" for kind in ("equivalent", "exact", "parsed")),
        "squares/zero_shot_digit",
        "squares/zero_shot_digit_mean_per_class",
    }
    assert set(scores.values()) == {1.0}
    assert result.baselines["squares/zero_shot_digit"] == pytest.approx(0.1)
    assert result.baselines["squares/caption_equivalent"] == pytest.approx(0.1)
    assert len(gallery(result, "Examples").cards) == 8
    assert "Mistakes" not in {block.title for block in blocks(result, Gallery)}
    for card in gallery(result, "Examples").cards:
        assert [(line.label, line.mark) for line in card.lines] == [
            ("generated", True),
            ("truth", None),
            ("retrieved", True),
        ]
    right, missing = (gallery(result, title) for title in ("“a three”", "“no such thing”"))
    assert right.detail == "6 of 6 matching images among the first 8"
    assert [bool(card.lines) for card in right.cards] == [True] * 6 + [False] * 2
    assert missing.detail == "no image of the dataset matches" and not any(card.lines for card in missing.cards)


def test_every_third_wrong_shows_in_each_number():
    dataset = digit_dataset()
    result = evaluate(FakeCoca(dataset, wrong_every=3), dataset, gallery=4)
    for key in ("caption_equivalent", "image_to_text_r1", "zero_shot_digit"):
        assert result.metrics[f"squares/{key}"] == pytest.approx(2 / 3)
    mistakes = gallery(result, "Mistakes").cards
    assert mistakes and not any(card.lines[0].mark for card in mistakes)
    for card in gallery(result, "Most confident mistakes").cards:
        predicted, true = card.lines
        assert predicted.text != true.text and predicted.mark is False


def test_many_classes_also_get_the_first_five():
    dataset = digit_dataset(images=50, classes=25)
    result = evaluate(FakeCoca(dataset), dataset)
    assert result.metrics["squares/zero_shot_digit_top5"] == 1.0
    assert result.baselines["squares/zero_shot_digit_top5"] == pytest.approx(0.2)


@pytest.mark.parametrize("can_embed, can_caption", [(True, False), (False, True)])
def test_a_task_that_a_model_cannot_do_is_left_out_with_a_note(can_embed, can_caption):
    dataset = digit_dataset()
    result = evaluate(FakeCoca(dataset, can_embed=can_embed, can_caption=can_caption), dataset)
    assert ("squares/image_to_text_r1" in result.metrics) == can_embed
    assert ("squares/zero_shot_digit" in result.metrics) == can_embed
    assert ("squares/caption_equivalent" in result.metrics) == can_caption
    labels = {line.label for card in gallery(result, "Examples").cards for line in card.lines}
    assert labels == {"truth", "retrieved" if can_embed else "generated"}
    branch = "captioning" if can_embed else "contrastive"
    assert all(f"needs the {branch} loss" in note for note in result.notes) and len(result.notes) == 1 + can_caption


def test_a_group_gives_the_mean_of_its_datasets():
    config = with_tasks("retrieval", group="both")
    datasets = [digit_dataset(images, name=name, config=config) for name, images in (("a", 60), ("b", 30))]
    a, b, both = evaluate_datasets(FakeCoca(datasets[0], wrong_every=4), datasets, gallery=0)
    assert both.name == "both" and both.metrics["both/datasets"] == 2 and "both/images" not in both.metrics
    for key in ("image_to_text_r1", "text_to_image_r10"):
        assert both.metrics[f"both/{key}"] == pytest.approx((a.metrics[f"a/{key}"] + b.metrics[f"b/{key}"]) / 2)


def test_what_meteor_and_spice_need_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    config = builders.evaluation_dataset(tasks=("captioning",), scores=("bleu", "meteor", "spice"))
    datasets = [digit_dataset(name=name, config=config) for name in ("a", "b")]
    with caplog.at_level(logging.WARNING):
        first, second = evaluate_datasets(FakeCoca(datasets[0]), datasets, gallery=0)
    assert caplog.text.count("METEOR needs a Java runtime") == caplog.text.count("SPICE needs a Java runtime") == 1
    assert len(first.notes) == len(second.notes) == 2 and first.metrics["a/caption_bleu_1"] == pytest.approx(1)
    assert "a/caption_meteor" not in first.metrics
    with pytest.raises(CocaError, match="no captioning metric 'blue'"):
        wrong = digit_dataset(config=builders.with_keys(config, scores=("blue",)))
        evaluate_datasets(FakeCoca(datasets[0]), [wrong], gallery=0)


def test_a_model_that_can_do_no_task_is_refused():
    dataset = digit_dataset(config=with_tasks("captioning"))
    with pytest.raises(CocaError, match="squares: captioning needs the captioning loss, which the model was trained"):
        evaluate_datasets(FakeCoca(dataset, can_caption=False), [dataset], gallery=0)


def test_what_is_written_says_which_model_it_was(tmp_path):
    config = builders.evaluation_dataset(
        format="folder", path=photos(tmp_path / "photos"), tasks=("captioning",), scores=()
    )
    coca, folder = tiny_coca.coca(), tmp_path / "out"
    folder.mkdir()
    results = evaluate_datasets(coca, opened(evaluation(things=config), ["things"]), gallery=2)
    assert set(results[0].metrics) == {"things/images", "things/unreadable"}
    write_results(folder, coca, results, "A run", name="mine", checkpoint="runs/x")
    written = json.loads((folder / "evaluation_mine.json").read_text())
    assert written["checkpoint"] == "runs/x" and written["checkpoint_step"] == 7
    assert written["checkpoint_digest"] == coca.digest and written["things/images"] == 5
    assert [row["image_id"] for row in json.loads((folder / "captions_things_results.json").read_text())] == [
        7,
        8,
        10,
        11,
        12,
    ]
    page = (folder / "report_mine.html").read_text()
    assert coca.digest in page and "Records that could not be used: 1 not an image" in page
    write_results(folder, coca, results, "A run", checkpoint="runs/x")
    assert json.loads((folder / "evaluation.json").read_text()) == written


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
    config = builders.evaluation_dataset(
        format="folder", path=path, captions_per_image=1, match="image", scores=("bleu",)
    )
    datasets = opened(evaluation(one=config, all=builders.with_keys(config, captions_per_image=0)), ["one", "all"])
    one, every = evaluate_datasets(tiny_coca.coca(), datasets, gallery=0)
    assert one.metrics["one/texts"] == 5 and every.metrics["all/texts"] == 10
    assert datasets[0].captions == datasets[1].captions
    for key in ("caption_bleu_1", "caption_bleu_4", "caption_exact"):
        assert one.metrics[f"one/{key}"] == every.metrics[f"all/{key}"]


def test_what_scores_lack_is_said_once_and_first(monkeypatch, caplog):
    def missing(name):
        raise CocaError("METEOR needs Java")

    monkeypatch.setattr(java_metrics, "check_available", missing)
    coca = FakeCoca(digit_dataset())
    logged, caption = [], coca.caption
    coca.caption = lambda *args, **kwargs: logged.append(caplog.text) or caption(*args, **kwargs)
    config = builders.evaluation_dataset(tasks=("captioning",), scores=("meteor",))
    evaluate_datasets(coca, [digit_dataset(config=config)], gallery=0)
    assert "METEOR needs Java" in logged[0] and caplog.text.count("METEOR needs Java") == 1


def three(**tasks) -> list:
    return [digit_dataset(name=name, config=with_tasks(task, group="all")) for name, task in tasks.items()]


def test_a_dataset_beyond_the_model_is_left_out_before_the_others_begin(caplog):
    datasets = three(a="captioning", b="classification")
    (b, both) = evaluate_datasets(FakeCoca(datasets[0], can_caption=False), datasets, gallery=0)
    assert b.metrics["b/zero_shot_digit"] == 1 and both.metrics["all/datasets"] == 1
    assert "a is left out: captioning needs the captioning loss, which the model was trained without" in caplog.text


def test_a_dataset_that_fails_costs_no_other_and_no_mean_passes_for_all(caplog, tmp_path):
    datasets = three(a="classification", b="retrieval", c="retrieval")
    coca = FakeCoca(datasets[0])
    datasets[0] = dataclasses.replace(datasets[0], images=Unreadable(60))
    failed, b, c = evaluate_datasets(coca, datasets, gallery=0)
    assert "none of the 60 held-out records of a can be read" in failed.failed and not failed.metrics
    assert b.metrics["b/image_to_text_r1"] == c.metrics["c/image_to_text_r1"] == 1
    assert "a is not evaluated: none" in caplog.text
    write_report(tmp_path / "report.html", title="x", results=[failed, b], history=[], facts={})
    assert "Not evaluated: none of the 60" in (tmp_path / "report.html").read_text()
    with pytest.raises(CocaError, match="none of the 60"):
        evaluate_datasets(coca, datasets[:1], gallery=0)


def test_of_pending_datasets_one_is_open_at_a_time_and_one_that_cannot_be_opened_fails_alone(caplog, monkeypatch):
    checked, datasets, alive = [], three(a="retrieval", b="retrieval", c="captioning", d="retrieval"), []
    monkeypatch.setattr(runner.hosts, "check_same", lambda value, message: checked.append(message))

    def waiting(dataset, fails=False):
        def opened():
            assert not [one for one in alive if one() is not None]
            if fails:
                raise CocaError("no field 'x'")
            found = dataclasses.replace(dataset)
            alive.append(weakref.ref(found))
            return found

        return PendingDataset(dataset.name, dataset.config, opened)

    coca = FakeCoca(datasets[0], can_caption=False)
    a, b, d = evaluate_datasets(coca, [waiting(one, fails=one.name == "b") for one in datasets], gallery=0)
    assert a.metrics["a/image_to_text_r1"] == d.metrics["d/image_to_text_r1"] == 1 and b.failed == "no field 'x'"
    assert "b is not evaluated: no field 'x'" in caplog.text and "c is left out" in caplog.text and len(alive) == 2
    assert len(checked) == 3 and "b cannot be opened on every host: no field 'x'" in checked[1]


def test_the_host_that_alone_cannot_open_a_dataset_says_why(caplog, monkeypatch):
    def differ(value, message):
        raise CocaError(message)

    def fail():
        raise CocaError("no disk")

    monkeypatch.setattr(runner.hosts, "check_same", differ)
    monkeypatch.setattr(runner.hosts, "is_first", lambda: False)
    (dataset,) = three(a="retrieval")
    datasets = [PendingDataset("a", dataset.config, fail), dataset]
    results = evaluate_datasets(FakeCoca(dataset), datasets, gallery=0)
    assert results[0].failed == "a cannot be opened on every host: no disk" and results[0].failed in caplog.text


def test_an_evaluation_that_fails_ends_no_training_and_leaves_the_last_good_one(caplog, monkeypatch):
    failing = dataclasses.replace(digit_dataset(), images=Unreadable(60))
    monkeypatch.setattr(runner, "run_datasets", lambda config, classes: [failing])
    evaluation = runner.RunEvaluation(config_lib.Config())
    coca = FakeCoca(digit_dataset())
    coca.step = 12
    assert evaluation(coca) is None  # and the run writes nothing
    assert "step 12 is not evaluated, evaluation.json stays as it is: none of the 60" in caplog.text


def test_a_server_s_file_that_lacks_pictures_is_said(tmp_path, caplog):
    path = photos(tmp_path / "photos")
    config = builders.evaluation_dataset(format="folder", path=path, tasks=("captioning",), scores=())
    results = evaluate_datasets(tiny_coca.coca(), opened(evaluation(things=config), ["things"]), gallery=0)
    write_results(tmp_path, tiny_coca.coca(), results, "A run", name="mine", checkpoint="runs/x")
    assert "captions_things_results.json lacks 1 records" in caplog.text


@pytest.mark.parametrize(
    "checkpoint, folder",
    [
        ("runs/x", "runs/x"),
        ("/runs/x/", "/runs/x"),
        ("runs/x/checkpoints/600", "runs/x"),
        ("runs/x/checkpoints", "runs/x"),
        ("gs://b/x/checkpoints/600/", "gs://b/x"),
        ("checkpoints/600", "."),
        ("/checkpoints", "/"),
    ],
)
def test_results_lie_in_the_run_s_folder_whichever_checkpoint_is_named(checkpoint, folder):
    assert command._run_folder(checkpoint) == as_path(folder)


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
    monkeypatch.setattr(checkpoint, "load_record", lambda path: types.SimpleNamespace(config=coca.config, classes=()))
    monkeypatch.setattr(loading, "load", lambda *_, **__: coca)
    with pytest.raises(
        CocaError, match=r"bad could not be evaluated, the rest is written: none of the 1 .* can be read"
    ):
        command.evaluate(
            f"{tmp_path}/x/checkpoints/7", str(tmp_path / "out"), config=evaluation(bad=bad, good=good), name="mine"
        )
    written = json.loads((tmp_path / "out/evaluation_mine.json").read_text())
    assert written["good/images"] == 5 and "good" in capsys.readouterr().out
    assert (written["checkpoint"], written["checkpoint_step"]) == (str(tmp_path / "x"), 7)
    assert "weighted sum ends at 1" in (tmp_path / "out/report_mine.html").read_text()  # the run's curve
