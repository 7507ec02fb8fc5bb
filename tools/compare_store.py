"""Seconds to store n results one by one: by the store's lines, and by rewriting one JSON file for each, as it was before.

Usage: python tools/compare_store.py [--n 1000 10000 100000] [--dir DIR]. DIR should be on the disk that results go to:
half the time and more is the disk's own, since each result is on it before the next one begins. Above `--most` results
the old way is left out, and what is in `--out` already is not measured again.
"""
import argparse, json, os, tempfile, time
from pathlib import Path
import torch
from robustnb.evidence.store import Store, job_of, provenance

def results(n):
    about = provenance(torch.device('cpu'))
    for s in range(n):
        yield dict(scale='tiny', dataset='d', arm='a', values={}, seed=s, stage='final', version=1, setting='',
                   metrics={'accuracy': s/n}, seconds=1., cpu=1., date='2026-01-01T00:00:00+00:00') | about

def lines(at, rows):
    "As `reproduce` does it: ask for each job whether it is stored, store it, merge at the end"
    store = Store(at)
    for r in rows:
        if store.get('p', job_of(r)) is None: store.save('p', r)
    store.close()

def rewritten(at, rows):
    "The whole file is read and written for each result"
    for r in rows:
        held = json.loads((at/'p.json').read_text())['jobs'] if (at/'p.json').exists() else []
        held = {job_of(h): h for h in (*held, r)}
        text = ',\n'.join(json.dumps(held[j]) for j in sorted(held))
        with open(at/'p.json.new', 'w') as f:
            f.write(f'{{"paper": "p", "jobs": [\n{text}\n]}}\n'); f.flush(); os.fsync(f.fileno())
        os.replace(at/'p.json.new', at/'p.json')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=Path('nbs/benchmarks/store.json'))
    p.add_argument('--n', type=int, nargs='+', default=[100, 300, 1000, 3000, 10_000, 30_000, 100_000])
    p.add_argument('--most', type=int, default=1000, help='results for which the old way is measured (default: 1000)')
    p.add_argument('--dir', type=Path, default='.', help='where the files are made (default: the current folder)')
    args = p.parse_args()
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    for way, n in [(w, n) for w in (rewritten, lines) for n in args.n if w is lines or n <= args.most]:
        if any((r['way'], r['n']) == (way.__name__, n) for r in rows): continue
        with tempfile.TemporaryDirectory(dir=args.dir) as at:
            start = time.perf_counter()
            way(Path(at), results(n))
            rows.append(dict(way=way.__name__, n=n, seconds=round(time.perf_counter() - start, 3)))
        print(rows[-1], flush=True)
        args.out.write_text(json.dumps(rows, indent=0) + '\n')

if __name__ == '__main__': main()
