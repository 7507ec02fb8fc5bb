"""Each attack of AutoAttack, and the ensemble, against the authors' implementation: `compare_autoattack.py CHECKOUT`.

CHECKOUT is a folder with a clone of fra31/auto-attack; its code is imported from there and is no part of this project.
The models are trained first, by this script, into runs/ (on one core: minutes for two of them, half an hour for the third).
One job is one attack of one side on one model, norm and seed. Finished jobs are kept in the output file, so the script can be
interrupted; the benchmark page reads that file. Jobs of both sides alternate, CPU seconds of the process are kept beside wall
time, and a shared machine disturbs the latter.
"""
import argparse, itertools, json, platform, subprocess, sys, time
from importlib.metadata import version
from pathlib import Path
import torch
from filelock import FileLock
from robustnb.attacks.gradient import pgd
from robustnb.attacks.threat_models import L1, L2, Linf
from robustnb.data import Batches, as_float, load
from robustnb.models import convnet, load_model, preact_resnet8, save_model
from robustnb.training import cross_entropy, fit, one_cycle

TARGETS = { # name: (data, model, attack in training, epochs, learning rate, training images, balls)
    'mnist adversarial': ('mnist', lambda: convnet((1, 28, 28), width=16), pgd(Linf(.3), 7, .075), 6, .1, 20000, (Linf(.3), L2(2.), L1(10.))),
    'cifar10 adversarial': ('cifar10', lambda: preact_resnet8(width=8), pgd(Linf(8/255), 1, 10/255), 8, .2, 50000, (Linf(8/255), L2(.5), L1(8.))),
    'cifar10 plain': ('cifar10', lambda: preact_resnet8(width=8), None, 6, .2, 25000, (Linf(1/255), L2(.1), L1(2.)))}
STANDARD = ('apgd-ce', 'apgd-t', 'fab-t', 'square')

def target(name):
    "The model called `name`, trained at the first call"
    path = Path('runs')/f"{name.replace(' ', '_')}.safetensors"
    if not path.exists():
        data, make, attack, epochs, lr, n, _ = TARGETS[name]
        torch.manual_seed(0)
        model = make()
        def loss(model, x, y): return cross_entropy(model, attack(model, x, y) if attack else x, y)
        batches = Batches(load(data, 'train', n=n), batch_size=128, shuffle=True, augment='crop_flip' if data == 'cifar10' else None, drop_last=True)
        opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=.9, weight_decay=5e-4, nesterov=True)
        fit(model, batches, loss, opt, epochs, schedule=one_cycle())
        save_model(model, path)
    return load_model(path).eval()

def theirs(checkout, attacks, model, x, y, threat, seed):
    "Examples of the authors' implementation for some of the attacks of its standard list"
    sys.path.insert(0, str(checkout))
    from autoattack import AutoAttack
    aa = AutoAttack(model, norm=type(threat).__name__, eps=threat.eps, version='standard', seed=seed, device='cpu', verbose=False)
    aa.attacks_to_run = list(attacks)
    return aa.run_standard_evaluation(x, y, bs=len(x))

def ours(attacks, model, x, y, threat, seed, futile):
    "Examples of this library for the same attacks, and the passes they took"
    from robustnb.attacks.autoattack import members
    x_adv, passes = x.clone(), 0
    with torch.no_grad(): holds = model(x).argmax(1) == y
    for name, attack in members(threat, 'standard', 10, seed, futile=futile).items():
        rows = holds.nonzero()[:, 0]
        if name not in attacks or not len(rows): continue
        found = attack.find(model, x[rows], y[rows])
        x_adv[rows[found.broken]] = found.x_adv[found.broken]
        holds[rows[found.broken]] = False
        passes += found.passes
    return x_adv, passes

def job(checkout, side, name, threat, attack, seed, n):
    "One measurement as a dict"
    torch.manual_seed(0)
    model, data = target(name), load(TARGETS[name][0], 'test', n=n)
    x, y, passes = as_float(data.x), data.y, None
    attacks = STANDARD if attack == 'ensemble' else (attack,)
    count = [0]
    watched = side == 'theirs' or attack not in ('square', 'ensemble')  # a hook would keep the windowed passes from being traced
    hook = model.register_forward_pre_hook(lambda m, args: count.__setitem__(0, count[0] + len(args[0]))) if watched else None
    wall, cpu = time.perf_counter(), time.process_time()
    if side == 'theirs': x_adv = theirs(checkout, attacks, model, x, y, threat, seed)
    else: x_adv, passes = ours(attacks, model, x, y, threat, seed, .6 if side == 'ours' else None)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if watched: hook.remove()
    with torch.no_grad(): right, left = (model(x).argmax(1) == y).sum().item(), (model(x_adv).argmax(1) == y).sum().item()
    worst = threat.norm(x_adv.double() - x.double()).max().item()
    return dict(model=name, threat=type(threat).__name__, eps=threat.eps, attack=attack, seed=seed, side=side, n=n, right=right, left=left,
                wall=wall, cpu=cpu, forwards=count[0] if watched else None, passes=passes, worst=worst, box=[x_adv.min().item(), x_adv.max().item()])

def about():
    "Where and with what this was measured"
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True).stdout.strip()
    cpu = next((l.split(':')[1].strip() for l in Path('/proc/cpuinfo').read_text().splitlines() if l.startswith('model name')), platform.processor())
    return dict(commit=commit, torch=version('torch'), cpu=cpu, threads=torch.get_num_threads(), date=time.strftime('%Y-%m-%d'))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('checkout', type=Path)
    p.add_argument('--out', type=Path, default=Path('nbs/benchmarks/autoattack.json'))
    p.add_argument('--n', type=int, default=200, help='test images')
    p.add_argument('--seeds', type=int, default=2)
    p.add_argument('--sides', default='theirs,ours,every', help="theirs; ours; every: ours with every iteration (futile=None)")
    p.add_argument('--only', default='', help='words that a job must contain, such as "Linf mnist"')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    jobs = [(s, name, t, a, seed) for i, seed, name, a, s in itertools.product(range(3), range(args.seeds), TARGETS, (*STANDARD, 'ensemble'), args.sides.split(','))
            for t in [TARGETS[name][-1][i]] if s != 'every' or a != 'square']
    key = lambda r: (r['side'], r['model'], r['threat'], r['attack'], r['seed'])
    lock = FileLock(str(args.out) + '.lock')
    read = lambda: json.loads(args.out.read_text()) if args.out.exists() else []
    for side, name, threat, attack, seed in jobs:
        label = ' '.join(map(str, (side, name, type(threat).__name__, attack, seed)))
        if not all(w in label for w in args.only.split()): continue
        with lock: done = {key(r) for r in read()}
        if (side, name, type(threat).__name__, attack, seed) in done: continue
        row = job(args.checkout, side, name, threat, attack, seed, args.n) | dict(about=about())
        with lock: args.out.write_text(json.dumps([*[r for r in read() if key(r) != key(row)], row], indent=0))
        print(f"{label}: {row['left']} of {row['right']} left, {row['cpu']:.1f} s", flush=True)

if __name__ == '__main__': main()
