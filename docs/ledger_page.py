"""The ledger as a page of the site, made at build time from the stored results of the installed package"""
from robustnb.evidence.ledger import effect_text, find_papers, ledger
from robustnb.evidence.report import details, summary

COLUMNS = ['Claim', 'Verdict', 'Ours, 98.1 % interval', 'Paper', 'Seeds', 'Scale']

def line(*cells): return f"| {' | '.join(cells)} |"

def cell(s): return str(s).replace('|', r'\|').replace('\n', ' ')

def row(r):
    "One claim at one scale, a cell per column"
    theirs = 'not known' if r['paper_value'] is None else f"{r['paper_value']:+g} {r['unit']}"
    verdict = f"<span class=\"verdict {r['verdict'].replace(' ', '-')}\">{r['verdict']}</span>"
    why = '. '.join(details(r)[r['effect'] is not None:-1])  # without the effect and the paper's number, which have columns
    why = f"<span class=\"why\">{cell(why)}</span>" if why else ''
    return [f"**{r['claim']}.** {cell(r['statement'])} {why}", verdict, cell(effect_text(r)), cell(theirs), str(r['n_seeds']), r['scale']]

def ledger_page(project):
    "Markdown: a heading and a table per paper, and a line that counts the verdicts"
    rows, papers = ledger(), find_papers()
    if not papers: return 'No paper has been added yet.'
    known = sum(r['paper_value'] is not None for r in rows)
    out = [f"{len(papers)} papers, each at every scale that was run: {summary(rows)}. The paper's own number is known for {known or 'none'} of them.", '']
    pages = {module.rpartition('.')[2]: page for module, page in project.modules}
    for key, p in papers.items():
        where = f'{{doc}}`Notebook </{pages[key]}>`' if key in pages else ''
        arxiv = f'[arXiv:{p.arxiv}](https://arxiv.org/abs/{p.arxiv})' if p.arxiv else ''
        table = [line(*COLUMNS), line(*['---'] * len(COLUMNS)), *(line(*row(r)) for r in rows if r['paper'] == key)]
        out += [f'## {key}', '', f'*{p.title}*, {p.authors}, {p.year}. {arxiv} {where}', '', '{.ledger}', *table, '']
    return '\n'.join(out)
