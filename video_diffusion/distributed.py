"""One program over several processes: who takes part, and how many must."""
import glob
import importlib.util
import os

from absl import logging
import jax

from video_diffusion.errors import UserError


def initialize(
    coordinator: str = '',
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
  """Joins the other processes, before any device is used.

  Cloud TPU VMs, GKE and SLURM say by themselves who takes part; anywhere else
  the three arguments do. One process without them stays alone.

  Args:
    coordinator: 'HOST:PORT' of process 0, the same in every process.
    num_processes: in all.
    process_id: of this one, from 0.

  Raises:
    UserError: arguments that do not fit together.
  """
  given = (bool(coordinator), num_processes is not None, process_id is not None)
  if any(given) and not all(given):
    raise UserError(
        '--coordinator, --num_processes and --process_id belong together; pass '
        'all three, or none on Cloud TPU, GKE and SLURM.'
    )
  if coordinator:
    host, _, port = coordinator.rpartition(':')
    if not (host and port.isdigit()):
      raise UserError(f'--coordinator is {coordinator!r}; it is HOST:PORT.')
    if not 0 <= process_id < num_processes:
      raise UserError(
          f'--process_id is {process_id}; it is from 0 to below '
          f'--num_processes, {num_processes}.'
      )
    jax.distributed.initialize(coordinator, num_processes, process_id)
  elif on_cluster():
    jax.distributed.initialize()


def on_cluster() -> bool:
  """Whether the environment names a cluster that JAX can read."""
  if int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1:
    return True
  if 'tpu' not in os.environ.get('JAX_PLATFORMS', 'tpu'):
    return False
  tpu = glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*')
  return bool(tpu) and importlib.util.find_spec('libtpu') is not None


def check(processes: int) -> None:
  """Reports the devices, and refuses to work in a smaller group than meant.

  Args:
    processes: how many there must be; 0 takes what there is.

  Raises:
    UserError: there are not so many.
  """
  logging.info(
      'Process %d of %d, %d of %d devices (%s).',
      jax.process_index(),
      jax.process_count(),
      jax.local_device_count(),
      jax.device_count(),
      jax.devices()[0].device_kind,
  )
  if processes and jax.process_count() != processes:
    raise UserError(
        f'mesh.processes is {processes}, but this process finds '
        f'{jax.process_count()}; start {processes} that find each other (on '
        'Cloud TPU, GKE or SLURM, or by --coordinator), or set it to 0.'
    )
