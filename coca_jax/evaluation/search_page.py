"""The page of a search: for each query the pictures that were found; one file, no network."""

import html
import os
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coca_jax.data.images.decode import decode
from coca_jax.data.records.record import BadRecord
from coca_jax.embedding_index.index import Hit
from coca_jax.errors import CocaError
from coca_jax.pages.images import picture
from coca_jax.storage.files import write_atomically

_THUMBNAIL = 224  # pixels that a JPEG is decoded at, at least


def write_search_page(
    path: str | os.PathLike,
    pictures: str | os.PathLike,
    count: int,
    queries: Sequence[str | os.PathLike],
    found: Sequence[Sequence[Hit]],
) -> None:
    """Writes the page, atomically.

    Args:
      path: of the HTML file.
      pictures: the folder that the hits' names are of.
      count: how many pictures were searched.
      queries: sentences, and paths of pictures.
      found: for each query its hits, the best first.

    Raises:
      CocaError: the file cannot be written.
    """
    template = string.Template((Path(__file__).parents[1] / "pages/templates/report.html").read_text(encoding="utf-8"))
    sections = [
        _section(i, query, hits, Path(pictures)) for i, (query, hits) in enumerate(zip(queries, found, strict=True))
    ]
    links = [f'<a href="#query-{i}">{_spoken(query)}</a>' for i, query in enumerate(queries)]
    searched = f"The most similar of {count:,} pictures, the best first, with their cosine similarity."
    page = template.substitute(
        kind="search",
        title=f"Pictures found in {html.escape(Path(pictures).name or 'an index')}",
        nav="".join(links) if len(links) > 1 else "",
        body=f'<p class="pool">{searched}</p>{"".join(sections)}',
    )
    try:
        write_atomically(path, page)
    except OSError as error:
        raise CocaError(f"the page {path} cannot be written ({error.strerror}): name another file") from error


def _section(number: int, query: str | os.PathLike, hits: Sequence[Hit], pictures: Path) -> str:
    asked = ""
    if not isinstance(query, str):
        asked = f'<ul class="gallery"><li>{_thumbnail(Path(query))}</li></ul><h3>Found</h3>'
    cards = "".join(_card(hit, pictures / hit.name) for hit in hits)
    return f'<section id="query-{number}"><h2>{_spoken(query)}</h2>{asked}<ol class="gallery">{cards}</ol></section>'


def _spoken(query: str | os.PathLike) -> str:
    return f"“{html.escape(query)}”" if isinstance(query, str) else f"like {html.escape(Path(query).name)}"


def _card(hit: Hit, path: Path) -> str:
    name = html.escape(hit.name)
    return f'<li class="card">{_thumbnail(path)}<dl><dt>similarity <b>{hit.score:.3f}</b></dt><dd>{name}</dd></dl></li>'


def _thumbnail(path: Path) -> str:
    """The picture, or a word where it is gone since it was indexed."""
    try:
        return picture(np.asarray(decode(path.read_bytes(), smallest=_THUMBNAIL)), path.name)
    except (OSError, BadRecord):
        return "<p>not to be read any more</p>"
