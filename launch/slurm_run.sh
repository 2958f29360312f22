#!/usr/bin/env bash
# One run on a GPU cluster with Slurm: submitted, warned before its time limit, requeued until it is done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/remote.sh"

usage() {
  cat <<'END'
bash launch/slurm_run.sh --name=NAME --nodes=N [flags] [flags of sbatch] [--config.key=value …]
                         [-- flags of coca_jax.train]

Run on a login node, from a clone that all nodes see. Makes .venv there (once), writes the batch script
runs/slurm/NAME.sbatch and submits it. The job runs `python -m coca_jax.train --distributed …`, one process a GPU;
before its time limit, and when Slurm preempts it, the processes save a checkpoint and leave with exit status 75,
and the job goes back into the queue, where the same command continues. Any other failure ends the job.

  --nodes=4 --gpus-per-node=8   the size of the job (a type may stand before the count: h100:8)
  --cuda=cuda                   what to install: cuda (driver 580 or newer) or cuda12 (driver 525 or newer)
  --warning=120                 seconds before the time limit at which to save; more where a checkpoint takes longer
  --max-restarts=10             stop after so many restarts in a row without a new checkpoint
  --partition=…, --account=…, --time=…, --cpus-per-task=…, --mem=… and all other --flag=value go to sbatch
  --dry-run                     print the batch script and every command, and run nothing

  bash launch/slurm_run.sh --name=large --nodes=16 --gpus-per-node=8 --partition=gpu --time=24:00:00 \
    --config=configs/coca_large.py --workdir=/shared/large "--config.data.dataset.train_files=('a','b')"

--workdir is a folder that all nodes see, or a bucket. The log is runs/slurm/NAME-JOB.log. Variables that are set when
this is called reach the processes, NCCL's too (NCCL_SOCKET_IFNAME=…, NCCL_DEBUG=INFO): unset is best unless it fails.
END
}

name="" nodes="" gpus=8 cuda=cuda warning=120 max_restarts=10
sbatch_flags=()

parse() {
  local argument
  while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
      -h | --help) usage; exit 0 ;;
      --name=*) name=${argument#*=} ;;
      --nodes=*) nodes=${argument#*=} ;;
      --gpus-per-node=*) gpus=${argument#*=} ;;
      --cuda=*) cuda=${argument#*=} ;;
      --warning=*) warning=${argument#*=} ;;
      --max-restarts=*) max_restarts=${argument#*=} ;;
      --dry-run) dry_run=yes ;;
      --) add_train_flags "$@"; break ;;
      --*=*) if is_train_flag "$argument"; then add_train_flags "$argument"; else sbatch_flags+=("$argument"); fi ;;
      --exclusive) sbatch_flags+=("$argument") ;;
      *) unknown_flag "$argument" ;;
    esac
  done
}

check() {
  check_name "$name"
  [ -n "$nodes" ] || fail "--nodes is missing: say how many machines, for instance --nodes=4."
  check_count --nodes "$nodes"
  check_count --gpus-per-node "${gpus##*:}"
  check_count --warning "$warning"
  check_count --max-restarts "$max_restarts"
  case $cuda in cuda | cuda12) ;; *) fail "--cuda=$cuda is not known: cuda or cuda12." ;; esac
  check_train_flags /shared/large
  case $workdir in
    /* | *://*) ;;
    *) workdir=$ROOT/$workdir ;;  # where the job's relative paths begin
  esac
  need sbatch "run this on a login node of a Slurm cluster"
}

batch_script() {
  cat <<END
#!/bin/bash
# Written by launch/slurm_run.sh.
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --gpus-per-node=$gpus
#SBATCH --ntasks-per-node=${gpus##*:}
#SBATCH --signal=B:TERM@$warning
#SBATCH --requeue
#SBATCH --open-mode=append
# One task a GPU: jax.distributed finds itself by Slurm's variables, one process a task, and process SLURM_LOCALID of a
# node takes that node's GPU of the same number. So every task must see all GPUs of its node: no --gpus-per-task here.
set -uo pipefail
cd $(quoted "$ROOT") || exit
workdir=$(quoted "$workdir")
progress=runs/slurm/$name-\$SLURM_JOB_ID.progress

latest_step() { ls "\$workdir/checkpoints" 2>/dev/null | grep -x '[0-9][0-9]*' | sort -n | tail -n 1; }

goes_forward() {  # false after more than $max_restarts restarts in a row without a new checkpoint
  local step before=none fruitless=0
  case \$workdir in *://*) return 0 ;; esac
  step=\$(latest_step)
  [ ! -e "\$progress" ] || read -r before fruitless < "\$progress"
  if [ "\${step:-none}" = "\$before" ]; then fruitless=\$((fruitless + 1)); else fruitless=0; fi
  echo "\${step:-none} \$fruitless" > "\$progress"
  [ "\$fruitless" -le $max_restarts ]
}

# A task that leaves with 75 must not take the others with it, which still save: hence --kill-on-bad-exit=0.
srun --kill-on-bad-exit=0 --wait=300 \\
  $(quoted .venv/bin/python -m coca_jax.train --distributed "${train[@]}") &
step=\$!

# The warning reaches this shell alone. srun hands it to the tasks, once: a second one would end them without saving.
signals=0 seen=-1 status=0
trap '[ "\$signals" -gt 0 ] || kill -TERM "\$step"; signals=\$((signals + 1))' TERM
while [ "\$seen" != "\$signals" ]; do  # a signal ends a wait early
  seen=\$signals
  wait "\$step"
  status=\$?
done

if [ "\$status" = 75 ] && scontrol show job "\$SLURM_JOB_ID" | grep -q JobState=RUNNING; then  # and not cancelled
  if goes_forward; then
    echo "coca_jax: preempted, with the checkpoint saved: back into the queue"
    scontrol requeue "\$SLURM_JOB_ID" && exit 0
  else
    echo "coca_jax: no new checkpoint in $max_restarts restarts: see what is wrong, then submit again." >&2
  fi
fi
exit "\$status"
END
}

submit() {
  local script=$ROOT/runs/slurm/$name.sbatch job
  if [ -n "$dry_run" ]; then
    note "what the job needs, installed on this machine:"
    run bash -c 'source "$0" && ensure_environment "$1"' "$ROOT/launch/environment.sh" "$cuda"
    note "the batch script $script:"
    batch_script
    note "its submission:"
  else
    ensure_environment "$cuda"
    mkdir -p "$ROOT/runs/slurm"
    batch_script > "$script"
  fi
  job=$(run sbatch --parsable --output="$ROOT/runs/slurm/$name-%j.log" \
    ${sbatch_flags[@]+"${sbatch_flags[@]}"} "$script") ||
    fail "sbatch did not take the job: its message stands above."
  [ -n "$dry_run" ] || say "job ${job%%;*}: tail -F $ROOT/runs/slurm/$name-${job%%;*}.log; 'scancel ${job%%;*}' ends it"
}

parse "$@"
check
submit
