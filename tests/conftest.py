"""Every test runs on eight CPU devices, unless JAX_PLATFORMS says otherwise."""

import atexit
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # inherited by the processes that tests start
if "COCA_CACHE" not in os.environ:  # indices of shards that lie in folders where nothing may be written
    os.environ["COCA_CACHE"] = tempfile.mkdtemp(prefix="coca_jax-tests-cache-")
    atexit.register(shutil.rmtree, os.environ["COCA_CACHE"], ignore_errors=True)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of shared test data (emoji tars and the like): COCA_TEST_DATA, or `shared` beside the repository."""
    path = pathlib.Path(os.environ.get("COCA_TEST_DATA", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared test data at {path}: name its folder with COCA_TEST_DATA")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests start whole runs come first: begun last, they would keep one worker busy while the others wait."""
    items.sort(key=lambda item: not hasattr(item.module, "running"))
