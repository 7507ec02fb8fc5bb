"""Processes for the system tests: forked from one that has done the imports, alone or as a pair that computes together"""
import multiprocessing, os, socket, sys
from pathlib import Path
import torch
from robustnb.cli import main

MODULES = ['pytest', 'accelerate', 'robustnb.attacks.scorecard', 'robustnb.cli', 'robustnb.robustness.sovr', 'sklearn.datasets', 'torchvision.transforms',
           'torch._dynamo'] # the first step of an optimiser imports it, which takes longer than torch itself
CONTEXT = multiprocessing.get_context('forkserver')

def fork(target, *args):
    "A process that calls `target`, a function of a module"
    CONTEXT.set_forkserver_preload(MODULES)
    p = CONTEXT.Process(target=target, args=args)
    p.start()
    return p

def settle(at, env):
    "What a forked process does first: its folder, where its own modules are found too, its environment, one thread"
    os.chdir(at)
    sys.path.insert(0, str(at))
    os.environ.update(env)
    torch.set_num_threads(1)

def _command(at, argv, env):
    settle(at, env)
    with open(f'{at}.out', 'w') as sys.stdout, open(f'{at}.err', 'w') as sys.stderr: sys.exit(main(argv))

def command(at, *argv, **env):
    "A process with the command `robustnb` in the folder `at`"
    return fork(_command, at, argv, env)

def finish(at, p, seconds=300):
    "Exit status of such a process, and what it has printed"
    p.join(seconds)
    return p.exitcode, *(Path(f'{at}.{kind}').read_text() for kind in ('out', 'err'))

def free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]

def _member(at, env, target, args):
    settle(at, env)
    target(*args)

def pair(at, target, *args):
    "Call `target` in two processes that find each other, as a launcher would start them"
    both = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2')
    members = [fork(_member, at, both | dict(RANK=str(i), LOCAL_RANK=str(i)), target, args) for i in range(2)]
    for p in members:
        p.join(300)
        assert p.exitcode == 0, f'a process ended with {p.exitcode}'

def launched(script, *args):
    "The command that starts two processes by accelerate's own launcher"
    # its `--cpu` starts several processes by MPI only; `--multi_gpu` means its torchrun, and `Accelerator(cpu=True)` makes that gloo on CPUs
    return [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1', '--mixed_precision', 'no',
            '--dynamo_backend', 'no', '--main_process_port', str(free_port()), script, *args]
