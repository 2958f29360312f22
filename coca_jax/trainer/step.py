"""The train step: a pure function of state and batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from coca_jax.config import Config
from coca_jax.objectives import accumulation
from coca_jax.objectives.base import Batch, Metrics, Objective, merge, split
from coca_jax.trainer import optimizer as optimizers
from coca_jax.trainer.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def train_step(config: Config, objective: Objective, optimizer: optax.GradientTransformation) -> TrainStep:
    """A function (state, batch) -> (state, metrics), to be compiled under `jax.set_mesh`.

    Its randomness is fold_in(seed, step): there is no generator state to save. Frozen parameters are constants of it.
    """
    gradients_of = accumulation.gradients(objective, config.train.microbatches)
    decay = config.optimizer.ema_decay
    schedules = {
        "learning_rate" if len(objective.groups) == 1 else f"learning_rate/{name}": optimizers.learning_rate(
            config.optimizer, group.peak_learning_rate, config.train.steps
        )
        for name, group in objective.groups.items()
    }

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        trained, frozen = split(objective, state.params)
        gradients, metrics = gradients_of(trained, frozen, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        average = state.average
        if average is not None:
            # Warmed up like TensorFlow's: early averages forget the random start quickly.
            rate = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
            average = optax.incremental_update(trained, average, 1.0 - rate)
        metrics |= {"gradient_norm": optax.tree.norm(gradients)}
        metrics |= {name: schedule(state.step) for name, schedule in schedules.items()}
        return TrainState(state.step + 1, merge(trained, frozen), average, opt_state), metrics

    return step


def compile_step(step: TrainStep, abstract: TrainState, batch: dict[str, jax.ShapeDtypeStruct]) -> jax.stages.Compiled:
    """The step compiled ahead of time; the old state's memory becomes the new one's."""
    placed = jax.tree.map(lambda x: x.sharding, abstract)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(placed, None))
    return jitted.lower(abstract, batch).compile()
