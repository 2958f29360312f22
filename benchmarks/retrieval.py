"""Retrieval's ranks in blocks against the whole matrix of scores: time and memory for growing numbers of pairs.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --pairs=1000,4000,16000,64000 --dense_up_to=16000

Each figure comes from a process of its own: memory is what its peak grows by, on the host.
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
_DENSE = flags.DEFINE_integer("dense_up_to", 16_000, "The most pairs whose whole matrix is made.")
_WIDTH = flags.DEFINE_integer("width", 768, "Of the embeddings.")


def in_blocks(images: np.ndarray, texts: np.ndarray) -> None:
    from coca_jax.evaluation.metrics.mutual_ranks import mutual_ranks

    labels = np.arange(len(images))[:, None]
    mutual_ranks(images, texts, labels, labels)


def dense(images: np.ndarray, texts: np.ndarray) -> None:
    from coca_jax.evaluation.metrics import ranking

    scores, right = images @ texts.T, np.eye(len(images), dtype=bool)
    ranking.ranks(scores, right)
    ranking.ranks(scores.T, right.T)


def measured(form: Callable, pairs: int, width: int) -> tuple[float, int]:
    """(seconds, bytes): the first run in this process compiles, the second one counts."""
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
    print(f"{'pairs':>8} {'in blocks':>22} {'dense':>22}")
    for pairs in map(int, _PAIRS.value):
        cells = []
        for form in (in_blocks, dense):
            if form is dense and pairs > _DENSE.value:
                continue
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                seconds, size = process.submit(measured, form, pairs, _WIDTH.value).result()
            cells.append(f"{seconds:>8.2f} s {size / 2**20:>7,.0f} MiB")
        print(f"{pairs:>8,} " + " ".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    command_line.run(main)
