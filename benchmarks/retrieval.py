"""Time and memory of retrieval's ranks, computed blockwise and from the whole matrix of scores.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --pairs=1000,4000,16000,64000 --dense_up_to=16000

Each figure comes from its own process; memory is the growth of its peak on the host.
"""

import concurrent.futures
import multiprocessing
import resource
import time
from collections.abc import Callable

import numpy as np
from absl import flags

from coca_jax.cli import app as command_line

_PAIRS = flags.DEFINE_list("pairs", ["1000", "4000", "16000"], "Numbers of images, each with one text.")
_DENSE = flags.DEFINE_integer("dense_up_to", 16_000, "The largest number of pairs whose whole matrix is computed.")
_WIDTH = flags.DEFINE_integer("width", 768, "Of the embeddings.")


def blockwise(images: np.ndarray, texts: np.ndarray) -> None:
    from coca_jax.evaluation.metrics.ranking import label_ranks

    labels = np.arange(len(images))[:, None]
    label_ranks(images, texts, labels, labels)
    label_ranks(texts, images, labels, labels)


def dense(images: np.ndarray, texts: np.ndarray) -> None:
    from coca_jax.evaluation.metrics import ranking

    scores, right = images @ texts.T, np.eye(len(images), dtype=bool)
    ranking.ranks(scores, right)
    ranking.ranks(scores.T, right.T)


def measure(form: Callable, pairs: int, width: int) -> tuple[float, int]:
    """Seconds of the second run (the first one compiles), and bytes by which the process' peak grew."""
    images, texts = np.random.default_rng(0).standard_normal((2, pairs, width), np.float32)
    form(images[:16], texts[:16])  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    form(images, texts)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    form(images, texts)
    return time.perf_counter() - start, (peak - before) * 1024


def main(arguments: list[str]) -> None:
    command_line.reject_positional_arguments(arguments)
    print(f"{'pairs':>8} {'blockwise':>22} {'dense':>22}")
    for pairs in map(int, _PAIRS.value):
        cells = []
        for form in (blockwise, dense):
            if form is dense and pairs > _DENSE.value:
                continue
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                seconds, size = process.submit(measure, form, pairs, _WIDTH.value).result()
            cells.append(f"{seconds:>8.2f} s {size / 2**20:>7,.0f} MiB")
        print(f"{pairs:>8,} " + " ".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    command_line.run(main)
