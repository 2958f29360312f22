"""VQA v2's questions and annotations (arXiv 1612.00837) as they are downloaded, as a manifest:

    v2_OpenEnded_mscoco_train2014_questions.json    {"data_subtype": "train2014", "questions": [{"image_id": 458752,
        "question": "What …?", "question_id": 458752000}, …], …}
    v2_mscoco_train2014_annotations.json beside it  {"annotations": [{"question_id": 458752000, "image_id": 458752,
        "answers": [{"answer": "net", "answer_confidence": "maybe", "answer_id": 1}, …], "question_type": "what is this",
        "answer_type": "other", "multiple_choice_answer": "net"}, …], …}

A question is a row, joined with its annotation; "answers" becomes a list of the ten strings. Questions of COCO's test
images have no annotations.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, shard_index
from coca_jax.data.records.formats import coco_json
from coca_jax.data.records.formats.image_files import ImageFiles
from coca_jax.data.records.formats.sidecars import MADE_FIELDS
from coca_jax.data.records.record import BadRecord, bad_records
from coca_jax.data.records.shard_index import Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

ANSWER_FIELDS = ("answers", "multiple_choice_answer", "answer_type", "question_type")  # of an annotation
_VERSION = "1"  # of the stored places; raise it where the same files would give others
_QUESTIONS, _ANNOTATIONS = "questions", "annotations"
_BEGINS = re.compile(rb'\{.*?"questions"\s*:\s*\[', re.DOTALL)
_SUBTYPE = re.compile(r'"data_subtype"\s*:\s*"([\w-]+)"')
_LARGEST = 2**36  # bytes of a file
_WORTH_KEEPING = 4 * 1024 * 1024  # bytes of both files whose places are kept: others are read as fast


def is_questions(start: bytes) -> bool:
    """Whether a .json file that begins so is one of VQA's questions."""
    match = _BEGINS.match(start.lstrip())
    return match is not None and b'"images"' not in match[0] and b'"annotations"' not in match[0]  # of COCO's kind


