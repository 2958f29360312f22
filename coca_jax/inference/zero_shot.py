"""Zero-shot classifiers: one vector per class, from the embeddings of its prompts (paper §4.2.2)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from coca_jax.embedding_index.arguments import as_list, as_texts
from coca_jax.errors import CocaError

Template = str | Callable[[str], str]


def text_classifier(
    embed_texts: Callable[[Sequence[str]], np.ndarray], labels: Iterable[str], templates: Iterable[Template]
) -> np.ndarray:
    """One vector per class, float32 [C, E]: the mean of the embeddings of its prompts, normalised again.

    Args:
      embed_texts: N texts to their L2-normalised embeddings, float32 [N, E].
      templates: prompts with `{}` in the place of the class's name, or functions of the name (open_clip's form).

    Raises:
      CocaError: there is no template or no label, a template has no `{}`, or either argument is not a list of texts.
    """
    labels, templates = as_texts(labels, "labels"), as_list(templates, "templates", "template")
    if not labels or not templates:
        raise CocaError("zero-shot classification needs at least one label and one template")
    for template in templates:
        if not callable(template) and "{}" not in as_texts([template], "templates")[0]:
            raise CocaError(f"the zero-shot template {template!r} has no {{}}: write one where the class's name goes")
    # Template by template, so that memory grows with the classes alone.
    total = sum(embed_texts([_prompt(template, label) for label in labels]) for template in templates)
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _prompt(template: Template, label: str) -> str:
    # Not str.format: a template is data, and a brace in it is not a replacement field.
    return template(label) if callable(template) else template.replace("{}", label)
