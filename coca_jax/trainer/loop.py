"""The only training loop, for pretraining and for every adaptation.

The order of operations, for step n:

  1. dispatch step n's computation on its batch (a function of the step alone); it returns before it has run. A guard
     refuses implicit transfers between host and devices, each of which would stall it
  2. take the batch of step n + 1 and start its way to the devices, beside the computation
  3. read the metrics of step n - 1, which by now has run: stop if the loss is not finite, log
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
from coca_jax.distributed.sharding import batch_sharding
from coca_jax.errors import CocaError, DataError
from coca_jax.trainer import program as programs
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord
from coca_jax.trainer.initialization import initial_state
from coca_jax.trainer.preemption import Preempted, Preemption
from coca_jax.trainer.state import TrainState
from coca_jax.trainer.writers import Writer

_log = logging.getLogger(__name__)
Pending = collections.deque[tuple[int, Any]]  # steps whose metrics have not been read yet, and these


@dataclasses.dataclass
class Clock:
    """Wall time since the last log line, without evaluations and the first compilation; seconds.

    Attributes:
      utilisation: MFU at one pair a second and chip; None where the chip's peak is not known.
    """

    utilisation: float | None
    started: float = 0.0
    waited: float = 0.0
    steps: int = 0

    def line(self, batch_size: int) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.started, 1e-9)
        pairs = self.steps * batch_size / seconds
        line = {
            "pairs_per_second": pairs,
            "pairs_per_second_per_chip": pairs / jax.device_count(),
            "data_wait": self.waited / seconds,
        }
        if self.utilisation is not None:
            line["mfu"] = self.utilisation * line["pairs_per_second_per_chip"]
        self.restart()
        return line

    def restart(self) -> None:
        self.started, self.waited, self.steps = time.perf_counter(), 0.0, 0


@dataclasses.dataclass(frozen=True)
class Loop:
    """A run's parts, and the loop over them.

    Attributes:
      program: the step, its mesh, and the shapes that it is compiled for.
      batches: from a step to the iterator of this process's rows of the batches from that step on.
      evaluate: called with (step, parameters) every `train.evaluate_every` steps; it writes its own results.
      check: called at each step; it raises if the run must not go on.
      data_metrics: figures of the data for the log, after so many steps.
    """

    program: programs.Program
    record: RunRecord
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    checkpoints: Checkpoints
    writer: Writer
    preemption: Preemption
    evaluate: Callable[[int, Any], None]
    check: Callable[[], None] = lambda: None
    data_metrics: Callable[[int], dict[str, float]] = lambda step: {}

    @property
    def config(self) -> Config:
        return self.program.config

    def run(self) -> TrainState:
        """The saved state after training from the last checkpoint, or from the start, to `train.steps`.

        Raises:
          Preempted: the process received a signal; the state is saved.
          DataError: the data cannot be read; the state is saved (not with several processes).
          CocaError: the loss is not finite, or the folder cannot be written; the last good checkpoint is as it was.
        """
        start, plan = self.checkpoints.latest_step() or 0, self.program.plan
        if start:
            _log.info("continuing from the checkpoint at step %d", start)
            state = self.checkpoints.restore(start, plan)
        else:
            state = initial_state(self.config, plan, self.program.device_mesh)
        try:
            return self._steps(state, start) if start < self.config.train.steps else state
        finally:
            self.checkpoints.close()

    def _steps(self, state: TrainState, start: int) -> TrainState:
        train = self.config.train
        batches = self.batches(start)
        clock = Clock(_utilisation(self.config))
        compiled = self._compile()
        clock.restart()
        pending: Pending = collections.deque()
        batch = None
        step = start
        try:
            while step < train.steps:
                batch = batch or self._next(batches, clock)
                with jax.transfer_guard("disallow"):
                    state, metrics = compiled(state, batch)
                step += 1
                pending.append((step, metrics))
                save = step % train.checkpoint_every == 0 or step == train.steps
                evaluate = train.evaluate_every and step % train.evaluate_every == 0 and step < train.steps
                # Bad data after a step that is to be saved must not come before the save.
                batch = None if save or evaluate else self._next(batches, clock)
                self._log_all(pending, clock, but=1)
                self.checkpoints.check()
                self.check()
                stop = self.preemption.poll()
                if save or evaluate or stop:
                    self._log_all(pending, clock)  # also makes sure that no state with a broken loss is saved
                if save:
                    self._save(state, step)
                if stop:
                    raise Preempted
                if evaluate:
                    with self.preemption.immediate():
                        self.evaluate(step, state.evaluated_params)
                    clock.restart()
        except Preempted:
            self._save_now(state, step, pending, clock)
            _log.info("stopped by a signal: saved at step %d, the same command continues", step)
            raise
        except DataError:
            if jax.process_count() == 1:  # the others do not know of it, and a save takes all
                self._save_now(state, step, pending, clock)
            raise
        return state

    def _next(self, batches: Iterator[dict[str, np.ndarray]], clock: Clock) -> dict[str, jax.Array]:
        """The next batch, on its way to the devices: of the data's arrays, those that the objective needs."""
        waiting = time.perf_counter()
        with self.preemption.immediate():
            local = next(batches)
        clock.waited += time.perf_counter() - waiting
        sharding, size = batch_sharding(self.program.device_mesh), self.config.train.batch_size
        return {
            key: jax.make_array_from_process_local_data(sharding, local[key], (size, *local[key].shape[1:]))
            for key in self.program.batch
        }

    def _compile(self) -> jax.stages.Compiled:
        started = time.perf_counter()
        compiled = self.program.compile()
        _log.info("compiled the train step in %.1f s", time.perf_counter() - started)
        return compiled

    def _log_all(self, pending: Pending, clock: Clock, but: int = 0) -> None:
        """Reads and logs the oldest of the pending steps, until only `but` of them are left."""
        while len(pending) > but:
            self._log(*pending.popleft(), clock)

    def _log(self, step: int, metrics: dict[str, jax.Array], clock: Clock) -> None:
        """Reads a step's metrics and, if due, writes them: of this step alone, so that a restart cannot change a line."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        loss = values["loss"]
        clock.steps += 1
        if not math.isfinite(loss):
            raise CocaError(
                f"the loss of step {step} is {loss}: lower --config.optimizer.peak_learning_rate or set "
                f"--config.optimizer.clip_norm=1.0, and start again from the last checkpoint with the same command"
            )
        self.writer.progress(step)
        if step % self.config.train.log_every == 0 or step == self.config.train.steps:
            self.writer.write(step, values | self.data_metrics(step) | clock.line(self.config.train.batch_size))

    def _save_now(self, state: TrainState, step: int, pending: Pending, clock: Clock) -> None:
        self._log_all(pending, clock)
        if step:
            self._save(state, step)

    def _save(self, state: TrainState, step: int) -> None:
        self.writer.flush()  # first: lines up to a saved step are not written again by a restart
        self.checkpoints.save(state, step, self.record)


def _utilisation(config: Config) -> float | None:
    """Model FLOPs utilisation of a chip that works through one pair a second; None where its peak is not known."""
    chip = chips.of_device_kind(jax.devices()[0].device_kind)
    return None if chip is None else programs.model_flops(config) / config.train.batch_size / chip.flops
