"""The prediction of a head for one example."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The most likely class, and the probability of each."""

    label: str
    probability: float
    probabilities: Mapping[str, float]  # in descending order

    @classmethod
    def of(cls, classes: Sequence[str], probabilities_C: np.ndarray) -> "Prediction":
        order = np.argsort(-probabilities_C, kind="stable").tolist()
        by_class = {classes[number]: float(probabilities_C[number]) for number in order}
        return cls(classes[order[0]], float(probabilities_C[order[0]]), by_class)

    def __str__(self) -> str:
        return f"{self.label} ({self.probability:.0%})"
