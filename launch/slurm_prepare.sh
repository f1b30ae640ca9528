#!/usr/bin/env bash
# Preparation as an array of SLURM jobs that decode, and one that packs; see
# README.md.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

declare -A flag=(
  [name]=prepare [tasks]=16 [cpus_per_task]=8 [time]=24:00:00
  [partition]='' [account]='' [sbatch_flags]=''
  [python]=$root/.venv/bin/python [log_dir]=$PWD
  [config]=configs/video_folder.py:accelerator [data_dir]=''
  [dry_run]=false
)
parse 'run status stop' "$@"
need_name
need_number tasks cpus_per_task
expand_home python log_dir data_dir
[[ $verb != run ]] ||
  need_match data_dir '/.+' 'a directory that every node sees: /SHARED/DATA'
name=${flag[name]}

# job SUFFIX SBATCH_FLAGS...: `command` becomes the command that submits a job.
job() {
  local log=$1 words
  shift
  split_flag sbatch_flags
  command=(
    sbatch --parsable "--job-name=$name" --nodes=1 --ntasks=1
    "--cpus-per-task=${flag[cpus_per_task]}" "--time=${flag[time]}" --requeue
    --open-mode=append "--output=${flag[log_dir]//%/%%}/$name-$log.log"
    "--chdir=$root"
    ${flag[partition]:+"--partition=${flag[partition]}"}
    ${flag[account]:+"--account=${flag[account]}"} "${words[@]}" "$@"
    "$root/launch/slurm_prepare_job.sh" "${flag[tasks]}" "${flag[python]}"
    "--config=${flag[config]}" "--config.data.dir=${flag[data_dir]}"
    "${extra[@]}"
  )
}

submit() {
  local JOB ARRAY command
  ask JOB '' squeue --me "--name=$name" --noheader --format=%i || return
  [[ -z $JOB ]] || { say "$name is in the queue."; return; }
  job %A-%a "--array=0-$((flag[tasks] - 1))"
  ask ARRAY ARRAY "${command[@]}" || return
  # It would decode alone what a task that failed has left.
  job %j "--dependency=afterok:${ARRAY%%;*}" --kill-on-invalid-dep=yes
  run "${command[@]}"
}

case $verb in
  run) submit ;;
  status) run squeue --me "--name=$name" ;;
  stop) run scancel --me "--name=$name" ;;
esac
