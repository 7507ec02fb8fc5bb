"""Overhead of the places where jobs run: n jobs that sleep 0.1 s, by `--workers` and by `--on ray` on this machine alone.

Usage: python tools/compare_places.py [--n 1000] [--cores N]. Prints for each the seconds in all, those from the first
finished job to the last, and the latter divided by the ideal time on so many cores. The machine should be idle.
"""
import argparse, importlib, os, sys, tempfile, time
from pathlib import Path
from robustnb.evidence.runner import reproduce
from robustnb.evidence.store import Store

PAPER = '''
import time
from robustnb.evidence.claims import Claim
from robustnb.evidence.trials import Arm, Paper, Setting

def run(trial):
    time.sleep(.1)
    return dict(m=1.)

paper = Paper('sleepers', 'Jobs that sleep', 'Nobody', 2020, '', [Claim(1, 'b is more', 'm', 'b', ['a'])],
              dict(a=Arm(), b=Arm()), {('tiny', 'd'): Setting(None, 1, 1, 1)}, run)
'''

def seconds(paper, n, **place):
    "(seconds in all, from the first finished job to the last)"
    done, start = [], time.perf_counter()
    def say(text, done_=done, **kw):
        if 'done' in kw: done_.append(time.perf_counter())
    with tempfile.TemporaryDirectory() as at: reproduce(paper, store=Store(at), seeds=n // 2, device='cpu', say=say, **place)
    return time.perf_counter() - start, done[-1] - done[0]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=int, default=1000)
    p.add_argument('--cores', type=int, default=len(os.sched_getaffinity(0)))
    args = p.parse_args()
    os.environ['RAY_ADDRESS'] = 'local'
    with tempfile.TemporaryDirectory() as at:
        (Path(at)/'sleepers.py').write_text(PAPER)
        sys.path.insert(0, at)
        os.environ['PYTHONPATH'] = os.pathsep.join([at, *filter(None, [os.environ.get('PYTHONPATH')])])
        paper = importlib.import_module('sleepers').paper
        for name, place in (('workers', dict(workers=args.cores)), ('ray', dict(on='ray'))):
            whole, between = seconds(paper, args.n, **place)
            ideal = .1*(args.n - args.cores)/args.cores
            print(f'{name:8} {whole:6.1f} s in all, {between:6.1f} s from first to last: {between/ideal:.2f} of the ideal', flush=True)

if __name__ == '__main__': main()
