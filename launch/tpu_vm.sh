#!/usr/bin/env bash
# Trains on a Cloud TPU VM slice: makes it or takes the one of that name, installs this checkout, runs
# on all its hosts and shows their logs. After a preemption it makes the slice again, and the run resumes.
#
#   launch/tpu_vm.sh --name=se50 --zone=us-west4-a --type=v5litepod-16 --spot --bucket=NAME -- \
#       --config=configs/imagenet_se_r50.py --workdir=/bucket/se50 --config.data.dir=/bucket/tfds
#   launch/tpu_vm.sh --name=se50 --zone=us-west4-a --delete
#
#   --name=NAME --zone=ZONE  the slice
#   --project=PROJECT   default: that of gcloud
#   --type=TYPE         of the slice to make: gcloud compute tpus accelerator-types list --zone=ZONE
#   --version=VERSION   its software; default: what Google names for JAX on that type
#   --spot              cheaper, may be preempted
#   --queued            through a queued resource, which waits until there are TPUs
#   --bucket=NAME       of Cloud Storage, is the directory /bucket on all hosts (gcsfuse); it needs a
#                       hierarchical namespace: gcloud storage buckets create gs://NAME
#                       --location=REGION --uniform-bucket-level-access --enable-hierarchical-namespace
#   --retries=N         after crashes and failed set-ups, default 3; preemptions are not counted
#   --poll=SECONDS      between looks at a slice that is not ready, default 30
#   --delete            deletes the slice when the run has ended; without a run, at once
#   --dry_run           prints the commands for a slice that is not there yet
#
# Ctrl-C stops the run once it has saved. A connection that breaks does not: the run goes on, and this
# command again stops (saving) and resumes it. The slice costs until it is deleted.
#
# Exit status: that of the run, as gcloud reports it: of the first host that failed.
#
# Common failures:
#   no more capacity in the zone   --queued waits for it; or another zone or --spot.
#   Permission denied (publickey)  ssh-add ~/.ssh/google_compute_engine, and try again.
#   a checkpoint is not renamed    The bucket has no hierarchical namespace.
#   storage.objects... denied      The slice's service account needs the role Storage Object Admin.
#   The TPU is already in use      Something else runs on the slice: use another name.
#   NOT_FOUND, PERMISSION_DENIED   gcloud auth login; gcloud config set project PROJECT.
set -uo pipefail

usage() { sed -n '/^# /,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0"; }
say() { echo "tpu_vm.sh: $*" >&2; }
fail() { say "$*"; exit 2; }

name='' zone='' project='' type='' version='' bucket='' spot='' queued='' delete='' dry_run='' retries=3 poll=30
while [ $# -gt 0 ]; do
  case $1 in
    --name=* | --zone=* | --project=* | --type=* | --version=* | --bucket=* | --retries=* | --poll=*)
      option=${1%%=*}
      printf -v "${option#--}" %s "${1#*=}"
      ;;
    --spot | --queued | --delete | --dry_run) printf -v "${1#--}" %s "$1" ;;
    --help | -h) usage; exit ;;
    --) shift; break ;;
    *) fail "no option $1 (see --help); arguments of senet_jax.main come after --." ;;
  esac
  shift
done
{ [ -n "$name" ] && [ -n "$zone" ]; } || fail '--name and --zone say which slice; see --help.'
case $retries$poll in *[!0-9]*) fail '--retries and --poll take whole numbers.' ;; esac
[ $# -gt 0 ] || [ -n "$delete" ] || fail 'give the arguments of senet_jax.main after --, or --delete.'
case $type in
  v5litepod-*) : "${version:=v2-alpha-tpuv5-lite}" ;;
  v5p-*) : "${version:=v2-alpha-tpuv5}" ;;
  v6e-*) : "${version:=v2-alpha-tpuv6e}" ;;
  *) : "${version:=tpu-ubuntu2204-base}" ;;
esac

common=("--zone=$zone" --quiet)
[ -z "$project" ] || common+=("--project=$project")
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT

# Runs gcloud, or prints the command. In a group of its own, so that Ctrl-C comes to this script only,
# and in the background, so that it is answered at once.
gcloud_tpus() {
  if [ -n "$dry_run" ]; then printf '%q ' gcloud compute tpus "$@" "${common[@]}" >&3; echo >&3; return; fi
  set -m
  gcloud compute tpus "$@" "${common[@]}" < /dev/null &
  set +m
  local job=$!
  while kill -0 "$job" 2> /dev/null; do wait "$job"; done  # a signal ends `wait` early
  wait "$job"
}
exec 3>&1

