#!/usr/bin/env bash
# One run on Cloud TPU VMs: made, installed, started on every host, followed, and restarted when preempted.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/remote.sh"

usage() {
  cat <<'END'
bash launch/tpu_run.sh COMMAND --name=NAME --zone=ZONE [flags] [--config.key=value …] [-- flags of coca_jax.train]

  run      makes the TPU or uses the one of that name, installs this repository on all its hosts, starts
           `python -m coca_jax.train --distributed …` there, shows worker 0's log, and goes on until the training is
           done: preempted, the TPU is made anew and the same command continues. Called again it takes up the
           run it finds; interrupted (Ctrl-C) it leaves the training running, but then nobody restarts it.
  create   makes the TPU and waits for it        status   the TPU's state and every host's
  logs     a host's log (--worker=0)             stop     saves the checkpoint and ends the training; the TPU stays
  delete   gives the TPU back

  --accelerator=v4-4096    type of a slice: v4-N and v5p-N count cores (2 a chip), v5litepod-N and v6e-N chips
  --slices=1               so many slices, joined over the data-centre network (multi-slice)
  --spot, --reserved       instead of on-demand
  --project=PROJECT        default: gcloud's own              --runtime=VERSION   default: by the accelerator
  --ref=COMMIT             run that commit; default: the working tree as it is, without what git ignores
  --env=NAME=VALUE         a variable for the training, such as LIBTPU_INIT_ARGS; repeatable
  --create=FLAG            one more flag of `gcloud compute tpus queued-resources create`; repeatable
  --ssh=FLAG               one more flag of `gcloud compute tpus tpu-vm ssh` and `scp`; repeatable
  --max-restarts=10        give up after so many restarts in a row without a new checkpoint
  --dry-run                print every command that this would run, and run none

The giant as in the paper, on 2,048 chips of v4; then on two slices of 256 v6e chips, with values that need quotes:

  bash launch/tpu_run.sh run --name=giant --zone=us-central2-b --accelerator=v4-4096 --reserved \
    --config=configs/coca_giant.py --workdir=gs://my-bucket/giant
  bash launch/tpu_run.sh run --name=giant2 --zone=us-east5-a --accelerator=v6e-256 --slices=2 --spot \
    --config=configs/coca_giant.py --workdir=gs://my-bucket/giant2 "--config.data.dataset.train_files=('a','b')"
  bash launch/tpu_run.sh logs --name=giant --zone=us-central2-b --worker=17

--workdir must be gs://…: all hosts write there, and their disks go with them. Needs gcloud, logged in, and for pods its
key in ssh-agent: ssh-add ~/.ssh/google_compute_engine. The exit status is training's: 0 done, 75 stopped and saved.
END
}

command="" name="" zone="" project="" accelerator="" runtime="" ref="" tier="" slices=1 worker=0 max_restarts=10
environment=() create_flags=() ssh_flags=()

parse() {
  local argument
  while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
      -h | --help) usage; exit 0 ;;
      run | create | status | logs | stop | delete) command=$argument ;;
      --name=*) name=${argument#*=} ;;
      --zone=*) zone=${argument#*=} ;;
      --project=*) project=${argument#*=} ;;
      --accelerator=*) accelerator=${argument#*=} ;;
      --runtime=*) runtime=${argument#*=} ;;
      --slices=*) slices=${argument#*=} ;;
      --worker=*) worker=${argument#*=} ;;
      --spot | --reserved) tier=$argument ;;
      --ref=*) ref=${argument#*=} ;;
      --env=?*=*) environment+=("${argument#*=}") ;;
      --create=*) create_flags+=("${argument#*=}") ;;
      --ssh=*) ssh_flags+=("${argument#*=}") ;;
      --max-restarts=*) max_restarts=${argument#*=} ;;
      --dry-run) dry_run=yes ;;
      --) add_train_flags "$@"; break ;;
      *) if is_train_flag "$argument"; then add_train_flags "$argument"; else unknown_flag "$argument"; fi ;;
    esac
  done
}

