r"""Flickr30k: retrieval over Karpathy's 1,000 test pictures with five captions each.

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/flickr30k.py \
        --config.sets.flickr30k.path=FOLDER/dataset_flickr30k.json "--config.sets.flickr30k.only=('split=test',)"

FOLDER holds Karpathy's file (https://cs.stanford.edu/people/karpathy/deepimagesent/) and beside it the pictures, in images/
or flickr30k-images/; they are asked for at https://shannon.cs.illinois.edu/DenotationGraph/. Without `only` a manifest of the
test split alone serves: {"file_name": "1007129816.jpg", "captions": ["…", "…", "…", "…", "…"]} in captions.jsonl.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    flickr30k = config_lib.held_out(
        format="folder",
        tasks=("retrieval",),
        captions_per_image=5,
        match="image",
        download="see configs/eval/flickr30k.py for the two addresses",
    )
    return config_lib.evaluation(flickr30k=flickr30k)
