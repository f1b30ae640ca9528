#!/usr/bin/env bash
# The batch script that slurm_prepare.sh submits, in an array:
# slurm_prepare_job.sh TASKS PYTHON FLAGS...
# It decodes its share of the files, of TASKS. Where TASKS is 0 it packs them,
# together with the others of its array.
set -euo pipefail
tasks=$1 python=$2
shift 2
if ((tasks)); then
  # Not SLURM_ARRAY_TASK_COUNT, which is less where some are submitted again.
  set -- "$@" "--config.prepare.tasks=$tasks" \
    "--config.prepare.task=$SLURM_ARRAY_TASK_ID"
fi
exec "$python" -m video_diffusion.main --mode=prepare "$@"
