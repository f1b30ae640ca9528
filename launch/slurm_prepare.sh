#!/usr/bin/env bash
# Preparation as an array of SLURM jobs that decode, and one of jobs that pack;
# see README.md.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

declare -A flag=(
  [name]=prepare [tasks]=16 [packers]=1 [cpus_per_task]=8 [time]=24:00:00
  [partition]='' [account]='' [sbatch_flags]=''
  [python]=$root/.venv/bin/python [log_dir]=$PWD
  [config]=configs/video_folder.py:accelerator [data_dir]=''
  [dry_run]=false
)
parse 'run status stop' "$@"
need_name
need_number tasks packers cpus_per_task
expand_home python log_dir data_dir
[[ $verb != run ]] ||
  need_match data_dir '/.+' 'a directory that every node sees: /SHARED/DATA'
name=${flag[name]}

# job TASKS JOBS SBATCH_FLAGS...: `command` becomes the command that submits an
# array of JOBS; each decodes a share of TASKS, or packs where that is 0.
job() {
  local tasks=$1 jobs=$2 words
  shift 2
  split_flag sbatch_flags
  command=(
    sbatch --parsable "--job-name=$name" --nodes=1 --ntasks=1
    "--cpus-per-task=${flag[cpus_per_task]}" "--time=${flag[time]}" --requeue
    --open-mode=append "--output=${flag[log_dir]//%/%%}/$name-%A-%a.log"
    "--chdir=$root"
    ${flag[partition]:+"--partition=${flag[partition]}"}
    ${flag[account]:+"--account=${flag[account]}"} "${words[@]}"
    "--array=0-$((jobs - 1))" "$@"
    "$root/launch/slurm_prepare_job.sh" "$tasks" "${flag[python]}"
    "--config=${flag[config]}" "--config.data.dir=${flag[data_dir]}"
    "${extra[@]}"
  )
}

submit() {
  local JOB ARRAY command
  ask JOB '' squeue --me "--name=$name" --noheader --format=%i || return
  [[ -z $JOB ]] || { say "$name is in the queue."; return; }
  job "${flag[tasks]}" "${flag[tasks]}"
  ask ARRAY ARRAY "${command[@]}" || return
  # They would decode what a task that failed has left.
  job 0 "${flag[packers]}" "--dependency=afterok:${ARRAY%%;*}" \
    --kill-on-invalid-dep=yes
  run "${command[@]}"
}

case $verb in
  run) submit ;;
  status) run squeue --me "--name=$name" ;;
  stop) run scancel --me "--name=$name" ;;
esac
