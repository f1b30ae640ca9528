#!/usr/bin/env bash
# The batch script that slurm.sh submits: slurm_job.sh PYTHON FLAGS...
set -uo pipefail
python=$1
shift
max_quick=5
# A failure before this counts as quick: more than JAX's wait for its peers.
quick_seconds=${QUICK_SECONDS:-600}
nodes=$SLURM_JOB_NUM_NODES

# Under SLURM JAX takes one GPU for a process; here a process has the node's.
if ((${SLURM_GPUS_ON_NODE:-0} > 0)); then
  JAX_LOCAL_DEVICE_IDS=$(seq -s , 0 $((SLURM_GPUS_ON_NODE - 1)))
  export JAX_LOCAL_DEVICE_IDS
fi
# srun does not take this over from sbatch.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] ||
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

quick=0
while :; do
  started=$SECONDS
  # The first process that ends must not take the others' checkpoint with it.
  srun "--ntasks=$nodes" --ntasks-per-node=1 --kill-on-bad-exit=0 \
    "$python" -m video_diffusion.main "$@" "--config.mesh.processes=$nodes"
  code=$?
  if ((code == 75)); then # saved after a signal: the time is up, so queue again
    echo "slurm_job.sh: exit code 75; back into the queue." >&2
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
  ((SECONDS - started < quick_seconds)) || quick=0
  if ((code == 130 || code < 128 || ++quick > max_quick)); then
    echo "slurm_job.sh: training ended with exit code $code." >&2
    exit "$code"
  fi
  echo "slurm_job.sh: exit code $code; starting again." >&2
done
