import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from coca_jax import config as config_lib
from coca_jax import generation
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import make_mesh
from coca_jax.errors import CocaError
from coca_jax.generation import GenerationOptions, beams, loop
from coca_jax.generation.sampling import sample
from coca_jax.generation.state import Special, State
from coca_jax.inference import model as inference
from coca_jax.models import coca
from coca_jax.models.text_decoder import DecoderOutput, empty_cache

PAD, EOS, BOS, V, L, B = 0, 1, 3, 24, 9, 6
SPECIAL = dict(bos_id=BOS, eos_id=EOS, pad_id=PAD)

# Tests compile much and compute little.
_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def _model(vocabulary: int = V) -> tuple[coca.Coca, dict]:
    """A tiny captioner with random parameters, eager enough to end some captions early."""
    values = config_lib.default()
    values.model.update(width=16, heads=2, dtype="float32")
    values.model.image.update(kind="precomputed", tokens=4)
    values.data.dataset.update(format="folder", path="tokens")
    values.model.pooler.update(queries=3, hidden_multiple=1)
    values.model.text.update(vocabulary_size=vocabulary, length=L, unimodal_layers=1, multimodal_layers=2, mlp=24)
    model = tiny.model(config_lib.from_config_dict(values))
    rng = np.random.default_rng(3)
    kinds = {"scale": (1, 0.1), "bias": (0, 0.1), "temperature": (0.07, 0), "queries": (0, 1)}

    def parameter(path, leaf):
        mean, deviation = kinds.get(path[-1].key, (0, 0.3))
        return (mean + rng.normal(0, 1, leaf.shape) * deviation).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(parameter, coca.abstract_parameters(model)[0])


def _with_bias(params: dict, **biases: float) -> dict:
    bias = params["softmax"]["bias"].copy()
    for name, value in biases.items():
        bias[{"pad": PAD, "eos": EOS, "bos": BOS}[name]] = value
    return params | {"softmax": params["softmax"] | {"bias": bias}}


def _images(batch: int = B) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, 4, 16)).astype(np.float32) * 2


def _keys(batch: int, seed: int = 0) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(batch))


@functools.partial(_jit, static_argnums=0)
def _compiled(options, params, images, prompts, keys):
    return generation.generate(_model()[0], params, images, options, **SPECIAL, prompts_BP=prompts, keys_B=keys)


def _generate(options, params, images, prompts=None, keys=None) -> np.ndarray:
    return np.asarray(_compiled(options, params, images, prompts, keys))


@_jit
def _greedy(params, images):
    """Without options and prompts."""
    return generation.generate(_model()[0], params, images, **SPECIAL)


@_jit
def _logits(params, images, ids, valid):
    """Of every position, without a cache."""
    output = _model()[0].apply({"params": params}, images, ids, valid)
    return output.softmax.logits(output.hidden_BLD)


@functools.cache
def _prompts() -> np.ndarray:
    """Of 1 to 5 tokens, BOS among them."""
    rng = np.random.default_rng(5)
    prompts = np.full((B, 5), PAD, np.int32)
    for row, length in zip(prompts, (1, 5, 2, 4, 3, 5), strict=True):
        row[:length] = [BOS, *rng.integers(4, V, length - 1)]
    return prompts


# The reference: one image at a time, the whole model again for every token, the rules of decoding in numpy.


