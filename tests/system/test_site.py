"""The site in a real browser: every page loads without errors, formulas are drawn, nothing is cut off, search works, nothing is fetched from elsewhere"""
import re, subprocess, sys, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
import pytest
from browser import chromium, clipped, errors, faint, remote, resize, wait, weight

ROOT = Path(__file__).resolve().parents[2]

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "Folder of the built site"
    pytest.importorskip('sphinx', reason='the site needs the docs requirements: pip install -e ".[docs]"')
    out = tmp_path_factory.mktemp('site')
    run = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-c', 'docs', '-d', out/'doctrees', 'nbs', out/'html'],
                         cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out/'html'

@pytest.fixture(scope='module')
def site(built):
    "Address at which the site is served"
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=built))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

@pytest.fixture(scope='module')
def browser():
    b = chromium()
    yield b
    b.quit()

def pages(built):
    "All pages that are written by hand or made from a notebook"
    nbs = ROOT/'nbs'
    return sorted(p.relative_to(nbs).with_suffix('.html').as_posix() for p in nbs.rglob('*')
                  if p.suffix in ('.ipynb', '.md') and not any(o[0] in '._' for o in p.relative_to(nbs).parts))

def show(browser, site, page):
    "Load a page and wait for its formulas; returns their number"
    browser.get(f'{site}/{page}')
    wait(browser, "document.readyState == 'complete'", 120, page)
    n = len(browser.find_elements('css selector', '.math'))
    if n: wait(browser, f"document.querySelectorAll('.math mjx-container').length >= {n}", 120, f'{n} formulas of {page}')
    return n

def test_every_page_is_built_and_in_the_sidebar(built):
    home = (built/'index.html').read_text()
    for page in pages(built):
        assert (built/page).exists(), page
        assert page == 'index.html' or f'href="{page}"' in home, f'{page} is not in the sidebar'

@pytest.fixture
def window(browser):
    "The browser, whose window has its own size again afterwards, and whose requests up to there are forgotten"
    yield browser
    resize(browser)
    remote(browser)

@pytest.fixture(scope='module')
def report(built):
    "Page of the site: the report of `robustnb reproduce`, made of the stored results of two papers, one of them called tiny"
    from robustnb.evidence.ledger import find_papers, ledger
    from robustnb.evidence.report import page
    from robustnb.evidence.store import default_store
    papers = find_papers()
    rows = ledger([papers['sovr'], papers['absum']], 'small', default_store())
    rows = [r | dict(scale='tiny') if r['paper'] == 'absum' else r for r in rows]
    (built/'report.html').write_text(page(rows, papers, default_store()), encoding='utf-8')
    return 'report.html'

def set_mode(browser, mode):
    "Show this page and those to come in the light or the dark theme"
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=mode)]))
    browser.execute_script("for (const k of ['mode', 'theme']) { localStorage.setItem(k, arguments[0]); document.documentElement.dataset[k] = arguments[0] }", mode)

def sideways(browser):
    "By how many pixels the page as a whole is wider than its window"
    return browser.execute_script('return document.documentElement.scrollWidth - document.documentElement.clientWidth')

WIDTHS, MODES = (1400, 1280, 768, 390), ('light', 'dark')  # the usual one, the narrowest with both sidebars, with one, a telephone's

def seen(browser, site, page, written, widths, modes):
    "What one visit of a page finds, by kind, the browser being at the first width and mode; texts and the console's errors where it is `written`"
    res = dict(formulas=show(browser, site, page), remote=remote(browser, site), bytes=weight(browser),
               unread=len(browser.find_elements('css selector', 'mjx-merror, [data-mjx-error]')), cut=[])
    found = errors(browser)
    if written: res |= dict(errors=found, faint=[])
    for width in widths:
        resize(browser, width)
        res['cut'] += [f'at {width} px: {o}' for o in clipped(browser)]
        if (wide := sideways(browser)) > 0: res['cut'].append(f'at {width} px scrolls sideways as a whole, by {wide} px')
    for mode in modes*written:
        set_mode(browser, mode)
        res['faint'] += [f'{mode}: {o}' for o in faint(browser)]
    return res

