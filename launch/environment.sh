# Sourced by the other scripts here, not run: the repository's own Python environment, .venv.
# `ensure_environment` makes it, installs coca_jax into it (with `ensure_environment test` also what the tests need),
# and returns at once where that has been done since setup.py, pyproject.toml and constraints.txt last changed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON_RANGE='(3, 11) <= sys.version_info < (3, 14)'  # TensorFlow has no wheels for later ones yet

say() { echo "coca_jax: $*"; }

fail() {
  echo "coca_jax: $*" >&2
  exit 1
}

is_usable_python() { "$1" -c "import sys; sys.exit(not $PYTHON_RANGE)" >/dev/null 2>&1; }

is_whole_venv() { is_usable_python .venv/bin/python && .venv/bin/python -c "import pip" >/dev/null 2>&1; }

find_python() {  # prints the Python to make .venv with
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_usable_python "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13: name one that is."
    echo "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3.13 python3; do
    if is_usable_python "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no python3.11 found: install Python 3.11, or name one with PYTHON=/path/to/python3.11."
}

make_venv() {
  local python
  python=$(find_python) || exit 1
  "$python" -c "import ensurepip, venv" >/dev/null 2>&1 ||
    fail "$python has no venv module: on Debian and Ubuntu run 'apt-get install python3.11-venv', then this again."
  say "making .venv with $python"
  "$python" -m venv --clear .venv || fail "$python could not make .venv: its message stands above."
}

ensure_environment() {
  local extra=${1:-} installed=.venv/coca_jax.installed installing=.venv/coca_jax.installing
  local fingerprint constraints="" quiet=""
  cd "$ROOT"
  fingerprint="$ROOT $(cat setup.py pyproject.toml launch/constraints.txt | cksum)"

  if [ ! -e .venv ]; then
    make_venv
  elif [ -e "$installing" ] || ! is_whole_venv; then
    say "repairing .venv, which is broken or was left half made"
    make_venv
  elif grep -qsxF "$fingerprint $extra" "$installed"; then
    return
  fi

  say "installing coca_jax${extra:+[$extra]} into .venv (once: some minutes, 3.3 GB on disk)"
  rm -f "$installed"
  touch "$installing"
  if .venv/bin/python -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))"; then
    constraints="--constraint launch/constraints.txt"
  fi
  [ -t 1 ] || quiet="--quiet"
  # shellcheck disable=SC2086 # two options, or none
  .venv/bin/python -m pip install --disable-pip-version-check $quiet $constraints --editable ".${extra:+[$extra]}" ||
    fail "pip could not install coca_jax: its message stands above; check network and disk, then run this again."
  printf '%s\n' "$fingerprint " "$fingerprint $extra" > "$installed"
  rm -f "$installing"
}
