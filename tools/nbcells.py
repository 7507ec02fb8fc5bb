"""What the build's tools and the site share: directives of cells and their meaning, imports, tidy tables, what is no notebook."""
import ast, re
from pathlib import Path

LIB = 'robustnb'
EXPORTS = ('export', 'exports', 'exporti')
SKIP = {'notest', 'slow', 'gpu'}  # tst_flags of settings.ini

HEAD = re.compile(r'(?:[ \t]*#[ \t]*\|.*\n?|[ \t]*\n)*')
LINE = re.compile(r'[ \t]*#[ \t]*\|[ \t]*([\w-]+)[ \t]*:?[ \t]*(.*)')
INDEX_ROW = re.compile(r'<th></th>((?:\s*<th>[^<]*</th>)+\s*</tr>)\s*<tr>\s*<th>([^<]+)</th>(?:\s*<th></th>)+\s*</tr>(?=\s*</thead>)')

def directives(src):
    "Split the leading `#| name: value` lines off the source of a cell: (dict of them, the rest)"
    head = HEAD.match(src)[0]
    found = map(LINE.match, head.splitlines())
    return {m[1]: m[2].strip() for m in found if m}, src[len(head):]

def destination(d, default):
    "Module, seen from the package, which a cell with the directives `d` goes into, or None; `default` is the notebook's own"
    if 'experiment' in d: return f"experiments.{default.rpartition('.')[2]}"
    return next((d[k] or default for k in EXPORTS if k in d), None)

def skipped(cell, force=frozenset()):
    "Whether a cell is left out when its notebook is run, `force` being the flags to run all the same"
    d = directives(cell.source)[0]
    return d.get('eval') == 'false' or bool(d.keys() & (SKIP - force))

def imports(tree, root, package=()):
    "Full names of the package's modules that code imports; `root`: the checkout, `package`: ('robustnb', 'attacks'), where it stands"
    for o in ast.walk(tree):
        if isinstance(o, ast.Import): yield from (a.name for a in o.names if a.name.split('.')[0] == LIB)
        elif isinstance(o, ast.ImportFrom):
            base = '.'.join([*package[:len(package) - o.level + 1], *filter(None, [o.module])]) if o.level else o.module
            if base.split('.')[0] != LIB: continue
            for a in o.names:  # `from ..attacks import gradient` names a module, `from ..data import load` does not
                full = f'{base}.{a.name}'
                at = root/full.replace('.', '/')
                yield full if at.is_dir() or at.with_suffix('.py').exists() else base

def checkpoint(path):
    "Whether a path is one of the copies that Jupyter keeps of a notebook, in a folder beside it"
    return '.ipynb_checkpoints' in Path(path).parts

def one_header(html):
    "A pandas table with the index's name in the first header row; pandas gives it a row of its own"
    return INDEX_ROW.sub(r'<th>\2</th>\1', html)
