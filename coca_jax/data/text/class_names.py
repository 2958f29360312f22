"""Files of class names, prompts and class numbers, in the forms that people have them.

A file is named as FILE, or as FILE:KEY where it holds several sets: "en_classnames.json:imagenet1k" (clip_benchmark),
"prompts.md:CIFAR10" (CLIP's page of prompts, by its headings).
"""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coca_jax.data.records import fields
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage

Names = tuple[str, ...]  # of one class: synonyms


def class_names(spec: str) -> list[Names] | dict[str, Names]:
    """The classes' names in the order of their numbers, or by the label that a record has.

    Raises:
      CocaError: the file or its key is missing, or holds no names.
    """
    found = _read(spec, "classes")
    if isinstance(found, dict) and all(_names(value) for value in found.values()):
        return {str(label): _names(value) for label, value in found.items()}
    if isinstance(found, list) and found and all(map(_names, found)):
        return [_names(value) for value in found]
    raise CocaError(
        f"{spec} holds no class names: give a list of names, one a class, or FILE:KEY where the file has several lists"
    )


def prompts(spec: str) -> tuple[str, ...]:
    """Templates with `{}` where the class's name goes; `{c}` in the file says the same.

    Raises:
      CocaError: the file or its key is missing, or a template has no place for the name.
    """
    found = _read(spec, "templates")
    if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
        raise CocaError(
            f'{spec} holds no templates: give a list such as ["a photo of a {{c}}."], or FILE:KEY where '
            "the file has several lists"
        )
    templates = tuple(text.replace("{c}", "{}") for text in found)
    for template in templates:
        if "{}" not in template:
            raise CocaError(
                f"the template {template!r} of {spec} has no {{c}} or {{}}: write one where the class's name goes"
            )
    return templates


def templates(given: tuple[str, ...]) -> tuple[str, ...]:
    """A set's prompts: those given, or those of the file that the only one names; errors as `prompts`."""
    in_file = len(given) == 1 and "{}" not in given[0]
    return prompts(given[0]) if in_file else given


def class_numbers(spec: str) -> dict[str, tuple[int, ...]]:
    """The numbers of the classes that a label stands for.

    The file is a list of labels in the order of their numbers (JSON, or a text whose lines begin with them, such as
    ImageNet's LOC_synset_mapping.txt), or a JSON object: {"n01440764": 0}, {"alarm_clock": [409, 530]} or
    {"0": ["n01440764", "tench"]}. A folder stands for the sorted names of its folders, as ImageNet's own do.

    Raises:
      CocaError: the file is missing, or is none of these.
    """
    if Path(spec).is_dir():
        names = sorted(path.name for path in Path(spec).iterdir() if path.is_dir())
        return {name: (i,) for i, name in enumerate(names)}
    found = _read(spec, "classes")
    if isinstance(found, list) and all(isinstance(label, str) for label in found):
        return {label.split()[0]: (i,) for i, label in enumerate(found) if label.strip()}
    numbers: dict[str, tuple[int, ...]] = {}
    for key, value in found.items() if isinstance(found, dict) else ():
        match value:
            case int():
                numbers[key] = (value,)
            case [int(), *_] if all(type(number) is int for number in value):
                numbers[key] = tuple(value)
            case [str(label), *_] if key.isdecimal():
                numbers[label] = (int(key),)
            case _:
                numbers = {}
                break
    if not numbers:
        raise CocaError(
            f"{spec} gives labels no class numbers: give a list of labels in their order, or an object such "
            'as {"n01440764": 0}'
        )
    return numbers


def keys(spec: str) -> set[str]:
    """What a JSON object has values for.

    Raises:
      CocaError: the file is missing or no object.
    """
    found = _read(spec, "classes")
    if not isinstance(found, dict):
        raise CocaError(
            f"{spec} is no JSON object: beside names by label, class_ids names one whose keys are the classes to keep"
        )
    return set(found)


def _names(value: Any) -> Names:
    """A class's names; empty where the value is none."""
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(values) if all(isinstance(text, str) and text.strip() for text in values) else ()


def _read(spec: str, variable: str) -> Any:
    path, key = spec, ""
    if ":" in spec.rpartition("/")[2] and not Path(path).exists():  # the : of gs:// is none
        path, _, key = spec.rpartition(":")
    try:
        text = storage.read(path).decode("utf-8-sig")
    except (storage.ReadError, UnicodeDecodeError) as error:
        raise CocaError(f"{path} cannot be read as text ({error}): check the path of class names or prompts") from None
    if path.endswith(".md"):
        return _section(text, key, variable, path)
    if not path.endswith(".json"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = fields.load_json(text)
    except (ValueError, RecursionError) as error:
        raise CocaError(f"{path} is not JSON ({error}): mend it, or name another file") from None
    if not key:
        return found
    if not isinstance(found, dict) or key not in found:
        raise CocaError(f"{path} has no key {key!r}: choose one of {_some(found if isinstance(found, dict) else ())}")
    return found[key]


def _section(text: str, heading: str, variable: str, path: str) -> Any:
    """A list that a page of prompts assigns below a heading, `classes = […]` or `templates = […]`."""
    sections = dict(re.findall(r"^## (\S+)\s*$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    if heading not in sections:
        raise CocaError(f"{path} has no heading {heading!r}: name one of {_some(sections)} as {path}:HEADING")
    found = re.search(rf"^{variable} = (\[.*?^\])", sections[heading], re.MULTILINE | re.DOTALL)
    try:
        return ast.literal_eval(found[1]) if found else []
    except (ValueError, SyntaxError):
        return []


def _some(keys: Sequence[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:12]) + (" …" if len(keys) > 12 else "")
