r"""MSR-VTT: text-video retrieval over the full test split, 2,990 clips with 20 captions each, 16 frames a clip (paper §4.2.2).

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/msrvtt.py --config.datasets.msrvtt.dataset.path=FOLDER

FOLDER holds the clips and captions.jsonl, a row for each clip of the split: {"file_name": "video7010.mp4", "captions": [...]};
the "sentences" of test_videodatainfo.json by "video_id". A clip's embedding is the mean of its frames'. The split 1k-A (1,000
clips, one caption each) comes as a list that is read as it is, with the clips beside it:

    --config.datasets.msrvtt.dataset.path=FOLDER/MSRVTT_JSFUSION_test.csv "--config.datasets.msrvtt.dataset.image_field={video_id}.mp4" \
        "--config.datasets.msrvtt.dataset.text_fields=('sentence',)"
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    msrvtt = config_lib.evaluation_dataset(
        dataset={"format": "folder", "frames": 16},
        tasks=("video_retrieval",),
        retrieval={"match": "image"},
        download="https://ms-multimedia-challenge.com/2017/dataset, and see configs/eval/msrvtt.py",
    )
    return config_lib.evaluation_config(msrvtt=msrvtt)
