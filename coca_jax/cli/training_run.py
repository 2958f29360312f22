"""What a run settles before its first step: its vocabulary, that a resumed run is the same run, its loop's parts."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from coca_jax.config import Config, DatasetConfig, SourceConfig
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.text.corpus import training_captions
from coca_jax.data.text.vocabulary import Vocabulary, check_against_model, train_vocabulary
from coca_jax.distributed import processes as hosts
from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import make_mesh
from coca_jax.errors import CocaError
from coca_jax.evaluation.results import flat_metrics, write_results
from coca_jax.evaluation.runner import RunEvaluation
from coca_jax.inference.model import Coca
from coca_jax.trainer import preemption, program, state
from coca_jax.trainer import writers as metrics
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord, load_record
from coca_jax.trainer.loop import Loop

_log = logging.getLogger(__name__)

# What may differ between a run and its continuation: anything that changes neither the model nor its data.
_FREE = ("optimizer", "evaluation")
_FREE_KEYS = {
    "train": {
        "steps",
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "evaluate_every",
        "tensorboard",
        "mesh",
        "microbatches",
    },
    "data": {"vocabulary", "max_bad_ratio", "long_text"},
}


@contextlib.contextmanager
def prepared(config: Config, folder: epath.Path, stop: preemption.Preemption) -> Iterator[Loop]:
    """A run's loop, ready to go, with its mesh set and its writers open; afterwards says which records were skipped.

    Raises:
      CocaError: config, data, folder and devices do not fit together.
    """
    _check_stills(config)
    mesh = make_mesh(config.train.mesh, config.model)
    sharding.check_batch_size(mesh, config.train.batch_size, config.train.microbatches)
    hosts.check_shared(folder)
    _keep_compiled(folder)
    checkpoints = Checkpoints(folder, config.train.keep_checkpoints)
    last = checkpoints.latest_step()
    before = None if last is None else checkpoints.record(last)
    vocabulary = checked_vocabulary(config, before)
    rows = hosts.local_rows(sharding.batch_sharding(mesh), config.train.batch_size)
    pipeline = Pipeline(config, vocabulary, rows=rows)
    hosts.check_same(pipeline.fingerprint, "the hosts see different training data: give all of them the same files")
    _check_same_data(before, pipeline.fingerprint)
    evaluation = RunEvaluation(config)  # before training: missing held-out data must not show at the end
    built = program.build(config, mesh, vocabulary.pad_id)
    writer = _writer(config, folder, last or 0, built.plan)

    def evaluate(at_step: int, params: Any) -> None:
        coca = Coca(config, params, vocabulary, at_step, mesh=mesh, between_batches=stop.check)
        results = evaluation(coca)
        if results is None:
            return
        _ = coca.digest  # made by all processes together, for the first to write it
        writer.write_evaluation(at_step, flat_metrics(results))
        writer.flush()  # the report reads what was written
        if hosts.is_first():
            for key, value in flat_metrics(results).items():
                _log.info("%s = %.4g", key, value)
            write_results(folder, coca, results, title=folder.name, checkpoint=str(folder))

    record = RunRecord(config, vocabulary.model_bytes, pipeline.fingerprint)
    try:
        with jax.set_mesh(mesh):
            yield Loop(built, record, pipeline.iterate, checkpoints, writer, stop, evaluate, pipeline.metrics)
    finally:
        writer.close()
        for name, skipped in pipeline.skipped_by_source.items():
            of = f" of {name}" if config.data.mixture else ""
            for cause, count in skipped.by_cause.items():
                _log.warning("skipped %d record%s%s: %s", count, "s" * (count > 1), of, cause)


def _keep_compiled(folder: epath.Path) -> None:
    """Lets a restart load what an earlier start compiled: minutes for a large model, and on GPUs the same choice of
    kernels, so that the curve stays the same to the last digit.

    Not on CPUs: there, what was compiled on one machine may crash the next that continues the run.
    """
    if jax.default_backend() != "cpu" and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))


def _writer(config: Config, folder: epath.Path, start_step: int, plan: state.StatePlan) -> metrics.Writer:
    """The run's one writer, on process 0, and its `model_info.txt`."""
    if not hosts.is_first():
        return metrics.Writer()
    metrics.write_model_info(folder / "model_info.txt", plan.abstract.params, plan.logical)
    return metrics.MetricsWriter(
        folder,
        start_step=start_step,
        steps=config.train.steps,
        tensorboard=config.train.tensorboard,
    )


def checked_vocabulary(config: Config, before: RunRecord | None) -> Vocabulary:
    """The vocabulary of the run: that of its last checkpoint (`before`), else of the run that it starts from, else the file
    that the config names, else one trained now.

    Process 0 reads or trains it for all.

    Raises:
      CocaError: the checkpoint belongs to a run with another model or data, or the vocabulary does not fit the model.
    """
    if before is not None:
        _check_same_run(before.config, config)
        return Vocabulary.from_bytes(before.vocabulary)
    vocabulary = Vocabulary.from_bytes(hosts.from_first(lambda: _fresh_vocabulary(config).model_bytes))
    check_against_model(vocabulary, config.model.text)
    return vocabulary


def _fresh_vocabulary(config: Config) -> Vocabulary:
    if config.train.init_from:  # the parameters that the run starts from know its tokens
        return Vocabulary.from_bytes(load_record(config.train.init_from).vocabulary)
    if config.data.vocabulary:
        return Vocabulary.from_file(config.data.vocabulary)
    vocabulary = train_vocabulary(training_captions(config), config.model.text.vocabulary_size)
    _log.info("trained a vocabulary of %d pieces", vocabulary.size)
    return vocabulary


def _check_same_run(old: Config, new: Config) -> None:
    for section in dataclasses.fields(Config):
        if section.name in _FREE:
            continue
        before, after = getattr(old, section.name), getattr(new, section.name)
        for field in dataclasses.fields(before):
            was, now = getattr(before, field.name), getattr(after, field.name)
            if field.name == "mixture":  # where its sets lie may differ, as where a single set lies
                was, now = (_without_paths(mixture) for mixture in (was, now))
            elif section.name == "data" and field.name == "dataset":
                was, now = _without_path(was), _without_path(now)
            if was != now and field.name not in _FREE_KEYS.get(section.name, ()):
                raise CocaError(
                    f"the folder holds a run with other settings ({section.name}.{field.name} was {was}, now {now}): "
                    f"choose another --workdir, or set it back to continue"
                )


def _check_same_data(before: RunRecord | None, fingerprint: str) -> None:
    if before is not None and before.data_fingerprint != fingerprint:
        raise CocaError(
            "the folder holds a run on other data (its records, the lists of keys or names, or the extra `fast` "
            "differ): put them back to continue, or choose another --workdir, where train.init_from may name this one"
        )


def _check_stills(config: Config) -> None:
    for name, source in config.data.sources.items():
        if source.dataset.frames:
            raise CocaError(
                f"{config.data.key(name)}.dataset.frames = {source.dataset.frames} makes clips, which pretraining cannot read: set it to 0, and a "
                "frame drawn at random is the picture"
            )


def _without_paths(mixture: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
    return {name: dataclasses.replace(one, dataset=_without_path(one.dataset)) for name, one in mixture.items()}


def _without_path(dataset: DatasetConfig) -> DatasetConfig:
    return dataclasses.replace(dataset, path="")
