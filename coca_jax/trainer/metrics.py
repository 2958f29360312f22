"""Writers of a run's numbers: `metrics.jsonl`, TensorBoard, a progress bar or plain lines, and `model_info.txt`."""

import json
import logging
import math
import pathlib
import sys
from typing import Any, TextIO

import jax

from coca_jax.files import write_atomically
from coca_jax.sharding import spec

_log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"


class MetricsWriter:
    """Writes log lines to `metrics.jsonl` and evaluations to `evaluations.jsonl`, both to TensorBoard where asked.

    Log lines also go to the terminal: into a progress bar, or as plain lines where there is none.

    After a restart from step s the lines of later steps are removed first: they are about to be computed again, and the
    file then reads as if nothing had happened.
    """

    def __init__(self, folder: pathlib.Path, *, start_step: int, steps: int, tensorboard: bool):
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics, self._evaluations = (_reopen(folder / name, start_step) for name in (METRICS, EVALUATIONS))
        self._tensorboard = None
        if tensorboard:
            from tensorboardX import SummaryWriter  # imported only where a run asks for it

            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)
        self._bar = None
        if sys.stderr.isatty():
            import tqdm

            self._bar = tqdm.tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of numbers at `step`."""
        _append(self._metrics, step, values)
        self._write_tensorboard(step, values)
        if self._bar:
            self._bar.set_postfix_str(_summary(values), refresh=False)
        else:
            _log.info("step %d  %s", step, _summary(values))

    def write_evaluation(self, step: int, values: dict[str, float]) -> None:
        """Numbers of an evaluation: a line in `evaluations.jsonl`."""
        _append(self._evaluations, step, values)
        self._write_tensorboard(step, values)

    def _write_tensorboard(self, step: int, values: dict[str, float]) -> None:
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def progress(self, step: int) -> None:
        """Moves the bar to `step`."""
        if self._bar:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._metrics.close()
        self._evaluations.close()
        if self._tensorboard:
            self._tensorboard.close()
        if self._bar:
            self._bar.close()


def _reopen(path: pathlib.Path, start_step: int) -> TextIO:
    kept = [row for row in read_rows(path) if row["step"] <= start_step]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
    return path.open("a")


def _append(file: TextIO, step: int, values: dict[str, float]) -> None:
    file.write(json.dumps({"step": step, **values}) + "\n")
    file.flush()


def read_history(folder: pathlib.Path) -> list[dict[str, float]]:
    """The log lines and evaluations of a run; empty where it has none."""
    return read_rows(folder / METRICS) + read_rows(folder / EVALUATIONS)


def read_rows(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a JSON-lines file, without a last line that a kill left unfinished; empty where there is no file."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def write_model_info(path: pathlib.Path, params: Any, logical: Any) -> None:
    """Every parameter's name, shape, logical axes, mesh axes and size, and the totals, as a table for people."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    axes = jax.tree.leaves(logical, is_leaf=lambda node: isinstance(node, tuple))
    rows = [("name", "shape", "logical axes", "sharding", "parameters")]
    totals: dict[str, int] = {}
    for (keys, leaf), names in zip(leaves, axes, strict=True):
        size = math.prod(leaf.shape)
        name = "/".join(key.key for key in keys)
        totals[keys[0].key] = totals.get(keys[0].key, 0) + size
        rows.append((name, _list(leaf.shape), _list(n.value for n in names), _list(spec(*names)), f"{size:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines += ["", *(f"{part}: {size:,}" for part, size in totals.items()), f"total: {sum(totals.values()):,}"]
    write_atomically(path, "\n".join(lines) + "\n")


def _list(items: Any) -> str:
    return "(" + ", ".join(str(item) for item in items) + ")"


def _summary(values: dict[str, float]) -> str:
    shown = ("loss", "contrastive_loss", "captioning_loss", "pairs_per_second", "data_wait")
    return "  ".join(f"{name} {values[name]:.4g}" for name in shown if name in values)
