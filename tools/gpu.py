"""What a GPU settles, in one command that may be cut at any moment and called again.

    python tools/gpu.py run [FOLDER] [--minutes 25] [--device cuda] [--autoattack CHECKOUT] [--packed FOLDER]
    python tools/gpu.py run FOLDER --rehearse   all of it on the CPU at tiny sizes, in a minute or two
    python tools/gpu.py collect [FOLDER]        what was found goes to robustnb/results and nbs/benchmarks/gpu.json
    python tools/gpu.py pack FOLDER             wheels and data for a machine that has torch and no network

The pieces run in order of value, each in a process of its own: tests and speed get eight minutes at most, training and experiments
go on where they were cut. On the disk is what is finished: the verdict of the tests, each row of the speed table, a checkpoint of
the training after each epoch, each job of an experiment.
CHECKOUT is a clone of fra31/auto-attack, whose code is imported from there and is no part of this project.
"""
import argparse, json, os, statistics, subprocess, sys, tarfile, time
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT/'tools')]
LONGEST = 8 # minutes that a piece gets
WHEELS = 'fastcore filelock pytest execnet pytest-xdist' # what a machine with torch and the usual scientific packages lacks
DATA = dict(cifar10=('cifar10-jpeg-train.npz', 'cifar10-jpeg-test.npz'), mnist=('MNIST', 'FashionMNIST'))
BENCHMARK = ROOT/'nbs'/'benchmarks'/'gpu.json'

def read(path): return json.loads(path.read_text()) if path.exists() else []

def write(path, rows):
    "Rows as a JSON file, whole or not at all"
    tmp = path.with_suffix('.tmp')
    tmp.write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')
    os.replace(tmp, path)

def about(a):
    "Where a number comes from"
    import torch
    from robustnb.evidence.store import provenance
    return provenance(torch.device(a.device)) | dict(date=str(date.today()), rehearsal=a.rehearse)

# The pieces: each is done when it returns, and goes on where it stopped when it is called again

