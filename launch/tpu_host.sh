#!/usr/bin/env bash
# What tpu_vm.sh does on each host of a slice; not for use by hand.
#
#   tpu_host.sh install         makes .venv, with a Python of its own: that of the image is too old
#   tpu_host.sh mount BUCKET    makes a bucket of Cloud Storage the directory /bucket
#   tpu_host.sh run ID ARG...   runs senet_jax.main and shows its log; the run outlives the connection,
#                               and the same ID once more connects to the same run
#   tpu_host.sh stop            has the run save, and waits until it has ended
#
# Common failures: no space left on device (the log and .venv are in ~/senet_jax, on the boot disk).
set -uo pipefail
cd "$(dirname "$0")/.." || exit

case $1 in
  install)
    PATH=$HOME/.local/bin:$PATH
    # Versions of pip that do not need the variable do not know it.
    command -v uv > /dev/null || PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv || exit
    [ -x .venv/bin/python ] || uv venv --quiet --python 3.12 .venv || exit
    uv pip install --quiet -c constraints.txt -e '.[tensorflow,tpu]'
    ;;
  mount)
    if ! command -v gcsfuse > /dev/null; then
      repository=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
      release=gcsfuse-$(lsb_release -cs)
      curl -fsSL $repository/doc/apt-key.gpg | sudo tee $key > /dev/null &&
        echo "deb [signed-by=$key] $repository $release main" |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null &&
        sudo apt-get update -qq && sudo apt-get install -qq -o DPkg::Lock::Timeout=300 gcsfuse || exit
    fi
    fusermount -uz /bucket 2> /dev/null  # of another bucket, or of a gcsfuse that has died
    sudo install -d -o "$(id -un)" /bucket &&
      # Without a cache of names: the hosts are to see at once what one of them has written.
      gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$2" /bucket
    ;;
  run)
    id=$2
    shift 2
    if [ "$(cat run/id 2> /dev/null)" != "$id" ]; then
      rm -rf run && mkdir run && echo "$id" > run/id || exit
      (
        # Named: no TPU is an error, and not a run on CPU.
        JAX_PLATFORMS=tpu,cpu nohup .venv/bin/python -m senet_jax.main "$@" < /dev/null > run/log 2>&1 &
        echo $! > run/pid
        wait $!
        echo $? > run/status
      ) > /dev/null 2>&1 &
      until [ -s run/pid ]; do sleep 0.1; done
    fi
    tail -s 0.2 --pid="$(cat run/pid)" -n +1 -f run/log
    for ((i = 0; i < 20; i++)); do [ -s run/status ] || sleep 0.1; done
    exit "$(cat run/status || echo 1)"
    ;;
  stop)
    pid=$(cat run/pid 2> /dev/null) && grep -qs senet_jax.main "/proc/$pid/cmdline" || exit 0
    kill -TERM "$pid"
    timeout 300 tail -s 0.2 --pid="$pid" -f /dev/null || kill -KILL "$pid"
    ;;
  *) echo "tpu_host.sh: no command $1" >&2; exit 2 ;;
esac
