"""Finds pictures of a folder by a sentence, or by another picture.

    python -m coca_jax.search --checkpoint=runs/quickstart --images=photos "a dog on a beach" "two red cars"
    python -m coca_jax.search --checkpoint=runs/quickstart --images=photos --image=like_this.png -k 5
    python -m coca_jax.search --checkpoint=runs/quickstart --images=photos --page=results.html "a dog on a beach"
    python -m coca_jax.search --checkpoint=runs/quickstart --index=photos/.coca_index "a dog on a beach"

The first search embeds the folder's pictures and keeps them in an index; a later one embeds only those that are new or
have changed. With --index alone the index is searched as it is. What cannot be read as a picture is left out, counted
and named. The results of a query are lines of a cosine similarity, a tab and a file.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from coca_jax.cli import app as command_line
from coca_jax.errors import CocaError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run's folder, or one checkpoint below its checkpoints folder.")
_IMAGES = flags.DEFINE_string("images", None, "The folder of pictures, with the folders in it.")
_INDEX = flags.DEFINE_string("index", None, "Where the index is kept; by default .coca_index among the pictures.")
_IMAGE = flags.DEFINE_multi_string("image", [], "A picture to look for others like it; may be given several times.")
_K = flags.DEFINE_integer("k", 10, "How many pictures to find for each query.")
_PAGE = flags.DEFINE_string("page", None, "Writes the results as a page to look at into this HTML file.")
_NAMED = 5  # unreadable files

_log = logging.getLogger("coca_jax.search")  # __name__ is __main__ where this file is run


def opened(coca, pictures: str | None, place: str | None):
    """The index, up to date where the folder of its pictures is given."""
    from coca_jax.embedding_index import folder

    if not pictures:
        return coca.load_index(place)
    update = folder.update(coca, coca.config.model.image.size, pictures, place or Path(pictures, folder.PLACE))
    _log.info(
        "%s pictures in the index: %s new, %s as before, %s gone or changed",
        f"{len(update.index):,}",
        f"{update.added:,}",
        f"{update.kept:,}",
        f"{update.removed:,}",
    )
    if update.unreadable:
        files = "1 file" if len(update.unreadable) == 1 else f"{len(update.unreadable):,} files"
        more = "; …" if len(update.unreadable) > _NAMED else ""
        _log.warning("left out %s: %s%s", files, "; ".join(update.unreadable[:_NAMED]), more)
    return update.index


def search(index, queries: Sequence[str | Path], k: int, page: str | None) -> None:
    """Prints what is found for each query, and writes it into the HTML file `page` where one is named."""
    found = index.search(list(queries), k)
    for query, hits in zip(queries, found, strict=True):
        print(query)
        for hit in hits:
            print(f"{hit.score:.4f}\t{Path(index.folder, hit.name)}")
    if page:
        from coca_jax.embedding_index.search_page import write_search_page

        write_search_page(page, index.folder, len(index), queries, found)
        _log.info("the page is %s", page)


def main(arguments: list[str]) -> None:
    checkpoint = command_line.required(_CHECKPOINT)
    queries = [*arguments[1:], *map(Path, _IMAGE.value)]
    if not _IMAGES.value and not _INDEX.value:
        raise CocaError("--images is missing: name the folder of pictures, or with --index an index that is there")
    if not queries:
        raise CocaError("there is nothing to look for: write a sentence after the flags, or give a picture as --image")
    if _K.value < 1:
        raise CocaError(f"--k={_K.value}: ask for at least one picture")
    import coca_jax

    search(opened(coca_jax.load(checkpoint), _IMAGES.value, _INDEX.value), queries, _K.value, _PAGE.value)


if __name__ == "__main__":
    command_line.run(main)
