#!/usr/bin/env bash
# Runs senet_jax in several processes on this machine: on CPU, or each with GPUs of its own.
#
#   launch/local.sh -n 2 -- --config=configs/digits_se_r20.py --workdir=runs/digits
#
#   -n N  processes; default: one for each -d GPUs, 2 on CPU
#   -d D  devices a process, default 1: GPUs, or virtual CPU devices
#   -p P  cpu or gpu; default: gpu where CUDA_VISIBLE_DEVICES or nvidia-smi show some
#   -r R  run again up to R times after status 75 (saved) or a crash, default 0; the run resumes
#   -g G  seconds that the others have to end once a process has failed, default 60
#   PYTHON=python3 chooses the interpreter; default: .venv/bin/python, which `make` builds, or python3
#
# One process already uses all GPUs of a machine: this is for trying what many hosts do, and for input
# that one process cannot feed. Each line of output has the number of its process in front. SIGTERM,
# SIGINT and SIGHUP (as SIGTERM) go to all processes, and nothing is started again after them.
#
# Exit status: 2 if any process had a user error, else 75 if any saved and stopped (a process says so
# only when the save of all is complete), else that of the first that failed, else 0.
#
# Common failures:
#   config.batch_size=... is not divisible  N times D devices do not divide the batch.
#   AssertionError in xla_bridge.py         JAX has no CUDA plugin: pip install -c constraints.txt '.[cuda]'
#   out of memory at start                  Another run has the GPUs; choose with CUDA_VISIBLE_DEVICES.
#   status 137                              The process hung after another failed; read that one's lines.
set -uo pipefail

fail() { echo "local.sh: $*" >&2; exit 2; }
usage() { sed -n '/^# /,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0"; }
number() { case $2 in *[!0-9]* | '') fail "$1 takes a whole number, not '$2'." ;; *) echo "$2" ;; esac; }

processes='' each=1 platform='' restarts=0 grace=60
while getopts n:d:p:r:g:h option; do
  case $option in
    n) processes=$(number -n "$OPTARG") || exit ;;
    d) each=$(number -d "$OPTARG") || exit ;;
    p) platform=$OPTARG ;;
    r) restarts=$(number -r "$OPTARG") || exit ;;
    g) grace=$(number -g "$OPTARG") || exit ;;
    h) usage; exit ;;
    *) fail 'see launch/local.sh -h.' ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { usage >&2; exit 2; }

venv=$(dirname "$0")/../.venv/bin/python
if [ -x "$venv" ]; then : "${PYTHON:=$venv}"; fi

# GPUs as CUDA_VISIBLE_DEVICES names them, by number or UUID.
if [ -z "${CUDA_VISIBLE_DEVICES:-}" ] && command -v nvidia-smi > /dev/null; then
  CUDA_VISIBLE_DEVICES=$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd, -) || CUDA_VISIBLE_DEVICES=''
fi
IFS=, read -r -a gpus <<< "${CUDA_VISIBLE_DEVICES:-}"
[ -n "$platform" ] || { [ ${#gpus[@]} -gt 0 ] && platform=gpu || platform=cpu; }
[ "$each" -gt 0 ] || fail '-d must be at least 1.'
case $platform in
  cpu) : "${processes:=2}" ;;
  gpu)
    : "${processes:=$((${#gpus[@]} / each))}"
    [ $((processes * each)) -le ${#gpus[@]} ] ||
      fail "-n $processes -d $each takes $((processes * each)) GPUs, ${#gpus[@]} are here; lower one, or give -p cpu."
    ;;
  *) fail "-p takes cpu or gpu, not '$platform'." ;;
esac
[ "$processes" -gt 0 ] || fail '-n must be at least 1.'

# A port where nobody answers, below those that the system hands out itself.
free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do :; done
  echo "$port"
}

# Puts the number of a process before its lines. Ignores what ends a run: a process that saves must still be
# able to print.
prefix() {
  trap '' TERM INT HUP
  while IFS= read -r line || [ -n "$line" ]; do printf '[%s] %s\n' "$1" "$line"; done
}

pids=() stopping=''
# Sends a signal to all processes, or with a '-' to them and all that they started.
signal_all() { for pid in ${pids[@]+"${pids[@]}"}; do kill -s "$1" -- "${2:-}$pid"; done 2> /dev/null; }
scratch=$(mktemp -d) || exit
trap 'stopping=TERM; signal_all TERM' TERM HUP
trap 'stopping=INT; signal_all INT' INT
trap 'signal_all KILL -; rm -rf "$scratch"' EXIT

start() {  # the number of the process, its arguments
  local environment=(PYTHONUNBUFFERED=1 "JAX_PROCESS_ID=$1")
  if [ "$platform" = gpu ]; then
    # Named, and alone: otherwise JAX without its CUDA plugin would take the CPU and not say so.
    environment+=(JAX_PLATFORMS=cuda "CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${gpus[*]:$1 * each:each}")")
  else
    environment+=(JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$each")
  fi
  # A pipe with the ends 4 and 5. Opened here: a process that dies early would leave the other end waiting.
  mkfifo "$scratch/pipe"
  exec 3<> "$scratch/pipe"
  exec 4< "$scratch/pipe"
  exec 5> "$scratch/pipe" 3>&-
  rm "$scratch/pipe"
  prefix "$1" <&4 5>&- &
  prefixes+=($!)
  # Job control gives a process a group of its own: it gets signals from here alone, SIGINT too, and
  # can be killed with all that it started.
  set -m
  env "${environment[@]}" "${PYTHON:-python3}" -m senet_jax.main "${@:2}" < /dev/null >&5 2>&1 4<&- 5>&- &
  pids+=($!)
  set +m
  exec 4<&- 5>&-
}

run() {  # the arguments; leaves the exit status in `status`
  local i code deadline='' running=1 ended=' '
  pids=() prefixes=()
  JAX_COORDINATOR_ADDRESS=127.0.0.1:$(free_port)
  export JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES=$processes
  for ((i = 0; i < processes; i++)); do start "$i" "$@"; done
  [ -z "$stopping" ] || signal_all "$stopping"

  while [ -n "$running" ]; do
    running=''
    for ((i = 0; i < processes; i++)); do
      case $ended in *" $i="*) continue ;; esac
      if kill -0 "${pids[i]}" 2> /dev/null; then running=1; continue; fi
      wait "${pids[i]}"
      code=$?
      ended+="$i=$code "
      [ $code -eq 0 ] && continue
      if [ -n "$deadline" ] && [ $code -eq 134 ]; then
        echo "local.sh: process $i ended as it lost another one" >&6
      else
        echo "local.sh: process $i ended with status $code" >&6
      fi
      : "${deadline:=$((SECONDS + grace))}"
    done
    if [ -n "$deadline" ] && [ $SECONDS -ge "$deadline" ]; then signal_all KILL -; fi
    [ -z "$running" ] || sleep 0.1
  done 6>&2 2> /dev/null  # without bash's "Killed ..." of each
  signal_all KILL -  # what their processes left behind, which holds the pipes open
  wait "${prefixes[@]}"
  pids=()

  case $ended in
    *=2\ *) status=2 ;;
    *=75\ *) status=75 ;;
    *) status=0; for code in $ended; do [ "$status" -ne 0 ] || status=${code#*=}; done ;;
  esac
}

for ((attempt = 1; ; attempt++)); do
  run "$@"
  if [ -n "$stopping" ] || [ $attempt -gt "$restarts" ]; then break; fi
  case $status in 0 | 2) break ;; esac
  echo "local.sh: status $status, run again ($attempt of $restarts)" >&2
done
exit "$status"
