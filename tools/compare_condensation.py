"""Condensed sets beside the published ones, ConvNet, one image per class: `compare_condensation.py [--measure N]`.

DC with 200 networks and DM with 1,000, 64 real images per class, where the authors take 1,000 and 20,000 networks and
256 images, which would take 3 and 27 core-hours a set. Beside them stand real images, chosen at random and by herding. All
sets are judged by networks that are trained on them from scratch, without augmentation for DC, with it for DM, and in
both ways for the real ones. One job is one set of one method, data set and seed. Finished jobs are kept in the output
file, and a condensation goes on from its checkpoint in runs/, so the script can be interrupted. `--measure N` runs N
iterations of each condensation instead, and prints what the whole would take.
"""
import argparse, itertools, json, time
from dataclasses import replace
from functools import partial
from pathlib import Path
import torch
from robustnb.data import load
from robustnb.evidence.store import device_name
from robustnb.merging.condensation import LESSON, accuracy_of, augmented, condense, coreset, instance_convnet

NORMALISED = {'mnist': (.1307, .3081), 'fashion': (.2861, .3530)}
ITERATIONS = {'dc': 200, 'dm': 1000}
INIT = {'dc': 'noise', 'dm': 'real'}  # the authors'
PUBLISHED = {('mnist', 'dc'): .917, ('fashion', 'dc'): .705}  # test accuracy, the authors' schedule
LESSONS = {'plain': LESSON, 'augmented': replace(LESSON, epochs=1000, augment=augmented())}
JUDGED = {'dc': ['plain'], 'dm': ['augmented']}

def condensed(data, name, method, seed, iterations=None, **kw):
    "The set of `method`, one image per class"
    if method not in ITERATIONS: return coreset(data, 1, method, seed=seed)
    return condense(data, method, 1, build_for(name), iterations or ITERATIONS[method], real=64, init=INIT[method],
                    seed=seed, progress=False, **kw)

def build_for(name):
    mean, std = NORMALISED[name]
    return partial(instance_convnet, mean=mean, std=std)

def job(name, method, seed, networks):
    "One set and how good it is, as a dict"
    start, path = time.process_time(), Path('runs')/f'condensed-{name}-{method}-{seed}.safetensors'
    path.parent.mkdir(exist_ok=True)
    more = dict(checkpoint=path) if method in ITERATIONS else {}
    small, test = condensed(load(name), name, method, seed, **more), load(name, 'test')
    spent = time.process_time() - start
    scores = {k: accuracy_of(small, test, build_for(name), LESSONS[k], range(networks))
              for k in JUDGED.get(method, LESSONS)}
    return dict(data=name, method=method, seed=seed, iterations=ITERATIONS.get(method, 0), accuracy=scores,
                published=PUBLISHED.get((name, method)), cpu=spent, device=device_name(torch.device('cpu')),
                threads=torch.get_num_threads(), torch=torch.__version__, date=time.strftime('%Y-%m-%d'))

def measure(name, method, n):
    "Prints the CPU seconds of an iteration, and of the whole condensation"
    data, spent = load(name), []
    for i in (1, 1 + n):
        start = time.process_time()
        condensed(data, name, method, 0, i)
        spent.append(time.process_time() - start)
    each = (spent[1] - spent[0])/n
    print(f'{name} {method}: {each:.2f} s an iteration, {each*ITERATIONS[method]/60:.0f} minutes in all', flush=True)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', nargs='+', default=list(NORMALISED), choices=list(NORMALISED))
    parser.add_argument('--methods', nargs='+', default=['random', 'herding', 'dc', 'dm'])
    parser.add_argument('--seeds', type=int, default=3, help='sets of each method')
    parser.add_argument('--networks', type=int, default=3, help='trained on each set')
    parser.add_argument('--measure', type=int, metavar='N', help='iterations to measure instead')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent.parent/'nbs'/'benchmarks'/'condensation.json')
    args = parser.parse_args()
    if args.measure:
        for name, method in itertools.product(args.data, [m for m in args.methods if m in ITERATIONS]):
            measure(name, method, args.measure)
        return
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    for seed, name, method in itertools.product(range(args.seeds), args.data, args.methods):
        if any((r['data'], r['method'], r['seed']) == (name, method, seed) for r in rows): continue
        rows.append(job(name, method, seed, args.networks))
        args.out.write_text(json.dumps(rows, indent=0) + '\n')
        print({k: rows[-1][k] for k in ('data', 'method', 'seed', 'accuracy', 'published', 'cpu')}, flush=True)

if __name__ == '__main__': main()
