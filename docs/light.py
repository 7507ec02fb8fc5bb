"""What makes the pages light, and whole without a network: MathJax without its menu and with its fonts inside, icons as
masks in the place of Font Awesome's script and fonts, code without marks that no style uses, texts for the search."""
import base64, json, re, shutil
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote
from pygments.token import Name, Operator, Punctuation, Token, Whitespace
from sphinx.highlighting import PygmentsBridge

# --- formulas -------------------------------------------------------------------------------------------------------
PARTS = ['core', 'input/tex', 'output/chtml', 'output/chtml/fonts/tex', 'a11y/assistive-mml', 'startup']
FONTS = ['Main-Regular', 'Main-Bold', 'Main-Italic', 'Math-Italic', 'Math-BoldItalic', 'AMS-Regular', 'Size1-Regular', 'Size2-Regular',
         'Size3-Regular', 'Size4-Regular', 'Calligraphic-Regular', 'Typewriter-Regular', 'Zero']  # others are files beside it
MATHJAX = dict(loader=dict(load=['core', 'input/tex', 'output/chtml', 'a11y/assistive-mml']), options=dict(enableAssistiveMml=True))

def with_fonts(text, folder):
    "The font data of MathJax with the fonts themselves in the place of their addresses"
    def data(m):
        file = folder/f'MathJax_{m[1]}.woff'
        return f'data:font/woff;base64,{base64.b64encode(file.read_bytes()).decode()}' if m[1] in FONTS else m[0]
    return re.sub(r'%%URL%%/MathJax_([\w-]+)\.woff', data, text)

def copy_mathjax(app):
    "MathJax is a folder of a wheel: the parts that are used, below _static/mathjax"
    if app.builder.format != 'html': return
    wheel = Path(next(iter(find_spec('sphinx-mathjax-offline').submodule_search_locations)))/'static'/'mathjax'
    to = Path(app.outdir)/'_static'/'mathjax'
    for part in PARTS:
        file = to/f'{part}.js'
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (wheel/f'{part}.js').read_text(encoding='utf-8')
        file.write_text(with_fonts(text, wheel/'output'/'chtml'/'fonts'/'woff-v2') if part.endswith('fonts/tex') else text, encoding='utf-8')
    for folder in ('input/tex/extensions', 'output/chtml/fonts/woff-v2'): shutil.copytree(wheel/folder, to/folder, dirs_exist_ok=True)

# --- code -----------------------------------------------------------------------------------------------------------
class Formatter(PygmentsBridge.html_formatter):
    "Names, operators, brackets and blanks have no colour of their own: they get no span"
    def _get_css_class(self, kind):
        return '' if kind in (Name, Operator, Punctuation, Whitespace, Token.Text, Token.Text.Whitespace) else super()._get_css_class(kind)

PygmentsBridge.html_formatter = Formatter

# --- icons ----------------------------------------------------------------------------------------------------------
SCRIPT = re.compile(r'\s*(?:<!-- So that users can add custom icons -->\s*)?<script defer src="[^"]*fontawesome\.js[^"]*"></script>')

def icon(name, script):
    "(width, height, path) of an icon in Font Awesome's script, the solid one if there are several"
    found = re.findall(rf'[{{,]"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^\]]*\],"[^"]*","([^"]*)"', script)
    found = found or re.findall(rf':\[(\d+),(\d+),\[[^\]]*"{re.escape(name)}"[^\]]*\],"[^"]*","([^"]*)"', script)
    return found[-1] if found else None