@pytest.fixture(scope='module')
def visits(site, built, report, browser):
    "{page: what a visit finds} of all pages, also those of the modules' code"
    written = {*pages(built), report}
    browser.get(f'{site}/index.html')
    there_and_back = cycle([(WIDTHS, MODES), (WIDTHS[::-1], MODES[::-1])])  # each begins as the one before ended: fewer changes
    res = {p: seen(browser, site, p, p in written, *how)
           for p, how in zip(sorted(o.relative_to(built).as_posix() for o in built.rglob('*.html')), there_and_back)}
    assert written <= res.keys()
    resize(browser)
    set_mode(browser, 'light')
    return res

def listed(visits, kind):
    "The findings of a kind, each with its page"
    return [f'{page} {o}' for page, v in visits.items() for o in v.get(kind, [])]

def test_pages_load_without_errors_and_formulas_are_drawn(visits):
    assert listed(visits, 'errors') == listed(visits, 'remote') == []
    assert not [page for page, v in visits.items() if v['unread']], 'a formula that MathJax cannot read'
    assert sum(v['formulas'] for v in visits.values()) > 0

def test_nothing_is_cut_off_at_any_width(visits):
    assert not (found := listed(visits, 'cut')), '\n'.join(found)

def test_texts_can_be_read_in_both_modes(visits):
    assert not (found := listed(visits, 'faint')), '\n'.join(found)

def test_pages_are_light(visits):
    assert not {page: v['bytes'] for page, v in visits.items() if v['bytes'] > (2.5e6 if v['formulas'] else 1e6)}

def test_what_is_cut_off_is_found(site, window):
    "Without the site's own style sheet, as it was once, equations are cut off on the left, and the page itself is too wide"
    resize(window, 390)
    drop = "document.querySelector('link[href*=\"custom.css\"]').remove()"
    for page, what in (('robustness/02_sovr.html', 'px left of div.math'), ('_modules/robustnb/merging/permutations.html', 'px right of the page')):
        show(window, site, page)
        assert clipped(window) == []
        window.execute_script(drop)
        assert any(what in o for o in clipped(window)), page

@pytest.mark.parametrize('markup, lost', [
    ('<pre style="overflow-x: auto">{0}</pre>', False), ('<pre style="overflow: hidden">{0}</pre>', True), ('<pre style="overflow: visible">{0}</pre>', True),
    ('<div style="overflow-x: auto; width: 300px"><table><tr><td>{0}</td></tr></table></div>', False),
    ('<div style="overflow: hidden; width: 300px"><table><tr><td>{0}</td></tr></table></div>', True),
    ('<div style="overflow: auto; width: 300px"><table style="margin-left: -50px"><tr><td>{0}</td></tr></table></div>', True),
    ('<div style="overflow: hidden; height: 10px"><pre style="margin: 0; overflow: auto">short</pre></div>', True)])
def test_cut_off_means_out_of_reach_of_scrolling(window, tmp_path, markup, lost):
    resize(window, 390)
    (tmp_path/'page.html').write_text(f'<div class="bd-article-container">{markup.format("wide" * 100)}</div>')
    window.get((tmp_path/'page.html').as_uri())
    assert bool(clipped(window)) == lost, clipped(window)

@pytest.mark.parametrize('query', ['absum', 'fourier_noise'])
def test_search_finds(site, browser, query):
    errors(browser)  # those of pages before
    browser.get(f'{site}/search.html?q={query}')
    wait(browser, "document.querySelectorAll('#search-results ul.search li a').length > 0", 120, f'search for {query}')
    found = [a.get_attribute('href') for a in browser.find_elements('css selector', '#search-results ul.search li a')]
    assert all(u.startswith(site) for u in found)
    assert any(query.split('_')[0] in u for u in found), found
    wait(browser, f"[...document.querySelectorAll('#search-results .context')].some(o => o.textContent.includes('{query}'))", 60, 'a snippet with the word')
    assert remote(browser, site) == [] and errors(browser) == []