class Uncached:
    """Logits of the token after each of several texts on one image, as the options change them."""

    ROWS = 32

    def __init__(self, params: dict, image: np.ndarray, options: GenerationOptions):
        self.params, self.options = params, options
        self.images = np.repeat(image[None], self.ROWS, axis=0)
        self.known = {}

    def logits(self, texts: list[tuple[int, ...]]) -> None:
        for start in range(0, len(texts), self.ROWS):
            part = texts[start : start + self.ROWS]
            ids = np.full((self.ROWS, L), 2, np.int32)  # what stands under a pad does not matter
            for row, text in zip(ids, part, strict=False):
                row[: len(text)] = text
            lengths = np.array([len(text) for text in part] + [1] * (self.ROWS - len(part)))
            found = _logits(self.params, self.images, ids, np.arange(L) < lengths[:, None])
            self.known |= {text: np.asarray(found[i, len(text) - 1]) for i, text in enumerate(part)}

    def log_probabilities(self, texts: list[tuple[int, ...]], prompt: int) -> list[np.ndarray]:
        """Of the tokens after each text, whose first `prompt` tokens were not generated; float64."""
        self.logits([text for text in texts if text not in self.known])
        return [self._processed(self.known[text].astype(np.float64), text[prompt:]) for text in texts]

    def _processed(self, logits: np.ndarray, generated: tuple[int, ...]) -> np.ndarray:
        logits = logits.copy()
        for token in set(generated):
            penalty = self.options.repetition_penalty
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        logits[[BOS, PAD]] = -np.inf
        if len(generated) < self.options.min_tokens:
            logits[EOS] = -np.inf
        return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def _plain_greedy(model: Uncached, prompt: tuple[int, ...], limit: int) -> tuple[int, ...]:
    text = prompt
    while len(text) - len(prompt) < limit and text[-1] != EOS:
        text += (int(model.log_probabilities([text], len(prompt))[0].argmax()),)
    return text


def _plain_beam(model: Uncached, prompt: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """Hypotheses in lists, everything sorted."""
    beams, alpha = model.options.beams, model.options.length_penalty
    live, ended = [(0.0, prompt)], []
    for count in range(1, limit + 1):
        rows = model.log_probabilities([text for _, text in live], len(prompt))
        further = [
            (old + row[i], (*text, i)) for (old, text), row in zip(live, rows, strict=True) for i in range(len(row))
        ]
        further = sorted(further, key=lambda pair: -pair[0])[: 2 * beams]

        def score(pair, count=count):
            return pair[0] / ((5 + count) / 6) ** alpha

        ended += [(score(pair), pair[1]) for pair in further[:beams] if pair[1][-1] == EOS and pair[0] > -np.inf]
        live = [pair for pair in further if pair[1][-1] != EOS and pair[0] > -np.inf][:beams]
        if len(ended) >= beams and count < limit:
            break
    else:  # as long as may be: all compete
        ended += [(score(pair), pair[1]) for pair in live]
    return max(ended)[1]


def _exhaustive(model: Uncached, limit: int) -> tuple[int, ...]:
    """The best of all texts that there are."""
    alpha, texts, ended = model.options.length_penalty, [(0.0, (BOS,))], []
    for count in range(1, limit + 1):
        rows = model.log_probabilities([text for _, text in texts], 1)
        texts = [
            (old + row[i], (*text, i)) for (old, text), row in zip(texts, rows, strict=True) for i in range(len(row))
        ]
        texts = [pair for pair in texts if pair[0] > -np.inf]
        whole = [pair for pair in texts if pair[1][-1] == EOS or count == limit]
        ended += [(old / ((5 + count) / 6) ** alpha, text) for old, text in whole]
        texts = [pair for pair in texts if pair[1][-1] != EOS]
    return max(ended)[1]


def _reference(params: dict, options: GenerationOptions, prompts: np.ndarray | None = None) -> np.ndarray:
    decode = _plain_beam if options.beams else _plain_greedy
    ids = np.full((B, L), PAD, np.int32)
    for i, image in enumerate(_images()):
        prompt = (BOS,) if prompts is None else tuple(int(token) for token in prompts[i] if token != PAD)
        limit = min(options.max_tokens or L, L - len(prompt))
        text = decode(Uncached(params, image, options), prompt, limit)
        ids[i, : len(text)] = text
    return ids


@functools.cache
def _varied() -> tuple[dict, np.ndarray]:
    """Parameters whose captions of `_images()` end at different lengths, some never."""
    params = _model()[1]
    for bias in np.arange(0, 6, 0.25):
        candidate = _with_bias(params, eos=bias)
        ids = np.asarray(_greedy(candidate, _images()))
        ends = [list(row).index(EOS) if EOS in row else L for row in ids]
        if len(set(ends)) >= 3:
            return candidate, ids
    raise AssertionError("no bias gives captions of three lengths")


def test_greedy_equals_an_uncached_run_of_every_prefix():
    params, ids = _varied()
    assert ids.shape == (B, L) and ids.dtype == np.int32
    assert len({tuple(row) for row in ids.tolist()}) > 1
    np.testing.assert_array_equal(ids, _reference(params, GenerationOptions()))


def test_a_caption_is_bos_tokens_eos_pads():
    for row in _varied()[1].tolist():
        end = row.index(EOS) if EOS in row else L
        assert row[0] == BOS
        assert not {BOS, PAD, EOS} & set(row[1:end])
        assert set(row[end + 1 :]) <= {PAD}


def test_cached_logits_equal_uncached_ones():
    """Of three texts an image, which share their first four tokens and one cache."""
    prompt, streams = 4, 3
    model, params = _model()
    texts = np.random.default_rng(1).integers(0, V, (B, streams, L)).astype(np.int32)
    texts[:, :, :prompt] = texts[:, :1, :prompt]
    decoder = {"params": coca.generation_parameters(params, model.config)}
    tokens = _jit(functools.partial(model.apply, method="encode_image"))({"params": params}, _images()).tokens_BQD
    slots = prompt + (L - prompt) * streams
    cache = empty_cache(model.config, B, slots)
    causal = np.tile(np.tri(prompt, slots, dtype=bool), (B, 1, 1))
    positions = np.tile(np.arange(prompt), (B, 1))

    @_jit
    def extend(decoder, *args):
        output = model.apply(decoder, *args, method="extend")
        return model.apply(decoder, output.hidden_BLD, method="next_logits"), output.cache

    logits, cache = extend(decoder, texts[:, 0, :prompt], positions, causal, 0, cache, tokens)
    found = [np.repeat(logits[:, None], streams, axis=1)]
    visible = np.tile(np.arange(slots) < prompt, (B, streams, 1))
    for t in range(prompt, L):
        index = prompt + (t - prompt) * streams
        visible[:, np.arange(streams), index + np.arange(streams)] = True
        logits, cache = extend(decoder, texts[:, :, t], np.full((B, streams), t), visible, index, cache)
        found.append(np.asarray(logits)[:, :, None])
    for stream, logits in enumerate(np.moveaxis(np.concatenate(found, axis=2), 1, 0)):
        expected = _logits(params, _images(), texts[:, stream], np.ones((B, L), bool))
        np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-5)
        assert np.std(expected) > 0.1


