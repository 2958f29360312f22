"""The commands' HTML: one file, no script, no network. Every text of a user's data passes `html.escape`."""

import base64
import html
import io
import os
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from coca_jax.errors import CocaError
from coca_jax.storage.files import as_path, is_remote, write_atomically


def write(path: str | os.PathLike, *, kind: str, title: str, summary: str, body: str) -> None:
    """Writes the page; `body` is HTML, the other texts are plain.

    Raises:
      CocaError: the file cannot be written.
    """
    template = string.Template((Path(__file__).parents[1] / "pages/templates/tools.html").read_text(encoding="utf-8"))
    write_text(
        path,
        template.substitute(kind=html.escape(kind), title=html.escape(title), summary=html.escape(summary), body=body),
        "backslashreplace",
    )


def write_text(path: str | os.PathLike, text: str, errors: str = "strict") -> None:
    """Writes a file whole, making its folder where there is none; `errors` as of `str.encode`.

    Raises:
      CocaError: it cannot be written.
    """
    try:
        if not is_remote(path):
            as_path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text, errors)
    except OSError as error:
        raise CocaError(f"{path} cannot be written ({error.strerror}): choose another --output") from error


def exact(image: np.ndarray, alt: str, scale: int = 1) -> str:
    """An `<img>` of the very pixels, uint8 [H, W, 3], each of them shown as a square of `scale` pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    height, width = image.shape[:2]
    style = ' class="pixelated"' if scale > 1 else ""
    return (
        f'<img{style} width="{width * scale}" height="{height * scale}" alt="{html.escape(alt, quote=True)}" '
        f'src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    )


def bars(title: str, rows: Sequence[tuple[str, int]]) -> str:
    """A histogram: a bar for each (words, count)."""
    most = max((count for _, count in rows), default=0) or 1
    lines = "".join(
        f'<span class="from">{html.escape(words)}</span><i style="width:{100 * count / most:.2f}%"></i>'
        f"<span>{count:,}</span>"
        for words, count in rows
    )
    return f'<figure><h3>{html.escape(title)}</h3><div class="bars">{lines}</div></figure>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """A table of two columns."""
    lines = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in rows)
    return f"<table>{lines}</table>"
