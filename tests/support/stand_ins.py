"""A PATH on which every command that could reach a cluster is a stand-in.

`Stage` makes a folder of stand-ins and of links to the coreutils that launch/
needs, and runs a script with that folder alone as its PATH. A stand-in writes
down how it was called and answers from a list; gcloud's ssh and scp act on
folders that play the workers' home directories.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.waiting import LIMIT

LAUNCH = ROOT / 'launch'
STAND_INS = (
    'gcloud git python3 pip python xpk squeue sbatch scancel srun scontrol'
).split()
ABSENT = 'ssh scp kubectl docker gsutil curl wget'.split()
COREUTILS = (
    'bash cat date dirname flock gzip mkdir mktemp paste readlink rm seq setsid'
    ' sleep sort tail tar touch true'
).split()

STAND_IN = r'''
import io, json, os, pathlib, shutil, subprocess, sys, tarfile
name, args = os.path.basename(sys.argv[0]), sys.argv[1:]
line = ' '.join([name, *args])
calls = pathlib.Path(os.environ['STAGE'], 'calls')
earlier = calls.read_text().splitlines() if calls.exists() else []
with calls.open('a') as file:
  file.write(json.dumps([name, *args]) + '\n')
for pattern, answers in json.loads(os.environ['ANSWERS']):
  if pattern in line:
    before = sum(pattern in ' '.join(json.loads(call)) for call in earlier)
    text, code = answers[min(before, len(answers) - 1)]
    print(text)
    sys.exit(code)
for path in (arg[9:] for arg in args if arg.startswith('--output=/')):
  if name == 'git':
    with tarfile.open(path, 'w:gz') as archive:
      archive.addfile(tarfile.TarInfo('from_archive'), io.BytesIO())
if name == 'git' and args[0] == 'clone':
  os.mkdir(args[-1])
if name == 'python3' and 'venv' in args:
  os.makedirs('venv/bin', exist_ok=True)
  shutil.copy(os.environ['STAGE'] + '/training', 'venv/bin/python')
flags = dict(arg.partition('=')[::2] for arg in args)
workers = sorted(pathlib.Path(os.environ['STAGE']).glob('worker*'))
if flags.get('--worker', 'all') != 'all':
  workers = workers[int(flags['--worker']):][:1]
worst = 0
for home in workers if name == 'gcloud' else ():
  if args[3] == 'scp':
    for source in args[4:args.index('video-diffusion:')]:
      shutil.copy(source, home)
  elif args[3] == 'ssh':
    worst = max(worst, subprocess.run(
        ['bash', '-c', flags['--command']], cwd=home,
        env={**os.environ, 'HOME': str(home)}).returncode)
sys.exit(worst)
'''

# Stands for training: does what the plan's next line says, the last for ever.
TRAINING = r'''#!/bin/bash
printf '%s\n' "$@" >"$HOME/args"
echo run >>"$HOME/runs"
mapfile -t plan <"$HOME/plan"
mapfile -t runs <"$HOME/runs"
i=$((${#runs[@]} - 1))
((i < ${#plan[@]})) || i=$((${#plan[@]} - 1))
case ${plan[i]} in
  wait) trap 'sleep 0.2; exit 75' TERM; echo up >"$HOME/up"
        while :; do sleep 0.05; done ;;
  *) exit "${plan[i]}" ;;
esac
'''


class Stage:

  def __init__(self, folder: pathlib.Path, workers: int = 0):
    self.folder = folder
    self.bin = folder / 'bin'
    self.bin.mkdir()
    for name in STAND_INS:
      self._write(self.bin / name, f'#!{sys.executable} -SE\n{STAND_IN}')
    for name in COREUTILS:
      (self.bin / name).symlink_to(shutil.which(name))
    self._write(folder / 'training', TRAINING)
    self.workers = [folder / f'worker{i}' for i in range(workers)]
    for home in self.workers:
      home.mkdir()
      self.plan('wait', home=home)
    self.home = folder / 'home'
    self.home.mkdir()

  def _write(self, path, text):
    path.write_text(text)
    path.chmod(0o755)

  def plan(self, *lines, home=None):
    home = home or self.home
    (home / 'plan').write_text('\n'.join(lines) + '\n')
    (home / 'runs').unlink(missing_ok=True)

  def run(self, script, *args, answers=(), env=None, cwd=None):
    """-> (exit code, standard output, standard error) of launch/SCRIPT."""
    path = str(self.bin)
    for name in (*STAND_INS, *ABSENT):
      found = shutil.which(name, path=path)
      assert found is None or not os.path.islink(found), f'the real {name}'
      assert (found is None) == (name in ABSENT), name
    done = subprocess.run(
        [LAUNCH / script, *args],
        env={
            'PATH': path,
            'HOME': str(self.home),
            'STAGE': str(self.folder),
            'ANSWERS': json.dumps(list(answers)),
            **(env or {}),
        },
        cwd=cwd or self.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout, done.stderr

  def calls(self):
    """The commands since the last look, as lists of words."""
    path = self.folder / 'calls'
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]

  def close(self):
    """Ends whatever the workers still run."""
    for home in (self.home, *self.workers):
      pid = home / 'video_diffusion' / 'pid'
      if pid.exists() and pid.read_text().strip():
        try:
          os.killpg(int(pid.read_text()), signal.SIGKILL)
        except ProcessLookupError:
          pass
