"""coca_jax: pretrain, adapt, evaluate and use CoCa (Contrastive Captioners, arXiv 2205.01917) in JAX/Flax.

coca = coca_jax.load("runs/quickstart")
coca.caption(["picture.png"])
"""

import typing

if typing.TYPE_CHECKING:
    from coca_jax.inference.loading import load
    from coca_jax.inference.model import Coca

__all__ = ["Coca", "load"]


def __getattr__(name: str):
    # `import coca_jax` stays light: jax, flax and orbax are imported by the first use of `load` or `Coca`.
    if name in __all__:
        from coca_jax.inference import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'coca_jax' has no attribute {name!r}")
