"""The parts of the site's build: the home page's lists, tables of outputs, what makes pages light"""
import json, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT/'tools'), str(ROOT/'docs')]
import home

def write(path, *cells):
    "A notebook of the given sources, `#|` ones as code"
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = lambda s: 'code' if s.startswith('#|') else 'markdown'
    path.write_text(json.dumps(dict(cells=[dict(cell_type=kind(s), source=s) for s in cells])))

@pytest.fixture
def nbs(tmp_path):
    "A guide, a family with a paper and what it shares, a family not known before, attacks, a foundation"
    write(tmp_path/'guides'/'00_a.ipynb', '# Merge your models\n\n> In a line.')
    write(tmp_path/'robustness'/'00_shared.ipynb', '# Shared', '#| default_exp robustness.shared')
    write(tmp_path/'robustness'/'01_x.ipynb', '# X: a <b>\n\n> Use `f` & hope.', '#| default_exp robustness.x', '#| experiment\npaper = 1')
    write(tmp_path/'zoology'/'00_y.ipynb', '# Y', '#| default_exp zoology.y', '#| experiment\npaper = 1')
    write(tmp_path/'attacks'/'00_z.ipynb', '# Z', '#| default_exp attacks.z')
    write(tmp_path/'00_data.ipynb', '# Data', '#| default_exp data')
    return tmp_path

ROWS = [dict(paper='x', verdict=v) for v in ('open', 'reproduced', 'open')]

def test_sections_are_found_in_order(nbs):
    found = [(caption, [p.title for p in ps]) for caption, ps in home.sections(nbs)]
    assert found == [('Guides', ['Merge your models']), ('Robustness', ['X: a <b>', 'Shared']), ('Zoology', ['Y']), ('Attacks', ['Z']), ('Foundations', ['Data'])]

def test_cards_and_guides(nbs):
    cards = home.cards(nbs, ROWS)
    assert cards.html.count('<a class="paper"') == 2 and 'href="robustness/01_x.ipynb"' in cards.html and 'X: a &lt;b&gt;' in cards.html
    assert 'Use <code>f</code> &amp; hope.' in cards.html and 'aria-label="1 reproduced, 2 open"' in cards.html and 'flex:2' in cards.html
    assert '- [X: a <b>](robustness/01_x.ipynb): Use `f` & hope. *1 reproduced, 2 open*' in cards.markdown and '*no claim yet*' in cards.markdown
    assert '- [merge my models](guides/00_a.ipynb)' in home.guides(nbs).markdown and home.wish('How to read a verdict') == 'read a verdict'
    assert home.verdicts(ROWS).markdown == 'Of 3 claims: 1 reproduced, 2 open.'

def test_tables_of_outputs_are_tidied():
    nbdev_sphinx = pytest.importorskip('nbdev_sphinx')
    assert [nbdev_sphinx.tidied(t) for t in ('-0.000', '-0.010', '1.0e+01', '2.50e-02', '1e-09', 'a')] == ['0.000', '-0.010', '10', '0.025', '1e-09', 'a']
    table = '<table class="dataframe"><tr><td>-0.00</td><td>[1, 2]</td><td>{}</td><td>at</td></tr></table>'.format('word ' * 10)
    shown = nbdev_sphinx.shown(table)
    assert '<td class="num">0.00</td>' in shown and '<td class="text">' in shown and '<td>at</td>' in shown
    assert nbdev_sphinx.shown('<a href="a/b.ipynb#c"> <a href="https://x.org/d.ipynb">') == '<a href="a/b.html#c"> <a href="https://x.org/d.ipynb">'

def test_icons_are_drawn_from_the_script():
    light = pytest.importorskip('light', reason='the site needs the docs requirements')
    script = 'a={star:[9,8,["asterisk"],"f1","M1 1"]};b={star:[5,6,[1],"f1","M2 2"],"two-words":[1,2,["old-name"],"f2","M3 3"]}'
    assert light.icon('star', script) == ('5', '6', 'M2 2') and light.icon('old-name', script) == ('1', '2', 'M3 3') and light.mask('none', script) == ''
    assert light.mask('star', script).startswith('.fa-star::before { --icon: url("data:image/svg+xml,') and 'M2 2' in light.mask('star', script)
    css = '@font-face{font-family:Font Awesome\\ 7;src:url(a.woff2)}a{b:c}.fa-x,.fa-y{--fa:"\\f0"}@font-face{font-family:Mine}'
    assert light.without_icons(css) == 'a{b:c}@font-face{font-family:Mine}'

def test_text_for_the_search():
    light = pytest.importorskip('light', reason='the site needs the docs requirements')
    page = '<nav>no</nav><article><h1>Title<a class="headerlink" href="#">#</a></h1><pre>code</pre><p>a &lt; b,  <b>c</b></p></article><p>no'
    assert light.text_of(page) == 'Title a &lt; b, c'

def test_fonts_of_formulas_are_inside(tmp_path):
    light = pytest.importorskip('light', reason='the site needs the docs requirements')
    (tmp_path/'MathJax_Zero.woff').write_bytes(b'font')
    assert light.with_fonts('url("%%URL%%/MathJax_Zero.woff") url("%%URL%%/MathJax_Script-Regular.woff")', tmp_path) == \
           'url("data:font/woff;base64,Zm9udA==") url("%%URL%%/MathJax_Script-Regular.woff")'
