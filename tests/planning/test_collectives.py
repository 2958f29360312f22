"""Collectives read from compiled programs: small ones compiled here, and lines as the TPU's compiler prints them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from coca_jax.planning import collectives
from coca_jax.planning.collectives import Traffic

ROWS = 64  # float32 [64, 16] on each device: 4096 bytes
BYTES = 4 * ROWS * 16


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def traffic(mesh, function, *, axes=("data", "fsdp")):
    """The traffic of a function of each device's own [64, 16] rows."""
    with jax.set_mesh(mesh):
        mapped = jax.shard_map(function, in_specs=PartitionSpec(axes), out_specs=PartitionSpec(axes), check_vma=False)
        text = jax.jit(mapped).lower(jnp.zeros((8 * ROWS, 16))).compile().as_text()
    return collectives.of_hlo(text, 8)


@pytest.mark.parametrize(
    "function, kind, sent",
    [
        (lambda x: jax.lax.psum(x, ("data", "fsdp")), "all-reduce", 2 * BYTES * 7 / 8),
        (lambda x: jax.lax.psum(x, "fsdp"), "all-reduce", 2 * BYTES * 3 / 4),
        (lambda x: jax.lax.all_gather(x, "fsdp", tiled=True)[:ROWS] * 2, "all-gather", BYTES * 3),
        (lambda x: jnp.tile(jax.lax.psum_scatter(x, "fsdp", tiled=True), (4, 1)), "reduce-scatter", BYTES * 3 / 4),
        (lambda x: jax.lax.all_to_all(x, "data", 0, 0, tiled=True), "all-to-all", BYTES / 2),
        (lambda x: jax.lax.ppermute(x, "fsdp", [(i, (i + 1) % 4) for i in range(4)]), "collective-permute", BYTES),
    ],
)
def test_each_kind(mesh, function, kind, sent):
    assert traffic(mesh, function) == {kind: Traffic(1, sent)}


def test_loops_within_loops(mesh):
    def inner(x, _):
        return jnp.sin(jax.lax.psum(x, "fsdp")), None

    def outer(x, _):
        return jnp.cos(jax.lax.psum(jax.lax.scan(inner, x, None, length=5)[0], "data")), None

    found = traffic(mesh, lambda x: jax.lax.scan(outer, x, None, length=3)[0])
    assert found == {"all-reduce": Traffic(3 * 5 + 3, 15 * 2 * BYTES * 3 / 4 + 3 * BYTES)}


def test_a_loop_of_unknown_length(mesh):
    def until(x):
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: jax.lax.psum(x, "data") + 1, x)

    with pytest.raises(ValueError, match="trip count"):
        traffic(mesh, until)


def test_nothing_is_sent_on_one_device():
    assert collectives.of_hlo(jax.jit(lambda x: x @ x).lower(jnp.zeros((8, 8))).compile().as_text(), 1) == {}


TPU = """
HloModule jit_step

%start (p: f32[1,88]) -> (f32[1,88], f32[2,88]) {
  %p = f32[1,88]{1,0:T(8,128)} parameter(0)
  %all-gather.1 = f32[2,88]{1,0:T(8,128)} all-gather(%p), channel_id=9, replica_groups=mesh['a'=4,'b'=2], device_ids=([8]) {'b'}, dimensions={0}, frontend_attributes={chain_id="10"}
  ROOT %c = (f32[1,88]{1,0}, f32[2,88]{1,0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%done (p.1: f32[1,88]) -> f32[2,88] {
  %p.1 = f32[1,88]{1,0:T(8,128)} parameter(0)
  %all-gather.2 = f32[2,88]{1,0:T(8,128)} all-gather(%p.1), channel_id=9, replica_groups=mesh['a'=4,'b'=2], device_ids=([8]) {'b'}, dimensions={0}, frontend_attributes={chain_id="10"}
  ROOT %c.1 = f32[2,88]{1,0} custom-call(%p.1, %all-gather.2), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.3 (p.2: f32[64,16]) -> f32[16,16] {
  %p.2 = f32[64,16]{1,0:T(8,128)} parameter(0)
  %all-reduce.3 = f32[64,16]{1,0:T(8,128)} all-reduce(%p.2), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %slice = f32[16,16]{1,0} dynamic-slice(%all-reduce.3), dynamic_slice_sizes={16,16}
}

%body (b: (s32[], f32[1,88])) -> (s32[], f32[1,88]) {
  %b = (s32[], f32[1,88]) parameter(0)
  %s = (f32[1,88], f32[2,88]) fusion(%b), kind=kCustom, calls=%start
  %d = f32[2,88] fusion(%b), kind=kCustom, calls=%done
  ROOT %t = (s32[], f32[1,88]) tuple(%b)
}

%condition (b.1: (s32[], f32[1,88])) -> pred[] {
  %b.1 = (s32[], f32[1,88]) parameter(0)
  %constant.1 = s32[]{:T(128)} constant(40)
  ROOT %lt = pred[]{:T(512)} compare(%b.1, %constant.1), direction=LT
}

ENTRY %main (x: f32[64,16]) -> f32[16,16] {
  %x = f32[64,16]{1,0:T(8,128)} parameter(0)
  %w = (s32[], f32[1,88]) while(%x), condition=%condition, body=%body
  %permute = (bf16[64,16], bf16[64,16], u32[], u32[]) collective-permute-start(%x), channel_id=1, source_target_pairs={{0,1},{1,0}}
  %gather = (bf16[8,16], bf16[32,16]) all-gather-start(%x), channel_id=5, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %f = f32[16,16]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3
}
"""


# Loops of jax count in int32, those that the compiler makes of a product over a sharded axis in uint32.
@pytest.mark.parametrize("counter", ["s32", "u32"])
def test_forms_that_only_tpus_have(counter):
    found = collectives.of_hlo(TPU.replace("constant.1 = s32", f"constant.1 = {counter}"), 8)
    assert found.pop("collective-permute").bytes == pytest.approx(2 * 64 * 16, abs=8)
    assert found == {
        "all-gather": Traffic(40 + 1, 40 * 4 * 88 + 2 * 32 * 16 * 3 / 4),
        "reduce-scatter": Traffic(1, 4 * 64 * 16 * 3 / 4),
    }
