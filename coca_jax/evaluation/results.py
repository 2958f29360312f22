"""What an evaluation leaves: a JSON file that no reader sees half of, TensorBoard's events, a table for people."""

import json
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping

from etils import epath

from coca_jax.errors import CocaError
from coca_jax.storage.files import as_path, write_atomically

Value = float | int | str | None

_SHARES = (
    "zero_shot_",
    "likelihood_",
    "caption_equivalent",
    "caption_exact",
    "caption_parsed",
    "mean_corruption_error",
)


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


def write_tensorboard(folder: epath.Path, step: int, metrics: Mapping[str, float]) -> None:
    """Adds the metrics at `step` to the events of `folder`/tensorboard, on a disk or in a bucket."""
    from tensorboardX import SummaryWriter  # imported only where it is asked for

    with tempfile.TemporaryDirectory(prefix="coca_jax-") as temporary:
        with SummaryWriter(temporary, filename_suffix=".evaluation") as writer:
            for key, value in metrics.items():
                if math.isfinite(value):
                    writer.add_scalar(key, value, step)
        for path in pathlib.Path(temporary).iterdir():
            copy = folder / "tensorboard" / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def table(metrics: Mapping[str, float], chance: Mapping[str, float]) -> str:
    """One line a figure: set, figure, value and what chance gives; shares in percent."""
    rows = [("set", "figure", "value", "chance")]
    for key, value in metrics.items():
        name, _, figure = key.rpartition("/")
        rows.append((name, figure, shown(key, value), shown(key, chance[key]) if key in chance else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, figure, value, baseline in rows:
        left, right = f"{name:<{widths[0]}}  {figure:<{widths[1]}}", f"{value:>{widths[2]}}  {baseline:>{widths[3]}}"
        lines.append(f"{left}  {right}".rstrip())
    return "\n".join(lines)


def shown(key: str, value: float) -> str:
    """A metric's value for people: shares in percent."""
    figure = key.rpartition("/")[2]
    if not math.isfinite(value):
        return "–"
    if figure.startswith(_SHARES) or figure.endswith(("_r1", "_r5", "_r10")):
        return f"{100 * value:.2f} %"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if figure.endswith("_rank") else f"{value:.4f}"
