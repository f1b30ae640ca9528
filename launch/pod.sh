#!/usr/bin/env bash
# One pod of the workload that xpk.sh creates: pod.sh NUM_SLICES FLAGS...
set -euo pipefail
slices=$1
shift
# The names of a slice's hosts, as GKE gives them to its pods (and as JAX reads
# them). Without them JAX would take the pod for a machine of its own.
names=${TPU_PROCESS_ADDRESSES:-${TPU_WORKER_HOSTNAMES:-}}
if [[ -z $names ]]; then
  echo 'pod.sh: TPU_WORKER_HOSTNAMES is not set; is this a TPU pod of GKE?' >&2
  exit 1
fi
IFS=, read -ra hosts <<<"$names"
pip install --quiet -e '.[tpu]'
exec python -m video_diffusion.main "$@" \
  "--config.mesh.processes=$((${#hosts[@]} * slices))"
