"""Every test runs on eight CPU devices, unless JAX_PLATFORMS says otherwise, and none spends long on compiling."""

import atexit
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # inherited by the processes that tests start
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
for variable in (
    "COCA_CACHE",  # indices of shards that lie in folders where nothing may be written
    "COCA_TESTS_COMPILED",  # programs that runs of all test processes have compiled: see running.py
):
    if variable not in os.environ:
        os.environ[variable] = tempfile.mkdtemp(prefix="coca_jax-tests-")
        atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)

import jax  # noqa: E402 - after the variables that it reads
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")  # an array is broadcast only where the code says so

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
