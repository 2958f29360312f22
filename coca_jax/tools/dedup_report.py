"""What `dedup` leaves: lists of keys, every pair as JSON, and a page with pairs side by side."""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.records.record import BadRecord, RecordStore
from coca_jax.pages.blocks import Card, CardLine, Gallery, Section, Table, Text
from coca_jax.pages.page import write_page, write_text
from coca_jax.tools.near_duplicates import Found, Held, Pair, still

_log = logging.getLogger(__name__)


def write(
    output: str,
    config: Config,
    found: Found,
    train: Mapping[str, tuple[DatasetConfig, RecordStore]],
    held: Sequence[Held],
    shown: int,
) -> None:
    """Writes SET.txt, pairs.jsonl and report.html into a folder, and prints how to use the lists.

    Raises:
      CocaError: the folder cannot be written into.
    """
    output = output.rstrip("/")
    counts = Counter(pair.set for pair in found.pairs)
    for name in train:
        keys = sorted({pair.key for pair in found.pairs if pair.set == name})
        write_text(f"{output}/{name}.txt", "".join(f"{key}\n" for key in keys), "surrogateescape")
    lines = (json.dumps(dataclasses.asdict(pair)) + "\n" for pair in found.pairs)
    write_text(f"{output}/pairs.jsonl", "".join(lines))
    write_page(
        f"{output}/report.html",
        kind="near-duplicates",
        title="Training images in evaluation datasets",
        summary=_summary(found),
        sections=[Section("Counts", "", [_counts(found, counts)]), *_pairs(found.pairs, train, held, shown)],
    )
    print(_summary(found))
    for name, count in counts.items():
        key = f"data.mixture.{name}" if config.data.mixture else "data"
        print(f"{name}: {count:,} to leave out, by --config.{key}.exclude_keys={output}/{name}.txt")
    for cause, count in found.unreadable.items():
        _log.warning("%d pictures could not be compared: %s", count, cause)


def _summary(found: Found) -> str:
    total = sum(found.compared.values())
    return (
        f"{len(found.pairs):,} of {total:,} training pictures are near-duplicates of one of {found.held:,} "
        "evaluation pictures"
    )


def _counts(found: Found, counts: Counter[str]) -> Table:
    rows = [
        (f"training set {name}", f"{counts[name]:,} of {number:,} images") for name, number in found.compared.items()
    ]
    rows += [
        (f"evaluation set {name}", f"shown by {count:,} of them")
        for name, count in Counter(pair.held for pair in found.pairs).items()
    ]
    rows += [("without structure, not compared", f"{found.plain:,}")] if found.plain else []
    rows += [(f"unreadable: {cause}", f"{count:,}") for cause, count in found.unreadable.items()]
    return Table((), rows, "Counts")


def _pairs(
    pairs: Sequence[Pair], train: Mapping[str, tuple[DatasetConfig, RecordStore]], held: Sequence[Held], shown: int
) -> list[Section]:
    """The pairs that agree least first: they show whether the thresholds are right."""
    doubtful = sorted(pairs, key=lambda pair: (-(99 if pair.distance is None else pair.distance), pair.similarity or 0))
    stores = {one.name: (one.source, one.store) for one in held}
    cards = [
        Card(
            _image(train[pair.set], pair.index),
            [CardLine(_agreement(pair)), CardLine(text=pair.name), CardLine(text=pair.held_name)],
            f"{pair.name} beside {pair.held_name}",
            _image(stores[pair.held], pair.held_index),
        )
        for pair in doubtful[:shown]
    ]
    words = f"The {min(shown, len(pairs)):,} most doubtful" if len(pairs) > shown else "All, the most doubtful first"
    detail = f"{words}; on the left the training image, on the right the evaluation's."
    return [Section("Pairs", "", [Text(detail), Gallery("", cards, layout="pairs")])] if cards else []


def _agreement(pair: Pair) -> str:
    parts = [f"{pair.set} and {pair.held}"]
    if pair.distance is not None:
        parts.append(f"{pair.distance} of 64 bits differ")
    if pair.similarity is not None:
        parts.append(f"cosine {pair.similarity:.3f}")
    return ", ".join(parts)


def _image(place: tuple[DatasetConfig, RecordStore], index: int) -> np.ndarray | None:
    """The record's image; None if it can no longer be read."""
    source, store = place
    record = store.read([index])[0]
    try:
        if isinstance(record, BadRecord):
            raise record
        return np.asarray(still(record.image, source))
    except BadRecord:
        return None
