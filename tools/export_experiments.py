"""Write the experiments of the papers: cells `#| experiment` of nbs/<family>/NN_<key>.ipynb make robustnb/experiments/<key>.py.

nbdev's own `#| export some.module` only appends to a module that exists. Run this before `nbdev_export`, which indexes
what it makes.

Usage: python tools/export_experiments.py     (all notebooks; modules whose notebook has gone are removed)
"""
import sys
from pathlib import Path
from execnb.nbio import mk_cell, read_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.maker import ModuleMaker
from nbcells import destination, directives

def experiment(path):
    "(module, cells) of one notebook: its cells `#| experiment` without their directives, and where they go; None without any"
    cells, own, module = [], '', None
    for c in (c for c in read_nb(path).cells if c.cell_type == 'code'):
        d, src = directives(c.source)
        own = d.get('default_exp', own)
        if 'experiment' not in d: continue
        if own.count('.') != 1: sys.exit(f'{path}: has cells `#| experiment`, but its default_exp is no <family>.<key>')
        module = destination(d, own)
        c.set_source(src); cells.append(c)
    return module, cells

def export_experiments(paths, lib):
    "Write the experiments of the notebooks `paths` into the package folder `lib`, and remove others; returns the modules' names"
    made = {}
    for path in paths:
        module, cells = experiment(path)
        if module in made: sys.exit(f'{path} and {made[module]} both make {module}: a key is for one paper')
        if module is None: continue
        made[module] = path
        key = module.rpartition('.')[2]
        title = mk_cell(f'# Experiment\n\n> The experiment of {key}: how its claims are put to the test', 'markdown')
        ModuleMaker(lib, module, path).make([title, *cells], cells, lib_path=lib)
    folder = lib/'experiments'
    folder.mkdir(parents=True, exist_ok=True)
    (folder/'__init__.py').touch()
    for f in folder.glob('[!_]*.py'):
        if f'experiments.{f.stem}' not in made: f.unlink()
    return list(made)

if __name__ == '__main__': export_experiments(nbglob(as_path=True).sorted('name'), get_config().lib_path)
