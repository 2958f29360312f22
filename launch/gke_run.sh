#!/usr/bin/env bash
# One run on TPU slices of a GKE cluster: gke_jobset.yaml filled in and handed to kubectl.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/remote.sh"

usage() {
  cat <<'END'
bash launch/gke_run.sh COMMAND --name=NAME [flags] [--config.key=value …] [-- flags of coca_jax.train]

  run      writes runs/gke/NAME.yaml from launch/gke_jobset.yaml and applies it; the cluster does the rest: preempted
           (exit status 75, or the node gone) all hosts start again and the same command continues
  status   the JobSet and its pods     logs   of worker 0     delete   saves the checkpoint and ends the training

  --accelerator=tpu-v4-podslice   or tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice: GKE's names
  --topology=8x16x16              of a slice, in chips
  --chips-per-host=4              8 on machines that hold 8 (ct5lp-hightpu-8t, ct6e-standard-8t)
  --slices=1                      so many slices, joined over the data-centre network (multi-slice)
  --image=IMAGE                   a container with coca_jax installed and configs/ in its folder: see docs/launching.md
  --spot                          on spot nodes             --node-selector=KEY=VALUE   one more; repeatable
  --service-account=default       Kubernetes account with access to the bucket
  --env=NAME=VALUE                for the training, such as LIBTPU_INIT_ARGS; repeatable
  --max-restarts=3                of failures other than preemption     --grace=300   seconds for saving when told to go
  --context=…, --namespace=…      for kubectl
  --dry-run                       print the manifest and every command, and run nothing

  bash launch/gke_run.sh run --name=giant --accelerator=tpu-v4-podslice --topology=8x16x16 \
    --image=us-docker.pkg.dev/my-project/coca/coca_jax:1 --config=configs/coca_giant.py --workdir=gs://my-bucket/giant

Needs kubectl, a cluster with JobSet (0.6 or newer) and TPU node pools of that topology.
END
}

command="" name="" accelerator="" topology="" chips_per_host="" slices=1 image="" service_account=default spot=""
max_restarts=3 grace=300
selectors=() environment=() kubectl_flags=()

parse() {
  local argument
  while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
      -h | --help) usage; exit 0 ;;
      run | status | logs | delete) command=$argument ;;
      --name=*) name=${argument#*=} ;;
      --accelerator=*) accelerator=${argument#*=} ;;
      --topology=*) topology=${argument#*=} ;;
      --chips-per-host=*) chips_per_host=${argument#*=} ;;
      --slices=*) slices=${argument#*=} ;;
      --image=*) image=${argument#*=} ;;
      --spot) spot=yes ;;
      --node-selector=?*=*) selectors+=("${argument#*=}") ;;
      --service-account=*) service_account=${argument#*=} ;;
      --env=?*=*) environment+=("${argument#*=}") ;;
      --max-restarts=*) max_restarts=${argument#*=} ;;
      --grace=*) grace=${argument#*=} ;;
      --context=* | --namespace=*) kubectl_flags+=("$argument") ;;
      --dry-run) dry_run=yes ;;
      --) add_train_flags "$@"; break ;;
      *) if is_train_flag "$argument"; then add_train_flags "$argument"; else unknown_flag "$argument"; fi ;;
    esac
  done
}

check() {
  [ -n "$command" ] || fail "say what to do: run, status, logs or delete; --help explains them."
  check_name "$name"
  [ "$command" != run ] || check_run
  need kubectl "install it, and run 'gcloud container clusters get-credentials CLUSTER'"
}

