"""Finds training pairs whose picture is a near-duplicate of an evaluation set's, and lists their keys to be left out.

    python -m coca_jax.tools dedup --config=configs/x.py --output=drop [--against=configs/other.py --against=folder]

writes below --output: SET.txt, a key a line, for each set (name it in the set's exclude_keys, and training leaves them
out); pairs.jsonl, every pair; report.html, pairs side by side, the most doubtful first. Compared are perceptual hashes;
with --checkpoint its image embeddings as well.
"""

from collections.abc import Callable

from absl import flags

from coca_jax.config import Config
from coca_jax.errors import CocaError
from coca_jax.tools import dedup_report, sets
from coca_jax.tools.hamming import FARTHEST
from coca_jax.tools.held_out import held_out
from coca_jax.tools.near_duplicates import Embedding, find


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; gives what runs it."""
    output = flags.DEFINE_string("output", None, "The folder to write into.", flag_values=values)
    against = flags.DEFINE_multi_string(
        "against",
        [],
        "A further evaluation set, once for each: a folder of pictures, or a config file whose held-out "
        "sets count. The evaluation.datasets of --config always do.",
        flag_values=values,
    )
    own = flags.DEFINE_bool(
        "own", True, "Compare with the records that --config's training sets hold out, too.", flag_values=values
    )
    distance = flags.DEFINE_integer(
        "distance",
        8,
        "Bits of 64 in which the hashes of near-duplicates may differ.",
        lower_bound=0,
        upper_bound=FARTHEST,
        flag_values=values,
    )
    checkpoint = flags.DEFINE_string(
        "checkpoint", "", "A run or checkpoint whose image embeddings are compared too.", flag_values=values
    )
    similarity = flags.DEFINE_float(
        "similarity",
        0.95,
        "With --checkpoint: the cosine from which two pictures are the same, 0 to 1.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    shown = flags.DEFINE_integer(
        "pairs", 200, "Pairs of pictures that report.html shows, at most.", lower_bound=0, flag_values=values
    )
    workers = flags.DEFINE_integer("workers", 4, "Threads that read and hash.", lower_bound=1, flag_values=values)

    def run(config: Config) -> None:
        if not output.value:
            raise CocaError("--output is missing: name a folder for the lists of keys")
        # What an earlier list leaves out belongs to the new one too.
        train = sets.stored(config, "train", "dedup", exclude_keys="")
        held = held_out(config, against.value, own.value)
        embedding = _embedding(checkpoint.value, similarity.value) if checkpoint.value else None
        found = find(train, held, distance=distance.value, workers=workers.value, embedding=embedding)
        dedup_report.write(output.value, config, found, train, held, shown.value)

    return run


def _embedding(checkpoint: str, least: float) -> Embedding:
    import coca_jax  # jax takes seconds to import

    coca = coca_jax.load(checkpoint)
    return Embedding(coca.embed_images, coca.config.model.image.size, least)
