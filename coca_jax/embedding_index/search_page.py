"""The page of a search: for each query the most similar images."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coca_jax.data.images.decode import decode
from coca_jax.data.records.record import BadRecord
from coca_jax.embedding_index.index import Hit
from coca_jax.pages.blocks import Block, Card, CardLine, Gallery, Section
from coca_jax.pages.page import write_page

_log = logging.getLogger(__name__)
_THUMBNAIL = 224  # pixels that a JPEG is decoded at, at least


def write_search_page(
    path: str | os.PathLike,
    folder: str | os.PathLike,
    count: int,
    queries: Sequence[str | os.PathLike],
    results: Sequence[Sequence[Hit]],
) -> None:
    """Writes the page of hits, among `count` images of a folder, for each query, a sentence or the path of an image."""
    sections = [
        _section(f"query-{number}", query, hits, Path(folder))
        for number, (query, hits) in enumerate(zip(queries, results, strict=True))
    ]
    write_page(
        path,
        kind="search",
        title=f"Images found in {Path(folder).name or 'an index'}",
        summary=f"The most similar of {count:,} images, the best first, with their cosine similarity.",
        sections=sections,
    )
    _log.info("the page is %s", path)


def _section(anchor: str, query: str | os.PathLike, hits: Sequence[Hit], folder: Path) -> Section:
    results = [_card(folder / hit.name, [CardLine("similarity", hit.name, note=f"{hit.score:.3f}")]) for hit in hits]
    if isinstance(query, str):
        return Section(f"“{query}”", anchor, [Gallery("", results)])
    blocks: list[Block] = [Gallery("", [_card(Path(query), [])]), Gallery("Results", results)]
    return Section(f"like {Path(query).name}", anchor, blocks)


def _card(path: Path, lines: list[CardLine]) -> Card:
    """The image, or a sentence if it has disappeared or changed since it was indexed."""
    try:
        return Card([np.asarray(decode(path.read_bytes(), smallest=_THUMBNAIL))], lines, path.name)
    except (OSError, BadRecord):
        return Card([], [CardLine(text="can no longer be read"), *lines])
