"""python -m video_diffusion.main --config=NAME[:VARIANT] [--mode=MODE]."""
from absl import app
from absl import flags as absl_flags

from video_diffusion.config import answers
from video_diffusion.config import flags
from video_diffusion.config import startup
from video_diffusion.errors import naming

# Arguments of `distributed.check` -> where they are set.
_OF_PROCESSES = {'processes': 'mesh.processes', 'coordinator': '--coordinator'}

# --help of this module shows them.
absl_flags.adopt_module_key_flags(flags)


def main(argv: list[str]) -> None:
  """Runs the mode that the flags ask for.

  An error that a person can mend is shown as one sentence.

  Args:
    argv: not used; `flags.parse` has parsed it.
  """
  del argv
  startup.prepare_process()
  with answers.answered(flags.workdir()):
    run(flags.command())


def run(command: flags.Command) -> None:
  """Runs one mode."""
  # Imported here: a wrong flag is answered at once.
  import jax

  from video_diffusion import distill
  from video_diffusion import evaluate
  from video_diffusion import inspect
  from video_diffusion import prepare
  from video_diffusion import sample
  from video_diffusion import serve
  from video_diffusion import train
  from video_diffusion.parallel import distributed
  from video_diffusion.training import preemption

  jax.config.update('jax_compilation_cache_dir', command.compilation_cache)
  watch = preemption.Preemption()
  # One process runs the others.
  if command.mode in ('train', 'distill', 'sample', 'evaluate'):
    with naming(lambda name: f'--{name}'):
      distributed.initialize(
          command.coordinator, command.num_processes, command.process_id
      )
    with naming(_OF_PROCESSES.get):
      distributed.check(command.config.mesh.processes)
  watch.start()  # after jax.distributed, which takes SIGTERM as well
  match command.mode:
    case 'train':
      train.train(command.config, command.workdir, watch)
    case 'distill':
      distill.distill(command.config, command.workdir, watch)
    case 'sample':
      sample.sample(command.overrides, command.workdir, command.step)
    case 'evaluate' if command.samples:
      evaluate.evaluate_folders(
          command.config, command.samples, command.reference, command.workdir
      )
    case 'evaluate':
      evaluate.evaluate(
          command.workdir, command.overrides, step=command.step
      )
    case 'prepare':
      prepare.prepare(command.config, command.workdir)
    case 'inspect':
      inspect.inspect(command.config, command.workdir)
    case 'serve':
      serve.serve(
          command.overrides, command.workdir, watch, port=command.port,
          step=command.step,
      )


if __name__ == '__main__':
  app.run(main, flags_parser=flags.parse)
