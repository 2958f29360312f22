"""The only training loop, for pretraining and for every adaptation.

The order of operations, for step n:

  1. dispatch step n's computation on its batch (a function of the step alone); it returns before it has run. A guard
     refuses implicit transfers between host and devices, each of which would stall it
  2. take the batch of step n + 1 and start its way to the devices, beside the computation; if the image encoder is
     frozen, dispatch it on the batch, or take the tokens that it gave in an earlier epoch
  3. read the metrics of step n - 1, which by now has run: stop if loss or gradient are not finite, log
  4. raise the error of an earlier background save, or of a folder that another run has taken
  5. save, if due
  6. leave, if preempted (also while waiting for data and during an evaluation): save first
  7. evaluate, if due

Batches, randomness and schedules follow from the state's step alone, so a restart continues exactly.

Several processes run this loop in lockstep. A signal that reaches one of them goes through a vote (see `preemption`); an
error of one (its data cannot be read) ends it alone, the others fall with it, and all restart from the last checkpoint.
"""

import collections
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from coca_jax.config import Config
from coca_jax.distributed import chips
from coca_jax.errors import CocaError, DataError
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord
from coca_jax.trainer.features import Features
from coca_jax.trainer.initialization import initial_state
from coca_jax.trainer.preemption import Preempted, Preemption
from coca_jax.trainer.state import TrainState
from coca_jax.trainer.train_step import TrainStep, model_flops
from coca_jax.trainer.writers import MetricsWriter

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Clock:
    """Wall time since the last log line, without evaluations and the first compilation; seconds."""

    started: float = dataclasses.field(default_factory=time.perf_counter)
    waited: float = 0.0
    steps: int = 0

    def line(self, config: Config) -> dict[str, float]:
        """The figures of a log line; with MFU where the chip's peak is known."""
        seconds = max(time.perf_counter() - self.started, 1e-9)
        pairs = self.steps * config.train.batch_size / seconds
        chips_here = jax.device_count()
        line = {
            "pairs_per_second": pairs,
            "pairs_per_second_per_chip": pairs / chips_here,
            "data_wait": self.waited / seconds,
        }
        chip = chips.of_device_kind(jax.devices()[0].device_kind)
        if chip is not None:
            line["mfu"] = model_flops(config) * self.steps / seconds / (chip.flops * chips_here)
        return line


