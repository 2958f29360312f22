"""Batches of every kind of store, digested; as a program: what a process makes that starts at each of some steps.

python -m tests.data.fresh_process FOLDER > found.json
"""

import hashlib
import itertools
import json
import pathlib
import sys

import numpy as np

from coca_jax.config import Config
from coca_jax.data.pipeline import batches as pipeline_lib
from coca_jax.data.pipeline.batches import Batch, Pipeline
from coca_jax.data.text.vocabulary import Vocabulary
from tests.data import builders

HOSTS = (1, 2, 4)
LIGHT = ("mixture", "digit_scenes", "tars", "folder", "jsonl", "csv", "clips")
HEAVY = ("tfrecords", "array_records", "tfds_tfrecord", "tfds_array_record")  # they import tensorflow

_PROMPTS = ("shade {}", "{} shade")


def config(folder: pathlib.Path, kind: str) -> Config:
    """Of a set that test_fresh_process.py writes: augmented, several texts each; some read a few neighbours at once."""
    format, path = {
        "jsonl": ("folder", "folder/list.jsonl"),
        "csv": ("folder", "folder/list.csv"),
        "clips": ("tars", "clips"),
        "tfds_tfrecord": ("tfds", "tfrecord"),
        "tfds_array_record": ("tfds", "array_record"),
    }.get(kind, (kind, kind))
    shown = {"format": format, "path": str(folder / path), "holdout": 1e-9, "crop": "random", "mirror": True}
    match kind:
        case "digit_scenes":
            own = {}
        case "clips":
            own = {**shown, "frames": 2}
        case "csv":
            own = {**shown, "label_field": "label", "prompts": _PROMPTS}
        case "mixture":
            pictures = {**shown, "format": "folder", "path": str(folder / "folder"), "share": 0.5}
            web = {**shown, "format": "tars", "path": str(folder / "tars"), "share": 0.3, "clean": "alt_text"}
            own = {
                "mixture": {
                    "own": builders.source(**pictures, label_field="stem", prompts=_PROMPTS),
                    "scenes": builders.source(share=0.25),
                    "web": builders.source(**{**web, "crop": "drawing"}),
                }
            }
        case _:
            own = shown
    ahead = kind in ("mixture", "tars", "tfrecords", "array_records")  # not all: each block costs time
    return builders.config(batch_size=4, block=4 if ahead else 1, **own)


def digests(batch: Batch, hosts: int = 1) -> list[str]:
    """Of each host's rows of a batch: keys, types, shapes and bytes."""
    parts = [hashlib.sha256() for _ in range(hosts)]
    for key in sorted(batch):
        for digest, rows in zip(parts, np.split(batch[key], hosts), strict=True):
            digest.update(f"{key} {rows.dtype} {rows.shape}".encode() + rows.tobytes())
    return [digest.hexdigest()[:16] for digest in parts]


def schedule(steps: list[int], length: int) -> dict[int, list[tuple[int, int]]]:
    """Starts for each number of hosts, (step, how many batches): the first step for all of them, others in turn."""
    return {
        hosts: [(steps[0], length), *((step, 1) for step in steps[1 + turn :: len(HOSTS)])]
        for turn, hosts in enumerate(HOSTS)
    }


def _started(pipeline: Pipeline, step: int, count: int) -> list[str]:
    """Of the first batches of a run that starts at a step."""
    batches = pipeline.iterate(step, prefetch=min(2, count - 1))
    found = [digests(batch)[0] for batch in itertools.islice(batches, count)]
    batches.close()
    return found


def _of_kind(config_: Config, vocabulary: Vocabulary, steps: list[int], length: int) -> dict:
    """The data's fingerprint, and for each host "1 of 4" the digests of all its starts."""
    found = {}
    for hosts, starts in schedule(steps, length).items():
        pipeline_lib._THREADS = hosts
        for host, rows in enumerate(np.split(np.arange(config_.train.batch_size), hosts)):
            pipeline = Pipeline(config_, vocabulary, rows=rows)
            found[f"{host} of {hosts}"] = [_started(pipeline, *start) for start in starts]
    return {"fingerprint": pipeline.fingerprint, "hosts": found}


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    plan = json.loads((folder / "plan.json").read_text())
    vocabulary = Vocabulary.from_file(str(folder / "vocabulary.model"))
    found = {}
    for kind, steps in plan["steps"].items():
        if kind == HEAVY[0]:
            found["tensorflow"] = sorted({"tensorflow", "seqio"} & set(sys.modules))
        found[kind] = _of_kind(config(folder, kind), vocabulary, steps, plan["length"])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