check_run() {
  check_count --slices "$slices"
  check_count --max-restarts "$max_restarts"
  check_count --grace "$grace"
  check_train_flags gs://my-bucket/giant
  case $workdir in
    gs://?*) ;;
    *) fail "--workdir=$workdir would be lost with the pods: give a folder in a bucket, gs://…." ;;
  esac
  case $accelerator in
    tpu-*) ;;
    *) fail "--accelerator=$accelerator is no TPU of GKE: give for instance --accelerator=tpu-v6e-slice." ;;
  esac
  [[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] ||
    fail "--topology=$topology is none: give a slice's chips, for instance --topology=16x16 or 8x16x16."
  [ -n "$image" ] || fail "--image is missing: name a container with coca_jax; docs/launching.md says how to make one."
  local chips=$((${topology//x/*}))
  [ -n "$chips_per_host" ] || chips_per_host=$((chips < 4 ? chips : 4))
  check_count --chips-per-host "$chips_per_host"
  [ $((chips % chips_per_host)) = 0 ] ||
    fail "the $chips chips of --topology=$topology do not divide by --chips-per-host=$chips_per_host: correct one."
  hosts=$((chips / chips_per_host))
}

json() {  # a string in JSON, which YAML reads too
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/\\t}
  printf '"%s"' "$text"
}

joined() { local IFS=,; printf '%s' "$*"; }

# shellcheck disable=SC2034 # the variables in capitals are read by name
fill_in() {  # the template, each ${KEY} replaced by the variable of that name, once
  local rest token key out=""
  local NAME=$name SLICES=$slices HOSTS=$hosts CHIPS_PER_HOST=$chips_per_host MAX_RESTARTS=$max_restarts GRACE=$grace
  local IMAGE SERVICE_ACCOUNT NODE_SELECTOR ARGUMENTS ENVIRONMENT EXCLUSIVE=cloud.google.com/gke-nodepool word
  [ "$hosts" != 1 ] || EXCLUSIVE=kubernetes.io/hostname  # slices of one host share a node pool
  IMAGE=$(json "$image")
  SERVICE_ACCOUNT=$(json "$service_account")
  local pairs=() words=() variables=()
  pairs=(
    "\"cloud.google.com/gke-tpu-accelerator\": $(json "$accelerator")"
    "\"cloud.google.com/gke-tpu-topology\": $(json "$topology")"
  )
  [ -z "$spot" ] || pairs+=('"cloud.google.com/gke-spot": "true"')
  for word in ${selectors[@]+"${selectors[@]}"}; do pairs+=("$(json "${word%%=*}"): $(json "${word#*=}")"); done
  for word in "${train[@]}"; do words+=("$(json "${word//\$/\$\$}")"); done  # for Kubernetes expands $(NAME)
  for word in ${environment[@]+"${environment[@]}"}; do
    variables+=("{\"name\": $(json "${word%%=*}")")
    word=${word#*=}
    variables+=("\"value\": $(json "${word//\$/\$\$}")}")
  done
  NODE_SELECTOR="{$(joined "${pairs[@]}")}"
  ARGUMENTS="[$(joined "${words[@]}")]"
  ENVIRONMENT="[$(joined ${variables[@]+"${variables[@]}"})]"
  rest=$(cat "$ROOT/launch/gke_jobset.yaml")
  while [[ $rest =~ \$\{([A-Z_]+)\} ]]; do
    token=${BASH_REMATCH[0]} key=${BASH_REMATCH[1]}
    out+=${rest%%"$token"*}${!key}
    rest=${rest#*"$token"}
  done
  printf '%s\n' "$out$rest"
}

kube() { run kubectl ${kubectl_flags[@]+"${kubectl_flags[@]}"} "$@"; }

start() {
  local manifest=$ROOT/runs/gke/$name.yaml
  if [ -n "$dry_run" ]; then
    note "the manifest $manifest:"
    fill_in
    note "handed to the cluster:"
  else
    mkdir -p "$ROOT/runs/gke"
    fill_in > "$manifest"
  fi
  kube apply --filename="$manifest" || fail "the cluster did not take it: kubectl's message stands above."
  [ -n "$dry_run" ] || say "started $name: 'bash launch/gke_run.sh logs --name=$name' shows its log, delete ends it"
}

parse "$@"
check
case $command in
  run) start ;;
  status)
    kube get jobset "$name"
    kube get pods --selector="jobset.sigs.k8s.io/jobset-name=$name" --output=wide
    ;;
  logs)
    worker_0=jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0
    kube logs --follow --tail=-1 --selector="jobset.sigs.k8s.io/jobset-name=$name,$worker_0"
    ;;
  delete) kube delete jobset "$name" ;;
esac
