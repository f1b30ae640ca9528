#!/usr/bin/env bash
# One worker of a Cloud TPU VM; tpu_vm.sh uploads this file and calls it.
#
#   worker.sh setup PYTHON [URL [REF]]   the package in a virtual environment,
#                                        from ~/source.tar.gz or a repository
#   worker.sh run FLAGS...               starts training, detached
#   worker.sh status                     none, running, stopped, lost or ended N
#   worker.sh logs LINES | stop
#
# A run holds a lock as long as any of its processes lives, so "running" is
# never a stale file, and a reboot frees it.
# shellcheck disable=SC2329  # main calls the functions by name
set -euo pipefail
self=$(readlink -f "${BASH_SOURCE[0]}")
place=$HOME/video_diffusion
max_quick=5
# A failure before this counts as quick. More than JAX's wait of 300 s for its
# peers: where one worker ended for good, the others must not retry for ever.
quick_seconds=${QUICK_SECONDS:-600}

say() { echo "$HOSTNAME: $*" >&2; }
die() { say "$@"; exit 1; }

running() { ! flock --nonblock lock true; }

setup() {
  local python=$1 url=${2:-} ref=${3:-}
  ! running || die 'a run is under way; stop it before a new setup.'
  rm -rf src code stopped pid # nothing is left of an earlier run
  if [[ -n $url ]]; then
    git clone --quiet --depth 1 ${ref:+"--branch=$ref"} -- "$url" src
  else
    mkdir src
    tar -xzf "$HOME/source.tar.gz" -C src
  fi
  # The images of Cloud TPU have Python 3.10; uv brings a newer one.
  python3 -m uv --version >/dev/null 2>&1 ||
    python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --allow-existing "--python=$python" venv
  python3 -m uv pip install --quiet --python venv/bin/python -e './src[tpu]'
  say 'set up.'
}

run() {
  local pid i
  ! running || die 'a run is under way; see its logs, or stop it first.'
  [[ -x venv/bin/python ]] || die 'nothing is installed; set up first.'
  rm -f code stopped pid
  setsid bash "$self" supervise "$@" </dev/null >>log 2>&1 &
  pid=$!
  for ((i = 0; i < 600; ++i)); do
    [[ ! -s pid || $(<pid) != "$pid" ]] || { say 'started.'; return; }
    sleep 0.1
  done
  die "training did not start; $place/log says why."
}

# The detached process: training, again as long as its exit code asks for it.
supervise() {
  local code quick=0 started
  exec 9>lock
  flock --nonblock 9 || die 'another run was quicker.'
  echo "$$" >pid
  child='' stopping=false
  trap 'stopping=true; signal_child' TERM
  while :; do
    started=$SECONDS
    # exec: the child is Python itself, so SIGTERM reaches it.
    (cd src && exec ../venv/bin/python -m video_diffusion.main "$@") &
    child=$!
    ! $stopping || signal_child
    # A signal to this shell ends `wait` before the child has ended.
    until wait "$child" || true; ! kill -0 "$child" 2>/dev/null; do :; done
    code=0
    wait "$child" || code=$?
    child=''
    # A signal that `stop` did not send: the machine is going down.
    ! $stopping || [[ -e stopped ]] || return 0
    ((SECONDS - started < quick_seconds)) || quick=0
    if $stopping ||
      ((code == 130 || code != 75 && code < 128 || ++quick > max_quick)); then
      echo "$code" >code
      say "$(date): training ended with exit code $code."
      return
    fi
    say "$(date): exit code $code; starting again."
  done
}

signal_child() { [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true; }

status() {
  if running; then
    echo running
  elif [[ -e stopped ]]; then
    echo stopped
  elif [[ -e code ]]; then
    echo "ended $(<code)"
  elif [[ -e pid ]]; then
    echo lost # with its machine
  else
    echo none
  fi
}

stop() {
  running || { say 'nothing runs.'; return; }
  touch stopped
  kill -TERM "$(<pid)"
  flock --timeout 600 lock true || die 'still running 600 s after SIGTERM.'
  say "stopped; exit code $(<code)."
}

logs() { exec tail -n "$1" -F log; }

main() {
  mkdir -p "$place"
  cd "$place"
  case ${1:-} in
    setup | run | supervise | status | stop | logs) "$@" ;;
    *) say "unknown verb '${1:-}'."; exit 2 ;;
  esac
}

# On one line: an upload may replace this file while it runs.
main "$@"; exit
