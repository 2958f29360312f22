"""The tasks by the names that `EvaluationDatasetConfig.tasks` uses."""

from collections.abc import Mapping

from coca_jax.evaluation.tasks.base import Task
from coca_jax.evaluation.tasks.captioning import Captioning
from coca_jax.evaluation.tasks.classification import LikelihoodClassification, ZeroShotClassification
from coca_jax.evaluation.tasks.few_shot import FewShotClassification
from coca_jax.evaluation.tasks.head_classification import HeadClassification
from coca_jax.evaluation.tasks.retrieval import Retrieval
from coca_jax.evaluation.tasks.vqa import Vqa

TASKS: Mapping[str, Task] = {
    "retrieval": Retrieval("image"),
    "video_retrieval": Retrieval("video"),
    "classification": ZeroShotClassification(),
    "likelihood_classification": LikelihoodClassification(),
    "few_shot": FewShotClassification(),
    "captioning": Captioning(),
    "head_classification": HeadClassification(),
    "vqa": Vqa(),
}
