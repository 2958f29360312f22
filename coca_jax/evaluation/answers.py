"""One pass over a set's pictures: all that the model says of each, with no more than a few batches in memory."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np

from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError
from coca_jax.evaluation import zero_shot
from coca_jax.evaluation.dataset import Classification, EvaluationSet, Pictures
from coca_jax.evaluation.model import Model
from coca_jax.evaluation.progress import progress
from coca_jax.generation import GenerationOptions

_BATCHES = 4  # of pictures in memory


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model says of the pictures that could be read.

    Attributes:
      rows: int64 [M], which of the set's pictures those are.
      embeddings_ME: float32, L2-normalised; None where nobody asked.
      generated: M captions; None likewise.
      likelihoods: of each classification by caption likelihood, for those of its pictures that could be read.
      unreadable: the others, counted by cause.
    """

    rows: np.ndarray
    embeddings_ME: np.ndarray | None
    generated: list[str] | None
    likelihoods: dict[str, zero_shot.Predictions]
    unreadable: Counter[str]

    def part(self, task: Classification) -> tuple[np.ndarray, np.ndarray]:
        """Of a classification's pictures those that could be read: their places among `rows`, and their targets."""
        readable = np.isin(task.indices, self.rows)
        return np.searchsorted(self.rows, task.indices[readable]), task.targets[readable]


class Rows:
    """Some rows of pictures, as pictures of their own; nothing is read before it is asked for."""

    def __init__(self, pictures: Pictures, rows: np.ndarray):
        self._pictures, self._rows = pictures, rows
        self.shape, self.dtype = (len(rows), *pictures.shape[1:]), pictures.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._pictures[self._rows[rows]]


def ask(
    coca: Model, held_out: EvaluationSet, *, embed: bool, caption: bool, likelihoods: Sequence[Classification] = ()
) -> Answers:
    """Shows the model each picture of the set once, for all that is wanted.

    Args:
      coca: the model.
      held_out: the set.
      embed, caption: whether to.
      likelihoods: classifications to make by the likelihood of captions.

    Raises:
      CocaError: not one picture can be read.
    """
    count, frames = len(held_out.images), held_out.images.shape[1] if len(held_out.images.shape) == 5 else 0
    # Whole batches, so that a picture's batch is the same as if all pictures were given at once; or a batch of frames.
    size = max(1, coca.batch_size // frames) if frames else coca.batch_size * _BATCHES
    embeddings: list[np.ndarray] = []
    generated: list[str] = []
    found: dict[str, list[tuple[np.ndarray, zero_shot.Predictions]]] = {task.name: [] for task in likelihoods}
    with progress(held_out.name, count) as show:
        for start in range(0, count, size):
            rows = np.arange(start, min(start + size, count))
            pictures = _of(held_out.images, rows)
            if embed:
                embeddings.append(coca.embed_videos(pictures, frames) if frames else coca.embed_images(pictures))
            if caption:
                generated += _caption(coca, held_out, pictures)
            for task in likelihoods:
                found[task.name].append(_likelihoods(coca, held_out, task, rows))
            show(int(rows[-1]) + 1)
    lost = _lost(held_out)
    kept = np.setdiff1d(np.arange(count), list(lost))
    if not len(kept):
        raise CocaError(f"none of the {count} held-out records of {held_out.name} can be read: replace them")
    return Answers(
        rows=kept,
        embeddings_ME=np.concatenate(embeddings)[kept] if embed else None,
        generated=[generated[row] for row in kept] if caption else None,
        likelihoods={name: _joined(parts, kept) for name, parts in found.items()},
        unreadable=Counter(held_out.unreadable) + Counter(lost.values()),
    )


def _of(images: np.ndarray | Pictures, rows: np.ndarray) -> np.ndarray | Rows:
    return images[rows] if isinstance(images, np.ndarray) else Rows(images, rows)


def _lost(held_out: EvaluationSet) -> dict[int, str]:
    """The rows of the pictures that could not be read, by whichever process had to, and why."""
    own = getattr(held_out.images, "unreadable", {})
    lost: dict[int, str] = {}
    for found in hosts.from_each(json.dumps(list(own.items())).encode() if own else b""):
        lost |= json.loads(found or b"[]")
    return dict(sorted(lost.items()))  # all processes count in one order


def _caption(coca: Model, held_out: EvaluationSet, pictures: np.ndarray | Rows) -> list[str]:
    asked = held_out.asked
    if asked is None:
        return list(coca.caption(pictures))
    return list(
        coca.caption(pictures, GenerationOptions(beams=asked.captioning.beams), prompts=asked.captioning.prompt)
    )


def _likelihoods(
    coca: Model, held_out: EvaluationSet, task: Classification, rows: np.ndarray
) -> tuple[np.ndarray, zero_shot.Predictions]:
    """Which of the rows take part in the classification, and what the model says of them."""
    asked, part = held_out.asked, np.isin(task.indices, rows)
    candidates = zero_shot.candidates_of(task)
    texts = [asked.classification.likelihood_prompt.replace("{}", task.labels[number]) for number in candidates]
    scores = coca.caption_log_likelihoods(
        _of(held_out.images, task.indices[part]),
        texts,
        per_token=asked.classification.likelihood_per_token,
        long_text=asked.long_text,
    )
    first = zero_shot.same_texts(zip(texts))
    return task.indices[part], zero_shot.from_scores(scores, task.targets[part], candidates, first)


def _joined(parts: Sequence[tuple[np.ndarray, zero_shot.Predictions]], kept: np.ndarray) -> zero_shot.Predictions:
    """Of the pictures that could be read."""
    readable = np.isin(np.concatenate([rows for rows, _ in parts]), kept)
    found = zero_shot.joined([one for _, one in parts])
    return zero_shot.Predictions(found.predicted[readable], found.margins[readable], found.ranks[readable])
