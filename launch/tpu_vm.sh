#!/usr/bin/env bash
# Training on a Cloud TPU VM of one worker or of many; see README.md.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

declare -A flag=(
  [name]=video-diffusion [zone]='' [project]='' # '': gcloud's own defaults
  [accelerator_type]=v6e-8 [runtime_version]='' [spot]=false [create_flags]=''
  [repo]='' [ref]='' [python]=3.12
  [config]=configs/moving_shapes.py:accelerator [workdir]=''
  [worker]=0 [lines]=50 [poll_seconds]=30 [dry_run]=false
)
parse 'create setup run status logs stop watch delete' "$@"
need_name
need_number lines poll_seconds
need_match worker 'all|[0-9]+' 'a number, or all'
[[ $verb != run && $verb != watch ]] || need_workdir
[[ -z ${flag[ref]} || -n ${flag[repo]} ]] ||
  usage '--ref names a branch or tag of --repo; pass --repo too.'

name=${flag[name]}
where=(${flag[zone]:+"--zone=${flag[zone]}"}
  ${flag[project]:+"--project=${flag[project]}"})
resources=(gcloud compute tpus queued-resources)
vm=(gcloud compute tpus tpu-vm)
# An empty answer means that there is none; `describe` would fail for that as it
# does for a wrong project or a lost network.
state=("${resources[@]}" list "${where[@]}" "--filter=name~/$name\$"
  '--format=value(state.state)')
status=("${vm[@]}" ssh "$name" "${where[@]}" --worker=all
  '--command=bash worker.sh status 2>/dev/null || echo none')

runtime_version() {
  case ${flag[accelerator_type]} in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

# Asks for the VM unless it exists, and waits until it is there.
create() {
  local STATE words
  split_flag create_flags
  ! ${flag[spot]} || words=(--spot "${words[@]}")
  ask STATE '' "${state[@]}" || return
  if [[ $STATE == FAILED || $STATE == SUSPENDED ]]; then
    say "$name is $STATE, as a preempted one is for good; asking anew."
    remove || return
    STATE=''
  fi
  if [[ -n $STATE ]]; then
    [[ $verb == watch ]] || say "$name exists ($STATE)."
  else
    run "${resources[@]}" create "$name" "--node-id=$name" "${where[@]}" \
      "--accelerator-type=${flag[accelerator_type]}" \
      "--runtime-version=${flag[runtime_version]:-$(runtime_version)}" \
      "${words[@]}" || return
  fi
  ${flag[dry_run]} || wait_until_active
}

wait_until_active() {
  local STATE before=''
  while STATE=$("${state[@]}") || return; do
    case $STATE in
      ACTIVE) return ;;
      FAILED | SUSPENDED | '')
        say "$name is ${STATE:-gone}; '$(quoted "${resources[@]}" describe \
          "$name" "${where[@]}")' may say why."
        return 1
        ;;
    esac
    [[ $STATE == "$before" ]] ||
      say "$name is $STATE; waiting. The request outlives this script."
    before=$STATE
    sleep "${flag[poll_seconds]}"
  done
}

remove() {
  run "${resources[@]}" delete "$name" "${where[@]}" --force --quiet
}

delete() {
  local STATE
  ask STATE ACTIVE "${state[@]}" || return
  if [[ -n $STATE ]]; then remove; else say "there is no $name."; fi
}

# on WORKER COMMAND...
on() {
  local worker=$1
  shift
  run "${vm[@]}" ssh "$name" "${where[@]}" "--worker=$worker" \
    "--command=$(quoted "$@")"
}

setup() {
  local files=("$root/launch/worker.sh")
  if [[ -z ${flag[repo]} ]]; then
    archive_head "$root" || return
    files+=("$TMP/source.tar.gz")
  fi
  run "${vm[@]}" scp "${files[@]}" "$name:" "${where[@]}" --worker=all || return
  on all bash worker.sh setup "${flag[python]}" \
    ${flag[repo]:+"${flag[repo]}"} ${flag[ref]:+"${flag[ref]}"}
}

# Named train because run, the verb, is the function that runs a command.
train() {
  local N
  ask N N "${vm[@]}" describe "$name" "${where[@]}" \
    '--format=value(networkEndpoints.len())' || return
  [[ $N =~ ^([1-9][0-9]*|N)$ ]] || {
    say "$name has '$N' workers."
    return 1
  }
  on all bash worker.sh run "--config=${flag[config]}" \
    "--workdir=${flag[workdir]}" "--config.mesh.processes=$N" "${extra[@]}"
}

# The workers' reports in a word, that of the one that matters most. Where one
# machine was lost, the others may have failed for that.
verdict() {
  local word code
  local -A seen=()
  while read -r word code; do
    if [[ $word == ended ]]; then
      if [[ $code == 0 ]]; then word=complete; else word=failed; fi
    fi
    [[ -z $word ]] || seen[$word]=1
  done
  for word in running stopped lost none failed complete; do
    [[ ! -v seen[$word] ]] || { echo "$word"; return; }
  done
}

# Brings VM and run to life as often as they are lost, until the run ends.
watch() {
  local REPORTS misses=0
  if ${flag[dry_run]}; then
    create && setup && train && run "${status[@]}"
    return
  fi
  # Misses in a row: a VM that is going down answers neither ssh nor scp for
  # minutes before its state says so.
  while ((misses < 20)); do
    ((++misses))
    if create && ask REPORTS '' "${status[@]}"; then
      case $(verdict <<<"$REPORTS") in
        running) misses=0 ;;
        lost | none) if setup && train; then misses=0; fi ;;
        complete) say 'the run is complete.'; return ;;
        stopped) say "stopped by hand; 'run' continues it."; return ;;
        failed)
          die "the run failed (${REPORTS//$'\n'/, }); 'logs' says why."
          ;;
      esac
    fi
    sleep "${flag[poll_seconds]}"
  done
  die "$name could not be brought up, 20 times in a row."
}

case $verb in
  run) train ;;
  status) run "${status[@]}" ;;
  logs) on "${flag[worker]}" bash worker.sh logs "${flag[lines]}" ;;
  stop) on all bash worker.sh stop ;;
  *) "$verb" ;;
esac
