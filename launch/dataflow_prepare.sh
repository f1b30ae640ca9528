#!/usr/bin/env bash
# Preparation on Dataflow, started from a machine that has mounted the bucket;
# see README.md.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

declare -A flag=(
  [name]=prepare [project]='' [region]='' [bucket]='' [mount]=''
  [workers]=64 [machine_type]=n2-standard-8 [disk_gb]=100 [image]=''
  [beam_flags]='' [python]=$root/.venv-beam/bin/python
  [config]=configs/video_folder.py:accelerator [data_dir]=''
  [dry_run]=false
)
parse 'run status stop' "$@"
need_name
need_number workers disk_gb
expand_home python mount data_dir
need_match project '.+' 'a project of Google Cloud'
need_match region '.+' 'a region of Google Cloud, as us-central1'
name=${flag[name]}
where=("--project=${flag[project]}" "--region=${flag[region]}")

# Dataflow needs workers that have this package: an image, or setup.py.
submit() {
  local words option options=() package="--setup_file=$root/setup.py"
  need_match bucket 'gs://.*[^/]' 'the bucket of the videos: gs://BUCKET'
  need_match mount '/.*[^/]' 'where the bucket is mounted on this machine'
  [[ ${flag[data_dir]} == "${flag[mount]}"/?* ]] ||
    usage "--data_dir is '${flag[data_dir]}'; it must be a folder in --mount."
  split_flag beam_flags
  [[ -z ${flag[image]} ]] || package=--sdk_container_image=${flag[image]}
  for option in --runner=DataflowRunner "${where[@]}" "--job_name=$name" \
    "--temp_location=${flag[bucket]}/tmp" \
    "--max_num_workers=${flag[workers]}" --number_of_worker_harness_threads=1 \
    "--worker_machine_type=${flag[machine_type]}" \
    "--disk_size_gb=${flag[disk_gb]}" "$package" "${words[@]}"; do
    options+=("$(quoted "$option")")
  done
  cd "$root"
  run "${flag[python]}" -m video_diffusion.main --mode=prepare \
    "--config=${flag[config]}" "--config.data.dir=${flag[data_dir]}" \
    --config.prepare.runner=beam \
    "--config.prepare.bucket=${flag[mount]}=${flag[bucket]}" \
    "--config.prepare.beam_options=${options[*]}" "${extra[@]}"
}

jobs=(gcloud dataflow jobs list "${where[@]}" --status=active
  "--filter=name=$name")

stop() {
  local ID
  ask ID ID "${jobs[@]}" '--format=value(id)' || return
  [[ -n $ID ]] || { say "no job $name runs."; return; }
  run gcloud dataflow jobs cancel "${where[@]}" "$ID"
}

case $verb in
  run) submit ;;
  status) run "${jobs[@]}" ;;
  stop) stop ;;
esac
