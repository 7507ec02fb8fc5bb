"""Condensed sets beside the published ones: `compare_condensation.py [--per-class N] [--network mlp] [--measure N]`.

DC with 200 networks and DM with 1,000, 64 real images per class, where the authors take 1,000 and 20,000 networks and
256 images, which with the ConvNet and one image per class would take 3 and 27 core-hours a set. Beside them stand real
images, chosen at random and by herding. All sets are judged by networks that are trained on them from scratch, with
augmentation and but for DM without it too. The authors judged DC on Fashion-MNIST without, on MNIST with augmentation:
crop, scale or a rotation by up to 45 degrees, drawn for each image; here it is crop, cutout, scale or a rotation by up
to 15 degrees, drawn for each batch. One job is one set of one method, data set and seed. Finished jobs are kept in the
output file, and a condensation goes on from its checkpoint in runs/, so the script can be interrupted, and several may
run at once. `--measure N` runs N iterations of each condensation instead, and prints what the whole would take.
"""
import argparse, itertools, json, os, time
from dataclasses import replace
from functools import partial
from pathlib import Path
import torch
from filelock import FileLock, Timeout
from robustnb.data import load
from robustnb.evidence.store import device_name
from robustnb.merging.condensation import LESSON, accuracy_of, augmented, condense, coreset, instance_convnet
from robustnb.models import mlp

NORMALISED = {'mnist': (.1307, .3081), 'fashion': (.2861, .3530)}
ITERATIONS = {'dc': 200, 'dm': 1000}
INIT = {'dc': 'noise', 'dm': 'real'}  # the authors'
# test accuracy of the ConvNet with the authors' schedule, by images per class
PUBLISHED = {('mnist', 'dc', 1): .917, ('mnist', 'dc', 10): .974, ('fashion', 'dc', 1): .705, ('fashion', 'dc', 10): .823}
LESSONS = {'plain': LESSON, 'augmented': replace(LESSON, epochs=1000, augment=augmented())}
JUDGED = {'dm': ['augmented']}

def build_for(name, network):
    mean, std = NORMALISED[name]
    return partial(instance_convnet, mean=mean, std=std) if network == 'convnet' else partial(
        mlp, hidden=(128, 128), mean=mean, std=std, he=False)    # both are the authors'

def condensed(data, name, method, seed, args, iterations=None, **kw):
    "The set of `method`"
    if method not in ITERATIONS: return coreset(data, args.per_class, method, seed=seed)
    return condense(data, method, args.per_class, build_for(name, args.network), iterations or networks(method, args),
                    real=64, init=INIT[method], seed=seed, progress=False, **kw)

def networks(method, args): return (args.iterations or ITERATIONS[method]) if method in ITERATIONS else 0

def described(name, method, seed, args):
    "What tells one job from another"
    return dict(data=name, method=method, seed=seed, per_class=args.per_class, network=args.network,
                iterations=networks(method, args))

def job(about, checkpoint, args):
    "One set and how good it is, as a dict"
    start, (name, method, seed) = time.process_time(), [about[k] for k in ('data', 'method', 'seed')]
    more = dict(checkpoint=checkpoint) if method in ITERATIONS else {}
    small, test = condensed(load(name), name, method, seed, args, **more), load(name, 'test')
    spent = time.process_time() - start
    scores = {k: accuracy_of(small, test, build_for(name, args.network), LESSONS[k], range(args.networks))
              for k in JUDGED.get(method, LESSONS)}
    published = PUBLISHED.get((name, method, args.per_class)) if args.network == 'convnet' else None
    return about | dict(accuracy=scores, published=published, cpu=spent, device=device_name(torch.device('cpu')),
                        threads=torch.get_num_threads(), torch=torch.__version__, date=time.strftime('%Y-%m-%d'))

def stored(path): return json.loads(path.read_text()) if path.exists() else []

def add(row, path):
    "Keep a row, whatever other processes have added meanwhile"
    with FileLock(f'runs/{path.name}.lock'):
        new = path.with_suffix('.new')
        new.write_text(json.dumps(stored(path) + [row], indent=0) + '\n')
        os.replace(new, path)

def measure(name, method, n, args):
    "Prints the CPU seconds of an iteration, and of the whole condensation"
    data, spent = load(name), []
    for i in (1, 1 + n):
        start = time.process_time()
        condensed(data, name, method, 0, args, i)
        spent.append(time.process_time() - start)
    each = (spent[1] - spent[0])/n
    print(f'{name} {method}: {each:.2f} s an iteration, {each*networks(method, args)/60:.0f} minutes in all', flush=True)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', nargs='+', default=list(NORMALISED), choices=list(NORMALISED))
    parser.add_argument('--methods', nargs='+', default=['random', 'herding', 'dc', 'dm'])
    parser.add_argument('--per-class', type=int, default=1, help='images of each class')
    parser.add_argument('--network', default='convnet', choices=['convnet', 'mlp'], help='that condenses and is trained')
    parser.add_argument('--iterations', type=int, help='networks of each condensation in place of 200 and 1,000')
    parser.add_argument('--seeds', type=int, default=3, help='sets of each method')
    parser.add_argument('--networks', type=int, default=3, help='trained on each set')
    parser.add_argument('--measure', type=int, metavar='N', help='iterations to measure instead')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent.parent/'nbs'/'benchmarks'/'condensation.json')
    args = parser.parse_args()
    if args.measure:
        for name, method in itertools.product(args.data, [m for m in args.methods if m in ITERATIONS]):
            measure(name, method, args.measure, args)
        return
    Path('runs').mkdir(exist_ok=True)
    for seed, name, method in itertools.product(range(args.seeds), args.data, args.methods):
        about = described(name, method, seed, args)
        state = Path('runs')/('condensation-' + '-'.join(map(str, about.values())) + '.safetensors')
        try:
            with FileLock(f'{state}.lock', timeout=0):    # another process may have it
                if any(about.items() <= r.items() for r in stored(args.out)): continue
                row = job(about, state, args)
                add(row, args.out)
        except Timeout: continue
        print(about | {k: row[k] for k in ('accuracy', 'published', 'cpu')}, flush=True)

if __name__ == '__main__': main()
