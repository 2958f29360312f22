"""The commands as a person meets them: one sentence for each mistake, nothing lost, and a whole run of each kind."""

import io
import json
import shutil

import browser
import numpy as np
import pytest
import running
from PIL import Image

import coca_jax
from coca_jax import config as config_lib
from coca_jax import evaluate
from coca_jax.data.digit_scenes import scenes as digit_scenes
from coca_jax.errors import CocaError
from coca_jax.trainer.checkpoint import RunRecord

RESULTS = (
    "image_to_text_r1",
    "text_to_image_r1",
    "caption_equivalent",
    "zero_shot_digit",
    "zero_shot_color",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the quickstart's kind, trained for two steps."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    status, _, err = running.call(
        running.train_command(folder, "--config.train.steps=2", "--config.train.tensorboard=True")
    )
    assert status == 0, err
    assert all(line[:2].isdigit() for line in err.splitlines()), err  # our own lines, and nobody else's
    return folder


def sentence(arguments: list[str]) -> str:
    """The one sentence that a failing command prints: no traceback, exit status 2."""
    status, _out, err = running.call(arguments)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and "Traceback" not in err, err
    return errors[0]


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--config.train.stepps=3", ("stepps", "steps")),
        ("--config.train.steps=many", ("--config.train.steps=many",)),
        ("--config.model.image.kind=resnet", ("model.image.kind", "'resnet'", "vit")),
        ("--config.model.image.patch=7", ("model.image.patch = 7", "model.image.size = 40")),
        ("--config.model.heads=5", ("model.heads = 5", "model.width = 32")),
        ("--config.data.dataset.format=folder", ("--config.data.dataset.path",)),
        ("--wrokdir=x", ("wrokdir",)),
        ("stray", ("'stray'",)),
    ],
)
def test_mistyped_flags(flag, words, tmp_path):
    message = sentence(running.train_command(tmp_path / "run", flag))
    assert all(word in message for word in words), message
    assert not (tmp_path / "run").exists()


def test_missing_config_file_and_workdir(tmp_path):
    assert "configs/none.py" in sentence(running.train_command(tmp_path, config="configs/none.py"))
    assert "configs/none.py" in sentence(running.command("train", "--config=configs/none.py", f"--workdir={tmp_path}"))
    assert "--workdir" in sentence(running.command("train", "--config=configs/quickstart.py"))


def test_batch_that_does_not_divide_over_the_mesh(tmp_path):
    message = sentence(running.train_command(tmp_path, "--config.train.mesh.fsdp=3"))
    assert "train.mesh" in message and "1" in message


def test_folder_without_captions(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 32)).save(photos / "a.png")
    message = sentence(
        running.train_command(
            tmp_path / "run", "--config.data.dataset.format=folder", f"--config.data.dataset.path={photos}"
        )
    )
    assert str(photos) in message and "captions" in message


def test_something_else_than_a_checkpoint(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "notes.txt"):
        for command in ("evaluate", "caption"):
            message = sentence(running.command(command, f"--checkpoint={path}", *["x.png"] * (command == "caption")))
            assert str(path) in message


def photo_folder(path, *, pictures: int):
    """Digit scenes as files with a sidecar text each, one of them no picture at all."""
    path.mkdir()
    for index in range(pictures):
        scene = digit_scenes.scene(index)
        Image.fromarray(scene.image).save(path / f"{index:03}.png")
        (path / f"{index:03}.txt").write_text(scene.caption)
    (path / "broken.jpg").write_bytes(b"<html>not found</html>")
    (path / "broken.txt").write_text("a small red three above a large blue seven")
    return path


def folder_run(tmp_path, *flags):
    photos = photo_folder(tmp_path / "photos", pictures=40)
    return running.train_command(
        tmp_path / "run",
        "--config.data.dataset.format=folder",
        f"--config.data.dataset.path={photos}",
        "--config.train.steps=12",
        *flags,
    )


def test_a_long_text_stops_a_run_which_loses_nothing_and_a_corrupt_picture_is_skipped_counted_and_named(tmp_path):
    arguments = folder_run(tmp_path, "--config.data.max_bad_ratio=0.5")
    (tmp_path / "photos" / "long.txt").write_text("a small red three above a large blue seven " * 30)
    Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "long.png")
    message = sentence(arguments)
    assert "a small red three" in message and "data.long_text" in message
    trained = [row["step"] for row in running.rows(tmp_path / "run")]
    kept = [int(folder.name) for folder in (tmp_path / "run" / "checkpoints").iterdir()]
    assert kept == trained[-1:]
    status, _, err = running.call([*arguments, "--config.data.long_text=truncate"])
    assert status == 0, err
    assert [row["step"] for row in running.rows(tmp_path / "run")] == list(range(1, 13))
    assert "broken.jpg" in err and "skipped 1 record of folder: not an image" in err, err
    assert "folder/image_to_text_r1" in json.loads((tmp_path / "run" / "evaluation.json").read_text())


