"""Random and mutated bytes into every decoder: a picture, a text or a BadRecord comes out, in bounded memory."""

import contextlib
import io
import itertools
import json
import random
import struct
import subprocess
import sys
import tarfile
import time
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from coca_jax.config import AugmentationConfig, DatasetConfig
from coca_jax.data.images import augment as views
from coca_jax.data.images import decode as images
from coca_jax.data.images import video
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord
from coca_jax.data.text import captions as texts
from coca_jax.errors import CocaError
from tests.data.builders import encoded, members, write_tar
from tests.data.builders import text as text_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning", "ignore::Warning")

# The deadline catches what is slow by a mistake; the machine may be slow by itself.
fuzzed = settings(
    max_examples=60, deadline=20_000, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
said = st.text(max_size=5) | st.sampled_from(("a \ud83d b", "\udfff"))  # halves of surrogate pairs, too
values = st.recursive(st.none() | st.integers() | said, st.lists, max_leaves=4)  # of JSON
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 255), st.sampled_from(("set", "cut", "insert", "repeat"))),
    min_size=1,
    max_size=6,
)


def mutated(data: bytes, changes) -> bytes:
    """The data after some changes: (where, what, how)."""
    for where, value, how in changes:
        place = int(where * where * len(data))  # headers are near the start
        if how == "set":
            data = data[:place] + bytes([value]) + data[place + 1 :]
        elif how == "insert":
            data = data[:place] + bytes([value]) * (value % 9) + data[place:]
        elif how == "repeat":
            data = data[:place] + data[place : place + value] * 2 + data[place + value :]
        elif value > 128:
            data = data[:place]
        else:
            data = data[:place] + data[place + value :]
    return data


def noise(mode="RGB"):
    image = Image.effect_noise((48, 32), 60).convert("RGB")
    return image.quantize(32) if mode == "P" else image.convert(mode)


