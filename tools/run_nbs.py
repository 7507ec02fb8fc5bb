"""Execute notebooks and store their outputs: one kernel each, progress per cell, partial outputs kept on failure.

Needs nbclient and ipykernel only. Cells marked `#| notest`, `#| slow` or `#| gpu` are left out, but for those of `--flags`.
Pictures are stored with 256 colours, which look the same at a third of the size.
With the outputs goes the fingerprint of the code that they come from, by which `--pick` finds what has to be run:
`stale`, the notebooks whose outputs come from other code; `due`, these and a sample of the others, which changes with
each commit, without the benchmarks, which take long and tell nothing beside other work; `all`. Jupyter's own copies,
below .ipynb_checkpoints, are left out.

Usage: python tools/run_nbs.py [--timeout S] [--minutes M] [--flags gpu,slow] [--no-save] [--jobs N] (NB... | --pick all|stale|due)
"""
import argparse, base64, hashlib, io, os, subprocess, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from PIL import Image
from fingerprint import KEY, fingerprint, out_of_step
from nbcells import checkpoint, directives, skipped

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = 6  # notebooks of a sample
KERNEL = {'kernelspec': dict(name='python3', display_name='python3', language='python')}

def pick(which, root, commit):
    "Notebooks of the checkout `root` that are to be run, see above; `commit` decides on the sample"
    nbs = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not checkpoint(p))
    if which == 'all': return nbs
    if which == 'due': nbs = [p for p in nbs if p.parent.name != 'benchmarks']
    stale = [p for p in nbs if out_of_step(nbformat.read(p, 4), root)]
    if which == 'stale': return stale
    lot = lambda p: hashlib.sha256(f'{p.relative_to(root).as_posix()} {commit}'.encode()).digest()
    return stale + sorted(set(nbs) - set(stale), key=lot)[:SAMPLE]

def head(root):
    "The commit that is checked out; '' where there is none"
    return subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=root, capture_output=True, text=True).stdout.strip()

def first_line(cell):
    "First line of code in a cell, cut to a report's width"
    return directives(cell.source)[1].partition('\n')[0][:60]

def client(nb, folder, timeout):
    "Client for `nb` whose kernel talks over unix sockets: no network, not even loopback"
    sockets = os.path.join(tempfile.mkdtemp(), 'k')
    km = AsyncKernelManager(kernel_name='python3', transport='ipc', ip=sockets)
    res = NotebookClient(nb, km=km, timeout=timeout, resources={'metadata': {'path': str(folder)}})
    res.owns_km = True  # shut the kernel down at the end
    return res

def environment(jobs):
    "The kernels' environment: this checkout's package first, and the cores shared among `jobs` kernels"
    path = os.pathsep.join([str(ROOT)] + ([os.environ['PYTHONPATH']] if os.environ.get('PYTHONPATH') else []))
    threads = {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1)//jobs))} if jobs > 1 else {}
    return {**os.environ, **threads, 'PYTHONPATH': path, 'IN_TEST': '1'}

def skips(error):
    "Whether a cell stopped at pytest's skip: what it needs is not installed, which is no failure here either"
    return getattr(error, 'ename', '') == 'Skipped'

def lighter(png):
    "A picture, base64, with the 256 colours that serve it best, where that makes it smaller"
    picture, out = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    if picture.mode == 'P' or picture.mode == 'RGBA' and picture.getextrema()[3][0] < 255: return png
    picture.convert('RGB').quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(out, 'png', optimize=True)
    small = base64.b64encode(out.getvalue()).decode()
    return min(png, small, key=len)

def tidy(nb):
    "Drop execution counts and foreign metadata, so that the outputs are all that changes, and make pictures light"
    nb.metadata = {**KERNEL}
    for c in nb.cells:
        if c.cell_type == 'code': c.execution_count, c.metadata = None, {k: v for k, v in c.metadata.items() if k in ('tags', 'mystnb')}
        for o in c.get('outputs', []):
            if 'execution_count' in o: o['execution_count'] = None
            if 'image/png' in o.get('data', {}): o.data['image/png'] = lighter(o.data['image/png'])

def run(path, timeout, force, save, jobs=1, until=float('inf')):
    "Execute one notebook within `timeout` seconds, `force` being the flags to run all the same; returns whether it went well. After `until` it is left"
    nb, start, err, name = nbformat.read(path, 4), time.time(), None, path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    if start > until:
        print(f'left, for want of time: {name}', flush=True)
        return True
    todo = [c for c in nb.cells if c.cell_type == 'code' and c.source.strip() and not skipped(c, force)]
    code = fingerprint(nb, ROOT)  # before it is run: what changes meanwhile is not behind the outputs
    nbc = client(nb, path.parent, timeout)
    with nbc.setup_kernel(env=environment(jobs)):
        for n, cell in enumerate(todo, 1):
            t = time.time()
            nbc.timeout = max(1, int(timeout - (t - start)))  # the limit is for the whole notebook
            try: nbc.execute_cell(cell, nb.cells.index(cell))
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
                if skips(e): cell.outputs = []
                else: err = e
            if time.time() - t > 1 or err: print(f'  {path.name} [{n}/{len(todo)}] {time.time() - t:6.1f}s  {first_line(cell)}', flush=True)
            if err: break
    tidy(nb)
    if not err: nb.metadata[KEY] = code
    if save: nbformat.write(nb, path)
    print(f"{'FAIL' if err else 'ok  '} {time.time() - start:6.1f}s {name}", flush=True)
    if err: print(str(err)[-3000:], file=sys.stderr, flush=True)
    return err is None

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('nbs', nargs='*', type=Path)
    p.add_argument('--pick', choices=['all', 'stale', 'due'], help='run these notebooks of the checkout')
    p.add_argument('--timeout', type=int, default=600, help='seconds for each notebook')
    p.add_argument('--minutes', type=float, default=float('inf'), help='begin no notebook later than this')
    p.add_argument('--flags', default='', help='cells to run all the same, for instance gpu,slow')
    p.add_argument('--jobs', type=int, default=1, help='notebooks at a time')
    p.add_argument('--no-save', dest='save', action='store_false', help='leave the files as they are')
    a = p.parse_args()
    if bool(a.nbs) == bool(a.pick): p.error('name notebooks, or let them be picked by --pick')
    nbs = pick(a.pick, ROOT, head(ROOT)) if a.pick else [f.resolve() for f in a.nbs if not checkpoint(f.resolve())]
    work = partial(run, timeout=a.timeout, force=set(a.flags.split(',')), save=a.save, jobs=a.jobs, until=time.time() + 60*a.minutes)
    with ProcessPoolExecutor(a.jobs) as pool: ok = list(pool.map(work, nbs))
    sys.exit(not all(ok))