def mask(name, script):
    "The rule that draws an icon in the colour of the text; '' for a class that is no icon"
    found = icon(name, script)
    if not found: return ''
    width, height, path = found
    svg = quote(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><path d="{path}"/></svg>', safe="/:=' ,")
    return f'.fa-{name}::before {{ --icon: url("data:image/svg+xml,{svg}") }}\n'

def without_icons(css):
    "The theme's style without Font Awesome's fonts and the codes of its two thousand icons"
    css = re.sub(r'@font-face\{[^}]*Font Awesome[^}]*\}', '', css)
    return re.sub(r'\.fa-[\w-]+(?:,\.fa-[\w-]+)*\{--fa:"[^"]*"\}', '', css)

def draw_icons(static, pages):
    "Replace Font Awesome by a style with those icons that the pages use"
    script, style = static/'scripts'/'fontawesome.js', static/'styles'/'pydata-sphinx-theme.css'
    texts = {p: p.read_text(encoding='utf-8') for p in pages}
    used = sorted({n for t in texts.values() for c in re.findall(r'class="(fa[^"]*)"', t) for n in re.findall(r'\bfa-([\w-]+)', c)})
    rule = (':is(i, span):is(.fas, .far, .fab, .fa-solid, .fa-brands)[class]::before { content: ""; display: inline-block; width: 1em; height: 1em; '
            'vertical-align: -.125em; background: currentColor; mask: var(--icon, none) center / contain no-repeat }\n')
    (static/'icons.css').write_text(rule + ''.join(mask(n, script.read_text(encoding='utf-8')) for n in used), encoding='utf-8')
    for p, t in texts.items():
        if SCRIPT.search(t): p.write_text(SCRIPT.sub('', t), encoding='utf-8')
    style.write_text(without_icons(style.read_text(encoding='utf-8')), encoding='utf-8')
    for f in (script, script.with_suffix('.js.map'), script.with_suffix('.js.LICENSE.txt')): f.unlink(missing_ok=True)
    shutil.rmtree(static/'vendor', ignore_errors=True)

# --- search ---------------------------------------------------------------------------------------------------------
FETCH = '''
// the search asks for whole pages to show a few words of each; here it gets their texts, by scripts, which a site opened as files may load too
const TEXTS = {}
const script = src => new Promise(done => {
  const s = document.createElement('script')
  s.src = src; s.onload = s.onerror = done
  document.head.append(s)
})
window.fetch = async url => {
  const page = String(url).replace(/^\\.\\//, "").replace(/\\.html$/, "")
  await script(`_static/texts/${page}.js`)
  return {text: async () => `<div role="main">${TEXTS[page] || ''}</div>`}
}
'''

def text_of(html):
    "The words of a page's article without code and tables, still escaped as HTML has them"
    article = html[html.find('<article'):html.find('</article>')]
    article = re.sub(r'<(script|style|pre|table|summary)\b.*?</\1>|<a class="headerlink".*?</a>', ' ', article, flags=re.S)
    return ' '.join(re.sub(r'<[^>]*>', ' ', article).split())

def write_texts(static, pages, root):
    "A script for each page with its text, and the one that loads them, for the page of the search alone"
    for p in pages:
        name = p.relative_to(root).with_suffix('').as_posix()
        file = static/'texts'/f'{name}.js'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'TEXTS[{json.dumps(name)}] = {json.dumps(text_of(p.read_text(encoding="utf-8")), ensure_ascii=False)}\n', encoding='utf-8')
    (static/'texts.js').write_text(FETCH.lstrip(), encoding='utf-8')

def without_index(page):
    "Take the index of the search out of a page, which has a field that leads to the page of the search"
    if page.stem == 'search': return
    text = page.read_text(encoding='utf-8')
    page.write_text(re.sub(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>', '', text), encoding='utf-8')

# --- hooks ----------------------------------------------------------------------------------------------------------
def for_the_search(app, pagename, templatename, context, doctree):
    if pagename == 'search': app.add_js_file('texts.js', loading_method=None)

def lighten(app, error):
    if error or app.builder.format != 'html': return
    root = Path(app.outdir)
    pages = [p for p in sorted(root.rglob('*.html')) if '_static' not in p.parts]
    write_texts(root/'_static', [p for p in pages if '_modules' not in p.parts and p.stem != 'search'], root)
    draw_icons(root/'_static', pages)
    for p in pages: without_index(p)

def setup(app):
    app.connect('builder-inited', copy_mathjax)
    app.connect('html-page-context', for_the_search)
    app.connect('build-finished', lighten)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