# On all hosts. The flags end a connection to a machine that is gone.
on_hosts() {
  gcloud_tpus tpu-vm ssh "$name" --worker=all --ssh-flag=-oServerAliveInterval=30 \
    --ssh-flag=-oConnectTimeout=30 --command="$1"
}

# Prints a field, or `missing` if there is no such resource.
describe() {  # tpu-vm or queued-resources, field
  if [ -n "$dry_run" ]; then gcloud_tpus "$1" describe "$name" "--format=value($2)"; echo missing; return; fi
  gcloud_tpus "$1" describe "$name" "--format=value($2)" 2> "$work/error" && return
  if grep -q NOT_FOUND "$work/error"; then echo missing; else cat "$work/error" >&2; return 1; fi
}
slice_state() {
  local state
  state=$(describe tpu-vm state) || return
  if [ "$state" = missing ] && [ -n "$queued" ]; then
    state=$(describe queued-resources state.state) || return
  fi
  echo "$state"
}

create() {
  [ -n "$type" ] || fail "there is no slice $name in $zone; give --type to make it."
  if [ -n "$queued" ]; then
    gcloud_tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" \
      "--runtime-version=$version" ${spot:+--spot}
  else
    gcloud_tpus tpu-vm create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+--spot}
  fi
}
remove() {
  if [ -n "$queued" ]; then
    gcloud_tpus queued-resources delete "$name" --force
  else
    gcloud_tpus tpu-vm delete "$name"
  fi
}

# Comes back when the slice is ready.
provide() {
  local state
  while [ -z "$stopping" ]; do
    state=$(slice_state) || return
    case $state in
      READY) return ;;
      missing) create || return; [ -z "$dry_run" ] || return 0 ;;
      PREEMPTED | TERMINATED | SUSPENDED) say "slice $name is $state"; remove || return ;;
      STOPPED) gcloud_tpus tpu-vm start "$name" || return ;;
      FAILED) fail "Google refused $name: gcloud compute tpus queued-resources describe $name --zone=$zone" ;;
      *) say "slice $name is $state; looking again in $poll s"; sleep "$poll" ;;
    esac
  done
  return 1
}

install() {
  local files=(senet_jax configs launch setup.cfg pyproject.toml constraints.txt README.md LICENSE)
  tar -czf "$work/senet_jax.tgz" -C "$(dirname "$0")/.." --exclude=__pycache__ "${files[@]}" &&
    gcloud_tpus tpu-vm scp "$work/senet_jax.tgz" "$name:" --worker=all && on_hosts "\
mkdir -p senet_jax && cd senet_jax && { [ ! -e launch ] || bash launch/tpu_host.sh stop; } && \
rm -rf senet_jax && tar -xzf ../senet_jax.tgz && bash launch/tpu_host.sh install\
${bucket:+ && bash launch/tpu_host.sh mount $(printf %q "$bucket")}"
}

running='' stopping=''
stop() {
  stopping=1
  [ -n "$running" ] || return
  say 'stopping; the run saves first'
  on_hosts 'bash senet_jax/launch/tpu_host.sh stop' &
}
trap stop INT TERM

finish() {  # status
  wait
  if [ -n "$delete" ]; then remove; elif [ -z "$dry_run" ]; then say "slice $name is still there; --delete deletes it"; fi
  exit "$1"
}
if [ $# -eq 0 ]; then remove; exit; fi

failures=0
for ((attempt = 1; ; attempt++)); do
  provide && install && running=1 && [ -z "$stopping" ] &&
    on_hosts "bash senet_jax/launch/tpu_host.sh run $(date +%s)-$attempt$(printf ' %q' "$@")"
  status=$?
  if [ -n "$stopping" ]; then finish $status; fi
  case $status in 0 | 2) finish $status ;; esac
  if [ -n "$running" ] && { [ $status -eq 75 ] || { state=$(slice_state) && [ "$state" != READY ]; }; }; then
    say "the run was stopped (status $status); again"
  elif ((++failures > retries)); then
    finish $status
  else
    say "status $status; again in $poll s ($failures of $retries)"
    sleep "$poll"
  fi
  running=''
done
