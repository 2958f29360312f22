"""Writes the result of a search: lists of keys, every pair as JSON, and a page with pairs side by side."""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np

from coca_jax.config import Config
from coca_jax.data.records.record import BadRecord, RecordStore
from coca_jax.errors import CocaError
from coca_jax.pages.blocks import Card, CardLine, Gallery, Section, Table, Text
from coca_jax.pages.page import write_page
from coca_jax.storage.files import write_atomically
from coca_jax.tools.dedup.search import Collection, Duplicates, Pair, still

_log = logging.getLogger(__name__)


def write_report(
    output: str,
    config: Config,
    result: Duplicates,
    training: Sequence[Collection],
    evaluation: Sequence[Collection],
    shown: int,
) -> None:
    """Writes DATASET.txt, pairs.jsonl and report.html (at most `shown` pairs) into a folder, and prints the flags that use
    the lists; raises CocaError if the folder cannot be written into."""
    output = output.rstrip("/")
    counts = Counter(pair.dataset for pair in result.pairs)
    for name in result.training:
        _write(f"{output}/{name}.txt", sorted({pair.key for pair in result.pairs if pair.dataset == name}))
    _write(f"{output}/pairs.jsonl", [json.dumps(dataclasses.asdict(pair)) for pair in result.pairs])
    summary = (
        f"{len(result.pairs):,} of {sum(result.training.values()):,} training images are near-duplicates of one of "
        f"{result.evaluation:,} evaluation images"
    )
    write_page(
        f"{output}/report.html",
        kind="near-duplicates",
        title="Training images in evaluation datasets",
        summary=summary,
        sections=[Section("Counts", "", [_counts(result, counts)]), *_pairs(result.pairs, training, evaluation, shown)],
    )
    print(summary)
    for name, count in counts.items():
        flag = f"--config.{config.data.key(name)}.dataset.exclude_keys={output}/{name}.txt"
        print(f"{name}: {count:,} to leave out, by {flag}")
    for cause, count in result.skipped.items():
        _log.warning("%d images could not be compared: %s", count, cause)


def _write(path: str, lines: Sequence[str]) -> None:
    try:
        write_atomically(path, "".join(f"{line}\n" for line in lines), "surrogateescape")
    except OSError as error:
        raise CocaError(f"{path} cannot be written ({error.strerror or error}): choose another --output") from error


def _counts(result: Duplicates, counts: Counter[str]) -> Table:
    contained = Counter(pair.evaluation for pair in result.pairs)
    rows = [(f"training dataset {name}", f"{counts[name]:,} of {n:,} images") for name, n in result.training.items()]
    rows += [(f"evaluation dataset {name}", f"contains {n:,} of them") for name, n in contained.items()]
    rows += [(f"not compared: {cause}", f"{n:,}") for cause, n in result.skipped.items()]
    return Table((), rows, "Counts")


def _pairs(
    pairs: Sequence[Pair], training: Sequence[Collection], evaluation: Sequence[Collection], shown: int
) -> list[Section]:
    """The pairs that agree least first: they show whether the thresholds are right."""
    doubtful = sorted(pairs, key=lambda pair: (-(99 if pair.distance is None else pair.distance), pair.similarity or 0))
    left, right = dict(training), dict(evaluation)
    cards = [
        Card(
            [*_image(left[pair.dataset], pair.index), *_image(right[pair.evaluation], pair.evaluation_index)],
            [CardLine(_agreement(pair)), CardLine(text=pair.name), CardLine(text=pair.evaluation_name)],
            f"{pair.name} beside {pair.evaluation_name}",
        )
        for pair in doubtful[:shown]
    ]
    which = f"The {shown:,} most doubtful" if len(pairs) > shown else "All, the most doubtful first"
    detail = f"{which}; on the left the training image, on the right the evaluation's."
    return [Section("Pairs", "", [Text(detail), Gallery("", cards, layout="wide")])] if cards else []


def _agreement(pair: Pair) -> str:
    bits = "" if pair.distance is None else f", {pair.distance} of 64 bits differ"
    cosine = "" if pair.similarity is None else f", cosine {pair.similarity:.3f}"
    return f"{pair.dataset} and {pair.evaluation}{bits}{cosine}"


def _image(images: RecordStore, index: int) -> list[np.ndarray]:
    """The image; empty if it can no longer be read."""
    try:
        return [np.asarray(still(images.read([index])[0]))]
    except BadRecord:
        return []
