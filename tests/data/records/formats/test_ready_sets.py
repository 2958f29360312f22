"""What the ready sets of TFDS are said to hold, against the code of their builders."""

import ast
import inspect
import textwrap

import pytest

from coca_jax.data.quiet_tensorflow import tf as tf  # before tensorflow_datasets, which imports tensorflow too
from coca_jax.data.records import fields
from coca_jax.presets import datasets, imagenet

tfds = pytest.importorskip("tensorflow_datasets")

READY = {name: values["dataset"] for name, values in datasets.DATASETS.items()}
READY = {name: values for name, values in READY.items() if values["format"] == "tfds" and "path" in values}
MEASURED = {
    name: values.dataset.to_dict()
    for name, values in imagenet.imagenet_family("names=.").datasets.items()
    if values.dataset.format == "tfds"
}
CORRUPTED = imagenet.imagenet_c("names=.").datasets
MEASURED["imagenet_c"] = CORRUPTED["imagenet_c_jpeg_compression_5"].dataset.to_dict()


def feature_names(features):
    """As a serialised example calls them."""
    inner = getattr(features, "feature", features)
    if not hasattr(inner, "keys"):
        return {""}
    return {f"{key}/{name}".rstrip("/") for key in inner for name in feature_names(inner[key])}


def split_names(builder):
    """What the first class that says so calls its splits: SplitGenerator("train"), f(split=Split.TEST), {"train": …}."""
    for one in type(builder).__mro__:
        if "_split_generators" not in vars(one):
            continue
        found = set()
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(one._split_generators)))):
            if isinstance(node, ast.Call):
                first = node.args[:1] if ast.unparse(node.func).endswith("SplitGenerator") else []
                found |= {ast.unparse(at) for at in first}
                found |= {ast.unparse(word.value) for word in node.keywords if word.arg in ("name", "split")}
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
                found |= {ast.unparse(key) for key in node.value.keys}
        if found:
            names = {name.partition("Split.")[2].lower() or name.strip("'") for name in found}
            return names | ({builder.builder_config.name} if "self.builder_config.name" in names else set())
    return set()


@pytest.mark.parametrize("values", [*READY.values(), *MEASURED.values()], ids=[*READY, *MEASURED])
def test_a_ready_set_of_tfds_names_what_its_builder_makes(values, tmp_path):
    builder = tfds.builder(values["path"], data_dir=tmp_path)
    row = dict.fromkeys(feature_names(builder.info.features), "something")
    assert any(field in row for field in fields.IMAGE_FIELDS)
    named = [*values.get("text_fields", ()), *(one.partition("=")[0] for one in values.get("exclude", ()))]
    assert not [name for name in (*named, values.get("label_field") or "image") if name not in row]
    assert values.get("label_field") or named or any(fields.lookup(row, name) for name in fields.TEXT_FIELDS)
    wanted = {*values.get("train_files", ()), *values.get("evaluation_files", ())} - {"*"}
    assert wanted <= split_names(builder)


def test_every_corruption_has_its_builder():
    configs = {config.name for config in tfds.builder_cls("imagenet2012_corrupted").BUILDER_CONFIGS}
    assert {values.dataset.path.partition("/")[2] for values in CORRUPTED.values()} <= configs and len(CORRUPTED) == 75


def test_what_tfds_does_not_have():
    """Where one of these comes in, presets/datasets.py and docs/data.md can say so."""
    there = tfds.list_builders(with_community_datasets=False)
    assert "coco_captions" in there and not {"flickr30k", "webli", "nocaps", "conceptual_captions"}.intersection(there)
    assert "image" not in feature_names(tfds.builder("wit", data_dir="/nowhere").info.features)
