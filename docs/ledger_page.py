"""The ledger as a page of the site, made at build time from the stored results of the installed package"""
from robustnb.evidence import effect_text, find_papers, ledger

COLUMNS = ['Claim', 'Verdict', 'Ours, 95 % interval', 'Paper', 'Seeds', 'Scale']

def line(*cells): return f"| {' | '.join(cells)} |"

def cell(s): return str(s).replace('|', r'\|').replace('\n', ' ')

def row(r):
    "One claim at one scale, a cell per column"
    paper = '' if r['paper_value'] is None else f"{r['paper_value']:+g} {r['unit']}"
    verdict = f"<span class=\"verdict {r['verdict'].replace(' ', '-')}\">{r['verdict']}</span>"
    why = f"<span class=\"why\">{cell(r['reason'])}</span>" if r['reason'] else ''
    return [f"**{r['claim']}.** {cell(r['statement'])} {why}", verdict, cell(effect_text(r)), paper, str(r['n_seeds']), r['scale']]

def table(rows):
    "The rows as a table; the column of the paper's own numbers is left out where none has been entered"
    keep = [i for i, name in enumerate(COLUMNS) if name != 'Paper' or any(r['paper_value'] is not None for r in rows)]
    lines = [COLUMNS, ['---'] * len(COLUMNS), *map(row, rows)]
    return ['{.ledger}', *(line(*(cells[i] for i in keep)) for cells in lines)]

def ledger_page(project):
    "Markdown: a heading and a table per paper, and a line that counts the verdicts"
    rows, papers = ledger(), find_papers()
    if not papers: return 'No paper has been added yet.'
    count = {v: sum(r['verdict'] == v for r in rows) for v in ('reproduced', 'not reproduced', 'not run')}
    total = f"{len(rows)} claims of {len(papers)} paper{'s' * (len(papers) > 1)}, each at every scale that was run: "
    known = sum(r['paper_value'] is not None for r in rows)
    theirs = f"The paper's own number has been entered for {known or 'none'} of them{' yet' * (not known)}."
    out = [total + ', '.join(f'{n} {v}' for v, n in count.items()) + '. ' + theirs, '']
    pages = {module.rpartition('.')[2]: page for module, page in project.modules}
    for key, p in papers.items():
        where = f'{{doc}}`Notebook </{pages[key]}>`' if key in pages else ''
        arxiv = f'[arXiv:{p.arxiv}](https://arxiv.org/abs/{p.arxiv})' if p.arxiv else ''
        out += [f'## {key}', '', f'*{p.title}*, {p.authors}, {p.year}. {arxiv} {where}', '', *table([r for r in rows if r['paper'] == key]), '']
    return '\n'.join(out)
