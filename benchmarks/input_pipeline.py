r"""Measures the input pipeline against a bare loop of the JPEG decoder, and WebDataset with PIL: images/s a core.

    python benchmarks/input_pipeline.py                   # 500x375 pixels, quality 95, at 224 and at 288 pixels a side
    python benchmarks/input_pipeline.py --memory=50000    # resident memory over so many records

The pictures are windows of the two photographs that scikit-learn brings along, in tars, a caption beside each. A
core's images/s are pictures by processor seconds of the whole process, all threads together. What is compared takes
turns, and the median of the rounds counts. Without webdataset its loop is replaced by a stream through tarfile;
torchvision's transforms are the same operations of PIL and numpy (its RandomResizedCrop is PIL's crop and resize, too).
"""

import io
import os
import pathlib
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np
import sklearn.datasets
from absl import app, flags
from PIL import Image

from coca_jax.config import (
    AugmentationConfig,
    Config,
    DataConfig,
    DatasetConfig,
    ImageEncoderConfig,
    ModelConfig,
    TextConfig,
    TrainConfig,
)
from coca_jax.data.images import decode as images
from coca_jax.data.images import fast_jpeg as fast_images
from coca_jax.data.pipeline.batches import Batch, Pipeline
from coca_jax.data.text.vocabulary import Vocabulary, train_vocabulary

_PICTURES = flags.DEFINE_integer("pictures", 240, "Pictures in the tars.", lower_bound=64)
_QUALITY = flags.DEFINE_integer("quality", 95, "Of the JPEGs; 95 is what img2dataset writes.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each contestant.", lower_bound=1)
_MEMORY = flags.DEFINE_integer("memory", 0, "Measure memory over so many records instead.")
_BATCH, _WIDTH, _HEIGHT, _LENGTH = 48, 500, 375, 64
_MEAN, _STD = np.float32([0.481, 0.458, 0.408]), np.float32([0.269, 0.261, 0.276])  # CLIP's


