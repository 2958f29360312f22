"""Config of the model, and the paper's three variants."""

import dataclasses

from coca_jax.config.fields import choice, count, number
from coca_jax.errors import CocaError


@dataclasses.dataclass(frozen=True)
class ImageEncoderConfig:
    """Images [B, size, size, 3] to tokens [B, N, width]."""

    kind: str = choice("vit", "convnet", "precomputed")
    size: int = count(288)  # pixels a side
    patch: int = count(18)  # pixels a side of one token's receptive stride; a power of two where stem = conv
    stem: str = choice("patch", "conv")  # one linear patch projection, or log2(patch) stride-2 convolutions
    layers: int = count(12)
    mlp: int = count(3072)
    position_scale: float = number(0.02, at_least=0)  # standard deviation of fresh position embeddings
    tokens: int = count(0, 0)  # kind = precomputed only: how many tokens an image has


@dataclasses.dataclass(frozen=True)
class PoolerConfig:
    """Attentional poolers (paper §3.2, §4.3): generative queries for the decoder, one contrastive query."""

    kind: str = choice("cascade", "parallel")
    queries: int = count(256, 0)  # generative queries; 0: the decoder attends to the encoder's tokens themselves
    hidden_multiple: int = count(4)  # attention width as a multiple of the model's


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The decoupled decoder: unimodal layers, then multimodal layers of self-attention, cross-attention, FFN."""

    vocabulary_size: int = count(64_000)
    length: int = count(64, 3)  # tokens with BOS and EOS, without CLS
    unimodal_layers: int = count(12)
    multimodal_layers: int = count(12)
    mlp: int = count(3072)
    tied_softmax: bool = False


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model; the image encoder and both decoder halves share width and heads."""

    width: int = count(768)
    heads: int = count(12)
    image: ImageEncoderConfig = ImageEncoderConfig()
    pooler: PoolerConfig = PoolerConfig()
    text: TextConfig = TextConfig()
    logit_cap: float = number(50.0, at_least=0)  # attention logits become cap·tanh(logits / cap); 0: no cap
    kernel_variance: float = number(0.5, at_least=0)  # of fresh kernels, as a multiple of 2 / (inputs + outputs)
    dtype: str = choice("bfloat16", "float32")  # of the computation; parameters are float32
    # What the backward pass keeps of each block: all, matrix products, those of attention alone, nothing.
    remat: str = choice("none", "dots", "attention", "full")

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Channels after each convolution of a conv stem: half as many before each halving of the image, at least 16."""
        if self.image.kind == "precomputed" or (self.image.kind == "vit" and self.image.stem != "conv"):
            return ()
        steps = self.image.patch.bit_length() - 1
        return tuple(max(self.width >> (steps - 1 - step), 16) for step in range(steps))


_VARIANTS = {  # Table 1
    "base": ModelConfig(),
    "large": ModelConfig(1024, 16, image=ImageEncoderConfig(layers=24, mlp=4096), text=TextConfig(mlp=4096)),
    "giant": ModelConfig(
        width=1408,
        heads=16,
        image=ImageEncoderConfig(layers=40, mlp=6144),
        text=TextConfig(unimodal_layers=18, multimodal_layers=18, mlp=5632),
    ),
}


def variant(name: str) -> ModelConfig:
    """The paper's base, large or giant (Table 1) at 288 pixels and patch 18.

    Raises:
      CocaError: there is no variant of that name.
    """
    if name not in _VARIANTS:
        raise CocaError(f"there is no model variant {name!r}: choose one of {', '.join(_VARIANTS)}")
    return _VARIANTS[name]
