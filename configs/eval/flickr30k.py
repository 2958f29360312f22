r"""Flickr30k: retrieval over Karpathy's 1,000 test pictures with five captions each.

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/flickr30k.py --config.sets.flickr30k.path=FOLDER

FOLDER holds the pictures (or `images/` with them) and captions.jsonl, a row for each picture of the test split:
{"file_name": "1007129816.jpg", "captions": ["…", "…", "…", "…", "…"]}. The pictures are asked for at
https://shannon.cs.illinois.edu/DenotationGraph/, the split is dataset_flickr30k.json of
https://cs.stanford.edu/people/karpathy/deepimagesent/.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    flickr30k = config_lib.held_out(
        task="folder",
        tasks=("retrieval",),
        captions_per_image=5,
        match="image",
        download="see configs/eval/flickr30k.py for the two addresses",
    )
    return config_lib.evaluation(flickr30k=flickr30k)
