#!/usr/bin/env bash
# From a fresh machine with Python 3.11 to a trained CoCa and its report.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'END'
bash launch/quickstart.sh [flags of coca_jax.train]

Makes .venv, installs coca_jax into it, trains a small CoCa on handwritten digits in small scenes
(configs/quickstart.py), evaluates it on handwriting it has never seen and writes a page to look at:
runs/quickstart/report.html. The first call installs for several minutes; later ones install nothing.
Stopped at any moment, it continues when called again. To start over, delete runs/quickstart.

  bash launch/quickstart.sh --config.train.steps=200         flags go to `python -m coca_jax.train`
  bash launch/quickstart.sh --workdir=runs/second            a second run beside the first
  PYTHON=/usr/bin/python3.12 bash launch/quickstart.sh       the Python to make .venv with (default python3.11)

Relative paths count from the repository's folder. The exit status is training's: 0 done, 75 preempted
(its checkpoint is saved: the same command continues). With a GPU or a TPU, call it once, then install
that support with .venv/bin/python -m pip install -e ".[cuda]" (or ".[cuda12]", ".[tpu]").
END
}

workdir=runs/quickstart
previous=
for argument in "$@"; do
  case $argument in
    -h | --help | -help) usage; exit 0 ;;
    --workdir=* | -workdir=*) workdir=${argument#*=} ;;
  esac
  case $previous in --workdir | -workdir) workdir=$argument ;; esac
  previous=$argument
done

ensure_environment
say "training configs/quickstart.py in $workdir"
status=0
.venv/bin/python -m coca_jax.train --config=configs/quickstart.py --workdir=runs/quickstart "$@" || status=$?

case $status in
  0)
    case $workdir in /*) folder=$workdir ;; *) folder=$ROOT/$workdir ;; esac
    say "done. Look at     $folder/report.html"
    say "caption a picture cd $ROOT && .venv/bin/python -m coca_jax.caption --checkpoint=$workdir picture.png"
    ;;
  75) say "preempted, with the checkpoint saved: run the same command again to continue." >&2 ;;
  *) say "training stopped with exit status $status: its message stands above." >&2 ;;
esac
exit "$status"
