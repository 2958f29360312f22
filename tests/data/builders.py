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
    ImageEncoderConfig,
    ModelConfig,
    TextConfig,
    TrainConfig,
)

SIZE = 16


def config(batch_size: int = 8, seed: int = 0, length: int = 32, examples: int = 50, **data) -> Config:
    return Config(
        model=ModelConfig(
            image=ImageEncoderConfig(size=SIZE, patch=8), text=TextConfig(vocabulary_size=512, length=length)
        ),
        data=DataConfig(**data),
        train=TrainConfig(batch_size=batch_size, seed=seed),
        evaluation=EvaluationConfig(examples=examples),
    )


def with_data(base: Config, **data) -> Config:
    return dataclasses.replace(base, data=dataclasses.replace(base.data, **data))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(number: int, kind: str = "PNG", side: int = 20) -> bytes:
    """A plain square whose grey tells its number."""
    return encoded(Image.new("RGB", (side, side), (number, number, number)), kind)


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


def shades(batch: dict[str, np.ndarray]) -> list[int]:
    """The numbers of the plain pictures of a batch, from their middles."""
    return batch["image"][:, SIZE // 2, SIZE // 2, 0].tolist()
