"""Arguments of `Index` and `inference.Coca`: their natural forms become lists, others are refused in one sentence."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from coca_jax.errors import CocaError


def as_list(values: Iterable[Any], name: str, kind: str = "text") -> list[Any]:
    """The values of any ordered iterable; `name` is the argument's, and `kind` that of one value.

    Raises CocaError if `values` is a single text or function, has no order, or is not iterable.
    """
    if isinstance(values, (str, bytes)) or callable(values):
        raise CocaError(f"{name} is not a list but {_shown(values)}: put the one {kind} into a list")
    if isinstance(values, (set, frozenset)):
        raise CocaError(f"{name} is a set, whose order is undefined: give a list")
    try:
        return list(values)
    except TypeError:
        raise CocaError(f"{name} is {_shown(values)}: give a list, with one {kind} an entry") from None


def as_texts(values: Iterable[Any], name: str) -> list[str]:
    """`as_list` of texts alone; raises CocaError also if an entry is not a text."""
    texts = as_list(values, name)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise CocaError(f"{name}[{position}] is {_shown(text)}: give a text (str)")
    return [str(text) for text in texts]  # of numpy's own texts, too


def whole_number(value: Any, name: str, minimum: int, bound: int | None = None) -> int:
    """The value, or CocaError if it is no whole number in [minimum, bound)."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise CocaError(f"{name} is {_shown(value)}: give a whole number")
    if value < minimum or (bound is not None and value >= bound):
        limits = f"be at least {minimum}" if bound is None else f"lie in [{minimum}, {bound})"
        raise CocaError(f"{name} = {value}: it must {limits}")
    return int(value)


def is_one_image(images: Any, axes: int = 3) -> bool:
    """Whether an argument for a list is a single image: a path, bytes, a PIL image, a numeric array of at most `axes`."""
    if isinstance(images, (str, bytes, os.PathLike, Image.Image)):
        return True
    return hasattr(images, "dtype") and images.dtype.kind in "buif" and len(images.shape) <= axes


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:39] + '…'} ({type(value).__name__})"