def test_eos_ends_a_caption_at_once():
    ids = _greedy(_with_bias(_model()[1], eos=1e4), _images())
    np.testing.assert_array_equal(ids, [[BOS, EOS] + [PAD] * (L - 2)] * B)


def test_a_caption_that_never_ends_fills_the_length():
    ids = np.asarray(_greedy(_with_bias(_model()[1], eos=-1e4), _images()))
    assert (ids[:, 0] == BOS).all() and not np.isin(ids[:, 1:], [PAD, EOS, BOS]).any()


def test_bos_and_pads_are_never_generated():
    params, ids = _varied()
    forced = _with_bias(params, bos=1e4, pad=1e4, eos=params["softmax"]["bias"][EOS])
    np.testing.assert_array_equal(_greedy(forced, _images()), ids)


# Options against the reference, with prompts of different lengths and without. Each set of options that compiles is
# one program for several tests.

GREEDY = GenerationOptions(min_tokens=2, max_tokens=6, repetition_penalty=3.0)
BEAMS = GenerationOptions(beams=3, min_tokens=2, repetition_penalty=1.5)
SAMPLING = GenerationOptions(temperature=1.0, top_k=8, top_p=0.9)
MODES = {"greedy": GREEDY, "beams": BEAMS, "sampling": SAMPLING}
BARE = np.array([[BOS, PAD, PAD, PAD, PAD]] * B, np.int32)  # what no prompt is, as wide as `_prompts()`


@pytest.mark.parametrize("options", [GREEDY, BEAMS], ids=("greedy", "beams"))
def test_options_and_prompts_equal_the_reference(options):
    params, plain = _varied()
    np.testing.assert_array_equal(
        _generate(options, params, _images(), _prompts()), _reference(params, options, _prompts())
    )
    ids = _generate(options, params, _images(), BARE)
    np.testing.assert_array_equal(ids, _reference(params, options))
    assert (ids != plain).any()  # the options make a difference


