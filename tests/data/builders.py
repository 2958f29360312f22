"""What the data tests build: configs, pictures, tars, folders."""

import dataclasses
import io
import json
import pathlib
import tarfile

import numpy as np
from PIL import Image

from coca_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    EvaluationDatasetConfig,
    ImageEncoderConfig,
    ModelConfig,
    SourceConfig,
    TextConfig,
    TrainConfig,
)
from coca_jax.data.records.record import BadRecord

SIZE = 16


def config(batch_size: int = 8, seed: int = 0, length: int = 32, examples: int = 50, **data) -> Config:
    return Config(
        model=ModelConfig(
            image=ImageEncoderConfig(size=SIZE, patch=8), text=TextConfig(vocabulary_size=512, length=length)
        ),
        data=with_keys(DataConfig(), **data),
        train=TrainConfig(batch_size=batch_size, seed=seed),
        evaluation=EvaluationConfig(examples=examples),
    )


def with_keys(base, **keys):
    """A config dataclass with keys changed, whichever of the dataclasses in it has them."""
    own = {field.name for field in dataclasses.fields(base)}
    changes = {key: value for key, value in keys.items() if key in own}
    for name in own:
        nested = getattr(base, name)
        if dataclasses.is_dataclass(nested):
            inner = {field.name for field in dataclasses.fields(nested)}
            taken = {key: value for key, value in keys.items() if key in inner and key not in own}
            changes |= {name: dataclasses.replace(changes.get(name, nested), **taken)} if taken else {}
            keys = {key: value for key, value in keys.items() if key not in taken}
    unknown = keys.keys() - own
    assert not unknown, f"no dataclass of {type(base).__name__} has {unknown}"
    return dataclasses.replace(base, **changes)


def source(**keys) -> SourceConfig:
    return with_keys(SourceConfig(), **keys)


def evaluation_dataset(**keys) -> EvaluationDatasetConfig:
    return with_keys(EvaluationDatasetConfig(), **keys)


def with_data(base: Config, **data) -> Config:
    return dataclasses.replace(base, data=with_keys(base.data, **data))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(number: int, kind: str = "PNG", side: int = 20) -> bytes:
    """A plain square whose grey tells its number."""
    return encoded(Image.new("RGB", (side, side), (number, number, number)), kind)


def npy(array: np.ndarray) -> bytes:
    """The .npy file of an array, pickled where it is one of objects."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def write_tar(path: pathlib.Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def members(numbers, **metadata) -> list[tuple[str, bytes]]:
    """Clean records: picture, caption and metadata of each number."""
    result = []
    for i in numbers:
        row = {"name": f"shade {i}", "number": i, **metadata}
        result += [
            (f"k{i:03d}.png", picture(i)),
            (f"k{i:03d}.txt", f"shade {i}".encode()),
            (f"k{i:03d}.json", json.dumps(row).encode()),
        ]
    return result


def write_folder(path: pathlib.Path, numbers) -> None:
    """A folder with a sidecar text beside each picture."""
    path.mkdir(exist_ok=True)
    for i in numbers:
        (path / f"p{i:03d}.jpg").write_bytes(picture(i, "JPEG"))
        (path / f"p{i:03d}.txt").write_text(f"shade {i}")


def record(store, index: int):
    """One record of a store; raises BadRecord if it is unusable."""
    return _usable(store.read([index])[0])


def text(store, index: int):
    """One record of a store without its image; raises BadRecord if it is unusable."""
    return _usable(store.read_texts([index])[0])


def _usable(one):
    if isinstance(one, BadRecord):
        raise one
    return one


def shades(batch: dict[str, np.ndarray]) -> list[int]:
    """The numbers of the plain pictures of a batch, from their middles."""
    return batch["image"][:, SIZE // 2, SIZE // 2, 0].tolist()


def example(**features) -> bytes:
    """A serialised tf.train.Example of bytes, text, ints, floats, or lists of them."""
    from coca_jax.data.quiet_tensorflow import tf

    built = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = built.features.feature[name]
        if all(isinstance(one, int) for one in values):
            feature.int64_list.value.extend(values)
        elif all(isinstance(one, float) for one in values):
            feature.float_list.value.extend(values)
        else:
            feature.bytes_list.value.extend(one.encode() if isinstance(one, str) else one for one in values)
    return built.SerializeToString()


def examples(numbers) -> list[bytes]:
    """Clean records as examples: picture, caption, number."""
    return [example(image=picture(i), caption=f"shade {i}", number=i) for i in numbers]


def write_tfrecord(path: pathlib.Path, payloads: list[bytes]) -> None:
    from coca_jax.data.quiet_tensorflow import tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)


def write_array_record(path: pathlib.Path, payloads: list[bytes]) -> None:
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for payload in payloads:
        writer.write(payload)
    writer.close()


def write_tfds(folder: pathlib.Path, file_format: str, **splits) -> pathlib.Path:
    """A prepared TFDS set "shades" of pictures, two captions each and a class; returns its version's folder."""
    import tensorflow_datasets as tfds

    from coca_jax.data.quiet_tensorflow import tf  # before tensorflow_datasets, which imports tensorflow too

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="png"),
            "captions": tfds.features.Sequence({"text": tfds.features.Text(), "id": tfds.features.Scalar(tf.int64)}),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
        }
    )

    def row(i: int) -> dict:
        texts = [{"text": f"shade {i}", "id": i}, {"text": f"grey {i}", "id": -i}]
        return {"image": np.full((20, 20, 3), i, np.uint8), "captions": texts, "label": int(i > 127)}

    builder = tfds.dataset_builders.AdhocBuilder(
        name="shades",
        version="1.0.0",
        features=features,
        data_dir=folder,
        file_format=file_format,
        split_datasets={split: [(i, row(i)) for i in numbers] for split, numbers in splits.items()},
    )
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)