class Questions:
    """The questions of a file, each a row.

    Attributes: as of `manifest.Manifest`.
    """

    def __init__(self, file: File, dataset: DatasetConfig, trains: bool):
        """Locates the questions and their annotations.

        Raises:
          CocaError: a file is not as VQA's are, no row has a configured field, or questions are to be trained on (`trains`)
            by answers that they do not have.
        """
        self._file, self._annotations = file, storage.stat(annotations_path(file.path))
        if dataset.records != "rows":
            raise CocaError(
                f"{file.path} has several questions an image, each a record: set the dataset's records=rows"
            )
        if trains and not self._annotations and dataset.label_field in ANSWER_FIELDS:
            raise CocaError(
                f"{annotations_path(file.path)} does not exist: put it beside the questions; those of test images have no "
                "answers, and can be evaluated for the server but not trained on"
            )
        both = [one for one in (file, self._annotations) if one]
        key = [f"{one.path}:{one.size}:{one.version}" for one in both]
        kept = sum(one.size for one in both) >= _WORTH_KEEPING
        about, arrays = shard_index.cached(f"questions/{storage.digest(_VERSION, *key)}", self._scanned, kept)
        self.names = self.paths = Strings(arrays["names"], arrays["name_ends"])
        self.digest, self.damage = str(about["digest"]), Counter[str](about["damage"])
        self.examples: dict[str, str] = {}
        self.folders = coco_json.folders(file.path, str(about["images"]))
        self.files = ImageFiles(file.path, self.folders)
        self._places, self._answers = arrays["questions"], arrays.get("annotations")
        self._check(dataset)

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, indices: Sequence[int]) -> list[list[Any] | BadRecord]:
        """The row of each question, in a list; a BadRecord if one can no longer be read."""
        questions = self._read(self._file, self._places[indices])
        annotations: list[bytes | BadRecord] = [b"{}"] * len(indices)
        if self._answers is not None and self._annotations:
            annotations = self._read(self._annotations, self._answers[indices])
        result: list[list[Any] | BadRecord] = []
        for index, question, annotation in zip(indices, questions, annotations, strict=True):
            try:
                result.append([self._joined(question, annotation, self.names[index])])
            except BadRecord as error:
                result.append(error)
        return result

    def _read(self, file: File, places: np.ndarray) -> list[bytes | BadRecord]:
        return bad_records(storage.read_spans(file.path, [(start, size) for start, size in places.tolist()]))

    def _joined(self, question: bytes | BadRecord, annotation: bytes | BadRecord, name: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for data in (annotation, question):
            if isinstance(data, BadRecord):
                raise data
            row = fields.parse_json(data)
            if not isinstance(row, dict):
                raise BadRecord("unreadable row")  # the file has changed since
            values |= row
        if "answers" in values:
            values["answers"] = fields.lookup(values["answers"], "answer") or []
        return values | {"file_name": name}

    def _check(self, dataset: DatasetConfig) -> None:
        check = fields.FieldCheck(dataset, (*MADE_FIELDS, *(() if self._annotations else ANSWER_FIELDS)))
        for rows in self.rows(range(min(len(self), 1))):
            check.add(rows[0] if isinstance(rows, list) else {})
        if problem := check.problem(self._file.path):
            raise CocaError(problem)

    def _scanned(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Names of the images and places of both rows of each question that has its annotation."""
        path, digests, damage = self._file.path, [], Counter[str]()
        text, digest = _text(path)
        digests.append(digest)
        images = _images(text, path)
        ids, images_ids, places = _located(text, path, _QUESTIONS)
        arrays = {"questions": places}
        if self._annotations:
            text, digest = _text(self._annotations.path)
            digests.append(digest)
            own_ids, _, own_places = _located(text, self._annotations.path, _ANNOTATIONS)
            _, asked, answered = np.intersect1d(ids, own_ids, return_indices=True)
            order = np.argsort(asked)  # as the questions are
            damage["question without annotation"] = len(ids) - len(asked)
            damage["annotation without question"] = len(own_ids) - len(answered)
            arrays = {"questions": places[asked[order]], "annotations": own_places[answered[order]]}
            images_ids = images_ids[asked[order]]
        names = Strings.of(f"COCO_{images}_{number:012d}.jpg" for number in images_ids.tolist())
        arrays |= {"names": names.data, "name_ends": names.ends}
        return {"digest": storage.digest(*digests), "damage": dict(+damage), "images": images}, arrays


def annotations_path(path: str) -> str:
    """Where the annotations of a file of questions are: v2_mscoco_train2014_annotations.json beside it."""
    folder, slash, name = path.rpartition("/")
    name = re.sub(r"(OpenEnded|MultipleChoice)_", "", name)
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    return f"{folder}{slash}{stem.removesuffix('_questions')}_annotations{suffix}"


def _text(path: str) -> tuple[str, str]:
    """A file, one character a byte, and its digest."""
    try:
        data = storage.read(path, largest=_LARGEST)
    except storage.ReadError as error:
        raise CocaError(f"{path} cannot be read ({error}): check the path") from error
    return data.decode("latin-1"), hashlib.sha256(data).hexdigest()


def _images(text: str, path: str) -> str:
    """The part of COCO that the questions are about: train2014, val2014 or test2015."""
    match = _SUBTYPE.search(text) or re.search(r"_((?:train|val|test|test-dev)\d{4})_", path.rpartition("/")[2])
    if not match:
        raise CocaError(f'{path} does not name its images: add "data_subtype": "train2014", or the like')
    return match[1].replace("test-dev", "test")


def _located(text: str, path: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row of a list: question_id [n], image_id [n], offset and size [n, 2], all int64."""

    def numbers(row: Any) -> tuple[int, int]:
        match row:
            case {"question_id": int(question), "image_id": int(image)}:
                return question, image
        raise CocaError(f"a row of {name} of {path} has no number as question_id or image_id: download it again")

    rows = coco_json.lists(text, path, {name: numbers}).get(name)
    if not rows:
        raise CocaError(f"{path} has no list of {name}: download it again")
    table = np.array([(*ids, start, end - start) for ids, (start, end) in rows], np.int64)
    return table[:, 0], table[:, 1], table[:, 2:]
