"""A model from a checkpoint's folder alone."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import coca_jax
from coca_jax.errors import CocaError
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord
from coca_jax.trainer.state import TrainState
from tests.inference import tiny_coca


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_is_loaded_without_a_warning(tmp_path, caplog, monkeypatch, whole):
    """Also from the home folder's ~, and from a copy without the file that only Orbax reads."""
    coca = tiny_coca.coca()
    params = jax.tree.map(jnp.asarray, coca._params)
    checkpoints = Checkpoints(epath.Path(tmp_path) / "run", keep=1)
    state = TrainState(step=jnp.int32(7), params=params, average=None, opt_state={"count": jnp.int32(7)})
    checkpoints.save(state, 7, RunRecord(coca.config, coca.vocabulary.model_bytes, data_fingerprint=""))
    checkpoints.close()
    if not whole:
        (tmp_path / "run/checkpoints/7/_CHECKPOINT_METADATA").unlink()
    monkeypatch.setenv("HOME", str(tmp_path))
    caplog.clear()
    loaded = coca_jax.load("~/run")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert loaded.step == 7 and loaded.digest == coca.digest
    np.testing.assert_allclose(loaded.embed_texts(["red"]), coca.embed_texts(["red"]), atol=1e-6)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CocaError, match="checkpoint"):
        coca_jax.load(tmp_path)
