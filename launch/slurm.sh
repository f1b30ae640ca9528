#!/usr/bin/env bash
# Training as a SLURM job, one process per node; see README.md.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

declare -A flag=(
  [name]=video-diffusion [nodes]=1 [gpus_per_node]=8 [cpus_per_task]=''
  [time]=24:00:00 [partition]='' [account]='' [sbatch_flags]=''
  [grace_seconds]=120 # from SIGTERM to the end: time for a checkpoint
  [python]=$root/.venv/bin/python [log_dir]=$PWD
  [config]=configs/moving_shapes.py:accelerator [workdir]=''
  [dry_run]=false
)
parse 'run status stop' "$@"
need_name
need_number nodes gpus_per_node grace_seconds
expand_home python log_dir workdir
[[ $verb != run ]] || need_workdir
name=${flag[name]}

submit() {
  local JOB words
  split_flag sbatch_flags
  ask JOB '' squeue --me "--name=$name" --noheader --format=%i || return
  [[ -z $JOB ]] || { say "$name is in the queue as job $JOB."; return; }
  # Without B: the signal goes to Python and not to the script, which therefore
  # lives to see the exit code. (B:TERM could not be told from scancel, and a
  # cancelled job must not come back.)
  run sbatch "--job-name=$name" "--nodes=${flag[nodes]}" --ntasks-per-node=1 \
    "--gpus-per-node=${flag[gpus_per_node]}" \
    ${flag[cpus_per_task]:+"--cpus-per-task=${flag[cpus_per_task]}"} \
    "--time=${flag[time]}" "--signal=TERM@${flag[grace_seconds]}" --requeue \
    --open-mode=append "--output=${flag[log_dir]//%/%%}/$name-%j.log" \
    "--chdir=$root" \
    ${flag[partition]:+"--partition=${flag[partition]}"} \
    ${flag[account]:+"--account=${flag[account]}"} "${words[@]}" \
    "$root/launch/slurm_job.sh" "${flag[python]}" "--config=${flag[config]}" \
    "--workdir=${flag[workdir]}" "${extra[@]}"
}

case $verb in
  run) submit ;;
  status) run squeue --me "--name=$name" ;;
  # SIGTERM, then SIGKILL after the cluster's KillWait (30 s by default).
  stop) run scancel --me "--name=$name" ;;
esac
