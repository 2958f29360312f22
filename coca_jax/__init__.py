"""coca_jax: pretrain, adapt, evaluate and use CoCa (Contrastive Captioners, arXiv 2205.01917) in JAX/Flax.

coca = coca_jax.load("runs/quickstart")
coca.caption(["image.png"])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coca_jax.inference.loading import load
    from coca_jax.inference.model import Coca

__all__ = ["Coca", "__version__", "load"]

__version__ = "0.1.0"  # setup.py reads it


def __getattr__(name: str) -> Any:
    # `import coca_jax` stays light: jax, flax and orbax are imported by the first use of `load` or `Coca`.
    if name in __all__:
        from coca_jax.inference import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'coca_jax' has no attribute {name!r}")
