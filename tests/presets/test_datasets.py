"""Sets by name make configs; those of the shared data, and what is made of one of them, train three steps."""

import importlib.util
import io
import pathlib

import numpy as np
import pytest
import running

from coca_jax import config as config_lib
from coca_jax.config import DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.errors import CocaError
from coca_jax.presets import datasets
from tests.data import builders

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def get_config(file, argument=None):
    """As the command line reads it."""
    spec = importlib.util.spec_from_file_location("a_config", CONFIGS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_every_set_makes_a_config(name):
    for values in (get_config("small.py", name), get_config("coca_base.py", f"data={name}")):
        values.data.dataset.path = values.data.dataset.path or "somewhere"
        config = config_lib.from_config_dict(values)
        assert (
            config.data.dataset.format == datasets.DATASETS[name]["dataset"]["format"]
            and config.data.long_text == "truncate"
        )
        assert list(config.data.sources) == [name]


def test_an_unknown_set_is_refused_with_the_list():
    with pytest.raises(CocaError, match="no dataset 'coco': choose one of tars, folder, coco_captions"):
        get_config("small.py", "coco")
    with pytest.raises(CocaError, match="data=coco_captions"):
        get_config("coca_base.py", "data=coco")
    with pytest.raises(CocaError, match="no argument 'data=imagenet'"):  # its data are its own
        get_config("mixture.py", "data=imagenet")


def test_the_mixture_is_half_and_half():
    values = get_config("mixture.py")
    with pytest.raises(CocaError, match=r"--config.data.mixture.labels.dataset.path=FOLDER"):
        config_lib.from_config_dict(values)
    values.data.mixture.labels.dataset.path = values.data.mixture.web.dataset.path = "somewhere"
    config = config_lib.from_config_dict(values)
    assert {name: source.share for name, source in config.data.sources.items()} == {"labels": 0.5, "web": 0.5}
    assert (
        config.data.mixture["labels"].dataset.label_field == "folder"
        and config.data.mixture["web"].dataset.clean == "alt_text"
    )


# The dataset's name in presets/datasets.py, and its folder below the shared data.
SHARED = {
    "emoji": ("tars", "emoji"),
    "coco_photos": ("folder", "coco_photos"),
    "easy_vqa": ("easy_vqa", "easy_vqa/train/questions.json"),
    "asl_clips": ("named_clips", "asl_clips/asl_gestures"),
}


def _tfds_of(made, folder):
    import tensorflow_datasets as tfds

    from coca_jax.data.quiet_tensorflow import tf as tf  # before tensorflow_datasets, which imports tensorflow too

    names = sorted({one.captions[0] for one in made})
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(encoding_format="png"), "label": tfds.features.ClassLabel(names=names)}
    )
    rows = [(i, {"image": io.BytesIO(one.image), "label": one.captions[0]}) for i, one in enumerate(made)]
    builder = tfds.dataset_builders.AdhocBuilder(
        name="emoji", version="1.0.0", features=features, data_dir=folder, split_datasets={"train": rows}
    )
    builder.download_and_prepare()
    return builder.data_dir


def test_a_mixture_of_all_shared_sets_trains_by_the_command(shared_data, tmp_path):
    """And what is made of one of them: three steps, quotas and losses of every source in each log line."""
    sources = {}
    for name, (kind, folder) in SHARED.items():
        sources[name] = datasets.data(kind)
        sources[name]["dataset"]["path"] = str(shared_data / "data" / folder)
    config = DatasetConfig(format="tars", path=str(shared_data / "data/emoji"), train_files=("noto-*",))
    made = records.open_records(config, "train").read(range(40))
    payloads = [builders.example(image=one.image, caption=list(one.captions)) for one in made]
    (tmp_path / "records").mkdir()
    builders.write_tfrecord(tmp_path / "records" / "emoji.tfrecord", payloads)
    sources["tfrecords"] = {"dataset": {"format": "tfrecords", "path": str(tmp_path / "records")}}
    sources["tfds"] = datasets.data("tfds_labels")
    sources["tfds"]["dataset"].update(path=str(_tfds_of(made, tmp_path)), prompts=("a drawing of {}", "{}"))
    (tmp_path / "config.py").write_text(f"""
from coca_jax import config as config_lib

def get_config():
    config = config_lib.default()
    config.model.image.update(size=16, patch=8)
    config.model.text.update(vocabulary_size=600, length=96)
    config.optimizer.name = "adamw"
    config.data.long_text = "truncate"
    config.data.mixture = {{name: config_lib.source(**changes) for name, changes in {sources!r}.items()}}
    config.train.steps = 3
    return config
""")
    flags = ("--config.train.batch_size=24", "--config.evaluation.examples=4", "--config.evaluation.gallery=2")
    status, _, err = running.call(
        running.train_command(tmp_path / "run", *flags, config=str(tmp_path / "config.py")),
    )
    assert status == 0, err
    rows = running.rows(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for name in sources:
        assert all(np.isfinite(row[f"captioning_loss/{name}"]) and row[f"data/{name}/pairs"] == 4 for row in rows)
        assert rows[2][f"data/{name}/epoch"] == pytest.approx(3 * rows[0][f"data/{name}/epoch"])
