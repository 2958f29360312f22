"""Writers of a run's figures: `metrics.jsonl`, TensorBoard, and a progress bar or plain lines."""

import contextlib
import json
import logging
import pathlib
import sys
import tempfile
import time
from typing import Any, TextIO

from etils import epath

from coca_jax.storage.files import is_remote, write_atomically

_log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
_UPLOAD_SECONDS = 60  # between two copies of the growing files to a bucket


class MetricsWriter:
    """Writes log lines to `metrics.jsonl` and evaluations to `evaluations.jsonl`, and optionally both to TensorBoard.

    Log lines also go to the terminal: beside a progress bar, or as plain lines where standard error is not a terminal.

    After a restart from step s the lines of later steps are removed first: they are computed again, and the file is then
    that of an undisturbed run.

    Objects of a bucket cannot be appended to: there the files grow in a local temporary folder, and are copied as a whole
    once a minute and by `flush`, which the loop calls before it saves.
    """

    def __init__(self, folder: epath.Path, start_step: int, steps: int, tensorboard: bool):
        self._folder, self._uploaded = folder, time.monotonic()
        self._stack = contextlib.ExitStack()
        self._local = pathlib.Path(folder)
        if is_remote(folder):
            self._local = pathlib.Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="coca_jax-")))
            self._stack.callback(self._upload)
        self._local.mkdir(parents=True, exist_ok=True)
        self._metrics, self._evaluations = (self._reopen(name, start_step) for name in (METRICS, EVALUATIONS))
        self._tensorboard = None
        if tensorboard:
            from tensorboardX import SummaryWriter  # imported only if used: it is slow

            self._tensorboard = SummaryWriter(str(self._local / "tensorboard"), purge_step=start_step + 1)
            self._stack.callback(self._tensorboard.close)
        self._bar = _progress_bar(self._stack, start_step, steps) if sys.stderr.isatty() else None

    def write(self, step: int, values: dict[str, float]) -> None:
        self._record(self._metrics, step, values)
        shown = ("loss", *(name for name in values if name.endswith("_loss")), "pairs_per_second", "data_wait")
        summary = "  ".join(f"{name} {values[name]:.4g}" for name in shown if name in values)
        if self._bar is not None:
            self._bar.set_postfix_str(summary, refresh=False)
        else:
            _log.info("step %d  %s", step, summary)
        if time.monotonic() - self._uploaded > _UPLOAD_SECONDS:
            self.flush()

    def write_evaluation(self, step: int, values: dict[str, float]) -> None:
        self._record(self._evaluations, step, values)

    def progress(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def flush(self) -> None:
        """Returns when all written lines lie in the run's folder."""
        if self._tensorboard:
            self._tensorboard.flush()
        if is_remote(self._folder):
            self._upload()
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Closes all files, which then lie in the run's folder."""
        self._stack.close()

    def _upload(self) -> None:
        for path in self._local.rglob("*"):
            if path.is_file():
                copy = self._folder / path.relative_to(self._local).as_posix()
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())

    def _reopen(self, name: str, start_step: int) -> TextIO:
        """The local file, with the rows up to `start_step`."""
        rows = [row for row in read_rows(self._folder / name) if row["step"] <= start_step]
        write_atomically(self._local / name, "".join(json.dumps(row) + "\n" for row in rows))
        return self._stack.enter_context((self._local / name).open("a"))

    def _record(self, file: TextIO, step: int, values: dict[str, float]) -> None:
        file.write(json.dumps({"step": step, **values}) + "\n")
        file.flush()
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)


def _progress_bar(stack: contextlib.ExitStack, start_step: int, steps: int) -> Any:
    """A bar that `stack` closes; until then log lines are written above it."""
    import tqdm
    import tqdm.contrib.logging

    bar = stack.enter_context(tqdm.tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True))
    stack.enter_context(tqdm.contrib.logging.logging_redirect_tqdm([logging.getLogger("coca_jax")]))
    return bar


def read_history(folder: epath.Path) -> list[dict[str, float]]:
    """The log lines and evaluations of a run; empty if it has none."""
    return read_rows(folder / METRICS) + read_rows(folder / EVALUATIONS)


def evaluated_steps(folder: epath.Path) -> list[int]:
    """The steps whose evaluations are written."""
    return [int(row["step"]) for row in read_rows(folder / EVALUATIONS)]


def read_rows(path: epath.Path) -> list[dict[str, float]]:
    """The rows of a JSON-lines file, without a last line that a kill left unfinished; empty if there is no file."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
