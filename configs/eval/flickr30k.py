r"""Flickr30k: retrieval over Karpathy's 1,000 test images with five captions each.

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/flickr30k.py \
        --config.datasets.flickr30k.dataset.path=FOLDER/dataset_flickr30k.json "--config.datasets.flickr30k.dataset.only=('split=test',)"

FOLDER holds Karpathy's file (https://cs.stanford.edu/people/karpathy/deepimagesent/) and beside it the images, in images/
or flickr30k-images/; they are asked for at https://shannon.cs.illinois.edu/DenotationGraph/. Without `only` a manifest of the
test split alone serves: {"file_name": "1007129816.jpg", "captions": ["…", "…", "…", "…", "…"]} in captions.jsonl.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    flickr30k = config_lib.evaluation_dataset(
        dataset={"format": "folder"},
        tasks=("retrieval",),
        retrieval={"captions_per_image": 5, "match": "image"},
        download="see configs/eval/flickr30k.py for the two addresses",
    )
    return config_lib.evaluation_config(flickr30k=flickr30k)