def test_beams_without_a_prompt_equal_the_reference():
    params, plain = _varied()
    options = GenerationOptions(beams=4, length_penalty=1.0, max_tokens=4)
    ids = _generate(options, params, _images())
    np.testing.assert_array_equal(ids, _reference(params, options))
    assert (ids != plain).any()


def test_the_options_show():
    params, plain = _varied()
    ids = _generate(GREEDY, params, _images(), BARE)
    assert (plain[:, 1:3] == EOS).any() and not (ids[:, 1:3] == EOS).any()
    assert (plain[:, 7:] != PAD).any() and (ids[:, 7:] == PAD).all()

    def repeats(rows):
        return sum(len(row) - len(set(row)) for row in ([t for t in r if t > BOS] for r in rows.tolist()))

    assert repeats(ids) < repeats(_reference(params, dataclasses.replace(GREEDY, repetition_penalty=1.0)))


# Beams.


class Bigrams(Uncached):
    """A language instead of a model: the next token's logits depend on the last token alone."""

    def __init__(self, table: np.ndarray, options: GenerationOptions):
        self.table, self.options, self.known = table, options, {}

    def logits(self, texts: list[tuple[int, ...]]) -> None:
        self.known |= {text: self.table[text[-1]] for text in texts}


@functools.partial(_jit, static_argnums=0)
def _searched(options, tables_BVV, limit_B):
    """[B, T]: what is generated in each of B such languages, by the steps of the loop, none of which ends it early."""
    (batch, *_), streams, tokens = tables_BVV.shape, max(options.beams, 1), 6
    first = beams.first(batch, streams, tokens, PAD) if options.beams else None
    nothing = jnp.full((batch, streams, tokens), PAD, jnp.int32)
    visible = jnp.ones((batch, streams, 1), bool)
    state = State(jnp.int32(0), limit_B, nothing, limit_B <= 0, visible, (), first)

    def step(count, state):
        last_BK = jnp.where(count > 0, state.tokens_BKT[:, :, count - 1], BOS)
        logits_BKV = jnp.take_along_axis(tables_BVV, last_BK[..., None], axis=1)
        return loop._choose(state, logits_BKV, options, Special(**SPECIAL), None)

    state = jax.lax.fori_loop(0, tokens, step, state)
    return state.beams.best_tokens_BT if options.beams else state.tokens_BKT[:, 0]


@functools.cache
def _languages() -> tuple[np.ndarray, np.ndarray]:
    """300 of them, and how many tokens each may generate."""
    rng = np.random.default_rng(7)
    tables = rng.normal(0, 2, (300, 8, 8)).astype(np.float32)
    tables[..., EOS] += rng.choice([-1, 0, 2], (300, 1))
    return tables, rng.integers(0, 7, 300)


@pytest.mark.parametrize(
    "options",
    [
        GenerationOptions(min_tokens=1),
        GenerationOptions(beams=1, length_penalty=0.0),
        GenerationOptions(beams=1, length_penalty=2.0),
        GenerationOptions(beams=2, length_penalty=2.0),
        GenerationOptions(beams=3, length_penalty=0.0, repetition_penalty=1.4),
        GenerationOptions(beams=7, length_penalty=1.0),  # more candidates than there are words
    ],
    ids=lambda options: f"{options.beams}-{options.length_penalty}",
)
def test_search_in_many_small_languages_equals_the_reference(options):
    tables, limits = _languages()
    found = np.asarray(_searched(options, tables, limits))
    decode = _plain_beam if options.beams > 1 else _plain_greedy  # one beam is greedy
    expected = np.full_like(found, PAD)
    for row, table, limit in zip(expected, tables, limits, strict=True):
        text = decode(Bigrams(table, options), (BOS,), int(limit)) if limit else (BOS,)
        row[: len(text) - 1] = text[1:]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("options", [GenerationOptions(), GenerationOptions(beams=1)], ids=("greedy", "one beam"))