check() {
  [ -n "$command" ] || fail "say what to do: run, create, status, logs, stop or delete; --help explains them."
  check_name "$name"
  [ -n "$zone" ] || fail "--zone is missing: say where the TPU is, for instance --zone=us-central2-b."
  check_count --slices "$slices"
  check_count --max-restarts "$max_restarts"
  if [ "$command" = run ]; then
    check_train_flags gs://my-bucket/giant
    case $workdir in
      gs://?*) ;;
      *) fail "--workdir=$workdir would be lost with the hosts' disks: give a folder in a bucket, gs://…." ;;
    esac
  fi
  case $command in run | create) check_accelerator ;; esac
  need gcloud "install the Google Cloud SDK and run 'gcloud auth login'"
}

check_accelerator() {
  [ -n "$accelerator" ] || fail "--accelerator is missing: give the type of a slice, such as --accelerator=v4-4096."
  [ -z "$runtime" ] || return 0
  case $accelerator in
    v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) fail "no runtime is known for --accelerator=$accelerator: name one with --runtime=VERSION." ;;
  esac
}

# --- the TPU: a queued resource with one node a slice, or a single TPU VM that someone made by hand

tpus() { run gcloud compute tpus "$@" --zone="$zone" ${project:+--project="$project"} --quiet; }

described() {  # KIND NAME FORMAT: what gcloud says of it, or absent
  local answer
  if answer=$(tpus "$1" describe "$2" --format="$3" 2> "$errors"); then
    echo "$answer"
  elif grep -q NOT_FOUND "$errors"; then
    echo absent
  else
    cat "$errors" >&2
    return 1
  fi
}

queue_state() { described queued-resources "$name" "value(state.state)"; }

tpu_state() {  # prints absent, waiting, ready, lost, failed, halted or loose
  local queue node states=""
  queue=$(queue_state) || return 1
  for node in "${nodes[@]}"; do
    states+=" $(described tpu-vm "$node" "value(state)")" || return 1
  done
  case $queue in
    ACTIVE) ;;
    absent)
      if [ -z "${states// absent/}" ]; then echo absent; return; fi
      if [ "$slices" != 1 ]; then echo loose; return; fi
      ;;
    SUSPENDING | SUSPENDED) echo lost; return ;;
    FAILED) echo failed; return ;;
    *) echo waiting; return ;;
  esac
  case "$states " in
    *" PREEMPTED "* | *" TERMINATED "* | *" absent "*) echo lost ;;
    *" STOPPED "* | *" STOPPING "*) echo halted ;;
    *) if [ -z "${states// READY/}" ]; then echo ready; else echo waiting; fi ;;
  esac
}

create_tpu() {
  local which=(--node-id="$name")
  [ "$slices" = 1 ] || which=(--node-count="$slices" --node-prefix="$name")
  tpus queued-resources create "$name" "${which[@]}" --accelerator-type="$accelerator" --runtime-version="$runtime" \
    ${tier:+"$tier"} ${create_flags[@]+"${create_flags[@]}"}
}

delete_tpu() {
  local node
  note "as the queued resource that it is:"
  if [ -n "$dry_run" ] || [ "$(queue_state)" != absent ]; then
    tpus queued-resources delete "$name" --force
    [ -n "$dry_run" ] || return 0
  fi
  note "or, where it was made by hand:"
  for node in "${nodes[@]}"; do tpus tpu-vm delete "$node"; done
}

