"""SentencePiece vocabularies: training, loading, special ids. Needs no tensorflow."""

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from coca_jax.config import TextConfig
from coca_jax.errors import CocaError
from coca_jax.storage import files

# Below this size the 256 byte pieces would crowd out words; from it on they make every text encodable without UNK.
_BYTE_FALLBACK_FROM = 4_096
_IN_TRAINING = "raise model.text.length, shorten the text, or set data.long_text = truncate"
_TRAINING_THREADS = 2  # fixed: the pieces depend on how the corpus is split over threads


class Vocabulary:
    """A SentencePiece model, serialised as `model_bytes`, with `size` ids, of which pad, bos, eos and unk are distinct."""

    def __init__(self, model_bytes: bytes, origin: str = "the vocabulary"):
        """Loads a serialised model.

        Raises:
          CocaError: the bytes are not a SentencePiece model, or a special id is missing; it names `origin`.
        """
        self.model_bytes = model_bytes
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model_bytes)
        except RuntimeError as error:
            raise CocaError(
                f"{origin} is not a SentencePiece model: name a .model file, or train one with "
                "python -m coca_jax.tools vocabulary"
            ) from error
        self.size = self._processor.GetPieceSize()
        self.pad_id, self.bos_id = self._processor.pad_id(), self._processor.bos_id()
        self.eos_id, self.unk_id = self._processor.eos_id(), self._processor.unk_id()
        special = {"pad": self.pad_id, "bos": self.bos_id, "eos": self.eos_id, "unk": self.unk_id}
        self.special_ids = set(special.values())
        if min(self.special_ids) < 0 or len(self.special_ids) < 4:
            raise CocaError(
                f"{origin} has the special ids {special}, but all four must exist and differ: train it "
                "with python -m coca_jax.tools vocabulary, or with explicit ids (--pad_id=0 --eos_id=1 …)"
            )

    @classmethod
    def from_file(cls, path: str | Path) -> "Vocabulary":
        """Loads a `.model` file of a disk or a bucket.

        Raises:
          CocaError: the file cannot be read, or is not a usable SentencePiece model.
        """
        try:
            return cls(files.read(str(path)), str(path))
        except files.ReadError as error:
            raise CocaError(f"the vocabulary {path} cannot be read ({error}): check the path") from error

    def save(self, path: str | Path) -> None:
        """Writes a `.model` file to a disk or a bucket.

        Raises:
          CocaError: the file cannot be written.
        """
        try:
            files.write_atomically(path, self.model_bytes)
        except OSError as error:
            raise CocaError(f"the vocabulary cannot be written to {path} ({error}): choose another path") from error

    def encode(
        self, texts: Sequence[str], length: int, long_text: str = "error", advice: str = _IN_TRAINING
    ) -> np.ndarray:
        """Token ids, int32 [len(texts), length]; each row is BOS, the text's tokens, EOS, pads.

        Args:
          texts: any strings.
          length: tokens a row, with BOS and EOS.
          long_text: "truncate" keeps the first tokens and EOS; "error" refuses.
          advice: the end of that error's sentence.

        Raises:
          CocaError: a text takes more than `length` tokens under "error"; it names the first one.
        """
        rows = np.full((len(texts), length), self.pad_id, np.int32)
        # One by one: for a list SentencePiece starts a thread, even for one.
        for row, text, tokens in zip(rows, texts, map(self._processor.encode, texts), strict=True):
            if len(tokens) + 2 > length:
                if long_text == "error":
                    shown = text if len(text) <= 60 else text[:57] + "…"
                    raise CocaError(
                        f"the text {shown!r} takes {len(tokens) + 2} tokens and the model reads {length}: {advice}"
                    )
                tokens = tokens[: length - 2]
            row[0] = self.bos_id
            row[1 : len(tokens) + 1] = tokens
            row[len(tokens) + 1] = self.eos_id
        return rows

    def encode_answered(
        self, questions: Sequence[str], answers: Sequence[str], length: int, long_text: str = "error"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Questions followed by their answers, int32 [n, length] (BOS, the question's tokens, the answer's, EOS, pads), and
        the numbers of tokens of the questions with BOS, int32 [n].

        Each is tokenised by itself, so that a question has the same tokens with and without its answer. Under "truncate"
        the question is cut. Errors as `encode`.
        """
        rows = np.full((len(questions), length), self.pad_id, np.int32)
        asked = np.zeros(len(questions), np.int32)
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            tail = [*self._processor.encode(answer)[: length - 3], self.eos_id]
            (head,) = self.encode([question], max(3, length - len(tail) + 1), long_text)
            tokens = head[head != self.pad_id][:-1].tolist()  # without EOS
            asked[number] = len(tokens)
            rows[number, : len(tokens) + len(tail)] = tokens + tail
        return rows, asked

    def decode(self, ids: np.ndarray) -> list[str]:
        """The texts of ids [n, L], each up to its first EOS and without special ids."""
        texts = []
        for row in np.asarray(ids).tolist():
            until_eos = itertools.takewhile(self.eos_id.__ne__, row)
            pieces = [i for i in until_eos if i not in self.special_ids and 0 <= i < self.size]
            texts.append(self._processor.decode(pieces))
        return texts

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, with BOS and EOS."""
        return [len(tokens) + 2 for tokens in self._processor.encode(list(texts), num_threads=1)]

    def piece(self, token: int) -> str:
        """The text of an id, with "▁" for a space."""
        return self._processor.id_to_piece(token) if 0 <= token < self.size else "?"


def train_vocabulary(texts: Iterable[str], size: int) -> Vocabulary:
    """Trains a SentencePiece model (BPE) with `size` ids, or fewer from a small corpus; the same texts give the same model.

    Raises:
      CocaError: there is no text, or `size` is too small even for the corpus' characters.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise CocaError(
            "there is no caption to train a vocabulary from: check the paths of the datasets and their captions"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            hard_vocab_limit=False,
            character_coverage=1.0 if size < _BYTE_FALLBACK_FROM else 0.9995,
            byte_fallback=size >= _BYTE_FALLBACK_FROM,
            normalization_rule_name="nmt_nfkc",
            pad_id=0,  # pad, eos, unk as seqio and T5 have them
            eos_id=1,
            unk_id=2,
            bos_id=3,
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().rpartition("] ")[2].rstrip(".")  # after the source line that raised it
        raise CocaError(
            f"a vocabulary of {size} pieces cannot be trained on {len(texts)} captions ({reason}): choose another size"
        ) from error
    return Vocabulary(model.getvalue())


def check_against_model(vocabulary: Vocabulary, text_config: TextConfig) -> None:
    """Raises CocaError if an id has no row in the model's embedding."""
    if vocabulary.size > text_config.vocabulary_size:
        raise CocaError(
            f"the vocabulary has {vocabulary.size} pieces but model.text.vocabulary_size is "
            f"{text_config.vocabulary_size}: set it to at least {vocabulary.size}"
        )