def test_of_equal_logits_the_lower_id_is_chosen(options):
    tables, limits = np.zeros((3, 8, 8), np.float32), np.array([6, 6, 1])
    tables[1:, :, EOS] = -1
    # Behind a likely word, log probabilities of the others are too coarse to tell 1 from the float above it.
    tables[2, :, [5, 7]], tables[2, :, EOS] = [[1], [np.nextafter(np.float32(1), 2)]], 0.9
    found = np.asarray(_searched(options, tables, limits))
    np.testing.assert_array_equal(found[0], [EOS] + [PAD] * 5)
    np.testing.assert_array_equal(found[1], [2] * 6)
    assert found[2, 0] == 7


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_with_enough_beams_the_best_of_all_texts_is_found(penalty):
    words, limit = 6, 4  # three words and EOS: 40 texts that end, 81 that are cut off
    options = GenerationOptions(beams=128, length_penalty=penalty)
    tables = np.random.default_rng(8).normal(0, 2, (12, words, words)).astype(np.float32)
    differs = 0
    for table, row in zip(tables, np.asarray(_searched(options, tables, np.full(12, limit))), strict=True):
        language = Bigrams(table, options)
        text = (BOS, *row[row != PAD].tolist())
        assert text == _exhaustive(language, limit)
        differs += text != _plain_greedy(language, (BOS,), limit)
    assert differs  # greedy would not have found them


def test_a_higher_length_penalty_gives_longer_captions():
    lengths = [
        (np.asarray(_searched(GenerationOptions(beams=2, length_penalty=alpha), *_languages())) != PAD).sum()
        for alpha in (0.0, 2.0)
    ]
    assert lengths[0] < lengths[1]


# Sampling.


def _p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Of Pearson's chi-square, cells with fewer than five expected taken together."""
    stats = pytest.importorskip("scipy.stats")
    assert not counts[probabilities == 0].any()
    expected = counts.sum() * probabilities / probabilities.sum()
    rare = expected < 5

    def fold(x):
        return np.append(x[~rare], x[rare].sum())

    counts, expected = fold(counts), fold(expected)
    return stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue


def _draws(logits: np.ndarray, options: GenerationOptions, count: int = 20_000) -> np.ndarray:
    found = jax.vmap(sample, (0, None, None))(_keys(count), jnp.asarray(logits, jnp.float32), options)
    return np.bincount(found, minlength=len(logits))


LOGITS = np.array([1.0, 3.0, -2.0, 2.0, 2.0, -np.inf, 0.5, 2.5])


@pytest.mark.parametrize(
    "options, support",
    [
        (GenerationOptions(temperature=1.0), {0, 1, 2, 3, 4, 6, 7}),
        (GenerationOptions(temperature=2.5), {0, 1, 2, 3, 4, 6, 7}),
        (GenerationOptions(temperature=1e-30), {1}),
        (GenerationOptions(temperature=1.0, top_k=3), {1, 7, 3}),  # 3 and 4 tie: the lower id
        (GenerationOptions(temperature=1.0, top_k=8), {0, 1, 2, 3, 4, 6, 7}),  # not 5, which cannot come
        (GenerationOptions(temperature=1.0, top_p=1e-6), {1}),
        # At temperature 1 the probabilities are, from the top: 0.390, 0.236, 0.143, 0.143, 0.053, 0.032, 0.003.
        (GenerationOptions(temperature=1.0, top_p=0.38), {1}),
        (GenerationOptions(temperature=1.0, top_p=0.39), {1, 7}),
        (GenerationOptions(temperature=1.0, top_p=0.78), {1, 7, 3, 4}),
        (GenerationOptions(temperature=0.5, top_p=0.78), {1, 7}),  # 0.601, 0.221, …: sharper, so fewer
        (GenerationOptions(temperature=1.0, top_k=2, top_p=0.62), {1}),  # of the two, 0.622 and 0.378
        (GenerationOptions(temperature=1.0, top_k=2, top_p=0.63), {1, 7}),
    ],
    ids=lambda x: f"{x.temperature}-{x.top_k}-{x.top_p}" if isinstance(x, GenerationOptions) else "",
)
def test_samples_follow_their_distribution(options, support):
    counts = _draws(LOGITS, options)
    assert set(np.flatnonzero(counts)) == support
    probabilities = np.exp((LOGITS - 3) / options.temperature) * np.isin(np.arange(8), list(support))
    if len(support) > 1:
        assert _p_value(counts, probabilities) > 1e-3