have_tpu() {  # returns once it is ready
  local state told=""
  if [ -n "$dry_run" ]; then
    note "is it there?"
    tpu_state > /dev/null
    note "where it was preempted, it is deleted,"
    delete_tpu
    note "and where it is not there, made:"
    create_tpu
    return
  fi
  while :; do
    if ! state=$(retry tpu_state); then
      [ -n "$launched" ] || fail "gcloud does not say how $name is: its message stands above; then run this again."
      continue  # the network may come back, and this run is to be restarted then
    fi
    if [ "$state" != "$told" ]; then say "the TPU $name is $state"; fi
    told=$state
    case $state in
      ready) return ;;
      absent) prepared=""; retry create_tpu || fail "the TPU could not be made: gcloud's message stands above." ;;
      lost) prepared=""; retry delete_tpu || fail "the TPU could not be deleted: gcloud's message stands above." ;;
      loose) fail "there are slices of $name, but no queued resource: delete them, or give another --name." ;;
      failed) fail "the request for $name failed: 'gcloud compute tpus queued-resources describe $name' says why." ;;
      halted) fail "the TPU $name was stopped: start it with 'gcloud compute tpus tpu-vm start $name', or delete it." ;;
      waiting) sleep "$PAUSE" ;;
    esac
  done
}

# --- its hosts

on_worker() {  # NODE WORKER VERB …: tpu_worker.sh on that host, or on all of the node
  tpus tpu-vm ssh "$1" --worker="$2" --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 \
    ${ssh_flags[@]+"${ssh_flags[@]}"} --command="bash tpu_worker.sh $(quoted "${@:3}")" 2>> "$gcloud_log" < /dev/null
}

copy_to() {  # NODE
  tpus tpu-vm scp "$archive" "$ROOT/launch/tpu_worker.sh" "$1:" --worker=all \
    ${ssh_flags[@]+"${ssh_flags[@]}"} >> "$gcloud_log" 2>&1
}

on_worker_all() { on_worker "$1" all "${@:2}"; }

on_every_node() {  # FUNCTION …: for every node, side by side
  local node pid pids="" status=0
  for node in "${nodes[@]}"; do
    if [ -n "$dry_run" ]; then
      "$1" "$node" "${@:2}"
    else
      retry "$1" "$node" "${@:2}" &
      pids+=" $!"
    fi
  done
  for pid in $pids; do wait "$pid" || status=1; done
  return "$status"
}

on_all() { on_every_node on_worker_all "$@"; }

# shellcheck disable=SC2016 # expanded by the shell that runs it
pack() {
  cd "$ROOT"
  if [ -n "$ref" ]; then
    run git archive --format=tar.gz --output="$archive" "$ref" ||
      fail "git knows no commit $ref: give --ref one that 'git log' shows, or none."
    return
  fi
  local files='git ls-files -z --cached --others --exclude-standard'
  local that_exist='xargs -0 sh -c '\''for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done'\'' sh'
  run bash -c "set -o pipefail; $files | $that_exist | tar -czf \"\$0\" --null -T -" "$archive" ||
    fail "$ROOT could not be packed: it must be a git clone, with git and tar installed."
}

launch() {  # on every host: the repository, .venv, and the training unless it runs already
  local answers
  if [ -z "$prepared" ]; then
    note "this repository and its .venv, on every host; what has not changed is not installed again"
    pack
    on_every_node copy_to || return 1
    say_it "installing on every host"
    if ! on_all install >> "$gcloud_log"; then
      if on_all status > /dev/null; then fail "a host could not install coca_jax: the end of $gcloud_log says why."; fi
      return 1
    fi
    prepared=yes
  fi
  note "the training, detached"
  : > "$local_log"
  launched=yes
  answers=$(on_all start ${environment[@]+"${environment[@]}"} "${train[@]}") || return 1
  case "$answers " in
    *" other"[[:space:]]*) fail "another training runs on $name: 'bash launch/tpu_run.sh stop …' ends it." ;;
  esac
}

say_it() { [ -n "$dry_run" ] || say "$@"; }

follow() {  # worker 0's log from where we are, here and in a file
  on_worker "${nodes[0]}" 0 follow "$(($(wc -l < "$local_log") + 1))" | tee -a "$local_log"
}

