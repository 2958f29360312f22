"""Writers of a run's numbers: `metrics.jsonl`, TensorBoard, a progress bar or plain lines, and `model_info.txt`."""

import contextlib
import json
import logging
import math
import pathlib
import sys
import tempfile
import time
from typing import Any, TextIO

import jax
from etils import epath

from coca_jax.distributed.sharding import spec
from coca_jax.storage.files import is_remote, write_atomically

_log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
_UPLOAD_SECONDS = 60  # between two copies of the growing files to a bucket


class Writer:
    """Writes nothing: what all processes of a run but the first have."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of numbers at `step`."""

    def write_evaluation(self, step: int, values: dict[str, float]) -> None:
        """Numbers of an evaluation: a line in `evaluations.jsonl`."""

    def progress(self, step: int) -> None:
        """Moves the bar to `step`."""

    def flush(self) -> None:
        """Returns when all that was written lies in the run's folder."""

    def close(self) -> None:
        """Flushes, and gives everything back."""


class MetricsWriter(Writer):
    """Writes log lines to `metrics.jsonl` and evaluations to `evaluations.jsonl`, both to TensorBoard where asked.

    Log lines also go to the terminal: into a progress bar, or as plain lines where there is none.

    After a restart from step s the lines of later steps are removed first: they are about to be computed again, and the
    file then reads as if nothing had happened.

    Nothing can be appended to an object of a bucket. Where the folder is one, the files grow in a temporary folder here,
    and are copied as a whole once a minute and by `flush`: the loop calls it before it saves, so that no line is lost
    that a restart would not write again.
    """

    def __init__(self, folder: epath.Path, *, start_step: int, steps: int, tensorboard: bool):
        self._folder, self._uploaded = folder, time.monotonic()
        self._stack = contextlib.ExitStack()
        self._local = pathlib.Path(folder)
        if is_remote(folder):
            self._local = pathlib.Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="coca_jax-")))
        self._local.mkdir(parents=True, exist_ok=True)
        self._metrics, self._evaluations = (
            _reopen(self._local / name, read_rows(folder / name), start_step) for name in (METRICS, EVALUATIONS)
        )
        self._tensorboard = None
        if tensorboard:
            from tensorboardX import SummaryWriter  # imported only where a run asks for it

            self._tensorboard = SummaryWriter(str(self._local / "tensorboard"), purge_step=start_step + 1)
        self._bar = _progress_bar(self._stack, start_step, steps) if sys.stderr.isatty() else None

    def write(self, step: int, values: dict[str, float]) -> None:
        _append(self._metrics, step, values)
        self._write_tensorboard(step, values)
        if self._bar is not None:
            self._bar.set_postfix_str(_summary(values), refresh=False)
        else:
            _log.info("step %d  %s", step, _summary(values))
        if is_remote(self._folder) and time.monotonic() - self._uploaded > _UPLOAD_SECONDS:
            self.flush()

    def write_evaluation(self, step: int, values: dict[str, float]) -> None:
        _append(self._evaluations, step, values)
        self._write_tensorboard(step, values)

    def _write_tensorboard(self, step: int, values: dict[str, float]) -> None:
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def progress(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def flush(self) -> None:
        if self._tensorboard:
            self._tensorboard.flush()
        if is_remote(self._folder):
            for path in self._local.rglob("*"):
                if path.is_file():
                    copy = self._folder / path.relative_to(self._local).as_posix()
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(path.read_bytes())
            self._uploaded = time.monotonic()

    def close(self) -> None:
        with self._stack:
            self._metrics.close()
            self._evaluations.close()
            if self._tensorboard:
                self._tensorboard.close()
                self._tensorboard = None
            self.flush()


def _progress_bar(stack: contextlib.ExitStack, start_step: int, steps: int) -> Any:
    """A bar that `stack` closes; until then log lines are written above it, not into it."""
    import tqdm
    import tqdm.contrib.logging

    bar = stack.enter_context(tqdm.tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True))
    stack.enter_context(tqdm.contrib.logging.logging_redirect_tqdm([logging.getLogger("coca_jax")]))
    return bar


def _reopen(path: pathlib.Path, rows: list[dict[str, float]], start_step: int) -> TextIO:
    kept = [row for row in rows if row["step"] <= start_step]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
    return path.open("a")


def _append(file: TextIO, step: int, values: dict[str, float]) -> None:
    file.write(json.dumps({"step": step, **values}) + "\n")
    file.flush()


def read_history(folder: epath.Path) -> list[dict[str, float]]:
    """The log lines and evaluations of a run; empty where it has none."""
    return read_rows(folder / METRICS) + read_rows(folder / EVALUATIONS)


def read_rows(path: epath.Path) -> list[dict[str, float]]:
    """The rows of a JSON-lines file, without a last line that a kill left unfinished; empty where there is no file."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def write_model_info(path: epath.Path, params: Any, logical: Any) -> None:
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
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", *(f"{part}: {size:,}" for part, size in totals.items()), f"total: {sum(totals.values()):,}"]
    write_atomically(path, "\n".join(lines) + "\n")


def _list(items: Any) -> str:
    return "(" + ", ".join(str(item) for item in items) + ")"


def _summary(values: dict[str, float]) -> str:
    shown = ("loss", "contrastive_loss", "captioning_loss", "pairs_per_second", "data_wait")
    return "  ".join(f"{name} {values[name]:.4g}" for name in shown if name in values)
