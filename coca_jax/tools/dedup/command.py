"""Finds training images that are near-duplicates of evaluation images, and lists their keys to be left out.

    python -m coca_jax.tools dedup --config=configs/x.py --output=drop [--against=configs/other.py --against=folder]

writes below --output: DATASET.txt, a key a line, for each training dataset (name it in the dataset's exclude_keys, and
training leaves them out); pairs.jsonl, every pair; report.html, pairs side by side, the most doubtful first. Compared
are perceptual hashes; with --checkpoint its image embeddings as well.
"""

from collections.abc import Callable

from absl import flags

from coca_jax.cli.app import define_path, define_paths, required
from coca_jax.config import Config
from coca_jax.tools.common import open_datasets
from coca_jax.tools.dedup.images import Collection, evaluation_collections
from coca_jax.tools.dedup.report import write_report
from coca_jax.tools.dedup.search import Embedding, find_duplicates


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    output = define_path("output", "The folder to write into.", values)
    against = define_paths(
        "against", "More evaluation images: a folder, or a config file with held-out records.", values
    )
    own = flags.DEFINE_bool("own", True, "Compare with the config's own held-out records.", flag_values=values)
    distance = flags.DEFINE_integer(
        "distance", 8, "Bits of 64 in which hashes of near-duplicates may differ.", 0, 64, flag_values=values
    )
    checkpoint = define_path("checkpoint", "Compare by this model's embeddings, too.", values)
    similarity = flags.DEFINE_float(
        "similarity", 0.95, "The cosine of embeddings of near-duplicates, at least.", 0.0, 1.0, flag_values=values
    )
    shown = flags.DEFINE_integer("pairs", 200, "Pairs that report.html shows, at most.", 0, flag_values=values)
    workers = flags.DEFINE_integer("workers", 4, "Threads that read, hash and compare.", 1, flag_values=values)

    def run(config: Config) -> None:
        folder = required(output)
        # Records that an earlier list leaves out belong to the new list, too.
        datasets = open_datasets(config, "train", "dedup", excluded=True)
        training = [Collection(name, store) for name, (_, store) in datasets.items()]
        evaluation = evaluation_collections(config, against.value, own.value)
        embedding = _embedding(checkpoint.value, similarity.value) if checkpoint.value else None
        bits, threads = distance.value, workers.value
        result = find_duplicates(training, evaluation, distance=bits, workers=threads, embedding=embedding)
        write_report(folder, config, result, training, evaluation, shown.value)

    return run


def _embedding(checkpoint: str, threshold: float) -> Embedding:
    import coca_jax  # jax takes seconds to import

    coca = coca_jax.load(checkpoint)
    return Embedding(coca.embed_images, coca.config.model.image.size, threshold)