def test_without_a_holdout_all_images_train_and_the_log_says_that_none_is_evaluated(tmp_path):
    photo_folder(tmp_path / "photos", pictures=12)
    flags = ("format=folder", "path=~/photos", "holdout=0")
    arguments = running.train_command(
        "~/run",
        *(f"--config.data.dataset.{flag}" for flag in flags),
        "--config.data.max_bad_ratio=0.5",
        "--config.train.steps=2",
    )
    status, _, err = running.finish(running.start(arguments, HOME=tmp_path))
    assert status == 0 and "folder is not evaluated: all of its records train" in err, err
    assert [row["step"] for row in running.rows(tmp_path / "run")] == [1, 2]  # ~ is the home folder
    assert not (running.REPOSITORY / "~").exists()
    results = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert not [key for key in results if key.startswith("folder/")] and results["checkpoint_step"] == 2
    message = sentence(running.command("evaluate", f"--checkpoint={tmp_path / 'run'}"))
    assert "none is held out" in message and "--config=configs/eval/" in message


def test_one_place_for_the_data_of_a_mixture_is_refused():
    config = config_lib.Config(data=config_lib.DataConfig(mixture={"scenes": config_lib.SourceConfig()}))
    with pytest.raises(CocaError, match=r"mixture, of which --data_path moves nothing"):
        evaluate._own_datasets(RunRecord(config, b"", ""), "somewhere", ())


def test_another_model_in_the_same_folder_is_refused(run):
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    message = sentence(running.train_command(run, "--config.train.steps=4", "--config.model.text.mlp=64"))
    assert "model.text" in message and "--workdir" in message
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before


def test_the_run_folder(run):
    (last,) = [row for row in running.rows(run) if row["step"] == 2]
    for key in ("loss", "contrastive_loss", "captioning_loss", "pairs_per_second", "data_wait", "learning_rate"):
        assert isinstance(last[key], float)
    results = json.loads((run / "evaluation.json").read_text())
    assert all(0 <= results[f"digit_scenes/{key}"] <= 1 for key in RESULTS)
    assert (results["checkpoint"], results["checkpoint_step"]) == (str(run), 2)
    assert len(results["checkpoint_digest"]) == 16 and results["checkpoint_digest"] in (run / "report.html").read_text()
    assert "image_encoder/positions" in (run / "model_info.txt").read_text()
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.browser
def test_the_report_of_a_run_opens_in_a_browser(run, tmp_path):
    page = browser.open_page(run / "report.html", tmp_path)
    assert page.errors == "[]" and not page.console and page.missing_images == 0 and page.images > 20


def test_evaluate_gives_training_s_own_figures(run, tmp_path):
    status, _, err = running.call(running.command("evaluate", f"--checkpoint={run}", f"--output={tmp_path}"))
    assert status == 0, err
    assert json.loads((tmp_path / "evaluation.json").read_text()) == json.loads((run / "evaluation.json").read_text())
    assert (tmp_path / "report.html").stat().st_size > 10_000


def sets_of(photos):
    """configs/eval/coco.py on a folder of photos instead."""
    changes = {
        "dataset.format": "folder",
        "dataset.path": photos,
        "dataset.evaluation_files": "('*',)",
        "dataset.text_fields": "()",
        "retrieval.captions_per_image": "1",
    }
    return [
        "--config=configs/eval/coco.py",
        *(f"--config.datasets.coco.{key}={value}" for key, value in changes.items()),
    ]


def test_any_set_by_name_on_one_process_and_on_two(run, tmp_path):
    photos = photo_folder(tmp_path / "photos", pictures=21)
    arguments = [*running.command("evaluate", f"--checkpoint={run}"), *sets_of(photos), "--config.batch_size=8"]
    status, out, err = running.call([*arguments, f"--output={tmp_path / 'one'}", "--datasets=coco"])
    assert status == 0, err
    assert "broken.jpg left out: not an image" in err and "records left out: 1 not an image" in err, err
    results = json.loads((tmp_path / "one" / "evaluation_coco.json").read_text())
    assert results["coco/images"] == 21 and results["coco/unreadable"] == 1 and "coco/caption_cider" in results
    assert results["checkpoint"] == str(run) and results["checkpoint_step"] == 2
    assert len(results["checkpoint_digest"]) == 16
    rows = {tuple(line.split()[:2]) for line in out.splitlines()}
    assert {("coco", "image_to_text_r1"), ("coco", "caption_bleu_4")} <= rows, out
    assert list((tmp_path / "one" / "tensorboard").iterdir()) and (tmp_path / "one" / "report_coco.html").exists()
    assert not (tmp_path / "one" / "evaluation.json").exists()
    # 22 records in batches of 8: the last one is padded, and its broken picture is another process' than the first.
    ends = [running.finish(one) for one in running.start_several(2, [*arguments, f"--output={tmp_path / 'two'}"])]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert "broken.jpg" not in ends[0][2] and "records left out: 1 not an image" in ends[0][2], ends
    assert "coco" not in ends[1][1]  # the first process speaks
    assert json.loads((tmp_path / "two" / "evaluation_coco.json").read_text()) == results
    assert "could not be used: 1 not an image" in (tmp_path / "two" / "report_coco.html").read_text()


