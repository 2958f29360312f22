"""Data sets as seqio tasks: a source addressed by position, preprocessors, output features."""

from collections.abc import Mapping

import numpy as np

from coca_jax.data.quiet_tensorflow import tf  # before seqio, which imports tensorflow too

import seqio
import sentencepiece
from seqio import vocabularies

from coca_jax.config import Config
from coca_jax.data import examples as examples_lib
from coca_jax.data import records
from coca_jax.data.vocabulary import Vocabulary
from coca_jax.errors import DataError

_BLOCK = 64  # examples fetched by one call into Python


class SeqioVocabulary(seqio.SentencePieceVocabulary):
    """seqio's view of a `Vocabulary`; its model comes from bytes, so no file need exist."""

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(sentencepiece_model_file="")
        self._model_bytes, self._pad = vocabulary.model_bytes, vocabulary.pad_id

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
    """Examples in an order that is a function of the position alone.

    Elements: "image" uint8 [size, size, 3], "caption" string, and "failed": no example, `failure` says why.
    """

    def __init__(self, config: Config):
        """Opens nothing yet: a split's records are opened when they are first asked for."""
        self._config = config
        self._opened: dict[str, examples_lib.Examples] = {}
        self.failure: DataError | None = None
        super().__init__(splits=records.SPLITS, caching_permitted=False, performs_internal_shuffling=True)

    def examples(self, split: str) -> examples_lib.Examples:
        """The split's examples.

        Raises:
          CocaError: its records cannot be found.
        """
        if split not in self._opened:
            self._opened[split] = examples_lib.open_examples(self._config, split)
        return self._opened[split]

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> list[str]:
        return [split]

    def num_input_examples(self, split: str) -> int | None:
        return self.examples(split).count

    def get_dataset(self, split="train", shuffle=True, seed=None, shard_info=None, *, sequence_length=None,
                    use_cached=False, num_epochs=1):
        """seqio's access: one epoch (an unbounded set's never ends), shuffled by `seed` or in the store's order.

        Let go of its iterators before the program ends: tensorflow's threads still call into Python for them.
        """
        del sequence_length, use_cached, num_epochs
        count = self.examples(split).count
        positions = tf.data.Dataset.range(np.iinfo(np.int64).max if count is None else count)
        if shard_info and shard_info.num_shards > 1:
            positions = positions.shard(shard_info.num_shards, shard_info.index)
        examples = self.at(positions.batch(_BLOCK), split, (seed or 0) if shuffle else None)

        def checked(example):
            tf.debugging.assert_equal(example["failed"], False, "too many records cannot be read: see the log")
            return example

        return examples.map(checked)

    def at(self, blocks: tf.data.Dataset, split: str, seed: int | None, parallel: int = 1) -> tf.data.Dataset:
        """The examples at the given positions, one an element.

        Args:
          blocks: positions, int64 [n] an element; each is fetched by one call into Python.
          split: "train" or "evaluation".
          seed: of the order; None: the store's own order. Position p lies in epoch p // count, and every epoch is a
            permutation of the store.
          parallel: blocks fetched at a time.
        """
        source, size = self.examples(split), self._config.model.image.size

        def fetch(positions, indices):
            # tensorflow would print an exception with its traceback, and pass on another.
            try:
                pictures, captions = source.fetch(positions, indices)
            except DataError as error:
                self.failure = error
                pictures, captions = np.zeros((len(indices), size, size, 3), np.uint8), [""] * len(indices)
                return pictures, np.array(captions, object), np.ones(len(indices), bool)
            return pictures, np.array([text.encode() for text in captions], object), np.zeros(len(indices), bool)

        def block(positions):
            indices = positions if source.count is None else record_indices(positions, source.count, seed)
            pictures, captions, failed = tf.numpy_function(
                fetch, [positions, indices], [tf.uint8, tf.string, tf.bool], stateful=False)
            return {"image": tf.ensure_shape(pictures, [None, size, size, 3]),
                    "caption": tf.ensure_shape(captions, [None]), "failed": tf.ensure_shape(failed, [None])}

        return blocks.map(block, num_parallel_calls=parallel, deterministic=True).unbatch()


def record_indices(positions: tf.Tensor, count: int, seed: int | None) -> tf.Tensor:
    """Which of `count` records stands at each of the positions [n]: a stateless permutation per (seed, epoch)."""
    positions = tf.cast(positions, tf.int64)
    epoch, place = positions // count, positions % count
    if seed is None or count == 1:
        return place
    key = tf.stack([tf.zeros_like(epoch) + seed, epoch, tf.zeros_like(epoch)], axis=1)
    # The raw op, because tf.random.experimental.index_shuffle has 4 rounds, which under keys of small numbers leave most
    # records where they are (and it pads such a [n, 2] key wrongly).
    return tf.raw_ops.RandomIndexShuffle(
        index=place, seed=key, max_index=tf.constant(count - 1, tf.int64), rounds=8)


def tokenize(dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature],
             sequence_length: Mapping[str, int] | None = None) -> tf.data.Dataset:
    """A preprocessor: adds "text", BOS tokens… EOS, and "tokens", how many those are.

    With a sequence length the text is cut to it (EOS stays) and filled with pads; "tokens" still counts them all, so
    that who forbids long texts sees them.
    """
    vocabulary = output_features["text"].vocabulary
    length = (sequence_length or {}).get("text")

    def row(example):
        ids = vocabulary.encode_tf(example["caption"])
        tokens = tf.size(ids) + 2
        if length is not None:
            ids = ids[: length - 2]
        ids = tf.concat([[vocabulary.bos_id], ids, [vocabulary.eos_id]], axis=0)
        if length is not None:
            ids = tf.pad(ids, [[0, length - tf.size(ids)]], constant_values=vocabulary.pad_id)
            ids = tf.ensure_shape(ids, [length])
        return {**example, "text": tf.cast(ids, tf.int32), "tokens": tokens}

    return dataset.map(row)


def register(config: Config, vocabulary: Vocabulary) -> seqio.Task:
    """Registers `config.data` as a seqio task under its name (or its task's), in place of an earlier one.

    From then on `seqio.get_mixture_or_task("digit_scenes")` finds it.
    """
    name = config.data.name or config.data.task
    task = seqio.Task(
        name,
        source=PositionSource(config),
        preprocessors=[tokenize],
        output_features={
            "image": seqio.Feature(seqio.PassThroughVocabulary(256), add_eos=False, dtype=tf.uint8, rank=3),
            "text": seqio.Feature(SeqioVocabulary(vocabulary), add_eos=True, dtype=tf.int32, rank=1),
        },
        shuffle_buffer_size=None,  # the source's order is a permutation already
    )
    if name in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add_provider(name, task)
    return task
