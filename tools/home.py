"""What the home page and the sidebar show of the notebooks: sections, cards by family, guides. No list is kept.

nbs/index.ipynb calls `cards` and `guides`, with the rows of the ledger; docs/conf.py makes the sidebar of `sections`.
"""
import json, re
from html import escape
from pathlib import Path
from typing import NamedTuple
from nbcells import directives
from robustnb.evidence.report import counts

FAMILIES = ('robustness', 'merging', 'unlearning', 'anomaly', 'adaptation', 'transfer', 'synthesis', 'efficiency')  # the order, where there are such
OTHERS = ('guides', 'attacks', 'evidence', 'commands', 'benchmarks')  # folders that are no families

class Page(NamedTuple):
    "A notebook: where it is below nbs/, its title, the sentence below the title, and its module if it is a paper's"
    path:str
    title:str
    summary:str
    paper:str

def page(path, nbs):
    "The `Page` of the notebook `path`"
    cells = [(c['cell_type'], ''.join(c['source'])) for c in json.loads(path.read_text(encoding='utf-8'))['cells']]
    head = cells[0][1]
    found = [directives(s)[0] for kind, s in cells if kind == 'code']
    module = next((d['default_exp'] for d in found if 'default_exp' in d), '')
    line = lambda mark: next((l[len(mark):].strip() for l in head.splitlines() if l.startswith(mark)), '')
    return Page(path.relative_to(nbs).as_posix(), line('# '), line('> '), module.rpartition('.')[2] if any('experiment' in d for d in found) else '')

def pages(nbs, folder=''):
    "The numbered notebooks of a folder; those of papers come first"
    return sorted((page(p, nbs) for p in (Path(nbs)/folder).glob('[0-9]*.ipynb')), key=lambda p: (not p.paper, p.path))

def families(nbs):
    "Names of the folders that hold families"
    there = {p.parent.name for p in Path(nbs).glob('*/[0-9]*.ipynb')} - set(OTHERS)
    return [f for f in FAMILIES if f in there] + sorted(there - set(FAMILIES))

def sections(nbs):
    "[(caption, pages)] of the sidebar: guides, papers by family, attacks and foundations, evidence, benchmarks, reference"
    top = pages(nbs)
    command_line = [p for p in top if p.path.endswith('_cli.ipynb')]
    found = [('Guides', pages(nbs, 'guides')), *((f.capitalize(), pages(nbs, f)) for f in families(nbs)), ('Attacks', pages(nbs, 'attacks')),
             ('Foundations', [p for p in top if p not in command_line]), ('Evidence', pages(nbs, 'evidence')),
             ('Benchmarks', pages(nbs, 'benchmarks')), ('Commands', command_line + pages(nbs, 'commands'))]
    return [(caption, ps) for caption, ps in found if ps]

# --- what cells show ------------------------------------------------------------------------------------------------
class Shown:
    "HTML for the site and JupyterLab, Markdown for the README"
    def __init__(self, html, markdown): self.html, self.markdown = html, markdown
    def _repr_html_(self): return self.html
    def _repr_markdown_(self): return self.markdown
    def __repr__(self): return self.markdown

def code(text): return re.sub('`([^`]+)`', r'<code>\1</code>', escape(text, quote=False))

def in_words(counts): return ', '.join(f'{n} {v}' for v, n in counts.items()) or 'no claim yet'

def bar(counts):
    "The verdicts as a bar, a stretch per claim; its words stand beside it or in its label"
    stretch = lambda v, n: f'<span class="{v.replace(" ", "-")}" style="flex:{n}"></span>'
    return f'<span class="verdicts" role="img" aria-label="{in_words(counts)}">' + ''.join(stretch(v, n) for v, n in counts.items()) + '</span>'

def card(p, rows):
    "A paper: its name, its idea in a sentence, what became of its claims"
    found = counts([r for r in rows if r['paper'] == p.paper])
    return (f'<a class="paper" href="{p.path}"><strong>{escape(p.title)}</strong><span>{code(p.summary)}</span>'
            f'{bar(found)}<small>{in_words(found)}</small></a>')

def cards(nbs, rows):
    "The papers by family, each with its idea and the verdicts on its claims (`rows` of the ledger)"
    html, markdown = [], []
    for f in families(nbs):
        papers = [p for p in pages(nbs, f) if p.paper]
        if not papers: continue
        html.append(f'<p class="family">{f.capitalize()}</p><div class="papers">' + ''.join(card(p, rows) for p in papers) + '</div>')
        line = lambda p: f"- [{p.title}]({p.path}): {p.summary.rstrip('.')}. *{in_words(counts([r for r in rows if r['paper'] == p.paper]))}*"
        markdown += [f'**{f.capitalize()}**', '', *map(line, papers), '']
    return Shown('\n'.join(html), '\n'.join(markdown))

def wish(title):
    "A guide's title as a wish: 'Evaluate your model' -> 'evaluate my model'"
    title = title.removeprefix('How to ')
    return (title[:1].lower() + title[1:]).replace('your ', 'my ')

def guides(nbs):
    "The guides as what a reader wants"
    found = pages(nbs, 'guides')
    html = ''.join(f'<li><a href="{p.path}">{escape(wish(p.title))}</a></li>' for p in found)
    return Shown(f'<p class="family">I want to</p><ul class="wishes">{html}</ul>', '\n'.join(['I want to', '', *(f'- [{wish(p.title)}]({p.path})' for p in found)]))

def verdicts(rows):
    "What became of all claims, as a bar and in words"
    found = counts(rows)
    text = f"Of {len(rows)} claims: {in_words(found)}."
    return Shown(f'{bar(found)}<p>{text}</p>', text)
