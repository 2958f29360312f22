#!/usr/bin/env bash
# What tpu_run.sh does on one host of a TPU: it sends this file there and calls `bash tpu_worker.sh VERB …`.
# The repository, its .venv, the log and the exit status lie in ~/coca_jax of that host.
# A verb that ran says so with exit status 0: gcloud skips hosts once one has answered with anything else.
set -euo pipefail

folder=$HOME/coca_jax
GRACE=${COCA_STOP_SECONDS:-300}  # what a program that was asked to stop has for saving its checkpoint

# The program's processes hold the lock while they live; a reboot frees it, where a process id could lie.
running() { [ -e "$folder/lock" ] && ! (exec 8< "$folder/lock" && flock --nonblock 8); }

install() {  # unpacks ~/coca_jax.tar.gz and brings .venv up to date
  if running; then
    echo "$HOSTNAME runs: left as it is"
    return
  fi
  mkdir -p "$folder/source"
  find "$folder/source" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
  tar -xzf "$HOME/coca_jax.tar.gz" -C "$folder/source"
  source "$folder/source/launch/environment.sh"
  if [ ! -e "$ROOT/.venv" ] && ! (find_python) >/dev/null 2>&1; then  # images of TPU VMs come with Python 3.10
    python3 -m pip install --quiet --user uv
    python3 -m uv python install --quiet 3.11
    PYTHON=$(python3 -m uv python find 3.11)
    export PYTHON
  fi
  ensure_environment tpu
}

start() {  # [NAME=VALUE …] FLAG …: starts the training, detached; leaves it alone where it runs already
  local command
  command=$(printf '%q ' "$@")
  exec 9>> "$folder/lock"
  if ! flock --nonblock 9; then
    if [ "$command" = "$(cat "$folder/command")" ]; then echo "$HOSTNAME running"; else echo "$HOSTNAME other"; fi
    return
  fi
  printf '%s' "$command" > "$folder/command"
  rm -f "$folder/status" "$folder/stopped"
  if [ -e "$folder/log" ]; then mv "$folder/log" "$folder/log.previous"; fi
  local environment=()
  while [[ ${1:-} =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; do
    environment+=("$1")
    shift
  done
  cd "$folder/source"
  # The trap keeps the shell alive when `stop` signals the whole group, so that the status is still written.
  # shellcheck disable=SC2016 # expanded there
  setsid bash -c 'trap : TERM; status=0; "${@:2}" || status=$?; echo "$status $(date +%s.%N)" > "$1"' \
    coca_jax "$folder/status" \
    env "${environment[@]}" .venv/bin/python -m coca_jax.train --distributed "$@" > "$folder/log" 2>&1 < /dev/null &
  echo $! > "$folder/pid"
  echo "$HOSTNAME started"
}

status() {  # HOST never | running | stopped | vanished | ended STATUS TIME
  if [ -e "$folder/stopped" ]; then
    echo "$HOSTNAME stopped"
  elif [ -s "$folder/status" ]; then
    echo "$HOSTNAME ended $(cat "$folder/status")"
  elif running; then
    echo "$HOSTNAME running"
  elif [ -e "$folder/command" ]; then
    echo "$HOSTNAME vanished"
  else
    echo "$HOSTNAME never"
  fi
}

follow() {  # FROM: the log from that line on, until the program ends
  if running; then
    exec tail --lines="+$1" --follow=name --retry --sleep-interval=0.2 --pid="$(cat "$folder/pid")" \
      "$folder/log" 2> /dev/null
  elif [ -e "$folder/log" ]; then
    tail --lines="+$1" "$folder/log"
  fi
}

report() {  # HOST: on that host, the end of the log
  if [ "$1" = "$HOSTNAME" ] && [ -e "$folder/log" ]; then tail --lines=40 "$folder/log"; fi
}

stop() {  # as `quit`, for good: tpu_run.sh does not start it again
  if running; then touch "$folder/stopped"; fi
  quit
}

quit() {  # asks the program to save and leave, and makes it leave where it does not
  local fifth
  if running; then
    kill -TERM -- "-$(cat "$folder/pid")" || true
    for ((fifth = 0; fifth < 5 * GRACE; fifth++)); do
      running || break
      sleep 0.2
    done
    if running; then kill -KILL -- "-$(cat "$folder/pid")" || true; fi
  fi
  echo "$HOSTNAME idle"
}

main() {
  "$@"
  exit
}
main "$@"  # a function: this file may be replaced while it runs