verdict() {  # of the hosts' states: the first to fail decides, for the others fall after it
  awk '
    $2 == "stopped" { stopped = 1 }
    $2 == "vanished" || $2 == "never" { vanished = 1 }
    $2 == "running" { running = 1 }
    $2 == "ended" { ended = 1; if ($3 != 0 && (first == "" || $4 < time)) { first = "status " $3 " " $1; time = $4 } }
    END {
      if (stopped) print "stopped"
      else if (vanished) print "vanished"
      else if (first != "") print first
      else if (running) print "running"
      else if (ended) print "status 0"
      else print "unreachable"
    }'
}

watch() {  # until the training has ended; sets `outcome`
  while :; do
    note "worker 0's log, until the training ends or the connection breaks; then, how is every host?"
    follow || true
    outcome=$(on_all status | verdict) || outcome=unreachable
    [ "$outcome" = running ] || return 0
    sleep "$PAUSE"
  done
}

latest_step() {  # of the checkpoints in the bucket
  local step
  step=$(run gcloud storage ls "${workdir%/}/checkpoints/" 2> /dev/null | latest_number) || true
  echo "${step:-0}"
}

# --- the commands

run_to_the_end() {
  local before after fruitless=0
  trap 'echo; say "left running on $name: the same command takes it up again, and stop ends it"; exit 130' INT
  note "how far has it come?"
  before=$(latest_step)
  while :; do
    have_tpu
    outcome=unreachable
    if launch; then watch; fi
    [ -z "$dry_run" ] || break
    case $outcome in
      "status 0") say "done: $workdir"; return ;;
      stopped) say "stopped, with the checkpoint saved: the same command continues."; return 75 ;;
      "status 75"*) say "preempted, with the checkpoint saved: starting it again" ;;
      "status "*) give_up ;;  # does not return
      vanished) say "a host lost the training (a reboot?): starting it again" ;;
      unreachable) say "the hosts of $name do not answer ($gcloud_log): looking at the TPU" ;;
    esac
    after=$(latest_step)
    if [ "$after" -gt "$before" ]; then fruitless=0; before=$after; else fruitless=$((fruitless + 1)); fi
    [ "$fruitless" -le "$max_restarts" ] ||
      fail "no new checkpoint in $max_restarts restarts: the end of the log is in $local_log; see what is wrong."
    if [ "$outcome" = unreachable ]; then sleep "$PAUSE"; else on_all quit >> "$gcloud_log" || true; fi
  done
  note "exit status 75: whatever still runs is stopped, then all start again, as above"
  on_all quit
  note "any other failure: the log's end on the host that failed first, then stop"
  on_all report HOST
}

give_up() {
  local status host
  read -r _ status host <<< "$outcome"
  say "the training failed on $host with exit status $status; the end of its log:" >&2
  on_all report "$host" >&2 || true
  on_all quit >> "$gcloud_log" || true
  exit "$status"
}

set_up_folder() {
  folder=$ROOT/runs/tpu/$name
  archive=$folder/coca_jax.tar.gz local_log=$folder/worker0.log gcloud_log=$folder/gcloud.log errors=$folder/errors
  prepared="" launched=""
  if [ -n "$dry_run" ]; then
    gcloud_log=/dev/null errors=/dev/null local_log=/dev/null
  else
    mkdir -p "$folder"
  fi
  nodes=("$name")
  if [ "$slices" != 1 ]; then
    nodes=()
    local slice
    for ((slice = 0; slice < slices; slice++)); do nodes+=("$name-$slice"); done
  fi
}

main() {
  parse "$@"
  check
  set_up_folder
  case $command in
    run) run_to_the_end ;;
    create) have_tpu ;;
    status)
      local state
      state=$(tpu_state) || fail "gcloud does not say how $name is: its message stands above."
      say_it "the TPU $name is $state"
      on_all status || fail "its hosts do not answer: $gcloud_log says why."
      ;;
    logs) on_worker "${nodes[0]}" "$worker" follow 1 || fail "worker $worker does not answer: $gcloud_log says why." ;;
    stop) on_all stop || fail "its hosts do not answer: $gcloud_log says why." ;;
    delete) delete_tpu ;;
  esac
}

main "$@"
