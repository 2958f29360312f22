"""Finds training images that are near-duplicates of evaluation images, and lists their keys to be left out.

    python -m coca_jax.tools dedup --config=configs/x.py --output=drop [--against=configs/other.py --against=folder]

writes below --output: DATASET.txt, a key a line, for each training dataset (name it in the dataset's exclude_keys, and
training leaves them out); pairs.jsonl, every pair; report.html, pairs side by side, the most doubtful first. Compared
are perceptual hashes; with --checkpoint its image embeddings as well.
"""

import runpy
from collections.abc import Callable, Sequence

from absl import flags

from coca_jax import config as configs
from coca_jax.cli.app import define_path, define_paths, required
from coca_jax.config import Config, DatasetConfig, EvaluationConfig
from coca_jax.data.records.open import SPLITS, open_records
from coca_jax.errors import CocaError
from coca_jax.tools.common import open_datasets
from coca_jax.tools.dedup.report import write_report
from coca_jax.tools.dedup.search import Collection, Embedding, find_duplicates


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    output = define_path("output", "The folder to write into.", values)
    against = define_paths("against", "More evaluation images: a folder, or a config with held-out records.", values)
    own = flags.DEFINE_bool("own", True, "Compare with the config's own held-out records.", flag_values=values)
    distance = flags.DEFINE_integer("distance", 8, "Bits of 64 that may differ in copies.", 0, 64, flag_values=values)
    checkpoint = define_path("checkpoint", "Compare by this model's embeddings, too.", values)
    similarity = flags.DEFINE_float("similarity", 0.95, "The least cosine of copies.", 0.0, 1.0, flag_values=values)
    shown = flags.DEFINE_integer("pairs", 200, "Pairs that report.html shows, at most.", 0, flag_values=values)
    workers = flags.DEFINE_integer("workers", 4, "Threads that read, hash and compare.", 1, flag_values=values)

    def run(config: Config) -> None:
        folder = required(output)
        # Records that an earlier list leaves out belong to the new list, too.
        datasets = open_datasets(config, "train", "dedup", excluded=True)
        training = [(name, store) for name, (_, store) in datasets.items()]
        evaluation = _evaluation(config, against.value, own.value)
        embedding = None
        if checkpoint.value:
            import coca_jax  # jax takes seconds to import

            coca = coca_jax.load(checkpoint.value)
            embedding = Embedding(coca.embed_images, coca.config.model.image.size, similarity.value)
        bits, threads = distance.value, workers.value
        result = find_duplicates(training, evaluation, distance=bits, workers=threads, embedding=embedding)
        write_report(folder, config, result, training, evaluation, shown.value)

    return run


def _evaluation(config: Config, against: Sequence[str], own: bool) -> list[Collection]:
    """The images that training must not contain; `own`: those that the config's training datasets hold out, too."""
    collections = _held_out(config if own else config.evaluation)
    for path in against:
        if path.partition(":")[0].endswith(".py"):
            collections += _held_out(_config(path), f"{path} ")
        else:
            # A label that every file has: images count without texts, too.
            folder = DatasetConfig(format="folder", path=path, label_field="stem", holdout=0.0)
            collections.append((path, open_records(folder, SPLITS[0])))
    if not collections:
        raise CocaError("there is nothing to compare with: name a dataset with --against, or leave out --noown")
    return collections


def _held_out(config: Config | EvaluationConfig, prefix: str = "") -> list[Collection]:
    """The held-out records of a config's training and evaluation datasets, but for digit_scenes."""
    datasets: dict[str, DatasetConfig] = {}
    where = ""
    if isinstance(config, Config):
        datasets = {name: one.dataset for name, one in config.data.sources.items() if one.dataset.holds_out}
        config, where = config.evaluation, "evaluation.datasets."  # a training dataset may have the same name
    datasets |= {f"{where}{name}": one.dataset for name, one in config.datasets.items()}
    return [
        (prefix + name, open_records(dataset, SPLITS[1]))
        for name, dataset in datasets.items()
        if dataset.format != "digit_scenes"
    ]


def _config(path: str) -> Config | EvaluationConfig:
    """The config of FILE[:ARGUMENT], a file of configs/ or configs/eval/."""
    file, _, argument = path.partition(":")
    try:
        get_config = runpy.run_path(file)["get_config"]
    except (OSError, KeyError) as error:
        raise CocaError(
            f"--against={path} has no config ({error}): name a file with get_config, or a folder"
        ) from error
    values = get_config(argument) if argument else get_config()
    return configs.from_config_dict(values) if "data" in values else configs.evaluation_from_config_dict(values)