def test_generated_texts_follow_the_models_distribution():
    count, options = 4_096, GenerationOptions(temperature=1.5, max_tokens=2)
    params, _ = _varied()
    image = _images()[0]
    ids = _generate(options, params, np.repeat(image[None], count, axis=0), keys=_keys(count))
    model = Uncached(params, image, options)

    def probabilities(text):
        return np.exp(model.log_probabilities([text], 1)[0] / options.temperature)

    assert _p_value(np.bincount(ids[:, 1], minlength=V), probabilities((BOS,))) > 1e-3
    words = [t for t in np.bincount(ids[:, 1], minlength=V).argsort()[::-1] if t != EOS]
    for first in words[:2]:  # the second token, after each of the two most frequent first ones
        second = np.bincount(ids[ids[:, 1] == first, 2], minlength=V)
        assert second.sum() > 200 and _p_value(second, probabilities((BOS, int(first)))) > 1e-3
    assert (ids[ids[:, 1] == EOS, 2:] == PAD).all() and (ids[:, 3:] == PAD).all()


# What may not matter.


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    """Options, the keys that they need, and what they generate for all images."""
    options = MODES[request.param]
    keys = _keys(B) if options.temperature else None
    ids = _generate(options, _varied()[0], _images(), _prompts(), keys)
    assert len({tuple(row) for row in ids}) > 2
    return options, keys, ids


def _of(keys, order):
    return None if keys is None else keys[np.array(order)]


def test_a_caption_does_not_depend_on_the_rest_of_its_batch(mode):
    options, keys, ids = mode
    assert len({(row != PAD).sum() for row in ids}) > 2  # some end earlier

    def found(order):
        return _generate(options, _varied()[0], _images()[order], _prompts()[order], _of(keys, order))

    np.testing.assert_array_equal(found(list(range(B))[::-1]), ids[::-1])
    for i in range(B):  # each among copies of another, which may end earlier or later than itself
        np.testing.assert_array_equal(found([i] + [0] * (B - 1))[0], ids[i])


def test_a_caption_depends_on_neither_mesh_nor_batch_size_nor_padding(mode):
    options, keys, ids = mode
    model, params, order = _model()[0], _varied()[0], [*range(B), 0, 1]
    mesh = make_mesh(config_lib.MeshConfig(data=2, fsdp=2, tensor=2))
    rows = sharding.batch_sharding(mesh)
    prompts, expected = np.pad(_prompts()[order], ((0, 0), (0, L - 5)), constant_values=PAD), ids[order]
    prompts[B, 1:] = 5
    expected[B] = prompts[B]  # fills the positions, and comes back
    with jax.set_mesh(mesh):
        spread = jax.device_put(params, sharding.shardings(mesh, coca.abstract_parameters(model)[1]))
        inputs = jax.device_put((_images()[order], prompts, _of(keys, order)), rows)
        found = _compiled(options, spread, *inputs)
    assert found.sharding.is_equivalent_to(rows, 2)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("options", [GREEDY, BEAMS], ids=("greedy", "beams"))
def test_tokens_are_chosen_where_their_image_lies(options):
    model, params = _model()
    mesh = make_mesh(config_lib.MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):

        def generate(params):
            return generation.generate(model, params, _images(8), options, **SPECIAL)

        traced = jax.make_jaxpr(generate)(params)
    (loop_,) = [equation for equation in traced.eqns if equation.primitive.name == "while"]
    body = loop_.params["body_jaxpr"].jaxpr
    made = {out: equation for equation in body.eqns for out in equation.outvars}
    carried = [out for out in body.outvars if 0 < out.aval.ndim < 4]  # neither the count, nor the cache
    assert len(carried) == (8 if options.beams else 4)
    (chosen,) = {id(made[out]): made[out] for out in carried}.values()
    assert chosen.primitive.name == "shard_map"  # so that no device gathers another's logits
    specs = [spec for spec, out in zip(chosen.params["out_specs"], chosen.outvars, strict=True) if out.aval.ndim]
    assert set(specs) == {sharding.batch_sharding(mesh).spec}


