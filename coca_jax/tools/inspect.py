"""Shows samples of a batch exactly as the model sees them, on a page.

    python -m coca_jax.tools inspect --config=configs/x.py --output=samples.html --step=0 --count=24

After augmentation and tokenisation: the image at its size and enlarged, the text that the ids decode to, every piece
with its id, pads, where a text was cut, and which record of which source it is. The rows are evenly spread over the batch,
so that a mixture shows its proportions.
"""

import itertools
from collections.abc import Callable

import numpy as np
from absl import flags

from coca_jax.cli.app import define_path, required
from coca_jax.config import Config
from coca_jax.data.pipeline.batches import Origin, Pipeline
from coca_jax.data.records.open import SPLITS
from coca_jax.data.text.corpus import load_vocabulary
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.pages.blocks import Block, Columns, Pixels, Section, Table, Text, Tokens
from coca_jax.pages.page import write_page
from coca_jax.tools import common

_ENLARGED = 320  # pixels that a side is enlarged to, about


def write_samples(
    path: str, config: Config, vocabulary: Vocabulary, *, step: int = 0, count: int = 24, split: str = "train"
) -> str:
    """Writes the page of `count` rows of a step's batch; returns its summary, a sentence.

    Raises CocaError if records do not exist or cannot be read, or the file cannot be written.
    """
    rows = common.evenly_spread(config.train.batch_size, count)
    pipeline = Pipeline(config, vocabulary, split=split, rows=rows)
    batch, origins = pipeline.traced(step)
    samples = [
        _sample(vocabulary, image, text, origin, step)
        for image, text, origin in zip(batch["image"], batch["text"], origins, strict=True)
    ]
    names, quotas = pipeline.layout.names, pipeline.layout.quotas
    shares = ", ".join(f"{quota:,} of {name}" for name, quota in zip(names, quotas, strict=True))
    shape = " x ".join(map(str, batch["image"].shape[1:]))
    summary = (
        f"{len(rows):,} of the {config.train.batch_size:,} rows of step {step:,}, split {split}: images of "
        f"{shape}, texts of {config.model.text.length} tokens, {vocabulary.size:,} pieces. A batch holds {shares}."
    )
    write_page(
        path,
        kind="data, as the model sees them",
        summary=summary,
        title=config.data.name or ", ".join(names),
        sections=samples + _skipped(pipeline),
    )
    return summary


def _sample(vocabulary: Vocabulary, image: np.ndarray, ids: np.ndarray, origin: Origin, step: int) -> Section:
    (text,) = vocabulary.decode(ids[None])
    (tokens,) = vocabulary.lengths([origin.text])
    blocks: list[Block] = [Text(text, "quote")]
    if tokens > len(ids):
        blocks.append(Text(f"Cut: the text takes {tokens:,} tokens. All of it: {origin.text}", "warning"))
    blocks.append(Tokens(_pieces(vocabulary, ids)))
    place = f"row {origin.row:,} of step {step:,}, position {origin.position:,} of the source's order"
    blocks.append(Table((), [("Source", origin.source), ("Record", origin.record), ("Place", place)], "Origin"))
    return Section("", "", [Columns([_views(image, text), blocks], 400)])


def _views(image: np.ndarray, alt: str) -> list[Block]:
    """The image and its enlargement; of a clip every frame; of stored tokens their range."""
    if image.ndim == 2:
        return [Text(f"{len(image):,} stored tokens, values from {image.min():.3g} to {image.max():.3g}")]
    if image.ndim == 4:
        return [Pixels(frame, f"frame {number} of: {alt}") for number, frame in enumerate(image)]
    scale = _ENLARGED // max(image.shape[:2])
    return [Pixels(image, alt), *([Pixels(image, f"enlarged: {alt}", scale)] if scale > 1 else [])]


def _pieces(vocabulary: Vocabulary, ids: np.ndarray) -> list[tuple[str, int, bool]]:
    """(piece, id, whether it is special) of each token; a run of pads is one entry with its length."""
    pieces = []
    for token, run in itertools.groupby(ids.tolist()):
        piece, times = vocabulary.piece(token), len(list(run))
        if token == vocabulary.pad_id:
            piece, times = f"{piece}, {times} times", 1
        pieces += [(piece, token, token in vocabulary.special_ids)] * times
    return pieces


def _skipped(pipeline: Pipeline) -> list[Section]:
    """The records that were passed over on the way, by cause."""
    rows = [
        (f"{cause}: {count:,}", ", ".join(skipped.names.get(cause, ())))
        for skipped in pipeline.skipped_by_source.values()
        for cause, count in skipped.by_cause.items()
    ]
    return [Section("Skipped records", "", [Table((), rows, "Skipped records")])] if rows else []


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    output = define_path("output", "The .html file to write.", values)
    step = flags.DEFINE_integer("step", 0, "The step whose batch is shown, from 0.", 0, flag_values=values)
    count = flags.DEFINE_integer("count", 24, "Rows of the batch that are shown.", 1, flag_values=values)
    split = flags.DEFINE_enum("split", "train", list(SPLITS), "The records that are shown.", flag_values=values)

    def run(config: Config) -> None:
        path, vocabulary = required(output), load_vocabulary(config)
        summary = write_samples(path, config, vocabulary, step=step.value, count=count.value, split=split.value)
        print(f"{path}: {summary}")

    return run