def test_a_set_that_is_not_there(run):
    config = "--config=configs/eval/coco.py"
    message = sentence(running.command("evaluate", f"--checkpoint={run}", config, "--datasets=cocoa"))
    assert "'cocoa'" in message and "did you mean 'coco'" in message


def test_two_processes_train_and_evaluate_as_one(run, tmp_path):
    flags = ("--config.train.steps=2", "--config.train.tensorboard=True", "--config.train.mesh.fsdp=2")
    processes = running.start_several(2, running.train_command(tmp_path / "tiny", *flags))
    ends = [running.finish(process) for process in processes]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert "trained one of" in ends[0][2] and not ends[1][2], ends
    for row, expected in zip(running.rows(tmp_path / "tiny"), running.rows(run), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == sorted(path.name for path in run.iterdir())
    several, alone = (running.evaluation(folder) for folder in (tmp_path / "tiny", run))
    del several["checkpoint_digest"], alone["checkpoint_digest"]  # the parameters differ in their last digits
    assert several == alone


def test_caption_and_a_checkpoint_copied_elsewhere(run, tmp_path):
    scene = digit_scenes.scene(0, "evaluation")
    picture, broken = tmp_path / "picture.png", tmp_path / "broken.png"
    Image.fromarray(scene.image).save(picture)
    broken.write_bytes(b"no picture")
    status, out, err = running.call(running.command("caption", f"--checkpoint={run}", picture, broken))
    assert status == 2 and str(broken) in err
    assert out.startswith(f"{picture}\t") and out.count("\n") == 1
    copy = tmp_path / "copy"
    shutil.copytree(run / "checkpoints", copy)
    coca = coca_jax.load(copy)
    assert coca.caption([picture]) == [out.rstrip("\n").split("\t")[1]]
    assert coca.step == 2
    png = io.BytesIO()
    Image.fromarray(scene.image).save(png, "PNG")
    embeddings = [coca.embed_images(images) for images in ([scene.image], scene.image[None], [Image.open(png)])]
    np.testing.assert_array_equal(embeddings[0], embeddings[1])
    np.testing.assert_array_equal(embeddings[0], embeddings[2])


def test_search_a_folder(run, tmp_path):
    photos, page = photo_folder(tmp_path / "photos", pictures=5), tmp_path / "page.html"
    queries = ["a red three", "<blue>"]
    arguments = [f"--checkpoint={run}", f"--images={photos}", "-k", 3]
    status, out, err = running.call(running.command("search", *arguments, f"--page={page}", *queries))
    assert status == 0 and "5 images in the index: 5 new" in err, err
    assert "left out 1 of 6 images" in err and "broken.jpg" in err, err
    coca = coca_jax.load(run)
    index, lines = coca.load_index(photos / ".coca_index"), out.splitlines()
    assert [lines[0], lines[4]] == queries and len(lines) == 8
    for query, rows in zip(
        queries, (lines[1:4], lines[5:]), strict=True
    ):  # another optimisation level: the same but for rounding
        scores = {str(photos / hit.name): hit.score for hit in index.search(query, 5)}
        printed = [(float(score), path) for score, path in (row.split("\t") for row in rows)]
        assert [score for score, _ in printed] == pytest.approx(sorted(scores.values(), reverse=True)[:3], abs=1e-3)
        assert all(score == pytest.approx(scores[path], abs=1e-3) for score, path in printed)
    assert page.read_text().count("<img") == 6 and "<blue>" not in page.read_text()
    picture = photos / "003.png"
    arguments = [f"--checkpoint={run}", f"--index={photos / '.coca_index'}", f"--image={picture}"]
    status, out, err = running.call(running.command("search", *arguments))
    assert status == 0 and out.splitlines()[:2] == [str(picture), f"1.0000\t{picture}"] and not err, err
