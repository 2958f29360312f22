"""Tells whether a config's train step fits a machine, and what it costs there, before anything is rented.

    python -m coca_jax.plan --config=configs/coca_giant.py --topology=v4:8x16x16
    python -m coca_jax.plan --config=configs/coca_giant.py --topology=v5e:16x16 --search
    python -m coca_jax.plan --config=configs/coca_giant.py --topology=h200:256 --json

TPUs (v4, v5p, v5e, v6e): the very step that `coca_jax.train` would run is compiled by the TPU's own compiler, which
needs no TPU but libtpu: pip install '.[plan]'. NVIDIA's (h100, h200): by arithmetic alone. Status 0: it fits; 2: it does
not.
"""

import json

from absl import flags

from coca_jax.cli import app as command_line
from coca_jax.errors import CocaError

_CONFIG = command_line.define_config("configs")
_TOPOLOGY = flags.DEFINE_string("topology", None, "Chip, and chips along each axis: v4:8x16x16, v5e:16x16, h100:256.")
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object instead of the table.")
_SEARCH = flags.DEFINE_bool("search", False, "Try meshes, remat policies and microbatches; print the best that fits.")
_TRIES = flags.DEFINE_integer("tries", 4, "How many candidates --search compiles at most.", lower_bound=1)


def main(arguments: list[str]) -> None:
    command_line.reject_positional_arguments(arguments)
    config, name = command_line.config(_CONFIG, reads_data=False), command_line.required(_TOPOLOGY)
    # Imported here: jax takes seconds, which a mistyped flag need not wait for.
    import jax

    from coca_jax.planning import candidates, table, topology

    jax.config.update("jax_platforms", "cpu")  # the machine that this runs on does not matter, even if it is a TPU
    jax.config.update("jax_enable_compilation_cache", False)  # what is compiled without a TPU cannot be read back
    machine = topology.parse(name)
    searched = _SEARCH.value
    cost = candidates.search(config, machine, _TRIES.value) if searched else candidates.measure(config, machine)
    print(json.dumps(table.as_dict(cost), indent=2) if _JSON.value else table.table(cost))
    if searched and not _JSON.value:
        print(f"\nto train so: {table.flags(cost)}")
    if not cost.fits:
        raise CocaError(f"the step does not fit {machine}: try --search, more chips or more train.microbatches")


if __name__ == "__main__":
    command_line.run(main)
