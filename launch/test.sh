#!/usr/bin/env bash
# Lint, types and the whole test suite in the environment of quickstart.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'END'
bash launch/test.sh [arguments of pytest]

Makes .venv and installs coca_jax with what the tests need (the first time). Without arguments: ruff and mypy, then
the whole suite; with arguments: pytest alone. One process a core, at most eight. The exit status is that of the
first that fails.

  bash launch/test.sh                        everything
  bash launch/test.sh tests/test_house.py    one file
  bash launch/test.sh -n 0 -x -k pooler      in one process, stopping at the first failure, chosen by name
  PYTHON=/usr/bin/python3.12 bash launch/test.sh       the Python to make .venv with (default python3.11)
  COCA_TEST_DATA=/data bash launch/test.sh   where the tests' shared data lies (default: ../shared)

Tests run on the CPU, with eight devices simulated there; JAX_PLATFORMS=cuda (say) chooses another.
END
}

for argument in "$@"; do
  case $argument in -h | --help) usage; exit 0 ;; esac
done

ensure_environment test
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
if [ $# = 0 ]; then
  say "ruff, mypy"
  .venv/bin/python -m ruff check --quiet .
  .venv/bin/python -m ruff format --check --quiet .
  .venv/bin/python -m mypy
fi
say "testing in $((cores < 8 ? cores : 8)) processes"
exec .venv/bin/python -m pytest -n "$((cores < 8 ? cores : 8))" --dist loadfile --no-loadscope-reorder --max-worker-restart 0 "$@"