def test_a_batch_need_not_divide_over_the_mesh():
    model, params = _model()
    with jax.set_mesh(make_mesh(config_lib.MeshConfig(data=2, fsdp=2, tensor=2))):

        def generate(images):
            return generation.generate(model, params, images, **SPECIAL)

        assert jax.eval_shape(generate, _images(1)).shape == (1, L)


class Watched:
    """The model, and what is asked of it."""

    def __init__(self, on_extend):
        self.config, self.branches, self.on_extend = _model()[0].config, coca.Branches(), on_extend

    def apply(self, variables, *args, method):
        if method == "extend":
            self.on_extend(*args)
        return _model()[0].apply(variables, *args, method=method)


class Constant(Watched):
    """A model whose logits are the softmax's bias, whatever it reads: little more than the loop compiles."""

    def apply(self, variables, *args, method):
        if method == "encode_image":
            return super().apply(variables, *args, method=method)
        if method == "next_logits":
            return jnp.broadcast_to(variables["params"]["softmax"]["bias"], (*args[0].shape[:2], V))
        assert method == "extend"
        self.on_extend(*args)
        return DecoderOutput(jnp.zeros((*args[0].shape, 1)), cache=args[4])


def _watched(kind, on_extend, options):
    model = kind(on_extend)
    return _jit(lambda params: generation.generate(model, params, _images(), options, **SPECIAL))


@pytest.mark.parametrize("options", [GenerationOptions(), GenerationOptions(beams=3)], ids=("greedy", "beams"))
def test_the_loop_stops_when_every_caption_has_ended(options):
    calls = []

    def record(index):
        return calls.append((int(index) + max(options.beams, 1) - 1) // max(options.beams, 1))

    def watch(ids, positions, mask, index, *_):
        return jax.debug.callback(record, index)

    function = _watched(Constant, watch, options)
    for eos, steps in ((1e4, 1), (-1e4, L - 1)):
        calls.clear()
        jax.block_until_ready(function(_with_bias(_model()[1], eos=eos)))
        jax.effects_barrier()
        assert sorted(calls) == list(range(steps))


def test_image_keys_are_projected_once_for_all_beams():
    seen = []

    def watch(ids, positions, mask, index, cache, tokens=None):
        return seen.append((ids.shape, cache, tokens))

    jax.eval_shape(_watched(Watched, watch, GenerationOptions(beams=3)), _model()[1])
    (prompt, later) = seen  # as traced: before the loop, and in it
    assert prompt[0] == (B, 1) and prompt[2].shape == (B, 3, 16)
    assert later[0] == (B, 3) and later[2] is None
    assert [layer.image.key_BHKS.shape for layer in later[1].multimodal] == [(B, 2, 8, 3)] * 2


def test_kernels_are_cast_before_the_loop():
    half = dataclasses.replace(_model()[0].config, dtype="bfloat16")
    found = jax.eval_shape(functools.partial(coca.generation_parameters, config=half), _model()[1])
    decoder = {name: found[name] for name in ("unimodal", "multimodal", "softmax")}
    dtypes = {(path[-1].key, leaf.dtype.name) for path, leaf in jax.tree_util.tree_leaves_with_path(decoder)}
    assert {("kernel", "bfloat16"), ("embedding", "bfloat16"), ("scale", "float32")} <= dtypes
    assert not {("kernel", "float32"), ("embedding", "float32")} & dtypes


def test_parameters_laid_out_for_generation_stay_as_they_are():
    config, params = _model()[0].config, _model()[1]
    prepared = coca.generation_parameters(params, config)
    assert coca.generation_parameters(prepared, config) is prepared
    kept = params.keys() - {"unimodal", "multimodal", "softmax"}
    assert kept and all(prepared[name] is params[name] for name in kept)


def test_no_image_gives_no_caption():
    assert _greedy(_model()[1], _images(0)).shape == (0, L)


# Through the restored model.


@functools.cache
def _coca() -> inference.Coca:
    words = ["a red thing", "is it blue", "green and small"]
    vocabulary = train_vocabulary(words, 40)
    model, params = _model(vocabulary.size)
    values = config_lib.to_config_dict(config_lib.Config(model=model.config))
    values.evaluation.batch_size = 4
    values.data.dataset.update(format="folder", path="tokens")
    return inference.Coca(config_lib.from_config_dict(values), params, vocabulary, step=0)


def test_prompts_begin_captions_and_are_left_out_of_answers():
    coca, options = _coca(), GenerationOptions(max_tokens=3)
    prompts = ["is it blue", "", "a red", "green", "is it", "a"]
    captions = coca.caption(_images(), options, prompts=prompts)
    answers = coca.answer(_images(), prompts, options)
    assert [caption[: len(prompt)] for caption, prompt in zip(captions, prompts, strict=True)] == prompts
    assert [answer.strip() for answer in answers] == [
        caption[len(prompt) :].strip() for caption, prompt in zip(captions, prompts, strict=True)
    ]
    assert len(set(answers)) > 2 and captions[1] == coca.caption(_images()[1:2], options)[0]
    with pytest.raises(CocaError, match="2 prompts for 6 images"):
        coca.caption(_images(), prompts=["a", "b"])
    with pytest.raises(CocaError, match="tokens and the model reads 9"):
        coca.caption(_images(), prompts="green and small " * 3)


def test_samples_belong_to_the_image_and_the_seed():
    coca, options = _coca(), GenerationOptions(temperature=3.0, max_tokens=3)
    captions = coca.caption(_images(), options, seed=1)
    assert captions == coca.caption(_images(), options, seed=1) != coca.caption(_images(), options, seed=2)
    assert captions[:4] == coca.caption(_images()[:4], options, seed=1)  # one batch instead of two
    same = coca.caption(np.repeat(_images()[:1], 4, axis=0), options, seed=1)
    assert len(set(same)) > 1  # each has draws of its own
    with pytest.raises(CocaError, match="seed = -1"):
        coca.caption(_images(), options, seed=-1)


# Errors.


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(min_tokens=1.5), "min_tokens is 1.5: it must be a whole number"),
        (dict(beams=True), "beams is True: it must be a whole number"),
        (dict(temperature="1"), "temperature is '1': it must be a finite number"),
        (dict(temperature=float("nan")), "temperature is nan"),
        (dict(max_tokens=-1), "max_tokens = -1 must be at least 0"),
        (dict(repetition_penalty=0), "repetition_penalty must be above 0"),
        (dict(temperature=1, top_p=0), "top_p = 0.0 must be above 0 and at most 1"),
        (dict(temperature=1, top_p=1.1), "top_p = 1.1 must be above 0 and at most 1"),
        (dict(min_tokens=5, max_tokens=4), "min_tokens = 5 is more than max_tokens = 4"),
        (dict(temperature=1, beams=2), "temperature samples and beams search"),
        (dict(top_k=3), "top_k has no effect without sampling"),
        (dict(top_p=0.5), "top_p has no effect without sampling"),
        (dict(length_penalty=1), "length_penalty has no effect without beam search"),
    ],
)
def test_contradictions_are_refused(options, sentence):
    with pytest.raises(CocaError, match=sentence):
        GenerationOptions(**options)


