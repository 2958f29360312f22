"""VQA v2, of a run of configs/adapt/vqa.py: accuracy on the validation questions, files for the server on the test questions.

    python -m coca_jax.evaluate --checkpoint=runs/vqa --config=configs/eval/vqa.py:FOLDER --datasets=vqa
    python -m coca_jax.evaluate --checkpoint=runs/vqa --config=configs/eval/vqa.py:FOLDER --datasets=vqa_test_dev,vqa_test

docs/adaptation.md says where the files lie in FOLDER. The answers of the test questions are private: the second writes
answers_vqa_test_dev_results.json and answers_vqa_test_results.json for the server (eval.ai, challenge 830).
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    questions = {"vqa": "val2014", "vqa_test_dev": "test-dev2015", "vqa_test": "test2015"}
    files = {name: {"path": f"v2_OpenEnded_mscoco_{part}_questions.json"} for name, part in questions.items()}
    return adaptation.evaluations(arg or "vqa", "vqa_v2", "vqa", "https://visualqa.org/download.html", files)
