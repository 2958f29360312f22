import json
import time

import numpy as np
import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics.captions.cider import document_frequencies
from coca_jax.evaluation.metrics.captions.scores import score

CANDIDATES = {7: "A dog on the grass.", "x": "Two red cats!"}
REFERENCES = {"x": ["two cats", "Two cats, both red.", "red cats"], 7: ["A dog in the grass"]}


@pytest.fixture(scope="module")
def coco(shared_data):
    """(candidates, references, expected figures) of 1,000 images, tokenised."""
    folder = shared_data / "data" / "caption_metrics"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("res", "gts", "expected_scores")}
    (expected,) = read["expected_scores"].values()
    return {image: captions[0] for image, captions in read["res"].items()}, read["gts"], expected


def test_the_published_figures(coco):
    candidates, references, expected = coco
    scores = score(candidates, references, tokenizer=str)
    for name, figure in scores.corpus.items():
        published = {"rouge_l": "ROUGE_L", "cider": "CIDEr"}.get(name, name.capitalize())
        assert figure == pytest.approx(expected[published], abs=1e-9, rel=0), name
    assert set(scores.corpus) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"}
    assert list(scores.per_image) == list(references)
    for name in ("rouge_l", "cider"):
        mean = np.mean([own[name] for own in scores.per_image.values()])
        assert scores.corpus[name] == pytest.approx(mean)


def test_a_split_takes_seconds(coco):
    candidates, references, _ = coco
    few = list(references)[:250]  # a twentieth of COCO's test split
    start = time.process_time()
    score({image: candidates[image] for image in few}, {image: references[image] for image in few})
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
    scores = score(candidates, references, tokenizer=str)
    listed = {i: [text] for i, text in candidates.items()}
    corpus, rows = Bleu(4).compute_score(references, listed, verbose=0)
    expected = {f"bleu_{n}": (corpus[n - 1], rows[n - 1]) for n in (1, 2, 3, 4)}
    expected |= {
        "rouge_l": Rouge().compute_score(references, listed),
        "cider": Cider().compute_score(references, listed),
    }
    for name, (figure, own) in expected.items():
        assert scores.corpus[name] == pytest.approx(figure, abs=1e-12)
        assert [row[name] for row in scores.per_image.values()] == pytest.approx(list(own), abs=1e-12)


def test_captions_are_tokenised_and_each_image_has_its_scores():
    scores = score(CANDIDATES, REFERENCES)
    assert scores.per_image["x"]["rouge_l"] == pytest.approx(2.44 * (2 / 3) / (1 + 1.44 * 2 / 3))  # of "red cats"
    assert scores.per_image[7]["bleu_1"] == pytest.approx(4 / 5)
    assert scores.corpus["bleu_1"] == pytest.approx((4 + 3) / (5 + 3))
    assert scores.corpus["cider"] > 0


def test_a_number_with_a_space_is_one_word_for_rouge_and_two_for_bleu():
    scores = score({1: "5 1/2 dogs"}, {1: ["5 dogs"]})  # the tokens are 5\u00a01/2 and dogs
    assert scores.corpus["bleu_1"] == pytest.approx(2 / 3)
    assert scores.corpus["rouge_l"] == pytest.approx(1 / 2)


def test_the_order_of_images_changes_nothing():
    swapped = score(dict(reversed(CANDIDATES.items())), dict(reversed(REFERENCES.items())))
    scores = score(CANDIDATES, REFERENCES)
    assert scores.corpus == pytest.approx(swapped.corpus)
    assert scores.per_image == swapped.per_image


def test_metrics_are_chosen_by_name():
    assert set(score(CANDIDATES, REFERENCES, ["cider"]).corpus) == {"cider"}
    assert set(score(CANDIDATES, REFERENCES, ["rouge_l", "rouge_l"]).corpus) == {"rouge_l"}
    with pytest.raises(
        CocaError, match="no captioning metric 'blue': choose among bleu, rouge_l, cider, meteor, spice"
    ):
        score(CANDIDATES, REFERENCES, ["blue"])


def test_the_frequencies_of_a_larger_corpus():
    corpus = [[caption.lower().split() for caption in own] for own in REFERENCES.values()]
    alone = {7: CANDIDATES[7]}, {7: REFERENCES[7]}
    assert score(*alone, ["cider"]).corpus == {"cider": 0}
    assert score(*alone, ["cider"], frequencies=document_frequencies(corpus)).corpus["cider"] > 1


def test_an_empty_candidate_scores_nothing():
    for empty in ("", " . "):
        scores = score({**CANDIDATES, 7: empty}, REFERENCES)
        assert set(scores.per_image[7].values()) == {0}
        assert scores.corpus["rouge_l"] == scores.per_image["x"]["rouge_l"] / 2


@pytest.mark.parametrize(
    "candidates, references, sentence",
    [
        ({}, {}, "no images"),
        ({7: "a dog"}, REFERENCES, "image 'x' has references but no candidate caption"),
        ({**CANDIDATES, 8: "a", 9: "b"}, REFERENCES, "image 8 and 1 more has a candidate caption but no references"),
        ({7: ["a dog", "a cat"]}, {7: ["a dog"]}, "image 7 needs one caption as a string"),
        ({7: "a dog"}, {7: []}, "references of image 7 have to be a list"),
        ({7: "dog"}, {7: "dog"}, "references of image 7 have to be a list"),
        ({7: "a dog"}, {7: ["a dog", "  "]}, "references of image 7 have to be a list of captions, none of them empty"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(candidates, references, sentence):
    with pytest.raises(CocaError, match=sentence):
        score(candidates, references)