def test_what_the_model_cannot_do_is_refused():
    for options, sentence in (
        (GenerationOptions(temperature=1.0, top_k=V + 1), "top_k = 25 is more than the model's vocabulary of 24"),
        (GenerationOptions(max_tokens=L), "9 tokens do not fit the model's 9 positions"),
        (GenerationOptions(temperature=1.0), "keys_B, one random key an image, is needed"),
    ):
        with pytest.raises(CocaError, match=sentence):
            generation.generate(_model()[0], _model()[1], _images(), options, **SPECIAL)
    for prompts_BP in (_prompts()[:5], np.full((B, L + 1), 5)):  # too few, too long
        with pytest.raises(AssertionError):
            generation.generate(_model()[0], _model()[1], _images(), prompts_BP=prompts_BP, **SPECIAL)
    dual = dataclasses.replace(_model()[0], branches=coca.Branches(captioning=False))
    with pytest.raises(CocaError, match="no captioning branch"):
        generation.generate(dual, _model()[1], _images(), **SPECIAL)


def test_equal_options_compile_once():
    assert GenerationOptions(beams=2, length_penalty=1) == GenerationOptions(beams=2, length_penalty=1.0)
    assert len({GenerationOptions(**kinds) for kinds in itertools.repeat({"temperature": 1}, 2)}) == 1
