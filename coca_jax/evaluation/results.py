"""evaluation.json: one flat object of numbers, written so that a reader never sees half of it."""

import json
import math
import os
from collections.abc import Mapping

from coca_jax.errors import CocaError
from coca_jax.files import as_path, write_atomically

Value = float | int | str | None


def write_evaluation(path: str | os.PathLike, values: Mapping[str, Value]) -> None:
    """Writes flat keys such as "digit_scenes/caption_equivalent" and "checkpoint_step" to a JSON file, atomically.

    A number that is not finite becomes null: JSON has no other word for it.
    """
    bad = [key for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    clean = {**values, **dict.fromkeys(bad)}
    write_atomically(path, json.dumps(clean, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_evaluation(path: str | os.PathLike) -> dict[str, Value]:
    """The object that `write_evaluation` wrote.

    Raises:
      CocaError: the file is missing or holds anything but one flat JSON object.
    """
    try:
        values = json.loads(as_path(path).read_bytes())
    except FileNotFoundError:
        raise CocaError(f"there is no {path}: run python -m coca_jax.evaluate first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CocaError(f"{path} is not JSON ({error}): evaluate again to write it anew") from None
    if not isinstance(values, dict) or any(isinstance(value, (dict, list)) for value in values.values()):
        raise CocaError(f"{path} does not hold one flat object of numbers: evaluate again to write it anew")
    return values
