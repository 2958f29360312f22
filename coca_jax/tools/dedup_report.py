"""What `dedup` leaves: lists of keys, every pair as JSON, and a page with pairs side by side."""

import dataclasses
import html
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.images.decode import BadRecord
from coca_jax.data.records import open as records
from coca_jax.pages.images import picture
from coca_jax.tools import page
from coca_jax.tools.near_duplicates import Found, Held, Pair, still

_log = logging.getLogger(__name__)


def write(
    output: str,
    config: Config,
    found: Found,
    train: Mapping[str, tuple[DatasetConfig, records.Store]],
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
        page.write_text(f"{output}/{name}.txt", "".join(f"{key}\n" for key in keys), "surrogateescape")
    lines = (json.dumps(dataclasses.asdict(pair)) + "\n" for pair in found.pairs)
    page.write_text(f"{output}/pairs.jsonl", "".join(lines))
    page.write(
        f"{output}/report.html",
        kind="coca_jax near-duplicates",
        title="Training pictures in evaluations",
        summary=_summary(found),
        body=_facts(found, counts) + _side_by_side(found.pairs, train, held, shown),
    )
    print(_summary(found))
    for name, count in counts.items():
        key = f"{config.data.key(name)}.dataset"
        print(f"{name}: {count:,} to leave out, by --config.{key}.exclude_keys={output}/{name}.txt")
    for cause, count in found.unreadable.items():
        _log.warning("%d pictures could not be compared: %s", count, cause)


def _summary(found: Found) -> str:
    total = sum(found.compared.values())
    return (
        f"{len(found.pairs):,} of {total:,} training pictures are near-duplicates of one of {found.held:,} "
        "evaluation pictures"
    )


def _facts(found: Found, counts: Counter[str]) -> str:
    rows = [
        (f"training set {name}", f"{counts[name]:,} of {number:,} pictures") for name, number in found.compared.items()
    ]
    rows += [
        (f"evaluation set {name}", f"shown by {count:,} of them")
        for name, count in Counter(pair.held for pair in found.pairs).items()
    ]
    rows += [("without structure, not compared", f"{found.plain:,}")] if found.plain else []
    rows += [(f"unreadable: {cause}", f"{count:,}") for cause, count in found.unreadable.items()]
    return f"<section><h2>Counts</h2>{page.facts(rows)}</section>"


def _side_by_side(
    pairs: Sequence[Pair], train: Mapping[str, tuple[DatasetConfig, records.Store]], held: Sequence[Held], shown: int
) -> str:
    """The pairs that agree least first: they show whether the thresholds are right."""
    doubtful = sorted(pairs, key=lambda pair: (-(99 if pair.distance is None else pair.distance), pair.similarity or 0))
    stores = {one.name: (one.source, one.store) for one in held}
    cards = "".join(
        f'<figure class="pair"><div>{_picture(train[pair.set], pair.index, pair.name)}'
        f"{_picture(stores[pair.held], pair.held_index, pair.held_name)}</div><p>{html.escape(_agreement(pair))}</p>"
        f'<p class="soft">{html.escape(pair.name)}<br>{html.escape(pair.held_name)}</p></figure>'
        for pair in doubtful[:shown]
    )
    words = f"The {min(shown, len(pairs)):,} most doubtful" if len(pairs) > shown else "All, the most doubtful first"
    return (
        (
            f'<section><h2>Pairs</h2><p class="soft">{words}; left the training picture, right the evaluation\'s.</p>'
            f'<div class="pairs">{cards}</div></section>'
        )
        if cards
        else ""
    )


def _agreement(pair: Pair) -> str:
    parts = [f"{pair.set} and {pair.held}"]
    if pair.distance is not None:
        parts.append(f"{pair.distance} of 64 bits differ")
    if pair.similarity is not None:
        parts.append(f"cosine {pair.similarity:.3f}")
    return ", ".join(parts)


def _picture(place: tuple[DatasetConfig, records.Store], index: int, name: str) -> str:
    source, store = place
    record = store.read([index])[0]
    try:
        if isinstance(record, BadRecord):
            raise record
        return picture(np.asarray(still(record.image, source)), name)
    except BadRecord as error:  # it could be read a moment ago
        return f"<p>{html.escape(error.cause)}</p>"
