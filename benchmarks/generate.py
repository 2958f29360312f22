"""Captions a second, with the cache and without, and beside open_clip where it is installed.

    python benchmarks/generate.py                             # base, float32, greedy and six beams, batches 1, 16, 64
    python benchmarks/generate.py --variant=large --batches=1 --dtype=bfloat16
    python benchmarks/generate.py --batches=64 --repeats=1 --uncached_steps=1

Every caption fills the model's positions (with random parameters EOS would come anywhere). A step without a cache reads
all positions, as a compiled program must: a few steps are timed, and their time is multiplied. Seconds are wall-clock
time; in brackets processor time over all cores, which other programs disturb less. Image encoding is included on both
sides, once an image. open_clip's model of the same shape (coca_base, random parameters; it needs transformers below
4.57) is timed once, over whole captions, only for --open_clip_batches: it takes minutes.
"""

import contextlib
import dataclasses
import functools
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from coca_jax import config as config_lib
from coca_jax.generation import GenerationOptions, generate, loop
from coca_jax.generation.state import Special, State
from coca_jax.models import coca

_VARIANT = flags.DEFINE_enum("variant", "base", ["tiny", "base", "large", "giant"], "The model.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the computation.")
_BATCHES = flags.DEFINE_list("batches", ["1", "16", "64"], "Images at once.")
_BEAMS = flags.DEFINE_list("beams", ["0", "6"], "0: greedy.")
_TOKENS = flags.DEFINE_integer("tokens", 64, "Positions of a caption, BOS among them.")
_UNCACHED_STEPS = flags.DEFINE_integer("uncached_steps", 2, "Steps without a cache that are timed; 0: none.")
_OPEN_CLIP_BATCHES = flags.DEFINE_list("open_clip_batches", ["1"], "The batches that open_clip captions too.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of runs, of which the fastest counts.")

_IDS = dict(bos_id=3, eos_id=1, pad_id=0)


