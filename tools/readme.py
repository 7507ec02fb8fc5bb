"""Make README.md out of nbs/index.ipynb: hidden cells and directives dropped, figures written to docs/images.

Usage: python tools/readme.py [ROOT]     (the checkout to work in; by default the one this file is in)
"""
import re, sys
from pathlib import Path
import nbformat
from bs4 import BeautifulSoup
from nbconvert import MarkdownExporter
from traitlets.config import Config
from nbcells import directives, one_header

NOTE = '<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook, then run `make export`. -->\n\n'
LINK = re.compile(r'(\]\()(?![a-z]+:|#|/)([^)\s]+\))')  # the target of a link or image relative to nbs/

def markdown_table(html):
    "The first table in `html` as Markdown; None where there is none"
    rows = [[c.get_text(' ', strip=True).replace('|', r'\|') for c in tr.find_all(['th', 'td'])]
            for tr in BeautifulSoup(one_header(html), 'html.parser').select('table tr')]
    if not rows: return None
    return '\n'.join('| ' + ' | '.join(r) + ' |' for r in [rows[0], ['---'] * len(rows[0]), *rows[1:]])

def shown(out):
    "An output as the README can show it, or None: no warnings, no progress bars, tables as Markdown"
    if out.get('name') == 'stderr' or 'application/vnd.jupyter.widget-view+json' in out.get('data', {}): return None
    html = out.get('data', {}).pop('text/html', None)
    table = html and 'text/markdown' not in out.data and markdown_table(html)
    if table: out.data['text/markdown'] = table
    if 'text/markdown' in out.get('data', {}): out.data['text/markdown'] = LINK.sub(r'\1nbs/\2', out.data['text/markdown'])
    return out

def prepare(cell):
    "A cell without its directives, or None for one that is not shown"
    if cell.cell_type == 'markdown': cell.source = LINK.sub(r'\1nbs/\2', cell.source)
    if cell.cell_type != 'code': return cell
    d, cell.source = directives(cell.source)
    if d.keys() & {'hide', 'default_exp', 'test', 'test_setup'} or d.get('include') == 'false' or not cell.source.strip(): return None
    if d.keys() & {'hide_input', 'code-fold'} or d.get('echo') == 'false': cell.metadata['transient'] = {'remove_source': True}
    silent = 'hide_output' in d or d.get('output') == 'false'
    cell.outputs = [] if silent else [o for o in map(shown, cell.outputs) if o is not None]
    for out in cell.outputs: out.setdefault('metadata', {})['alt'] = d.get('fig-cap', 'figure').strip('"\'')
    return cell

def convert(nb):
    "(Markdown of a notebook, {file name: bytes} of its figures)"
    nb.metadata.language_info = {'name': 'python'}
    nb.cells = [c for c in map(prepare, nb.cells) if c is not None]
    alts = [o.metadata.alt for c in nb.cells if c.cell_type == 'code' for o in c.outputs if 'image/png' in o.get('data', {})]
    config = Config({'ExtractOutputPreprocessor': {'output_filename_template': 'docs/images/index_{cell_index}_{index}{extension}'}})
    text, res = MarkdownExporter(config=config).from_notebook_node(nb)
    for alt in alts: text = text.replace('![png](', f'![{alt}](', 1)
    text = re.sub(r'\n{3,}', '\n\n', re.sub(r'[ \t]+$', '', text, flags=re.M))  # nbconvert pads outputs with lines of blanks
    return NOTE + text.strip() + '\n', res['outputs']

def write_readme(root):
    "Write README.md and docs/images of the checkout `root`; figures that are no longer shown are removed"
    text, figures = convert(nbformat.read(root/'nbs'/'index.ipynb', 4))
    images = root/'docs'/'images'
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob('index_*'):
        if f'docs/images/{old.name}' not in figures: old.unlink()
    for name, data in figures.items():
        if not (root/name).exists() or (root/name).read_bytes() != data: (root/name).write_bytes(data)
    (root/'README.md').write_text(text, encoding='utf-8')

if __name__ == '__main__':
    write_readme(Path(sys.argv[1]).resolve() if sys.argv[1:] else Path(__file__).resolve().parent.parent)
