"""What an evaluation needs of a model."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Model(Protocol):
    """What an evaluation needs of `coca_jax.inference.model.Coca`; pictures are an array, or are indexed like one."""

    can_embed: bool  # False where the model was trained without the contrastive loss
    can_caption: bool  # False where it was trained without the captioning loss
    batch_size: int
    temperature: float  # what similarities are divided by in training; only where it can embed

    def embed_images(self, images: Any) -> np.ndarray:
        """uint8 [N, H, W, 3] -> float32 [N, E], L2-normalised."""

    def embed_videos(self, clips: Any, frames: int = 16) -> np.ndarray:
        """uint8 [N, frames, H, W, 3] -> float32 [N, E], L2-normalised: the mean of the frames' embeddings."""

    def embed_texts(self, texts: Sequence[str], long_text: str = "error") -> np.ndarray:
        """N texts -> float32 [N, E], L2-normalised."""

    def caption(self, images: Any, options: Any = ..., *, prompts: str = "") -> list[str]:
        """uint8 [N, H, W, 3] -> N captions."""

    def caption_log_likelihoods(
        self, images: Any, texts: Sequence[str], *, per_token: bool = False, long_text: str = "error"
    ) -> np.ndarray:
        """uint8 [N, H, W, 3] and C texts -> float32 [N, C], log p(text | image)."""
