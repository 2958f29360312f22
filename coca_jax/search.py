"""Finds images of a folder by a sentence, or by another image.

    python -m coca_jax.search --checkpoint=runs/quickstart --images=photos "a dog on a beach" "two red cars"
    python -m coca_jax.search --checkpoint=runs/quickstart --images=photos --image=like_this.png -k 5
    python -m coca_jax.search --checkpoint=runs/quickstart --images=photos --page=results.html "a dog on a beach"
    python -m coca_jax.search --checkpoint=runs/quickstart --index=photos/.coca_index "a dog on a beach"

The first search embeds the folder's images and keeps them in an index; a later one embeds only those that are new or have
changed. With --index alone the index is searched as it is. What cannot be read as an image is left out, counted and
named. The results of a query are lines of a cosine similarity, a tab and a file.
"""

from pathlib import Path

from absl import flags

from coca_jax.cli import app as command_line
from coca_jax.errors import CocaError

_CHECKPOINT = command_line.define_checkpoint()
_IMAGES = command_line.define_path("images", "The folder of images, with the folders in it.")
_INDEX = command_line.define_path("index", "Where the index is kept; by default .coca_index among the images.")
_IMAGE = command_line.define_paths("image", "An image to look for others like it; may be given several times.")
_K = flags.DEFINE_integer("k", 10, "How many images to find for each query.", lower_bound=1)
_PAGE = command_line.define_path("page", "Writes the results as a page to look at into this HTML file.")


def main(arguments: list[str]) -> None:
    checkpoint = command_line.required(_CHECKPOINT)
    queries: list[str | Path] = [*arguments[1:], *map(Path, _IMAGE.value)]
    images, place = _IMAGES.value, _INDEX.value or ""
    if not images and not place:
        raise CocaError("--images is missing: name the folder of images, or with --index an index that is there")
    if not queries:
        raise CocaError("there is nothing to look for: write a sentence after the flags, or give an image as --image")
    import coca_jax
    from coca_jax.embedding_index import folder, search_page

    coca = coca_jax.load(checkpoint)
    size = coca.config.model.image.size
    index = folder.update(coca, size, images, place) if images else coca.load_index(place)
    results = index.search(queries, _K.value)
    for query, hits in zip(queries, results, strict=True):
        print(query)
        for hit in hits:
            print(f"{hit.score:.4f}\t{Path(index.folder, hit.name)}")
    if _PAGE.value:
        search_page.write_search_page(_PAGE.value, index.folder, len(index), queries, results)


if __name__ == "__main__":
    command_line.run(main)
