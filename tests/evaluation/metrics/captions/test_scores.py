import json
import statistics
import time

import numpy as np
import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics.captions.bleu import bleu, bleu_counts
from coca_jax.evaluation.metrics.captions.cider import cider, document_frequencies
from coca_jax.evaluation.metrics.captions.rouge import rouge_l
from coca_jax.evaluation.metrics.captions.scores import score

CANDIDATES = ["Two red cats!", "A dog on the grass."]
REFERENCES = [["two cats", "Two cats, both red.", "red cats"], ["A dog in the grass"]]


@pytest.fixture(scope="module")
def coco(shared_data):
    """(candidates, references, expected scores) of 1,000 images, tokenised."""
    folder = shared_data / "data" / "caption_metrics"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("res", "gts", "expected_scores")}
    (expected,) = read["expected_scores"].values()
    return [read["res"][image][0] for image in read["gts"]], list(read["gts"].values()), expected


def test_the_published_figures(coco):
    candidates, references, expected = coco
    scores = score(candidates, references, tokenizer=str)
    for name, value in scores.items():
        published = {"rouge_l": "ROUGE_L", "cider": "CIDEr"}.get(name, name.capitalize())
        assert value == pytest.approx(expected[published], abs=1e-9, rel=0), name
    assert set(scores) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"}


def test_a_split_takes_seconds(coco):
    candidates, references, _ = coco
    start = time.process_time()
    score(candidates[:250], references[:250])  # a twentieth of COCO's test split
    assert time.process_time() - start < 2


def test_each_image_scores_what_pycocoevalcap_gives_it():
    pytest.importorskip("pycocoevalcap", reason="compares with pycocoevalcap where it is installed")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    rng = np.random.default_rng(0)

    def caption(shortest):
        return " ".join(rng.choice(list("aaabbcdefg"), rng.integers(shortest, 12)))

    references = {i: [caption(1) for _ in range(rng.integers(1, 6))] for i in range(80)}
    candidates = {i: caption(0) for i in references}  # some empty
    listed = {i: [text] for i, text in candidates.items()}
    words = [[text.split() for text in own] for own in references.values()]
    frequencies = document_frequencies(words)
    pairs = [(text.split(), own) for text, own in zip(candidates.values(), words, strict=True)]
    corpus, rows = Bleu(4).compute_score(references, listed, verbose=0)
    scores = score(list(candidates.values()), list(references.values()), tokenizer=str)
    for n in (1, 2, 3, 4):
        assert scores[f"bleu_{n}"] == pytest.approx(corpus[n - 1], abs=1e-12)
        assert [bleu([bleu_counts(*pair)])[n - 1] for pair in pairs] == pytest.approx(rows[n - 1], abs=1e-12)
    for name, scorer, own in (
        ("rouge_l", Rouge(), [rouge_l(text or [""], references) for text, references in pairs]),
        ("cider", Cider(), [cider(text, references, frequencies) for text, references in pairs]),
    ):
        mean, each = scorer.compute_score(references, listed)
        assert own == pytest.approx(list(each), abs=1e-12) and scores[name] == pytest.approx(mean, abs=1e-12)
        assert scores[name] == statistics.fmean(own)


def test_captions_are_tokenised():
    scores = score(CANDIDATES, REFERENCES)
    of_red_cats = 2.44 * (2 / 3) / (1 + 1.44 * 2 / 3)
    assert score(CANDIDATES[:1], REFERENCES[:1])["rouge_l"] == pytest.approx(of_red_cats)
    assert score(CANDIDATES[1:], REFERENCES[1:])["bleu_1"] == pytest.approx(4 / 5)
    assert scores["bleu_1"] == pytest.approx((4 + 3) / (5 + 3))
    assert scores["cider"] > 0


def test_a_number_with_a_space_is_one_word_for_rouge_and_two_for_bleu():
    scores = score(["5 1/2 dogs"], [["5 dogs"]])  # the tokens are 5\u00a01/2 and dogs
    assert scores["bleu_1"] == pytest.approx(2 / 3)
    assert scores["rouge_l"] == pytest.approx(1 / 2)


def test_the_order_of_images_changes_nothing():
    assert score(CANDIDATES, REFERENCES) == pytest.approx(score(CANDIDATES[::-1], REFERENCES[::-1]))


def test_metrics_are_chosen_by_name():
    assert set(score(CANDIDATES, REFERENCES, ["cider"])) == {"cider"}
    assert set(score(CANDIDATES, REFERENCES, ["rouge_l", "rouge_l"])) == {"rouge_l"}
    assert score(CANDIDATES, [[], []], []) == {}
    with pytest.raises(
        CocaError, match="no captioning metric 'blue': choose among bleu, rouge_l, cider, meteor, spice"
    ):
        score(CANDIDATES, REFERENCES, ["blue"])


@pytest.mark.parametrize("empty", ["", " . "])
def test_an_empty_candidate_scores_nothing(empty):
    assert set(score([empty], REFERENCES[1:]).values()) == {0}
    both, alone = score([CANDIDATES[0], empty], REFERENCES), score(CANDIDATES[:1], REFERENCES[:1])
    assert both["rouge_l"] == alone["rouge_l"] / 2


@pytest.mark.parametrize("references", [[["a dog"], []], [["a dog"], ["a cat", "  "]]])
def test_an_image_without_a_reference_is_refused(references):
    with pytest.raises(CocaError, match="image 1 has no references, or an empty one"):
        score(CANDIDATES, references)
