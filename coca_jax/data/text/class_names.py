"""Files of class names, prompts and class numbers, in the forms that datasets and papers publish them.

A file is named as FILE, or as FILE:KEY if it holds several sets: "en_classnames.json:imagenet1k" (clip_benchmark),
"prompts.md:CIFAR10" (CLIP's page of prompts, by its headings).
"""

import ast
import re
from pathlib import Path
from typing import Any

from coca_jax.data.records import fields
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage

Names = tuple[str, ...]  # of one class: synonyms


def class_names(spec: str) -> list[Names] | dict[str, Names]:
    """Class names in the order of their numbers, or by the label that a record has.

    Raises CocaError if the file or its key is missing, or it holds no names, or a class has none.
    """
    value = _read(spec, "classes")
    classes = dict(enumerate(value)) if isinstance(value, list) else value
    names = {label: _names(one) for label, one in classes.items()} if isinstance(classes, dict) else {}
    if not any(names.values()):
        raise CocaError(f"{spec} holds no class names: give a list of names, or FILE:KEY if it has several lists")
    for label, own in names.items():
        if not own:
            raise CocaError(f"{spec} has {classes[label]!r} for class {label}, which is not a name: write one there")
    return names if isinstance(value, dict) else list(names.values())


def prompts(texts: tuple[str, ...]) -> tuple[str, ...]:
    """A dataset's prompts, with `{}` for the class name: the texts, or those of the file that a single text names.

    `{c}` in the file means the same. Raises CocaError if it or its key is missing, or a prompt has no place for the name.
    """
    if len(texts) != 1 or "{}" in texts[0]:
        return texts
    value = _read(texts[0], "templates")
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        todo = 'give a list such as ["a photo of a {c}."], or FILE:KEY if it has several lists'
        raise CocaError(f"{texts[0]} holds no templates: {todo}")
    for text in value:
        if "{c}" not in text and "{}" not in text:
            raise CocaError(f"the template {text!r} of {texts[0]} has no {{c}} or {{}}: write one for the class name")
    return tuple(text.replace("{c}", "{}") for text in value)


def class_numbers(spec: str) -> dict[str, tuple[int, ...]]:
    """The class numbers of each label.

    The file is a list of labels in the order of their numbers (JSON, or a text whose lines begin with them, such as
    ImageNet's LOC_synset_mapping.txt), or a JSON object: {"n01440764": 0}, {"alarm_clock": [409, 530]} or
    {"0": ["n01440764", "tench"]}. A folder stands for the sorted names of its folders. Raises CocaError if the file is
    missing or of another form.
    """
    if Path(spec).is_dir():
        folders = sorted(path.name for path in Path(spec).iterdir() if path.is_dir())
        return {name: (i,) for i, name in enumerate(folders)}
    value = _read(spec, "classes")
    if isinstance(value, list) and all(isinstance(label, str) for label in value):
        return {label.split()[0]: (i,) for i, label in enumerate(value) if label.strip()}
    numbers: dict[str, tuple[int, ...]] = {}
    for key, item in value.items() if isinstance(value, dict) else ():
        match item:
            case int():
                numbers[key] = (item,)
            case [int(), *_] if all(type(number) is int for number in item):
                numbers[key] = tuple(item)
            case [str(label), *_] if key.isdecimal():
                numbers[label] = (int(key),)
            case _:
                numbers = {}
                break
    if not numbers:
        todo = 'give a list of labels in their order, or an object such as {"n01440764": 0}'
        raise CocaError(f"{spec} gives labels no class numbers: {todo}")
    return numbers


def keys(spec: str) -> set[str]:
    """The keys of a JSON object; raises CocaError if the file is missing or not an object."""
    value = _read(spec, "classes")
    if not isinstance(value, dict):
        raise CocaError(f"{spec} is not a JSON object: name a file whose keys are the classes to keep as class_ids")
    return set(value)


def _names(value: Any) -> Names:
    """A class's names; empty if the value is not one or several names."""
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(values) if all(isinstance(text, str) and text.strip() for text in values) else ()


def _read(spec: str, variable: str) -> Any:
    """The list or object that a spec names, `variable` being its name in a Markdown page."""
    path, key = spec, ""
    if ":" in spec.rpartition("/")[2] and not Path(path).exists():  # not the : of gs://
        path, _, key = spec.rpartition(":")
    try:
        text = storage.read(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CocaError(f"{path}, a file of class names or prompts, is not UTF-8: save it as UTF-8") from None
    except storage.ReadError as error:
        raise CocaError(f"{path} cannot be read as text ({error}): check the path of class names or prompts") from None
    if path.endswith(".md"):
        return _section(text, key, variable, path)
    if not path.endswith(".json"):
        return _lines(text, path, numbered=variable == "classes")
    try:
        value = fields.load_json(text)
    except (ValueError, RecursionError) as error:
        raise CocaError(f"{path} is not JSON ({error}): mend it, or name another file") from None
    if not key:
        return value
    if not isinstance(value, dict) or key not in value:
        there = fields.listing(sorted(value if isinstance(value, dict) else ()))
        raise CocaError(f"{path} has no key {key!r}: choose one of {there}")
    return value[key]


def _lines(text: str, path: str, numbered: bool) -> list[str]:
    """The lines without blank ones at the end; if their numbers count, a blank one before is refused."""
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text)]  # a name may hold what else splitlines() splits at
    used = list(filter(None, lines))
    if numbered and lines[: len(used)] != used:
        problem = f"line {lines.index('') + 1} of {path} is blank, and a line's place is its class number"
        raise CocaError(f"{problem}: write the name there, or remove the line")
    return used


def _section(text: str, heading: str, variable: str, path: str) -> Any:
    """The list that a page of prompts assigns below a heading, `classes = […]` or `templates = […]`."""
    sections = dict(re.findall(r"^## (\S+)\s*$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    if heading not in sections:
        there = fields.listing(sorted(sections))
        raise CocaError(f"{path} has no heading {heading!r}: name one of {there} as {path}:HEADING")
    assigned = re.search(rf"^{variable} = (\[.*?^\])", sections[heading], re.MULTILINE | re.DOTALL)
    try:
        return ast.literal_eval(assigned[1]) if assigned else []
    except (ValueError, SyntaxError):
        return []
