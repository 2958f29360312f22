"""Adapts the quickstart's model to every task of the digit scenes, and puts results and baselines into one table and page.

    bash launch/quickstart.sh
    python benchmarks/adaptation.py                       # over an hour on two cores; a stopped one goes on
    python benchmarks/adaptation.py --runs=digits_frozen,pairs

Each run is the `train` command with a config of configs/adapt and `size=laptop`; its time is processor time divided by
two, with start, compilation and evaluation, which other programs change little. Baselines are measured on the same
held-out examples: the most frequent class of each kind of example; and logistic regressions (scikit-learn), trained on
6,000 training examples, on the words of the text alone (up to three in a row), on the embedding of the image alone (of a
pair the left one), and on the embeddings of images and text together.
"""

import json
import pathlib
import resource
import subprocess
import sys
from collections import Counter
from typing import NamedTuple

import numpy as np
from absl import app, flags
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import coca_jax
from coca_jax.data.digit_scenes.tasks import task_scene
from coca_jax.pages.blocks import Section, Table, Text
from coca_jax.pages.charts import percent
from coca_jax.pages.page import write_page

_CHECKPOINT = flags.DEFINE_string("checkpoint", "runs/quickstart", "The pretrained run.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/adaptation", "Folder of the runs and of the page.")
_RUNS = flags.DEFINE_list("runs", [], "Names of the runs; by default all.")
_TRAINING_EXAMPLES = 6_000
_SPENT = "processor_seconds.json"


class Run(NamedTuple):
    """A run: the config with its argument, the scenes' task, the metric, further flags."""

    config: str
    task: str
    metric: str = "accuracy"
    flags: tuple[str, ...] = ()


RUNS = {
    "digits_frozen": Run("imagenet.py:features=frozen,size=laptop", "digits"),
    "digits_finetuned": Run("imagenet.py:features=finetuned,size=laptop", "digits"),
    "questions": Run("vqa.py:size=laptop", "questions", "vqa_accuracy"),
    "entailment": Run("snli_ve.py:size=laptop", "entailment"),
    "pairs": Run("nlvr2.py:size=laptop", "pairs"),
    "actions_frozen": Run("kinetics.py:features=frozen,size=laptop", "actions"),
    "actions_frozen_without_order": Run(
        "kinetics.py:features=frozen,size=laptop", "actions", flags=("--config.objective.head.frame_positions=False",)
    ),
}
COLUMNS = (
    "run",
    "result",
    "most frequent class of its kind",
    "text alone",
    "image alone",
    "embeddings",
    "minutes on two cores",
)


def train(name: str) -> tuple[dict[str, float], float]:
    """The metrics of a run, which goes on where it was stopped, and its processor time, in minutes of two cores."""
    run, folder, before = RUNS[name], pathlib.Path(_WORKDIR.value) / name, _processor_seconds()
    command = [sys.executable, "-m", "coca_jax.train", f"--config=configs/adapt/{run.config}", f"--workdir={folder}"]
    subprocess.run([*command, f"--config.train.init_from={_CHECKPOINT.value}", *run.flags], check=True)
    results = json.loads((folder / "evaluation.json").read_text())
    metrics = {key.partition("/")[2]: value for key, value in results.items() if key.startswith("digit_scenes/")}
    spent = folder / _SPENT
    if not spent.exists():  # of a run that was stopped, only the last part is known
        spent.write_text(json.dumps(_processor_seconds() - before))
    return metrics, json.loads(spent.read_text()) / 120


def _processor_seconds() -> float:
    """Of the runs so far, which are processes of their own."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def baselines(coca: coca_jax.Coca, task: str, examples: int) -> list[float]:
    """Accuracies on so many held-out examples of each kind's most frequent class, by the text, the image, all embeddings."""
    size = coca.config.model.image.size
    parts = [("train", _TRAINING_EXAMPLES), ("evaluation", examples)]
    train, test = ([task_scene(task, index, split, size) for index in range(count)] for split, count in parts)
    labels = [[one.label for one in some] for some in (train, test)]
    by_kind: dict[str, Counter[int]] = {}
    for one in train:
        by_kind.setdefault(one.kind, Counter())[one.label] += 1
    most = [by_kind[one.kind].most_common(1)[0][0] for one in test]
    by_text = float("nan")
    if task not in ("digits", "actions"):  # whose texts are captions, and name the class
        words = make_pipeline(CountVectorizer(ngram_range=(1, 3)), LogisticRegression(max_iter=2_000))
        by_text = words.fit([one.text for one in train], labels[0]).score([one.text for one in test], labels[1])
    features = [_embeddings(coca, some, task) for some in (train, test)]
    return [
        float(np.mean(np.array(labels[1]) == np.array(most))),
        by_text,
        *(_by_logistic_regression(*[one[kind] for one in features], *labels) for kind in ("image", "all")),
    ]


def _embeddings(coca: coca_jax.Coca, examples: list, task: str) -> dict[str, np.ndarray]:
    """Of one image or clip, and of all that an example has, [n, …] each."""
    images = np.stack([one.image for one in examples])
    if task == "actions":
        image = every = coca.embed_videos(images, frames=images.shape[1])
    elif task == "pairs":
        image, right = (coca.embed_images(images[:, side]) for side in (0, 1))
        every = np.concatenate([image, right], axis=1)
    else:
        image = every = coca.embed_images(images)
    if task not in ("digits", "actions"):
        texts = coca.embed_texts([one.text for one in examples], long_text="truncate")
        every = np.concatenate([every, texts], axis=1)
    return {"image": image, "all": every}


def _by_logistic_regression(train: np.ndarray, test: np.ndarray, labels: list[int], right: list[int]) -> float:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000)).fit(train, labels).score(test, right)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"{arguments[1]!r} is not a flag")
    coca, rows, known, sections = coca_jax.load(_CHECKPOINT.value), [], {}, []
    for name in _RUNS.value or RUNS:
        run = RUNS[name]
        metrics, minutes = train(name)
        if run.task not in known:
            adapted = coca_jax.load(pathlib.Path(_WORKDIR.value) / name)
            known[run.task] = baselines(coca, run.task, adapted.config.evaluation.examples)
        shares = [percent(value) if value == value else "" for value in known[run.task]]
        rows.append((name, percent(metrics[run.metric]), *shares, f"{minutes:.1f}"))
        parts = [(key, percent(value)) for key, value in metrics.items() if key.startswith(run.metric)]
        sections.append(Section(name.replace("_", " "), name, [Table(("metric", "value"), parts, name)]))
        print("\n".join(" | ".join(row) for row in [COLUMNS, *rows]), flush=True)
        summary = Section("Results", "results", [Text("Held-out writing.", "lead"), Table(COLUMNS, rows, "Results")])
        page = pathlib.Path(_WORKDIR.value) / "report.html"
        write_page(page, kind="adaptation", title="Digit scenes", sections=[summary, *sections])


if __name__ == "__main__":
    app.run(main)