def _model() -> tuple[coca.Coca, Any]:
    config = config_lib.variant("base" if _VARIANT.value == "tiny" else _VARIANT.value)
    text = dataclasses.replace(config.text, length=_TOKENS.value)
    if _VARIANT.value == "tiny":
        text = dataclasses.replace(text, vocabulary_size=512, unimodal_layers=2, multimodal_layers=2, mlp=256)
        image = dataclasses.replace(config.image, size=72, layers=2, mlp=256)
        config = dataclasses.replace(config, width=64, heads=4, image=image)
    model = coca.Coca(dataclasses.replace(config, text=text, dtype=_DTYPE.value))
    return model, jax.jit(functools.partial(coca.init, model))(jax.random.key(0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _cached(model: coca.Coca, options: GenerationOptions, params: Any, images: jax.Array) -> jax.Array:
    return generate(model, params, images, options, **_IDS)


def _decode_all(model: coca.Coca, ids_BL: jax.Array, valid_BL: jax.Array, tokens_BQD: jax.Array, at: jax.Array):
    """Both decoder halves over all positions; logits [B, 1, V] of the token after position `at`."""
    output = model.multimodal(model.unimodal(ids_BL, valid_BL).hidden_BLD, valid_BL, tokens_BQD)
    return model.next_logits(jax.lax.dynamic_slice_in_dim(output.hidden_BLD, at, 1, axis=1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _uncached(model: coca.Coca, options: GenerationOptions, params: Any, images: jax.Array, steps: int) -> jax.Array:
    """The first `steps` tokens [B, T], chosen by the same code, with the decoder recomputed for each."""
    special, length, batch = Special(**_IDS), model.config.text.length, images.shape[0]
    tokens_BQD = model.apply({"params": params}, images, method="encode_image").tokens_BQD
    bos_B1 = jnp.full((batch, 1), special.bos_id, jnp.int32)
    state = loop._start(model, bos_B1, jnp.ones(batch, jnp.int32), options, special)
    state = dataclasses.replace(state, cache=None)
    streams = state.tokens_BKT.shape[1]
    tokens_BQD = jnp.repeat(tokens_BQD, streams, axis=0)

    def step(state: State) -> State:
        texts = state.tokens_BKT.reshape(batch * streams, -1)
        ids_BL = jnp.pad(texts, ((0, 0), (1, 0)), constant_values=special.bos_id)
        valid_BL = jnp.broadcast_to(jnp.arange(length) <= state.count, ids_BL.shape)
        logits = model.apply({"params": params}, ids_BL, valid_BL, tokens_BQD, state.count, method=_decode_all)
        return loop._choose(state, logits.reshape(batch, streams, -1), options, special, None)

    return jax.lax.while_loop(lambda state: state.count < steps, step, state).tokens_BKT[:, 0]


def _seconds(function: Any, *args: Any, repeats: int = 0) -> tuple[np.ndarray, Any]:
    """Wall-clock and processor seconds, each the minimum over the repetitions; and the result."""
    runs = []
    for _ in range(repeats or _REPEATS.value):
        start = np.array([time.perf_counter(), time.process_time()])
        result = jax.block_until_ready(function(*args))
        runs.append(np.array([time.perf_counter(), time.process_time()]) - start)
    return np.min(runs, axis=0), result


def _show(seconds: np.ndarray) -> str:
    return f"{seconds[0]:.2f} s ({seconds[1]:.2f} s)"


def _measure(model: coca.Coca, params: Any, batch: int, beams: int) -> str:
    """A row of the table."""
    size, steps, few = model.config.image.size, model.config.text.length - 1, _UNCACHED_STEPS.value
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.uint8)
    options = GenerationOptions(beams=beams, min_tokens=steps, max_tokens=steps)
    prepared = jax.jit(functools.partial(coca.generation_parameters, config=model.config))(params)  # as in inference
    cached, ids = _seconds(_cached.lower(model, options, prepared, images).compile(), prepared, images)
    del prepared
    row = [f"{f'{beams} beams' if beams else 'greedy'}, batch {batch}", f"{batch / cached[0]:.2f}", _show(cached)]
    if few:
        compiled = _uncached.lower(model, options, params, images, 0).compile()
        uncached = functools.partial(compiled, params, images)
        jax.block_until_ready(uncached(0))  # a first run touches fresh memory
        (one, _), (more, tokens) = _seconds(uncached, 1), _seconds(uncached, 1 + few)
        whole = one + (more - one) / few * (steps - 1)
        row += [_show(whole), f"{whole[0] / cached[0]:.1f} ({whole[1] / cached[1]:.1f})"]
        if not beams:
            same = ids[:, 1 : 2 + few] == tokens[:, : 1 + few]
            print(f"batch {batch}: {float(jnp.mean(same)):.1%} of the first {1 + few} tokens agree", file=sys.stderr)
    if (open_clip := _open_clip()) and str(batch) in _OPEN_CLIP_BATCHES.value:
        theirs = _open_clip_seconds(open_clip, batch, beams)
        row += [_show(theirs), f"{theirs[0] / cached[0]:.1f} ({theirs[1] / cached[1]:.1f})"]
    elif open_clip:
        row += ["", ""]
    return f"| {' | '.join(row)} |"


@functools.cache
def _open_clip() -> Any:
    with contextlib.suppress(ImportError):
        import open_clip
        import transformers.generation

        if hasattr(transformers.generation, "BeamSearchScorer"):
            return open_clip
        print("open_clip is left out: it needs transformers below 4.57 to generate", file=sys.stderr)
    return None


def _open_clip_seconds(open_clip: Any, batch: int, beams: int) -> np.ndarray:
    """open_clip's `generate` of its base (coca_base: 288 pixels, patch 18, width 768, 12 + 12 decoder layers)."""
    import torch

    model = open_clip.create_model("coca_base").eval()
    size = model.visual.image_size
    images = torch.rand(batch, 3, *(size if isinstance(size, tuple) else (size, size)))
    # The maximum is the number of its text tower's positions; EOS is suppressed until then.
    kind = (
        dict(generation_type="beam_search", num_beams=beams, num_beam_groups=1)
        if beams
        else dict(generation_type="top_k", top_k=1)
    )
    arguments = dict(seq_len=_TOKENS.value, min_seq_len=_TOKENS.value - 1, fixed_output_length=True, **kind)

    def run() -> None:
        with torch.no_grad():
            model.generate(images, **arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return _seconds(run, repeats=1)[0]


def main(_: list[str]) -> None:
    model, params = _model()
    columns = ["", "captions/s", "cached"]
    columns += ["uncached", "uncached / cached"] if _UNCACHED_STEPS.value else []
    columns += ["open_clip", "open_clip / cached"] if _open_clip() else []
    where = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{_VARIANT.value}, {_DTYPE.value}, {_TOKENS.value} positions, on {where}, jax {jax.__version__}\n")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for beams in map(int, _BEAMS.value):
        for batch in map(int, _BATCHES.value):
            print(_measure(model, params, batch, beams), flush=True)


if __name__ == "__main__":
    app.run(main)