def seeds() -> dict[str, bytes]:
    """A small file of each kind."""
    random.seed(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = {
        "png": encoded(noise("P"), transparency=1),
        "png16": encoded(Image.fromarray(np.full((9, 9), 999, np.uint16))),
        "jpeg": encoded(noise(), "JPEG", exif=exif.tobytes()),
        "cmyk": encoded(noise("CMYK"), "JPEG"),
        "progressive": encoded(noise(), "JPEG", progressive=True),
        "webp": encoded(noise("RGBA"), "WEBP"),
        "bmp": encoded(noise(), "BMP"),
        "tiff": encoded(noise(), "TIFF", compression="tiff_lzw"),
        "gif": encoded(noise("P"), "GIF", save_all=True, append_images=[noise("P")] * 2),
    }
    if video.av is not None:
        from tests.data.images.test_video import clip

        found |= {"mkv": clip(length=6), "mp4": clip("mp4", length=6), "avi": clip("avi", length=6)}
    return found


SEEDS = seeds()
AUGMENTATION = AugmentationConfig(crop="random", mirror=True)
STILL, MOVING = DatasetConfig(), DatasetConfig(frames=3)


def must_end_well(data: bytes, dataset: DatasetConfig) -> None:
    """A view of the model's size, or BadRecord."""
    try:
        view = views.view(data, 16, dataset, np.random.default_rng(0), AUGMENTATION)
    except BadRecord as error:
        assert error.cause in (
            "not an image",
            "damaged image",
            "too many pixels",
            "damaged clip",
            "clip too long",
            "file without video",
        )
    else:
        assert view.shape[-3:] == (16, 16, 3) and view.dtype == np.uint8


@pytest.mark.parametrize("kind", SEEDS)
@fuzzed
@given(changes=edits)
def test_mutated_files(kind, changes):
    data = mutated(SEEDS[kind], changes)
    must_end_well(data, STILL)
    if video.av is not None and kind in ("gif", "mkv", "mp4", "avi"):
        must_end_well(data, MOVING)


def test_pillows_errors_of_every_type_are_caught():
    must_end_well(mutated(SEEDS["png16"], [(0.743, 11, "repeat")]), STILL)  # a SyntaxError, while decoding
    must_end_well(mutated(SEEDS["png16"], [(0.39, 10, "set"), (0.12, 81, "insert")]), STILL)  # a ValueError, opening


@fuzzed
@given(start=st.sampled_from([b"", *(seed[:16] for seed in SEEDS.values())]), rest=st.binary(max_size=300))
def test_random_bytes(start, rest):
    if video.av is None and video.is_clip(start + rest):
        return
    must_end_well(start + rest, STILL)
    with pytest.raises(BadRecord):
        images.decode(b"<html>" + rest)


@fuzzed
@given(
    text=st.text(max_size=80) | st.binary(max_size=80).map(lambda data: data.decode("utf-8", "replace")),
    kind=st.sampled_from(("spaces", "alt_text")),
)
def test_texts(text, kind):
    said = texts.clean(text, kind)
    assert said == said.strip() and "\n" not in said and len(said) <= 4 * len(text) + 1


@pytest.mark.parametrize(
    "text",
    [
        "<a " * 40_000,
        "a@" * 40_000,
        "&amp;" * 30_000,
        "www." * 30_000,
        "x.y@" + "a." * 40_000,
        "- |," * 30_000,
        "((" * 40_000 + ".jpg",
    ],
)
def test_no_text_takes_the_cleaning_long(text):
    begun = time.process_time()
    texts.clean(text, "alt_text")
    assert time.process_time() - begun < 10


def tar_bytes(format_: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as tar:
        for name, data in members(range(24)):
            info = tarfile.TarInfo(("folder/" * 20 if format_ == tarfile.PAX_FORMAT else "") + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An endless supply of new folders, as an index is kept for a file of a name, size and time."""
    parent = tmp_path_factory.mktemp("tars")
    return (parent / str(number) for number in itertools.count())


@pytest.fixture
def outcomes():
    """Whether each input of a test gave a record: a store that refuses everything must not pass."""
    seen: list[bool] = []
    yield seen
    assert len(seen) > 20 and sum(seen) > SHARE * len(seen), f"{sum(seen)} of {len(seen)} inputs gave a record"


SHARE = 0.2  # of the inputs; random edits break the syntax of most JSON files


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@settings(fuzzed, max_examples=30)
@given(changes=edits)
def test_mutated_tars(format_, changes, folders, outcomes):
    changes = [(where**0.5, value, how) for where, value, how in changes]  # anywhere: most spare the first record
    outcomes.append(must_open_well(mutated(tar_bytes(format_), changes), next(folders)))


@settings(fuzzed, max_examples=60)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 11),
            st.sampled_from((100, 108, 124, 136, 156)) | st.integers(100, 344),
            st.binary(min_size=1, max_size=12) | st.sampled_from((b"\xff" * 12, b"L", b"x")),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_mutated_headers_of_tars_whose_checksums_fit(changes, folders, outcomes):
    data = bytearray(tar_bytes(tarfile.GNU_FORMAT))
    headers = [place for place in range(0, len(data), 512) if data[place + 257 : place + 262] == b"ustar"]
    for number, where, what in changes:
        header = data[headers[number] : headers[number] + 512]
        header[where : where + len(what)] = what
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        data[headers[number] : headers[number] + 512] = header
    outcomes.append(must_open_well(bytes(data), next(folders)))


def must_open_well(data: bytes, folder) -> bool:
    """A store of whatever can be read, or CocaError; returns whether any record could be read."""
    folder.mkdir()
    (folder / "a.tar").write_bytes(data)
    source = DatasetConfig(format="tars", path=str(folder), holdout=1e-9)
    try:
        store = records.open_records(source, "train")
    except CocaError:
        return False
    reader = texts.Texts(source, store)
    readable = [record for record in store.read(range(len(store))) if not isinstance(record, BadRecord)]
    for record in readable:
        must_end_well(record.image, STILL)
        with contextlib.suppress(BadRecord):
            reader.draw(record, np.random.default_rng(0))
    return bool(readable)


@settings(fuzzed, max_examples=30)
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(("captions", "caption", "text", "name")), values), min_size=1, max_size=3
    ),
    changes=edits,
)
def test_captions_in_json(rows, changes, folders):
    folder = next(folders)
    folder.mkdir()
    picture = SEEDS["png"]
    data = [
        (f"{i}.{kind}", picture if kind == "png" else mutated(json.dumps(row).encode(), changes if i else []))
        for i, row in enumerate(rows)
        for kind in ("png", "json")
    ]
    write_tar(folder / "a.tar", [*data, ("clean.png", picture), ("clean.json", b'{"caption": "clean"}')])
    store = records.open_records(DatasetConfig(format="tars", path=str(folder), holdout=1e-9), "train")
    *others, clean = store.read(range(len(store)))
    assert clean.captions == ("clean",)  # whatever stands beside it
    for record in others:
        if not isinstance(record, BadRecord):
            assert all(caption.encode() for caption in record.captions)


@given(
    key=st.sampled_from(("id", "image_id", "file_name", "filepath", "sentences", "caption")),
    value=values,
    annotated=st.booleans(),
    changes=edits | st.just([]) | st.just([]) | st.just([]),  # Hypothesis' choices follow the code's constants
)
@settings(fuzzed, max_examples=120)
def test_annotations_of_whole_sets_in_json(key, value, annotated, changes, folders, outcomes):
    folder = next(folders)
    folder.mkdir()
    names = ("a.png", "b.png")
    for name in names:
        (folder / name).write_bytes(SEEDS["png"])
    rows = [
        {"id": i, "file_name": name, "sentences": [{"raw": "said"}], **({key: value} if i else {})}
        for i, name in enumerate(names)
    ]
    notes = [{"image_id": i % 2, "caption": "x", **({key: value} if i > 1 else {})} for i in range(4)]
    whole = {"info": value, "images": rows, **({"annotations": notes} if annotated else {})}
    (folder / "captions_x.json").write_bytes(mutated(json.dumps(whole).encode(), changes))
    try:
        store = records.open_records(
            DatasetConfig(format="folder", path=f"{folder}/captions_x.json", holdout=1e-9), "train"
        )
    except CocaError as error:
        assert "\n" not in str(error)
        outcomes.append(False)
        return
    readable = {i: one for i, one in enumerate(store.read(range(len(store)))) if not isinstance(one, BadRecord)}
    outcomes.append(bool(readable))
    for index, record in readable.items():
        assert record.captions == text_of(store, index).captions
        assert all(caption.encode() for caption in record.captions)


BOMBS = """
import resource, sys
import numpy as np
from coca_jax.config import AugmentationConfig, DatasetConfig
from coca_jax.data.images import augment as views
from coca_jax.data.records.record import BadRecord

views.view(bytes.fromhex(sys.stdin.readline()), 16, DatasetConfig(), np.random.default_rng(0), AugmentationConfig(crop="random"))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 256 * 2**20,) * 2)
for line in sys.stdin:
    try:
        views.view(bytes.fromhex(line), 16, DatasetConfig(), np.random.default_rng(0), AugmentationConfig(crop="random"))
        print("a picture")
    except BadRecord as error:
        print(error.cause)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory as Linux does")
def test_bombs_are_refused_before_they_take_memory():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(side):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(2_000_000))) + chunk(b"IEND", b"")

    jpeg = encoded(noise(), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    bombs = [
        png(30_000),
        png(12_000),  # the second is below Pillow's own limit
        jpeg[:frame] + struct.pack(">HH", 65_500, 65_500) + jpeg[frame + 4 :],
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + SEEDS["gif"][10:],
        SEEDS["bmp"][:18] + struct.pack("<ii", 12_000, 12_000) + SEEDS["bmp"][26:],
    ]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BOMBS],
        input="\n".join(data.hex() for data in [jpeg, *bombs]),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.stdout.split("\n")[:-1] == ["too many pixels"] * len(bombs), result.stderr[-2000:]
