"""The config's data for programs built on seqio: each source a task, all of them a mixture.

    tasks.register(config, vocabulary)
    seqio.get_mixture_or_task("mixture").get_dataset({"text": 64}, split="train")

A task gives the same examples that `pipeline.Pipeline` makes its batches of, with the same tokens; seqio's mixture
draws them at the rates of their shares, while `Pipeline` gives each source its exact quota of every batch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import sentencepiece
import seqio
from seqio import vocabularies

from coca_jax.config import Config
from coca_jax.data.images.inputs import input_dtype, input_shape
from coca_jax.data.pipeline.examples import Examples, open_examples
from coca_jax.data.quiet_tensorflow import tf  # before seqio, which imports tensorflow too
from coca_jax.data.records.open import SPLITS
from coca_jax.data.text.vocabulary import Vocabulary

_BLOCK = 64  # examples fetched by one call into Python
_AHEAD_BYTES = 2**28  # of encoded images read before they are due


class SeqioVocabulary(seqio.SentencePieceVocabulary):
    """A `Vocabulary` as seqio's own class; its model comes from bytes, so that no file need exist."""

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(sentencepiece_model_file="")
        self._model_bytes, self._pad = vocabulary.model_bytes, vocabulary.pad_id
        self._model: Any = None

    def _model_context(self):
        if self._model is None:
            processor = sentencepiece.SentencePieceProcessor()
            processor.LoadFromSerializedProto(self._model_bytes)
            self._model = vocabularies._ModelContext(tokenizer=processor, sp_model=self._model_bytes)
        return self._model

    @property
    def pad_id(self) -> int:
        return self._pad


class PositionSource(seqio.DataSource):
    """The examples of one source, in an order that is a function of the position alone.

    Elements: "image" uint8 [size, size, 3] (of stored tokens float32 [tokens, width]) and "caption" string.
    """

    def __init__(self, config: Config, name: str):
        """Opens nothing yet: a split's records are opened when they are first needed."""
        self._config, self._name = config, name
        self._shape = input_shape(config.model, config.data.sources[name].dataset.frames)
        super().__init__(splits=SPLITS, caching_permitted=False, performs_internal_shuffling=True)

    def _examples(self, split: str, seed: int | None) -> Examples:
        return open_examples(self._config, self._name, split, self._config.train.batch_size, seed)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True  # by position: other hosts' examples are neither read nor decoded

    def list_shards(self, split: str) -> list[str]:
        return [split]

    def num_input_examples(self, split: str) -> int | None:
        return self._examples(split, None).count

    def get_dataset(self, split="train", shuffle=True, seed=None, shard_info=None, **_):
        """One epoch (of scenes, without end), shuffled by `seed` or in the store's order; arguments as seqio's.

        Release its iterators before the program ends: tensorflow's threads still call into Python for them.
        """
        source, dtype = self._examples(split, (seed or 0) if shuffle else None), input_dtype(self._config.model)
        reader: Any = source.reader(_AHEAD_BYTES)
        positions = tf.data.Dataset.range(np.iinfo(np.int64).max if source.count is None else source.count)
        if shard_info and shard_info.num_shards > 1:
            positions = positions.shard(shard_info.num_shards, shard_info.index)

        def fetch(positions):
            places = zip(positions.tolist(), source.indices(positions).tolist(), strict=True)
            examples = [source.read(position, index, reader) for position, index in places]
            images = np.empty((len(examples), *self._shape), dtype)
            used = [source.decode(example, out) for example, out in zip(examples, images, strict=True)]
            return images, np.array([example.text.encode() for example in used], object)

        def block(positions):
            images, captions = tf.numpy_function(fetch, [positions], [dtype, tf.string], stateful=False)
            images, captions = tf.ensure_shape(images, (None, *self._shape)), tf.ensure_shape(captions, [None])
            return {"image": images, "caption": captions}

        return positions.batch(_BLOCK).map(block).unbatch()


def tokenize(
    dataset: tf.data.Dataset, output_features: Mapping[str, Any], sequence_length: Mapping[str, int] | None = None
) -> tf.data.Dataset:
    """A preprocessor: adds "text", BOS tokens… EOS; cut to a sequence length (EOS stays) and filled with pads."""
    vocabulary = output_features["text"].vocabulary
    length = (sequence_length or {}).get("text")

    def row(example):
        ids = vocabulary.encode_tf(example["caption"])
        if length is not None:
            ids = ids[: length - 2]
        ids = tf.concat([[vocabulary.bos_id], ids, [vocabulary.eos_id]], axis=0)
        if length is not None:
            ids = tf.pad(ids, [[0, length - tf.size(ids)]], constant_values=vocabulary.pad_id)
            ids = tf.ensure_shape(ids, [length])
        return {**example, "text": tf.cast(ids, tf.int32)}

    return dataset.map(row)


def register(config: Config, vocabulary: Vocabulary) -> seqio.Task | seqio.Mixture:
    """Registers each source of `config.data` as a seqio task of its name; returns the task, or the mixture of several.

    A mixture is registered as `config.data.name` or "mixture", with the shares as rates. Earlier tasks and mixtures of
    these names are replaced. From then on `seqio.get_mixture_or_task("digit_scenes")` finds it.
    """
    frames = max(source.dataset.frames for source in config.data.sources.values())
    image, rank = seqio.PassThroughVocabulary(256), len(input_shape(config.model, frames))
    features = {
        "image": seqio.Feature(image, add_eos=False, dtype=tf.as_dtype(input_dtype(config.model)), rank=rank),
        "text": seqio.Feature(SeqioVocabulary(vocabulary), add_eos=True, dtype=tf.int32, rank=1),
    }
    added = []
    for name in config.data.sources:
        task = seqio.Task(
            name,
            source=PositionSource(config, name),
            preprocessors=[tokenize],
            output_features=features,
            shuffle_buffer_size=None,  # the source's order is a permutation already
        )
        added.append(_replace(seqio.TaskRegistry, task))
    if not config.data.mixture:
        return added[0]
    rates = [(name, source.share) for name, source in config.data.mixture.items()]
    return _replace(seqio.MixtureRegistry, seqio.Mixture(config.data.name or "mixture", rates))


def _replace(registry: Any, provider: Any) -> Any:
    if provider.name in registry.names():
        registry.remove(provider.name)
    registry.add_provider(provider.name, provider)
    return provider