def tests(a):
    "The tests marked gpu"
    report, files = a.out/'tests.xml', [p for p in sorted((ROOT/'tests').rglob('test_*.py')) if 'mark.gpu' in p.read_text()]
    cmd = [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', '-p', 'no:cacheprovider', *files]
    env = os.environ | dict(ROBUSTNB_GPU=a.device, PYTHONPATH=os.pathsep.join(sys.path[:2] + [os.environ.get('PYTHONPATH', '')]))
    subprocess.run([*cmd, f'--junitxml={report}'], cwd=ROOT, env=env)
    cases = list(ElementTree.parse(report).getroot().iter('testcase'))
    failed = [c.get('name') for c in cases if {t.tag for t in c} & {'failure', 'error'}]
    write(a.out/'tests.json', [dict(job='tests', passed=len(cases) - len(failed), failed=failed, about=about(a))])

def speed(a):
    "The speed table: each job ours and the peer's in turns, medians"
    from gpu_speed import clock, jobs
    path, where = a.out/'speed.json', about(a)
    for name, make in jobs(a.rehearse).items():
        if any(r['job'] == name for r in read(path)): continue
        sides = make(a.device)
        turns = [{s: clock(f, a.device) for s, f in sides.items()} for _ in range(2 if a.rehearse else 6)][1:] # the first warms up
        row = dict(job=name, **{s: statistics.median(t[s] for t in turns) for s in sides}, about=where)
        write(path, read(path) + [row])
        print(f"{name}: ours {row['ours']:.4g} s, peer {row['peer']:.4g} s", flush=True)

def cifar(a):
    "Adversarial training on CIFAR-10 by one-step attacks, then AutoAttack on 1,000 images"
    from robustnb.attacks.autoattack import autoattack
    from robustnb.data import load
    from robustnb.models import convnet, preact_resnet18
    from robustnb.robustness.baselines import Recipe, adversarial, fgsm_rs
    name, n = ('digits', 40) if a.rehearse else ('cifar10', 1000)
    model = (convnet((1, 8, 8), width=4) if a.rehearse else preact_resnet18()).to(a.device)
    recipe = Recipe(2, cycle=True, augment=None) if a.rehearse else Recipe(15, lr=.2, cycle=True)
    spent, start = a.out/'cifar_seconds.json', time.perf_counter()
    before = sum(read(spent))
    recipe.fit(model, load(name), adversarial(fgsm_rs(recipe.threat, precision='bf16')), device=a.device, precision='bf16',
               channels_last=True, checkpoint=a.out/'cifar.safetensors', progress=False,
               callback=lambda *_: write(spent, [before + time.perf_counter() - start]))
    data, attack = load(name, 'test').take(n), autoattack(recipe.threat)
    report = attack.report(model.eval(), data, state=a.out/'cifar_attack.safetensors', progress=False)
    row = dict(job=f'{data.name}, adversarial training and AutoAttack', n=n, training=sum(read(spent)), attack=sum(report.seconds.values()),
               accuracy=report.accuracy['clean'], robust=report.robust)
    if a.autoattack:
        from compare_autoattack import STANDARD, theirs
        from gpu_speed import clock
        x, y = data.x.float().to(a.device)/255, data.y.to(a.device)
        row['peer'] = clock(lambda: row.update(peer_x=theirs(a.autoattack, STANDARD, model, x, y, recipe.threat, 0)), a.device)
        row['peer_robust'] = (model(row.pop('peer_x')).argmax(1) == y).double().mean().item()
    write(a.out/'cifar.json', [row | dict(about=about(a))])
    print(report.verdict, flush=True)

def papers(a):
    "Experiments at scale paper, those with the most open claims first"
    from robustnb.evidence.ledger import find_papers
    from robustnb.evidence.runner import JobsFailed, open_comparisons, reproduce
    from robustnb.evidence.store import Store
    scale = 'tiny' if a.rehearse else 'paper'
    store = Store(a.out/'results', base=None if a.rehearse else ROOT/'robustnb'/'results')
    found = [p for p in find_papers().values() if scale in p.scales]
    found.sort(key=lambda p: -len({c.number for c, *_ in open_comparisons(p, scale, store)}))
    try: reproduce(found[:1] if a.rehearse else found, scale, store, device=a.device, minutes=a.minutes)
    except JobsFailed as e: print(e, flush=True) # the others are stored; the next call tries again

PIECES, SHORT = dict(tests=tests, speed=speed, cifar=cifar, papers=papers), ('tests', 'speed')

def run(a):
    "All pieces within the minutes there are"
    a.out.mkdir(parents=True, exist_ok=True)
    end, took = time.monotonic() + 60*a.minutes, {r['piece']: r['seconds'] for r in read(BENCHMARK) + read(a.out/'took.json') if 'piece' in r}
    done = lambda name: (a.out/f'{name}.done').exists()
    for name, piece in PIECES.items():
        known = f'{took[name]/60:.1f} minutes the last time' if name in took else f'at most {LONGEST} minutes' if name in SHORT else 'what is left'
        print(f"{name:8}{'done' if done(name) else known:30}{piece.__doc__}", flush=True)
    if a.packed: unpack(a.packed, a.out/'packed')
    for name in PIECES:
        left = end - time.monotonic()
        if done(name) or left < 20: continue
        start, limit = time.monotonic(), min(left, 60*LONGEST) if name in SHORT else left
        cmd = [sys.executable, __file__, name, a.out, '--device', a.device, '--minutes', (limit - 15)/60]
        cmd += ['--rehearse']*a.rehearse + ['--autoattack', a.autoattack]*bool(a.autoattack)
        try: code = subprocess.run([str(c) for c in cmd], timeout=limit).returncode
        except subprocess.TimeoutExpired: code = None
        seconds = time.monotonic() - start
        print(f"{name}: {'cut' if code is None else 'failed' if code else 'done'} after {seconds:.0f} s", flush=True)
        if code == 0:
            (a.out/f'{name}.done').touch()
            write(a.out/'took.json', read(a.out/'took.json') + [dict(piece=name, seconds=seconds)])
    return int(a.rehearse and not all(map(done, PIECES)))

def collect(a):
    "Store what a run has found, with its provenance"
    rows = [r for name in ('tests', 'speed', 'cifar', 'took') for r in read(a.out/f'{name}.json')]
    if not rows: raise SystemExit(f'{a.out} holds nothing that `run` has found')
    if any(r.get('about', {}).get('rehearsal') for r in rows): raise SystemExit(f'{a.out} holds a rehearsal, whose numbers mean nothing')
    from robustnb.evidence.store import Store, default_store
    here, there = Store(a.out/'results'), default_store()
    keys = sorted({path.stem for path in (a.out/'results').glob('*.json*')})
    results = [(key, r) for key in keys for r in here.jobs(key).values()]
    for key, r in results: there.save(key, r)
    there.close()
    write(BENCHMARK, [r for r in read(BENCHMARK) if r not in rows] + rows)
    print(f'{len(results)} results are stored, and {len(rows)} rows of the benchmark')

def pack(a):
    "What `run --packed` needs on a machine that has torch and no network: wheels, and two archives of at most 60 MB"
    from robustnb.data import data_dirs
    a.out.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', a.out, *WHEELS.split()], check=True)
    for name, parts in DATA.items():
        with tarfile.open(a.out/f'{name}.tar.xz', 'w:xz') as archive:
            for part in parts: archive.add(next(d/part for d in data_dirs() if (d/part).exists()), part)
        print(f'{name}.tar.xz: {(a.out/f"{name}.tar.xz").stat().st_size/1e6:.0f} MB')

def unpack(folder, to):
    "Data and wheels of a packed folder, where this process's children find them"
    if not to.exists():
        for path in folder.glob('*.tar.xz'): tarfile.open(path).extractall(to/'data', filter='data')
        wheels = sorted(folder.glob('*.whl'))
        subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-index', '--no-deps', '--target', to/'python', *wheels], check=True)
    os.environ |= dict(ROBUSTNB_DATA=str(to/'data'), PYTHONPATH=os.pathsep.join([str(to/'python'), os.environ.get('PYTHONPATH', '')]))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['run', 'collect', 'pack', *PIECES], metavar='run|collect|pack')
    p.add_argument('out', nargs='?', type=lambda s: Path(s).absolute(), default=ROOT/'runs'/'gpu', help='folder (default: runs/gpu)')
    p.add_argument('--minutes', type=float, default=25)
    p.add_argument('--device', default='cuda')
    p.add_argument('--autoattack', type=Path, metavar='CHECKOUT', help="of the authors' code: it attacks the trained model too")
    p.add_argument('--packed', type=Path, metavar='FOLDER', help='made by `pack`')
    p.add_argument('--rehearse', action='store_true', help='everything on the CPU at tiny sizes')
    a = p.parse_args()
    if a.rehearse: a.device = 'cpu'
    return (PIECES | dict(run=run, collect=collect, pack=pack))[a.what](a)

if __name__ == '__main__': sys.exit(main())
