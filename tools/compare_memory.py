"""Peak memory of each attack of AutoAttack, ours and the authors' implementation: `compare_memory.py CHECKOUT` (Linux only).

CHECKOUT is as for compare_autoattack.py, which trains the models. Every measurement is a process of its own, with few iterations:
memory does not grow with them. What counts is the highest resident memory above that before the attack, with an allocator told to
give every block of a megabyte back at once, so that the peak is memory in use.
"""
import argparse, itertools, json, os, subprocess, sys
from pathlib import Path
import torch
from compare_autoattack import STANDARD, TARGETS, about, target
from robustnb.attacks.apgd import apgd
from robustnb.attacks.fab import fab
from robustnb.attacks.square import square
from robustnb.data import as_float, load

def resident(field):
    "A field of this process's status, in megabytes"
    return next(int(l.split()[1])/1024 for l in Path('/proc/self/status').read_text().splitlines() if l.startswith(field))

def theirs(checkout, attack, model, x, y, threat):
    sys.path.insert(0, str(checkout))
    from autoattack import AutoAttack
    aa = AutoAttack(model, norm=type(threat).__name__, eps=threat.eps, version='standard', seed=0, device='cpu', verbose=False)
    aa.attacks_to_run, aa.square.n_queries = [attack], 200
    aa.apgd.n_iter = aa.apgd_targeted.n_iter = aa.fab.n_iter = 10
    aa.apgd_targeted.n_target_classes = aa.fab.n_target_classes = 2
    return lambda: aa.run_standard_evaluation(x, y, bs=len(x))

def ours(checkout, attack, model, x, y, threat):
    attack = {'apgd-ce': lambda: apgd(threat, 10), 'apgd-t': lambda: apgd(threat, 10, targets=2), 'fab-t': lambda: fab(threat, 10, targets=2),
              'square': lambda: square(threat, 200)}[attack]()
    return lambda: attack(model, x, y)

def measure(checkout, side, name, attack, n):
    "Megabytes above the start"
    torch.set_num_threads(1)
    model, data = target(name), load(TARGETS[name][0], 'test', n=n)
    x, y = as_float(data.x), data.y
    run = dict(theirs=theirs, ours=ours)[side](checkout, attack, model, x, y, TARGETS[name][-1][0])
    with torch.no_grad(): model(x[:2])
    before = resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # the peak is counted from here on
    run()
    return resident('VmHWM') - before

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('checkout', type=Path)
    p.add_argument('--out', type=Path, default=Path('nbs/benchmarks/memory.json'))
    p.add_argument('--n', type=int, nargs='+', default=[200], help='test images')
    p.add_argument('--job', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.job: return print(measure(args.checkout, *json.loads(args.job)))
    rows, env = json.loads(args.out.read_text()) if args.out.exists() else [], os.environ | dict(MALLOC_MMAP_THRESHOLD_=str(2**20), MALLOC_MMAP_MAX_='1000000')
    for job in itertools.product(('theirs', 'ours'), TARGETS, STANDARD, args.n):
        row = dict(zip(('side', 'model', 'attack', 'n'), job))
        if any(row.items() <= r.items() for r in rows): continue
        out = subprocess.run([sys.executable, __file__, str(args.checkout), '--job', json.dumps(job)], env=env, capture_output=True, text=True, check=True)
        rows.append(row | dict(megabytes=float(out.stdout.split()[-1]), about=about()))
        args.out.write_text(json.dumps(rows, indent=0))
        print(*job, f'{rows[-1]["megabytes"]:.0f} MB', flush=True)

if __name__ == '__main__': main()
