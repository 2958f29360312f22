"""Writes a page of blocks: one HTML file that needs no network.

Jinja2 escapes every text that a template inserts, so that captions, labels and file names are shown and never
interpreted. The content security policy allows no script but `templates/page.js`, by its hash.
"""

import base64
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

from coca_jax.errors import CocaError
from coca_jax.pages import images
from coca_jax.pages.blocks import Section
from coca_jax.pages.charts import percent
from coca_jax.storage.files import write_atomically

_TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> jinja2.Environment:
    loader, undefined = jinja2.FileSystemLoader(_TEMPLATES), jinja2.StrictUndefined
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=undefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters |= {"percent": percent, "thumbnail": images.thumbnail, "exact": images.exact}
    return environment


def render_page(*, kind: str, title: str, sections: Sequence[Section], summary: str = "") -> str:
    """The page's HTML; see `write_page`."""
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _environment().get_template("page.html")
    content = {"kind": kind, "title": title, "summary": summary, "sections": sections}
    return template.render(content, style=style, script=script, script_hash=digest)


def write_page(
    path: str | os.PathLike, *, kind: str, title: str, sections: Sequence[Section], summary: str = ""
) -> None:
    """Writes a page atomically, on a disk or in a bucket, making its folder if there is none.

    `kind`, such as "evaluation report", stands above the title, `summary`, a sentence, below it.

    Raises:
      CocaError: the file cannot be written.
    """
    page = render_page(kind=kind, title=title, sections=sections, summary=summary)
    try:
        write_atomically(path, page, "backslashreplace")  # names of files need not be UTF-8
    except OSError as error:
        raise CocaError(f"{path} cannot be written ({error.strerror or error}): name another file") from error
