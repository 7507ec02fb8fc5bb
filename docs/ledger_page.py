"""The ledger as a page of the site, made at build time from the stored results of the installed package"""
from robustnb.evidence.ledger import find_papers, ledger
from robustnb.evidence.report import effect_text, ledger_columns, summary
from robustnb.evidence.tables import Table, table_html

def columns(row):
    "A claim as columns, with the pooled effect below the difference"
    cells, pooled = ledger_columns(row), row['pooled']
    if pooled: cells['difference'] += f"\npooled {effect_text(row, pooled)}, {pooled['datasets']} data sets"
    return {'no': row['claim']} | cells

def table(rows):
    "The claims of a paper as HTML, with their scale where there are several"
    several = len({r['scale'] for r in rows}) > 1
    html = table_html(Table([columns(r) | (dict(scale=r['scale']) if several else {}) for r in rows]))
    return '<div class="wide cell_output">' + html.replace('\n', '') + '</div>'

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
    scales = {k: dict.fromkeys(r['scale'] for r in rows if r['paper'] == k) for k in papers}
    for key, p in papers.items():
        where = f'{{doc}}`Its page </{pages[key]}>`' if key in pages else ''
        arxiv = f'[arXiv:{p.arxiv}](https://arxiv.org/abs/{p.arxiv})' if p.arxiv else ''
        out += [f'## {key}', '', f'*{p.title}*, {p.authors}, {p.year}. {arxiv} {where}. Scale {", ".join(scales[key])}.', '']
        out += [table([r for r in rows if r['paper'] == key]), '']
    return '\n'.join(out)