def write_tars(folder: pathlib.Path) -> tuple[list[bytes], list[str]]:
    """Three tars of pictures and captions; returns both."""
    source = pathlib.Path(sklearn.datasets.__file__).parent / "images"
    photographs = [Image.open(source / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]
    rng, jpegs, captions = np.random.default_rng(0), [], []
    words = [
        "temple",
        "flower",
        "roof",
        "red",
        "garden",
        "sky",
        "leaf",
        "petal",
        "stone",
        "tree",
        "old",
        "bright",
        "morning",
        "small",
        "near",
        "a",
        "the",
        "in",
    ]
    for i in range(_PICTURES.value):
        picture = photographs[i % 2]
        left, top = rng.integers(picture.width - _WIDTH), rng.integers(picture.height - _HEIGHT)
        file = io.BytesIO()
        picture.crop((left, top, left + _WIDTH, top + _HEIGHT)).save(file, "JPEG", quality=_QUALITY.value)
        jpegs.append(file.getvalue())
        captions.append(f"photograph {i} of " + " ".join(rng.choice(words, 10)))
    for number in range(3):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for i in range(number, _PICTURES.value, 3):
                for kind, data in (("jpg", jpegs[i]), ("txt", captions[i].encode())):
                    info = tarfile.TarInfo(f"{i:05d}.{kind}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return jpegs, captions


def pipeline(folder: pathlib.Path, size: int, vocabulary: Vocabulary) -> Pipeline:
    config = Config(
        model=ModelConfig(
            image=ImageEncoderConfig(size=size, patch=16), text=TextConfig(vocabulary_size=512, length=_LENGTH)
        ),
        data=DataConfig(
            dataset=DatasetConfig(format="tars", path=str(folder), holdout=1e-9),
            augmentation=AugmentationConfig(crop="random"),
        ),
        train=TrainConfig(batch_size=_BATCH),
    )
    return Pipeline(config, vocabulary)


def streamed(folder: pathlib.Path) -> Iterator[tuple[bytes, str]]:
    """The pairs of the tars, one after another, as webdataset or else tarfile reads them, without end."""
    urls = sorted(map(str, folder.glob("*.tar")))
    try:
        import webdataset
    except ImportError:
        while True:
            for url in urls:
                with tarfile.open(url, "r|") as tar:
                    sample = {}
                    for member in tar:
                        sample[member.name.partition(".")[2]] = tar.extractfile(member).read()
                        if len(sample) == 2:
                            yield sample["jpg"], sample["txt"].decode()
                            sample = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False).repeat().shuffle(100):
        yield sample["jpg"], sample["txt"].decode()


def torchvision_view(data: bytes, size: int, rng: np.random.Generator) -> np.ndarray:
    """RandomResizedCrop((0.9, 1), bicubic, antialiased), ToTensor and Normalize, as open_clip trains with them."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    area = picture.width * picture.height * rng.uniform(0.9, 1.0)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = min(picture.width, round((area * ratio) ** 0.5))
    height = min(picture.height, round((area / ratio) ** 0.5))
    left, top = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
    picture = picture.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)
    tensor = np.ascontiguousarray(np.array(picture).transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    return (tensor - _MEAN[:, None, None]) / _STD[:, None, None]


def webdataset_batches(folder: pathlib.Path, size: int, vocabulary: Vocabulary) -> Iterator[np.ndarray]:
    rng, pairs = np.random.default_rng(0), streamed(folder)
    while True:
        pictures, texts = [], []
        for _ in range(_BATCH):
            data, text = next(pairs)
            pictures.append(torchvision_view(data, size, rng))
            texts.append(vocabulary.encode([text], _LENGTH)[0])
        yield np.stack(pictures), np.stack(texts)


def bare(jpegs: list[bytes], decode: Callable[[bytes], object]) -> Iterator[None]:
    """The decoder alone, a batch at a time."""
    while True:
        for start in range(0, len(jpegs) - _BATCH + 1, _BATCH):
            for data in jpegs[start : start + _BATCH]:
                decode(data)
            yield


def measure(contestants: dict[str, Iterator], rounds: int) -> dict[str, float]:
    """Images by processor second of each, the median of some rounds of four batches."""
    rates = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, batches in contestants.items():
            started = time.process_time()
            for _ in range(4):
                next(batches)
            rates[name].append(4 * _BATCH / (time.process_time() - started))
    return {name: statistics.median(found[1:]) for name, found in rates.items()}  # the first round warms up


def compare(folder: pathlib.Path, jpegs: list[bytes], vocabulary: Vocabulary) -> None:
    """Prints a table."""
    decoders = {"Pillow, decoding alone": lambda data: Image.open(io.BytesIO(data)).load()}
    if fast_images.AVAILABLE:
        decoders["simplejpeg, decoding alone"] = lambda data: fast_images.decode_jpeg(data, images.MAX_PIXELS)
    for size in (224, 288):
        contestants = {name: bare(jpegs, decode) for name, decode in decoders.items()}
        contestants["coca_jax, the whole pipeline"] = pipeline(folder, size, vocabulary).iterate(prefetch=0)
        contestants["WebDataset + PIL + torchvision's operations"] = webdataset_batches(folder, size, vocabulary)
        rates = measure(contestants, _ROUNDS.value)
        ours = rates["coca_jax, the whole pipeline"]
        weight = np.mean([len(data) for data in jpegs]) / 1024
        print(f"{size}², {weight:.0f} KiB a picture, load {os.getloadavg()[0]:.1f}")
        for name, rate in rates.items():
            print(f"  {name:45s} {rate:7.0f} images/s a core   ours / this: {ours / rate:.2f}", flush=True)


def memory(batches: Generator[Batch, None, None], records: int) -> None:
    """Prints resident memory at ten points on the way."""
    every = max(1, records // _BATCH // 10)
    for number, _ in zip(range(1, records // _BATCH + 1), batches, strict=False):
        if number % every == 0:
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            print(f"{number * _BATCH:7,d} records: {pages * resource.getpagesize() / 2**20:.0f} MiB", flush=True)
    batches.close()


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        jpegs, captions = write_tars(folder)
        vocabulary = train_vocabulary(captions, 512)
        if _MEMORY.value:
            memory(pipeline(folder, 224, vocabulary).iterate(), _MEMORY.value)
        else:
            compare(folder, jpegs, vocabulary)


if __name__ == "__main__":
    app.run(main)
