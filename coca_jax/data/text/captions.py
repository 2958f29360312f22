"""The texts of an image: its captions, cleaned, or the names of its classes put into prompts.

`clean = "spaces"` makes every run of white space one space. `clean = "alt_text"` is for texts from web pages. It
changes no case and no order, and judges no content. In this order it

1. decodes HTML's entities, twice if they were encoded twice, and removes tags;
2. composes accents (NFC), and removes control characters, soft hyphens and marks of writing direction; the joiners
   inside emoji and of Indic and Persian scripts stay;
3. removes addresses of web pages and of mail;
4. makes every run of white space one space, and strips separators that the removals left at the ends ("- |,");
5. drops a text without any letter, and one that is only the name of a file ("IMG_1234.jpg");
6. cuts a text of more than 1,000 characters at the end of a word.
"""

import dataclasses
import html
import json
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records.record import BadRecord, Record, RecordStore, RecordText
from coca_jax.data.text import class_names as class_files

_log = logging.getLogger(__name__)
_WORDNET = re.compile(r"n\d{8}")
_LONGEST = 1_000  # characters of an alt-text
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+", re.IGNORECASE)
_FILE = re.compile(r"[\w() .-]*\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|svg)", re.IGNORECASE)
_INVISIBLE = {0x00AD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, 0xFFFD, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_CONTROLS = {c for c in range(0xA0) if unicodedata.category(chr(c)) == "Cc"} - set(map(ord, "\t\n\v\f\r"))
_TABLE = dict.fromkeys(_INVISIBLE | _CONTROLS)
_ENDS = " -–—|,;:/\\·•>*_"


def clean(text: str, kind: str) -> str:
    """The text, cleaned as the module's docstring describes; "" if nothing of it is left."""
    if kind == "alt_text":
        text = _TAG.sub(" ", html.unescape(html.unescape(text)))
        text = _ADDRESS.sub(" ", unicodedata.normalize("NFC", text).translate(_TABLE))
        text = " ".join(text.split()).strip(_ENDS)
        if not any(map(str.isalpha, text)) or _FILE.fullmatch(text):
            return ""
        return text if len(text) <= _LONGEST else text[: _LONGEST + 1].rpartition(" ")[0] or text[:_LONGEST]
    return " ".join(text.split())


class Texts:
    """The texts of one dataset's records; `prompts` are the templates that class names are put into, if they have labels."""

    def __init__(self, dataset: DatasetConfig, store: RecordStore):
        """Reads the files of class names and prompts; raises CocaError if one cannot be read."""
        self._clean, self._field = dataset.clean, dataset.label_field
        self._names: dict[str, str] = {}  # the first name of each class, by number or label
        self._known: set[str] = set()  # every name of every class
        self.prompts: tuple[str, ...] = ()
        if not dataset.label_field:
            return
        names = _class_names(dataset, store)
        self._names = {label: synonyms[0] for label, synonyms in names.items()}
        self._known = {name for synonyms in names.values() for name in synonyms}
        self.prompts = class_files.prompts(dataset.prompts)
        if self._names and all(map(_WORDNET.fullmatch, self._names.values())):
            _log.warning(
                "the class names of %s are WordNet's numbers, such as %s, which mean nothing in a text: name a file "
                "with words as class_names",
                dataset.path,
                self.class_names[0],
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes; empty if neither the config nor the store has them."""
        return tuple(self._names.values())

    @property
    def fingerprint(self) -> str:
        """Changes with names and prompts, whatever file they come from."""
        return json.dumps([self._names, self.prompts])

    def draw(self, record: Record | RecordText, rng: np.random.Generator) -> str:
        """One text for training: a random caption, or the class names in random order in a random prompt.

        Raises:
          BadRecord: the record has no text.
        """
        if not self._field:
            captions = self._cleaned(record.captions)
            return captions[int(rng.integers(len(captions)))]
        names = self.labels(record.metadata)
        names = [names[i] for i in rng.permutation(len(names))] if len(names) > 1 else names
        return _filled(self.prompts[int(rng.integers(len(self.prompts)))], names)

    def all(self, record: Record | RecordText) -> tuple[str, ...]:
        """All texts for evaluation: every caption, or the class names in order in the first prompt; errors as `draw`."""
        if self._field:
            return (_filled(self.prompts[0], self.labels(record.metadata)),)
        return self._cleaned(record.captions)

    def labels(self, metadata: Mapping[str, Any]) -> list[str]:
        """The names of the record's classes; raises BadRecord if it has no label, or one without a class name."""
        try:
            value = fields.lookup(metadata, self._field)
        except RecursionError as error:
            raise BadRecord("unreadable row") from error
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if value is None:
            raise BadRecord(f"no {self._field}")
        names = [self._name(label) for label in (value if isinstance(value, (list, tuple)) else [value])]
        names = list(dict.fromkeys(filter(None, names)))
        if not names:
            raise BadRecord("empty caption")
        return names

    def _cleaned(self, captions: Sequence[str]) -> tuple[str, ...]:
        texts = tuple(filter(None, (clean(caption, self._clean) for caption in captions)))
        if not texts:
            raise BadRecord("empty caption")
        return texts

    def _name(self, label: Any) -> str:
        if isinstance(label, bytes):
            label = label.decode("utf-8", "replace")
        if isinstance(label, bool) or not isinstance(label, (int, np.integer, str)):
            raise BadRecord(f"{self._field} is neither a class number nor a class name")
        text = str(label).strip()  # tables hold numbers as text
        if text in self._names:
            return self._names[text]
        # Names of files and folders have _ for spaces; a name that is not UTF-8 must not reach the tokeniser.
        name = clean(text.encode("utf-8", "replace").decode().replace("_", " "), self._clean)
        is_name = isinstance(label, str) and (not self._names or self._known.intersection((text, name)))
        if text and not is_name:
            raise BadRecord(f"{self._field} has a value that class_names does not name")
        return name


def without_labels(dataset: DatasetConfig) -> DatasetConfig:
    """The dataset, whose texts are its captions although it has labels, too."""
    return dataclasses.replace(dataset, label_field="", class_names="")


def _class_names(dataset: DatasetConfig, store: RecordStore) -> dict[str, class_files.Names]:
    """The names of each class by its number or label; empty if neither the config nor the store has them."""
    if not dataset.class_names:
        return {str(number): (name,) for number, name in enumerate(store.class_names or ())}
    names = class_files.class_names(dataset.class_names)
    return names if isinstance(names, dict) else {str(number): one for number, one in enumerate(names)}


def _filled(prompt: str, names: Sequence[str]) -> str:
    return " ".join(prompt.replace("{}", ", ".join(names)).split())
