"""Options of generation: one frozen dataclass, checked strictly."""

import dataclasses
import math

from coca_jax.config import ModelConfig
from coca_jax.errors import CocaError


@dataclasses.dataclass(frozen=True)
class GenerationOptions:
    """Greedy decoding by default; with a temperature, sampling; with beams, beam search.

    Options are constants of the compiled program: a change of one compiles anew.

    Raises:
      CocaError: a value is impossible, or options contradict each other.
    """

    min_tokens: int = 0  # generated before EOS may come
    max_tokens: int = 0  # generated with EOS; 0: as many as there are positions after the prompt
    # Logits of tokens that were generated before (not those of the prompt) are divided by it if positive, multiplied by it
    # if negative (CTRL, arXiv 1909.05858, §4.1, as in transformers); 1: off.
    repetition_penalty: float = 1.0
    temperature: float = 0.0  # of sampling from softmax(logits / temperature); 0: no sampling
    top_k: int = 0  # samples from this many of the most likely tokens; 0: from all
    # Samples from the fewest most likely tokens whose probabilities, after temperature and top_k, sum to top_p or more
    # (nucleus sampling, arXiv 1904.09751); 1: from all.
    top_p: float = 1.0
    beams: int = 0  # hypotheses an image in beam search; 0: no search. One beam is equal to greedy decoding
    # Exponent of `beams.length_divisor`: 0 prefers short captions, 1 nearly the mean log probability (Vaswani et al., §6.1).
    length_penalty: float = 0.6

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))  # so that 1 and 1.0 compile once
            elif type(value) is not field.type or not math.isfinite(value):
                kind = "a whole number" if field.type is int else "a finite number"
                raise CocaError(f"{field.name} is {value!r}: it must be {kind}")
            _enforce((value >= 0, f"{field.name} = {value} must be at least 0"))
        sampling, searching = bool(self.temperature), bool(self.beams)
        fits = not self.max_tokens or self.min_tokens <= self.max_tokens
        normal = searching or self.length_penalty == GenerationOptions.length_penalty
        few = f"min_tokens = {self.min_tokens} is more than max_tokens = {self.max_tokens}"
        need = "has no effect without sampling: set a temperature, such as 1"
        _enforce(
            (self.repetition_penalty > 0, "repetition_penalty must be above 0 (1 switches it off)"),
            (0 < self.top_p <= 1, f"top_p = {self.top_p} must be above 0 and at most 1"),
            (fits, f"{few}: change one of them"),
            (not (sampling and searching), "temperature samples and beams search: set one of the two to 0"),
            (sampling or not self.top_k, f"top_k {need}"),
            (sampling or self.top_p == 1, f"top_p {need}"),
            (normal, "length_penalty has no effect without beam search: set beams, such as 6"),
        )

    def check(self, model: ModelConfig) -> None:
        """Raises CocaError if the options exceed a model's vocabulary or positions."""
        text, most = model.text, max(self.min_tokens, self.max_tokens)
        vocabulary = f"the model's vocabulary of {text.vocabulary_size}"
        positions = f"the model's {text.length} positions, one of which is BOS"
        _enforce(
            (self.top_k <= text.vocabulary_size, f"top_k = {self.top_k} is more than {vocabulary}: lower it"),
            (most < text.length, f"{most} tokens do not fit {positions}: ask for at most {text.length - 1}"),
        )


def _enforce(*rules: tuple[bool, str]) -> None:
    for holds, message in rules:
        if not holds:
            raise CocaError(message)


GREEDY = GenerationOptions()
