"""What a run settles before its first step."""

import jax
import pytest
from etils import epath

from coca_jax import run_setup


@pytest.mark.parametrize("backend, chosen, expected", [
    ("tpu", None, "compiled"), ("gpu", None, "compiled"), ("cpu", None, None), ("tpu", "elsewhere", "elsewhere"),
])
def test_restarts_find_what_was_compiled_unless_it_may_not_fit_their_machine(
    monkeypatch, tmp_path, backend, chosen, expected
):
    before = jax.config.jax_compilation_cache_dir
    path = lambda name: name and str(tmp_path / name)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    try:
        jax.config.update("jax_compilation_cache_dir", path(chosen))
        run_setup._keep_compiled(epath.Path(tmp_path))
        assert jax.config.jax_compilation_cache_dir == path(expected)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
