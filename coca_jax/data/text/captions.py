"""What is said of a picture: its captions, cleaned, or the names of its classes put into prompts.

`clean = "spaces"` makes every run of white space one space. `clean = "alt_text"` is for texts from web pages. It is
careful: nothing is lower-cased, reordered or judged. In this order it

1. decodes HTML's entities, twice where they were encoded twice, and removes tags;
2. composes accents (NFC), and removes control characters, soft hyphens and marks of writing direction; the joiners
   inside emoji and of Indic and Persian scripts stay;
3. removes addresses of web pages and of mail;
4. makes every run of white space one space, and strips what the removal left hanging at the ends ("- |,");
5. drops a text without any letter, and one that is only the name of a file ("IMG_1234.jpg");
6. cuts a text of more than 1,000 characters at the end of a word.
"""

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
from coca_jax.data.records.record import BadRecord, Record, RecordStore
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
    """The text, cleaned; "" where nothing is left to say. See the module's docstring for the kinds."""
    if kind == "alt_text":
        text = _TAG.sub(" ", html.unescape(html.unescape(text)))
        text = _ADDRESS.sub(" ", unicodedata.normalize("NFC", text).translate(_TABLE))
        text = " ".join(text.split()).strip(_ENDS)
        if not any(map(str.isalpha, text)) or _FILE.fullmatch(text):
            return ""
        return text if len(text) <= _LONGEST else text[: _LONGEST + 1].rpartition(" ")[0] or text[:_LONGEST]
    return " ".join(text.split())


class Texts:
    """The texts of one source's records."""

    def __init__(self, source: DatasetConfig, store: RecordStore):
        """Reads the names and prompts that lie in files.

        Raises:
          CocaError: such a file cannot be read.
        """
        self._kind, self._field = source.clean, source.label_field
        self._names, self.prompts = {}, ()
        if source.label_field:
            self._names = _names(source, store)
            if self._names and all(map(_WORDNET.fullmatch, self._names.values())):
                _log.warning(
                    "the class names of %s are WordNet's numbers, such as %s, of which a text says nothing: name "
                    "a file with words as class_names",
                    source.path,
                    next(iter(self._names.values())),
                )
            self.prompts = class_files.templates(source.prompts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes; empty where nothing says what they are."""
        return tuple(self._names.values())

    @property
    def fingerprint(self) -> str:
        """Changes where names or prompts do, wherever they came from."""
        return json.dumps([self._names, self.prompts])

    def draw(self, record: Record, rng: np.random.Generator) -> str:
        """A text for training: one of the captions; or the names of the classes in random order, in a random prompt.

        Raises:
          BadRecord: nothing is left to say.
        """
        return self.draw_of(record.captions, record.metadata, rng)

    def all(self, record: Record) -> tuple[str, ...]:
        """All texts, for evaluation: every caption; or the names of the classes in their order, in the first prompt.

        Raises:
          BadRecord: nothing is left to say.
        """
        return self.all_of(record.captions, record.metadata)

    def draw_of(self, captions: Sequence[str], metadata: Mapping[str, Any], rng: np.random.Generator) -> str:
        """As `draw`, of a record whose picture was not read."""
        if not self._field:
            said = self._cleaned(captions)
            return said[int(rng.integers(len(said)))]
        names = self.labels(metadata)
        names = [names[i] for i in rng.permutation(len(names))] if len(names) > 1 else names
        return _filled(self.prompts[int(rng.integers(len(self.prompts)))], names)

    def all_of(self, captions: Sequence[str], metadata: Mapping[str, Any]) -> tuple[str, ...]:
        """As `all`, of a record whose picture was not read."""
        return (_filled(self.prompts[0], self.labels(metadata)),) if self._field else self._cleaned(captions)

    def labels(self, metadata: Mapping[str, Any]) -> list[str]:
        """The names of the record's classes.

        Raises:
          BadRecord: it has no label, or one that names no class.
        """
        try:
            given = fields.lookup(metadata, self._field)
        except RecursionError as error:
            raise BadRecord("unreadable row") from error
        if isinstance(given, np.ndarray):
            given = given.tolist()
        if given is None:
            raise BadRecord(f"no {self._field}")
        names = [self._name(label) for label in (given if isinstance(given, (list, tuple)) else [given])]
        names = list(dict.fromkeys(filter(None, names)))
        if not names:
            raise BadRecord("empty caption")
        return names

    def _cleaned(self, captions: Sequence[str]) -> tuple[str, ...]:
        said = tuple(filter(None, (clean(text, self._kind) for text in captions)))
        if not said:
            raise BadRecord("empty caption")
        return said

    def _name(self, label: Any) -> str:
        if isinstance(label, bytes):
            label = label.decode("utf-8", "replace")
        if isinstance(label, bool) or not isinstance(label, (int, np.integer, str)):
            raise BadRecord(f"{self._field} is neither a class's number nor its name")
        known = self._names.get(str(label))
        if known is None and not isinstance(label, str):
            raise BadRecord(f"{self._field} is a number that class_names does not name")
        # Names of files and folders have _ for spaces.
        if known is None:  # a name that is not UTF-8 must not get to the tokeniser
            label = label.encode("utf-8", "replace").decode()
        return known if known is not None else clean(label.replace("_", " "), self._kind)


def _names(source: DatasetConfig, store: RecordStore) -> dict[str, str]:
    """What classes are called, by number or label: the first name of each."""
    if source.class_names:
        found = class_files.class_names(source.class_names)
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        return {str(label): names[0] for label, names in pairs}
    return {str(number): name for number, name in enumerate(store.class_names or ())}


def _filled(prompt: str, names: Sequence[str]) -> str:
    return " ".join(prompt.replace("{}", ", ".join(names)).split())
