"""The ledger as a page of the site, made at build time from the stored results of the installed package"""
from robustnb.evidence.ledger import find_papers, ledger
from robustnb.evidence.report import PREDICTED, effect_text, paper_text, slug, summary, why

COLUMNS = ['Claim', 'Verdict', 'Ours', 'Seeds', 'Paper', 'Scale']

def line(*cells): return f"| {' | '.join(cells)} |"

def cell(s): return str(s).replace('|', r'\|').replace('\n', ' ')

def small(text): return f'<span class="why">{cell(text)}</span>' if text else ''

def row(r):
    "One claim at one scale, a cell per column"
    verdict = f'<span class="verdict {slug(r["verdict"])}">{r["verdict"]}</span>'
    pooled = r['pooled'] and f"{effect_text(r, r['pooled'])} over {r['pooled']['datasets']} data sets"
    about = '; '.join(filter(None, [r['source'], PREDICTED[r['in_prediction']]]))
    claim, ours = f"**{r['claim']}.** {cell(r['statement'])} {small(why(r))}", f'{cell(effect_text(r))} {small(pooled)}'
    return [claim, verdict, ours, str(r['n_seeds']), f'{cell(paper_text(r))} {small(about)}', r['scale']]

def table(rows): return ['{.ledger}', line(*COLUMNS), line(*['---'] * len(COLUMNS)), *(line(*row(r)) for r in rows)]

def known(rows):
    "For how many claims the paper's own number is known"
    claims = {(r['paper'], r['claim']) for r in rows}
    n = len({(r['paper'], r['claim']) for r in rows if r['paper_value'] is not None})
    return f"The paper's own number is known for {n or 'none'} of {len(claims)} claims."

def ledger_page(project):
    "Markdown: a heading and a table per paper, and a line that counts the verdicts"
    rows, papers = ledger(), find_papers()
    if not papers: return 'No paper has been added yet.'
    total = f"{len(papers)} paper{'s' * (len(papers) > 1)}; {summary(rows)}, each at every scale that was run."
    out = [f'{total} {known(rows)}', '']
    pages = {module.rpartition('.')[2]: page for module, page in project.modules}
    for key, p in papers.items():
        where = f'{{doc}}`Notebook </{pages[key]}>`' if key in pages else ''
        arxiv = f'[arXiv:{p.arxiv}](https://arxiv.org/abs/{p.arxiv})' if p.arxiv else ''
        out += [f'## {key}', '', f'*{p.title}*, {p.authors}, {p.year}. {arxiv} {where}', '']
        out += [*table([r for r in rows if r['paper'] == key]), '']
    return '\n'.join(out)
