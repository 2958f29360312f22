"""The train step: a pure function of state and batch."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from coca_jax.config import Config
from coca_jax.objectives.pretraining import Pretraining
from coca_jax.trainer import optimizer as optimizers
from coca_jax.trainer.state import TrainState

TrainStep = Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]


def train_step(config: Config, objective: Pretraining, optimizer: optax.GradientTransformation) -> TrainStep:
    """A function (state, batch) -> (state, metrics), to be compiled under `jax.set_mesh`.

    Its randomness is fold_in(seed, step): there is no generator state to save.
    """
    schedule = optimizers.learning_rate(config.optimizer, config.train.steps)
    gradients_of = objective.gradients(config.train.microbatches)
    decay = config.optimizer.ema_decay

    def step(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        gradients, metrics = gradients_of(state.params, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            # Warmed up like TensorFlow's: early averages forget the random start quickly.
            rate = jax.numpy.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
            average = optax.incremental_update(params, average, 1.0 - rate)
        metrics |= {"gradient_norm": optax.tree.norm(gradients), "learning_rate": schedule(state.step)}
        return state.replace(step=state.step + 1, params=params, average=average, opt_state=opt_state), metrics

    return step


def compile_step(step: TrainStep, abstract: TrainState, batch: dict[str, jax.ShapeDtypeStruct]) -> jax.stages.Compiled:
    """The step compiled ahead of time; the old state's memory becomes the new one's."""
    placed = jax.tree.map(lambda x: x.sharding, abstract)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(placed, None))
    return jitted.lower(abstract, batch).compile()
