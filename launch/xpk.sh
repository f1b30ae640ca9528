#!/usr/bin/env bash
# Training on TPUs of a GKE cluster, through XPK; see README.md.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

declare -A flag=(
  [name]=video-diffusion [cluster]='' [zone]='' [project]=''
  [tpu_type]=v6e-16 [num_slices]=1 [spot]=false [xpk_flags]=''
  [base_image]=python:3.12 [max_restarts]=50
  [grace_seconds]=120 # from SIGTERM to the end: time for a checkpoint
  [config]=configs/moving_shapes.py:accelerator [workdir]=''
  [dry_run]=false
)
parse 'run status stop' "$@"
need_name
need_number num_slices max_restarts grace_seconds
need_match cluster '.+' 'the name of a cluster that XPK knows'
[[ $verb != run ]] || need_workdir
name=${flag[name]}
where=("--cluster=${flag[cluster]}" ${flag[zone]:+"--zone=${flag[zone]}"}
  ${flag[project]:+"--project=${flag[project]}"})

submit() {
  local LIST first TMP words
  split_flag xpk_flags
  ! ${flag[spot]} || words=(--spot "${words[@]}")
  ask LIST '' xpk workload list "${where[@]}" "--filter-by-job=^$name\$" ||
    return
  while read -r first _; do
    [[ $first != "$name" ]] || { say "$name exists; stop it first."; return; }
  done <<<"$LIST"
  archive_head "$root" || return
  run mkdir "$TMP/source" || return
  run tar -xzf "$TMP/source.tar.gz" -C "$TMP/source" || return
  # XPK restarts on 128 and above by itself.
  run xpk workload create "--workload=$name" "${where[@]}" \
    "--tpu-type=${flag[tpu_type]}" "--num-slices=${flag[num_slices]}" \
    "--base-docker-image=${flag[base_image]}" "--script-dir=$TMP/source" \
    "--max-restarts=${flag[max_restarts]}" --restart-on-exit-codes=75 \
    "--termination-grace-period-seconds=${flag[grace_seconds]}" \
    "${words[@]}" \
    "--command=exec $(quoted bash launch/pod.sh "${flag[num_slices]}" \
      "--config=${flag[config]}" "--workdir=${flag[workdir]}" "${extra[@]}")"
}

case $verb in
  run) submit ;;
  status) run xpk workload list "${where[@]}" "--filter-by-job=^$name\$" ;;
  stop) run xpk workload delete "--workload=$name" "${where[@]}" --force ;;
esac
