#!/usr/bin/env bash
# The batch script that slurm_prepare.sh submits:
# slurm_prepare_job.sh TASKS PYTHON FLAGS...
# A task of the array decodes its share of the files; the job that is none
# packs them.
set -euo pipefail
tasks=$1 python=$2
shift 2
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  # Not SLURM_ARRAY_TASK_COUNT, which is less where some are submitted again.
  set -- "$@" "--config.prepare.tasks=$tasks" \
    "--config.prepare.task=$SLURM_ARRAY_TASK_ID"
fi
exec "$python" -m video_diffusion.main --mode=prepare "$@"
