# Sourced by tpu_run.sh, slurm_run.sh and gke_run.sh: dry runs, quoting, retries and checks of flags.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

PAUSE=${COCA_POLL_SECONDS:-30}  # between two looks at something that takes its time
dry_run=""
train=()  # the flags of coca_jax.train

exec 3>&1  # where a dry run prints, also from inside $(…)

note() {  # a line of explanation, in dry runs only
  [ -z "$dry_run" ] || echo "# $*" >&3
}

quoted() {  # prints the arguments as one line that any POSIX shell reads back as the same arguments
  local word line="" quote="'" escaped="'\\''"
  for word in "$@"; do
    case $word in
      "" | *[!A-Za-z0-9_./:=@%+,-]*) word=$quote${word//$quote/$escaped}$quote ;;
    esac
    line+=" $word"
  done
  printf '%s' "${line# }"
}

run() {  # runs a command; in a dry run prints it, quoted
  if [ -n "$dry_run" ]; then
    printf '%s\n' "$(quoted "$@")" >&3
  else
    "$@"
  fi
}

retry() {  # runs a command until it succeeds, five times at most
  local attempt
  for attempt in 1 2 3 4 5; do
    "$@" && return
    [ "$attempt" = 5 ] || sleep "$PAUSE"
  done
  return 1
}

need() {  # PROGRAM ADVICE
  [ -n "$dry_run" ] || command -v "$1" >/dev/null || fail "the program $1 is not on PATH: $2."
}

check_count() {  # FLAG VALUE
  case $2 in "" | 0* | *[!0-9]*) fail "$1=$2 is no count: give a whole number from 1." ;; esac
}

check_name() {  # what the clouds accept as a name
  case $1 in
    "") fail "--name is missing: name the run, for instance --name=giant." ;;
    [!a-z]* | *[!a-z0-9-]* | *-) fail "--name=$1 will not do: use small letters, digits and hyphens, a letter first." ;;
  esac
}

is_train_flag() {  # those that need no -- before them
  case $1 in --config=* | --config.*=* | --workdir=*) return 0 ;; *) return 1 ;; esac
}

add_train_flags() {
  local flag
  for flag in "$@"; do
    case $flag in --workdir=*) workdir=${flag#*=} ;; --config=*) config=${flag#*=} ;; esac
    train+=("$flag")
  done
}

check_train_flags() {
  [ -n "${config:-}" ] || fail "--config is missing: give one of configs/, such as --config=configs/coca_giant.py."
  [ -n "${workdir:-}" ] || fail "--workdir is missing: give the run's folder, such as --workdir=$1."
}

unknown_flag() {
  case $1 in
    --*) fail "$1 is no flag here (flags read --name=value): those of coca_jax.train go behind --, see --help." ;;
    *) fail "what is to be done with '$1'? See --help." ;;
  esac
}

latest_number() {  # the largest of the lines that are numbers: of checkpoint folders, the latest step
  sed 's|/*$||; s|.*/||' | grep -x '[0-9][0-9]*' | sort -n | tail -n 1
}