@dataclasses.dataclass
class Loop:
    """A run's parts, and the loop over them."""

    step: TrainStep
    record: RunRecord
    # This process's rows of the batches from a step on; not decoded are images of records for which a function is True.
    batches: Callable[..., Iterator[dict[str, np.ndarray]]]
    checkpoints: Checkpoints
    writer: MetricsWriter | None  # of the first process
    preemption: Preemption
    evaluate: Callable[[int, Any], None]  # called with step and parameters; it writes its own results
    evaluated: frozenset[int] = frozenset()  # the steps of earlier starts whose evaluations are written
    check: Callable[[], None] = lambda: None  # called at each step; raises if the run must not go on
    data_metrics: Callable[[int], dict[str, float]] = lambda step: {}  # for the log, after so many steps
    clock: Clock = dataclasses.field(init=False, default_factory=Clock)
    # Steps whose metrics have not been read yet, and these.
    pending: collections.deque[tuple[int, Any]] = dataclasses.field(init=False, default_factory=collections.deque)

    def run(self) -> TrainState:
        """The saved state after training from the last checkpoint, or from the start, to `train.steps`.

        Raises:
          Preempted: the process received a signal; the state is saved.
          DataError: the data cannot be read; the state is saved (not with several processes).
          CocaError: the loss is not finite; the last good checkpoint is as it was.
          OSError, ValueError: the folder cannot be written; likewise.
        """
        start = self.checkpoints.latest_step() or 0
        if start:
            _log.info("continuing from the checkpoint at step %d", start)
            state = self.checkpoints.restore(start, self.step)
        else:
            state = initial_state(self.step)
        try:
            return self._steps(state, start) if start < self.step.config.train.steps else state
        finally:
            self.checkpoints.close()

    def _steps(self, state: TrainState, step: int) -> TrainState:
        train, batch = self.step.config.train, None
        started = time.perf_counter()
        compiled = self.step.compile()
        features = Features(self.step) if self.step.objective.encodes_first else None
        batches = self.batches(step, known=features.known) if features else self.batches(step)
        _log.info("compiled the train step in %.1f s", time.perf_counter() - started)
        self.clock = Clock()
        try:
            # The second: a signal came between the save and the end of the evaluation.
            if (train.evaluate_first and not step) or (step and self._due(step) and step not in self.evaluated):
                self._evaluate(state, step)
            while step < train.steps:
                batch = batch or self._next(batches, features, state)
                with jax.transfer_guard("disallow"):
                    state, metrics = compiled(state, batch)
                step += 1
                self.pending.append((step, metrics))
                save = step % train.checkpoint_every == 0 or step == train.steps
                evaluate = self._due(step)
                # Bad data after a step that is to be saved must not come before the save.
                batch = None if save or evaluate else self._next(batches, features, state)
                self._log_all(but=1)
                self.checkpoints.check()
                self.check()
                stop = self.preemption.poll()
                if save:
                    self._save(state, step)
                if stop:
                    raise Preempted
                if evaluate:
                    self._log_all()
                    self._evaluate(state, step)
        except Preempted:
            self._save(state, step)
            _log.info("stopped by a signal: saved at step %d, the same command continues", step)
            raise
        except DataError:
            if jax.process_count() == 1:  # the others do not know of it, and a save takes all
                self._save(state, step)
            raise
        return state

    def _due(self, step: int) -> bool:
        """Whether a step is evaluated within the loop; the last one is evaluated after it."""
        train = self.step.config.train
        return bool(train.evaluate_every) and step % train.evaluate_every == 0 and step < train.steps

    def _evaluate(self, state: TrainState, step: int) -> None:
        with self.preemption.immediate():
            self.evaluate(step, state.evaluated_params)
        self.clock = Clock()

    def _next(
        self, batches: Iterator[dict[str, np.ndarray]], features: Features | None, state: TrainState
    ) -> dict[str, jax.Array]:
        """The next batch, on its way to the devices: of the data's arrays, those that the step needs."""
        waiting = time.perf_counter()
        with self.preemption.immediate():
            local = next(batches)
        self.clock.waited += time.perf_counter() - waiting
        batch = {
            key: jax.make_array_from_process_local_data(wanted.sharding, local[key], wanted.shape)
            for key, wanted in self.step.batch.items()
        }
        return features(state.params, local, batch) if features else batch

    def _log_all(self, but: int = 0) -> None:
        """Reads and logs the oldest of the pending steps, until only `but` of them are left."""
        while len(self.pending) > but:
            self._log(*self.pending.popleft())

    def _log(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Reads a step's metrics and, if due, writes them: of this step alone, so that a restart cannot change a line."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        config = self.step.config
        self.clock.steps += 1
        for name in ("loss", "gradient_norm"):  # such a gradient breaks the parameters, also where the loss is finite
            if not math.isfinite(values[name]):
                todo = "lower optimizer.peak_learning_rate or set optimizer.clip_norm = 1.0, and start again"
                raise CocaError(f"the {name} of step {step} is {values[name]}: {todo} from the last checkpoint")
        if self.writer:
            self.writer.progress(step)
        if step % config.train.log_every == 0 or step == config.train.steps:
            values |= self.data_metrics(step) | self.clock.line(config)
            self.clock = Clock()
            if self.writer:
                self.writer.write(step, values)

    def _save(self, state: TrainState, step: int) -> None:
        self._log_all()  # first: no broken state is saved, and a restart does not write these lines again
        if self.writer:
            self.writer.flush()
        if step:
            self.checkpoints.save(state, step, self.record)
