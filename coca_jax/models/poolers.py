"""Attentional poolers (paper §3.2): learnable queries attend to tokens; cascade or parallel (§4.3, Table 8f)."""

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from coca_jax.config import ModelConfig
from coca_jax.distributed.sharding import Axis
from coca_jax.models.attention import Attention
from coca_jax.models.layers import layer_norm, named


class AttentionalPooler(nn.Module):
    """One multi-head attention layer with `queries` learned queries, then LayerNorm: [B, N, D] to [B, Q, D].

    No residual and no FFN; the attention is `hidden_multiple` times as wide as the model, with a learned scale per
    query dimension (Google's public code).
    """

    config: ModelConfig
    queries: int

    @nn.compact
    def __call__(self, tokens_BND: Array, mask: Array | None = None) -> Array:
        """`mask` as for `attend`: which of the tokens the queries attend to."""
        width = self.config.width
        initializer = named(nn.initializers.normal(width**-0.5), Axis.QUERIES, Axis.WIDTH)
        queries_QD = self.param("queries", initializer, (self.queries, width))
        head_dim = self.config.pooler.hidden_multiple * width // self.config.heads
        attention = Attention(self.config, head_dim, per_dim_scale=True, name="attention")
        queries_BQD = jnp.broadcast_to(queries_QD, (tokens_BND.shape[0], *queries_QD.shape))
        pooled_BQD = attention(queries_BQD, attention.keys_values(tokens_BND), mask)
        return layer_norm("norm")(pooled_BQD).astype(self.config.dtype)


@struct.dataclass
class PooledImage:
    """The outputs of the two poolers; None for a branch that does not exist."""

    tokens_BQD: Array | None  # that the multimodal decoder attends to
    embedding_BD: Array | None  # the contrastive query's output, not normalised


class Poolers(nn.Module):
    """Generative and contrastive pooler. cascade: the second reads the first one's output; parallel: both read tokens.

    With 0 generative queries the decoder attends to the encoder's tokens and so does the contrastive pooler.
    """

    config: ModelConfig
    contrastive: bool
    captioning: bool

    @nn.compact
    def __call__(self, tokens_BND: Array) -> PooledImage:
        pooler = self.config.pooler
        cascade = pooler.kind == "cascade"
        generative_BQD = tokens_BND
        if pooler.queries and (self.captioning or cascade):
            generative_BQD = AttentionalPooler(self.config, pooler.queries, name="generative")(tokens_BND)
        embedding_BD = None
        if self.contrastive:
            source = generative_BQD if cascade else tokens_BND
            embedding_BD = AttentionalPooler(self.config, 1, name="contrastive")(source)[:, 0]
        return PooledImage(generative_BQD if self.captioning else None, embedding_BD)
