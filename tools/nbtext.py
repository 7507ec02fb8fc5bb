"""Edit notebooks as text: `nbtext.py out NB...` writes NB.txt beside each, `nbtext.py in NB.txt...` reads it back.

A line `%%md` or `%%code` starts a cell. Reading back keeps the id and the outputs of every cell whose source did
not change, and the id of a cell that was edited in place: the export carries the ids, so they must not wander.
The fingerprint of the outputs is kept with them, as long as none is lost.
"""
import difflib, hashlib, re, sys
from pathlib import Path
import nbformat
from fingerprint import KEY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

KINDS = {'md': 'markdown', 'code': 'code'}

def to_text(nb):
    short = {v: k for k, v in KINDS.items()}
    return '\n\n'.join(f'%%{short[c.cell_type]}\n{c.source}' for c in nb.cells) + '\n'

def parse(text):
    "(cell type, source) of each cell"
    parts = re.split(r'^%%(md|code)[ \t]*\n', text, flags=re.M)
    return [(KINDS[k], s.strip('\n')) for k, s in zip(parts[1::2], parts[2::2]) if s.strip()]

def merge(old, cells):
    "Notebook with `cells`, ids and outputs kept from the notebook `old` where they still apply"
    keys = [(c.cell_type, c.source) for c in old.cells]
    ids, kept = {}, {}
    for op, a, a2, b, b2 in difflib.SequenceMatcher(None, keys, cells, autojunk=False).get_opcodes():
        for i, j in zip(range(a, a2), range(b, b2)):
            if op == 'equal': kept[j] = old.cells[i]
            if op in ('equal', 'replace') and keys[i][0] == cells[j][0]: ids[j] = old.cells[i].id
    taken, out = set(ids.values()), []
    for j, (kind, src) in enumerate(cells):
        n = 0
        while j not in ids:
            new = hashlib.sha1(f'{kind}{src}{n}'.encode()).hexdigest()[:8]; n += 1
            if new not in taken: ids[j] = new; taken.add(new)
        if j in kept: out.append(kept[j]); continue
        make = new_code_cell if kind == 'code' else new_markdown_cell
        out.append(make(source=src, id=ids[j]))
    meta = {**old.metadata, 'kernelspec': dict(name='python3', display_name='python3', language='python')}
    if any(c.cell_type == 'code' and j not in kept for j, c in enumerate(out)): meta.pop(KEY, None)
    nb = new_notebook(cells=out, metadata=meta)
    nb.nbformat_minor = 5
    return nb

if __name__ == '__main__':
    way, *paths = sys.argv[1:]
    for p in map(Path, paths):
        if way == 'out': p.with_suffix('.txt').write_text(to_text(nbformat.read(p, 4))); continue
        nb = p.with_suffix('.ipynb')
        old = nbformat.read(nb, 4) if nb.exists() else new_notebook()
        nbformat.write(merge(old, parse(p.read_text())), nb)