def test_search_of_a_site_opened_as_files_shows_snippets_too(built, browser):
    browser.get((built/'search.html').as_uri() + '?q=absum')
    wait(browser, "[...document.querySelectorAll('#search-results .context')].some(o => /absum/i.test(o.textContent))", 120, 'a snippet')
    assert remote(browser, 'file:') == []

def test_page_opened_as_a_file_draws_its_formulas(built, browser):
    page = next(p for p in pages(built) if 'class="math' in (built/p).read_text())
    browser.get((built/page).as_uri())
    wait(browser, "document.querySelectorAll('.math mjx-container').length > 0", 120, 'formulas of a page opened as a file')
    assert remote(browser, 'file:') == []

def test_faint_texts_are_found(window, tmp_path):
    (tmp_path/'page.html').write_text('<body style="background: #fff"><p style="color: #999">pale</p><p style="color: #000; opacity: .3">thin</p>'
                                      '<p style="color: #777; font-size: 30px">large</p><p style="color: #333">good</p>')
    window.get((tmp_path/'page.html').as_uri())
    assert [o.rpartition(': ')[2] for o in faint(window)] == ['pale', 'thin']

def test_every_picture_says_what_it_shows(built):
    found = [f'{page}: {tag}' for page in pages(built) for tag in re.findall(r'<img[^>]*>', (built/page).read_text())
             if not re.search(r'alt="[^"]{20,}"', tag) or '.png"' in re.search(r'alt="[^"]*"', tag)[0]]
    assert not found, '\n'.join(found)

def test_report_is_whole(site, report, browser):
    browser.get(f'{site}/{report}')
    assert browser.find_elements('css selector', '.banner') and len(browser.find_elements('css selector', '.beside')) == 5

def test_papers_are_one_click_from_home_and_back(site, built, browser):
    sys.path.insert(0, str(ROOT/'tools'))
    import home
    papers = [p.path.replace('.ipynb', '.html') for f in home.families(ROOT/'nbs') for p in home.pages(ROOT/'nbs', f) if p.paper]
    browser.get(f'{site}/index.html')
    linked = [a.get_attribute('href').removeprefix(f'{site}/') for a in browser.find_elements('css selector', 'a.paper')]
    assert sorted(linked) == sorted(papers) and papers
    for page in papers: assert re.search(r'class="breadcrumb-item breadcrumb-home">\s*<a href="\.\./index\.html"', (built/page).read_text())

def test_sidebar_begins_with_guides_and_papers(built):
    order = re.findall(r'<p [^>]*class="caption"[^>]*><span class="caption-text">([^<]*)', (built/'index.html').read_text())
    assert order[:3] == ['Guides', 'Robustness', 'Merging'] and order[-1] == 'Reference'
    assert order.index('Attacks') < order.index('Foundations') < order.index('Benchmarks')

@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_light_and_dark_mode(site, browser, mode):
    browser.get(f'{site}/index.html')
    browser.execute_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
    browser.refresh()
    wait(browser, f"document.documentElement.dataset.theme == '{mode}'", 120, f'{mode} mode')
    rgb = browser.execute_script("return getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)")
    assert (sum(rgb) < 200) == (mode == 'dark'), rgb

def test_entries_link_to_source_and_each_other(built):
    page = (built/'attacks'/'01_gradient.html').read_text()
    assert 'id="robustnb.attacks.gradient.pgd"' in page and '_modules/robustnb/attacks/gradient.html#pgd' in page
    api = (built/'api.html').read_text()
    assert 'attacks/01_gradient.html#robustnb.attacks.gradient.pgd' in api
    assert '#|' not in page, 'a directive is shown'
    page = (built/'evidence'/'02_trials.html').read_text()
    assert 'id="robustnb.evidence.trials.splits"' in page, 'a function'
    assert '<dl class="py property">\n<dt class="sig sig-object py" id="robustnb.evidence.trials.Trial.splits">' in page, (
        'a property that is patched in')
