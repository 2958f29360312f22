"""What a run settles before its first step: its vocabulary, and that a resumed run is the same run."""

import dataclasses
import logging


from coca_jax.config import Config
from coca_jax.data.corpus import training_captions
from coca_jax.data.vocabulary import Vocabulary, check_against_model, train_vocabulary
from coca_jax.errors import CocaError
from coca_jax.trainer.checkpoint import Checkpoints

_log = logging.getLogger(__name__)

# What may differ between a run and its continuation: anything that changes neither the model nor its data.
_FREE = ("optimizer", "evaluation")
_FREE_KEYS = {
    "train": {"steps", "log_every", "checkpoint_every", "keep_checkpoints", "evaluate_every", "tensorboard", "mesh", "microbatches"},
    "data": {"path", "vocabulary", "max_bad_ratio", "long_text"},
}


def checked_vocabulary(config: Config, checkpoints: Checkpoints) -> Vocabulary:
    """The vocabulary of the run: its checkpoint's, else the file that the config names, else one trained now.

    Raises:
      CocaError: the checkpoint belongs to a run with another model or data, or the vocabulary does not fit the model.
    """
    last = checkpoints.latest_step()
    if last is not None:
        record = checkpoints.record(last)
        _check_same_run(record.config, config)
        return Vocabulary.from_bytes(record.vocabulary)
    if config.data.vocabulary:
        vocabulary = Vocabulary.from_file(config.data.vocabulary)
    else:
        vocabulary = train_vocabulary(training_captions(config), config.model.text.vocabulary_size)
        _log.info("trained a vocabulary of %d pieces", vocabulary.size)
    check_against_model(vocabulary, config.model.text)
    return vocabulary


def _check_same_run(old: Config, new: Config) -> None:
    for section in dataclasses.fields(Config):
        if section.name in _FREE:
            continue
        before, after = getattr(old, section.name), getattr(new, section.name)
        for field in dataclasses.fields(before):
            was, now = getattr(before, field.name), getattr(after, field.name)
            if was != now and field.name not in _FREE_KEYS.get(section.name, ()):
                raise CocaError(
                    f"the folder holds a run with other settings ({section.name}.{field.name} was {was}, now {now}): "
                    f"choose another --workdir, or set it back to continue"
                )
