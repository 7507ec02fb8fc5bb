"""Sphinx extension that reads nbdev notebooks as they are: stored outputs, nothing executed.

A `source-read` hook rewrites the JSON of each notebook before myst-nb parses it: directives become myst-nb's tags,
each exported function or class gets an API entry with the table of its documented parameters, and the name of an
exported object in backticks becomes a link to its entry.
"""
import ast, io, json, re, tokenize
from configparser import ConfigParser
from functools import lru_cache
from pathlib import Path
from sphinx.pycode import ModuleAnalyzer
from bs4 import BeautifulSoup
from nbcells import destination, directives, one_header

FUNCS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFS = (*FUNCS, ast.ClassDef)
# a code span that is one name; double backticks and formulas are matched first and left alone
NAME = re.compile(r'``.+?``|\$[^$]*\$|(?<![\w}\\])`([A-Za-z_][\w.]*)(\(\))?`')

def source(cell): return ''.join(cell['source'])

def markdown(src): return dict(cell_type='markdown', metadata={}, source=src)

def target(d, default):
    "Module which a cell with directives `d` is exported to and shown for, or None"
    return None if 'exporti' in d else destination(d, default)

def patched(o):
    "Class that `o` is patched into (fastcore's `@patch` or `@patch(as_prop=True)`), or ''"
    return ast.unparse(o.args.args[0].annotation) if {'patch', 'patch(as_prop=True)'} & decorators(o) else ''

def decorators(o): return {ast.unparse(d) for d in o.decorator_list}

def qualname(o): return f'{patched(o)}.{o.name}'.lstrip('.')

def parse(src): return ast.parse(re.sub(r'^\s*[%!].*$', 'pass', src, flags=re.M))  # magics are no Python

def public(tree): return [o for o in tree.body if isinstance(o, DEFS) and o.name[0] != '_']

def methods(cls):
    "Methods of a class that get an entry: public ones and `__call__`, if they have a docstring"
    return [o for o in cls.body if isinstance(o, FUNCS) and (o.name[0] != '_' or o.name == '__call__') and ast.get_docstring(o)]

# --- API entries ----------------------------------------------------------------------------------------------------
class Comments:
    "Comments of a source by line; `of(line)` is the one on the line or, as in fastcore's docments, those right above it"
    def __init__(self, src):
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(src).readline) if t.type == tokenize.COMMENT]
        self.notes = {t.start[0]: t.string.lstrip('#').strip() for t in tokens}
        self.alone = {t.start[0] for t in tokens if t.line.lstrip().startswith('#')}

    def of(self, line):
        if line in self.notes: return self.notes[line]
        above = []
        while (line := line - 1) in self.alone: above.insert(0, self.notes[line])
        return ' '.join(above)

def escape(s): return s.replace('|', r'\|')  # for the cell of a table

def unparse(o): return ast.unparse(o) if o is not None else ''

def fields(cls, notes):
    "(name, type, default, comment) of each field of a dataclass"
    anns = [o for o in cls.body if isinstance(o, ast.AnnAssign)]
    return [(o.target.id, unparse(o.annotation), unparse(o.value), notes.of(o.lineno)) for o in anns]

def parameters(func, notes):
    "(name, type, default, comment) of each parameter of a function; a comment belongs to the last one on its line"
    a = func.args
    pos = a.posonlyargs + a.args
    args = [('', o, d) for o, d in zip(pos, [None]*(len(pos) - len(a.defaults)) + a.defaults)]
    if a.vararg: args.append(('*', a.vararg, None))
    elif a.kwonlyargs: args.append(('*', None, None))
    args += [('', o, d) for o, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: args.append(('**', a.kwarg, None))
    last = {o.lineno: o for _, o, _ in args if o}
    note = lambda o: notes.of(o.lineno) if last[o.lineno] is o else ''
    return [(star + o.arg, unparse(o.annotation), unparse(d), note(o)) if o else (star, '', '', '')
            for star, o, d in args if not o or o.arg not in ('self', 'cls')]

def table(params, ret, link):
    "Markdown table of the documented parameters and of the result, a (type, comment); their types stand in the signature"
    rows = [(f'`` {n} ``', note) for n, *_, note in params if note] + ([('returns', ret[1])] if ret and ret[1] else [])
    if not rows: return ''
    return '\n'.join(['', '{.docments}', '| | |', '|---|---|', *(f'| {n} | {link(escape(note))} |' for n, note in rows), ''])

def entry(node, notes, module, link, bases=(), cls='', depth=3):
    "MyST source of the API entry of the function, method or class `node`; `bases` are (class, comments) it inherits fields from"
    cls = cls or patched(node)
    prop = {'property', 'cached_property', 'patch(as_prop=True)'} & decorators(node)
    kind = 'class' if isinstance(node, ast.ClassDef) else 'property' if prop else 'method' if cls else 'function'
    init, ret, inner = node, None, []
    if kind == 'class':
        init = next((o for o in node.body if isinstance(o, FUNCS) and o.name == '__init__'), None)
        inner = [entry(o, notes, module, link, (), node.name, depth - 1) for o in methods(node) if o is not init]
    elif node.returns: ret = unparse(node.returns), notes.notes.get(node.returns.lineno, '')
    params = parameters(init, notes) if init else [f for o, n in (*bases, (node, notes)) for f in fields(o, n)]
    sig = ', '.join(n + (f': {t}' if t else '') + (f' = {d}' if d and t else f'={d}' if d else '') for n, t, d, _ in params)
    sig = f"{cls + '.' if cls else ''}{node.name}" + ('' if prop else f'({sig})' + (f' -> {ret[0]}' if ret else ''))
    fence = ':'*(depth + 2)
    return '\n'.join([f'{fence}{{py:{kind}}} {sig}', f':module: {module}', '', link(ast.get_docstring(node) or ''), '',
                      table(params, ret, link), *inner, fence, ''])

# --- outputs --------------------------------------------------------------------------------------------------------
LINK = re.compile(r'(\]\((?!\w+:)[^)#\s]*)\.(?:ipynb|md)(?=[)#])')
AMOUNT = re.compile(r'[-+±<>]?\d[^a-zA-Z]*$|-$|nan$')
ZERO, TEN = re.compile(r'-(0\.0*)$'), re.compile(r'([-+]?\d(?:\.\d+)?)e([-+]\d+)$')

def tidied(text):
    "A number of a table without the sign of zero, and without a power of ten where it needs none"
    m = TEN.fullmatch(text)
    if m and abs(int(m[2])) < 4: return f'{float(text):.{max(len(m[1].partition(".")[2].rstrip("0")) - int(m[2]), 0)}f}'
    return ZERO.sub(r'\1', text)

def shown(html):
    "The HTML of an output as the site shows it: tables laid out by what their cells hold, links to notebooks lead to their pages"
    html = re.sub(r'(href="(?!\w+:)[^"#]*)\.ipynb(?=["#])', r'\1.html', html)
    if 'class="dataframe"' not in html: return html
    soup = BeautifulSoup(one_header(html), 'html.parser')
    for cell in soup.select('table.dataframe :is(td, th)'):
        text = cell.get_text(strip=True)
        if AMOUNT.match(text): cell.string, cell['class'] = tidied(text), 'num'
        elif len(text) > 36: cell['class'] = 'text'
    return str(soup)

# --- notebooks ------------------------------------------------------------------------------------------------------
def presentation(d, fold, metadata):
    "Metadata of a cell for myst-nb: what the directives `d` remove or caption, and `fold`, the label of a folded cell"
    tags, config = set(metadata.get('tags', [])), dict(metadata.get('mystnb', {}))
    if fold: tags.add('hide-input'); config.update(code_prompt_show=fold, code_prompt_hide=fold)
    if d.get('echo') == 'false' or 'hide_input' in d: tags.add('remove-input')
    if d.get('output') == 'false' or 'hide_output' in d: tags.add('remove-output')
    if 'fig-cap' in d:
        caption = d['fig-cap'].strip('"\'')
        config |= dict(figure={'caption': caption, **({'name': d['label']} if 'label' in d else {})}, image={'alt': caption})
    return {**metadata, 'tags': sorted(tags), **({'mystnb': config} if config else {})}

def names(tree):
    "Functions, classes and variables that the code of a cell defines, but for private ones, comma-separated"
    bound = [t for o in tree.body for t in (o.targets if isinstance(o, ast.Assign) else [o])]
    found = [qualname(o) if isinstance(o, DEFS) else o.id for o in bound if isinstance(o, (ast.Name, *DEFS))]
    return ', '.join(n for n in found if n[0] != '_')

def label(d, tree, paper):
    "What a folded cell is called; None for one that stays open: the methods of a `paper`, and what is not exported"
    if 'code-summary' in d: return d['code-summary'].strip('"\'')
    if tree.body and all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in tree.body): return 'Imports'
    if 'experiment' in d: return ': '.join(filter(None, ['Experiment', names(tree)]))
    if d.keys() & {'export', 'exporti'} and not (paper and 'export' in d and d.get('code-fold') != 'true'):
        return ' of '.join(filter(None, ['Source', ', '.join(qualname(o) for o in tree.body if isinstance(o, DEFS))]))
    if 'test' in d: return ': '.join(filter(None, ['Test', d['test'].replace('_', ' ')]))
    return 'Shared by the tests' if 'test_setup' in d else 'Code' if d.get('code-fold') == 'true' else None

class Project:
    "The exported names of all notebooks, and the rewriting of a notebook by them"
    def __init__(self, root, nbs):
        ini = ConfigParser(delimiters=['='])
        ini.read(root/'settings.ini', encoding='utf-8')
        self.lib = ini['DEFAULT']['lib_path']
        self.names, self.modules = {}, {}   # short name -> full names; (module, page) -> [(name, summary)]
        self.classes = {}                   # name -> (definition, comments)
        for p in sorted(nbs.rglob('*.ipynb')):
            if not any(o[0] in '_.' for o in p.relative_to(nbs).parts): self.add(p, p.relative_to(nbs).with_suffix('').as_posix())

    def add(self, path, page):
        for module, node, src in self.exported(json.loads(path.read_text(encoding='utf-8'))):
            name, short = qualname(node), not self.experiments(module)
            if isinstance(node, ast.ClassDef): self.classes[name] = node, Comments(src)
            for n in [name] + [f'{name}.{o.name}' for o in (methods(node) if isinstance(node, ast.ClassDef) else [])]:
                if short: self.names.setdefault(n, []).append(f'{module}.{n}')
                self.names[f'{module}.{n}'] = [f'{module}.{n}']
            self.modules.setdefault((module, page), []).append((name, (ast.get_docstring(node) or '').split('\n')[0]))

    def experiments(self, module): return module.startswith(f'{self.lib}.experiments.')

    def exported(self, nb):
        "(module, definition, source of its cell) for each public definition of the exported cells"
        default = None
        for c in nb['cells']:
            if c['cell_type'] != 'code': continue
            d, src = directives(source(c))
            default = d.get('default_exp', default)
            to = target(d, default)
            if to: yield from ((f'{self.lib}.{to}', o, src) for o in public(parse(src)))

    def link(self, md):
        "`md` with each `name` that is exported, and by one module only, as a cross reference; not in code blocks and headings"
        def sub(m):
            full = self.names.get(m[1], [])
            return f'{{py:obj}}`{m[1]}{m[2] or ""} <{full[0]}>`' if len(full) == 1 else m[0]
        out, fence = [], False
        for l in md.split('\n'):
            if l.lstrip().startswith(('```', '~~~')): fence = not fence
            out.append(l if fence or l.startswith('#') else NAME.sub(sub, l))
        return '\n'.join(out)

    def cells(self, nb):
        "The cells of a notebook as the site shows them, API entries included"
        default, paper = None, any('experiment' in directives(source(c))[0] for c in nb['cells'])
        for i, c in enumerate(nb['cells']):
            src = source(c)
            if c['cell_type'] == 'markdown':
                if i == 0: src = re.sub(r'^> ', '{.nb-summary}\n> ', src, count=1, flags=re.M)
                yield markdown(self.link(src))
            if c['cell_type'] != 'code': continue
            d, src = directives(src)
            default = d.get('default_exp', default)
            if not src.strip() or 'hide' in d or d.get('include') == 'false': continue
            tree, to = parse(src), target(d, default)
            for o in c['outputs']:
                shown_as = o.get('data', {})
                if 'text/html' in shown_as: shown_as['text/html'] = shown(''.join(shown_as['text/html']))
                if 'text/markdown' in shown_as: shown_as['text/markdown'] = LINK.sub(r'\1.html', ''.join(shown_as['text/markdown']))
            yield {**c, 'source': src, 'metadata': presentation(d, label(d, tree, paper), c['metadata'])}
            if to: yield from (markdown(entry(o, Comments(src), f'{self.lib}.{to}', self.link, self.bases(o))) for o in public(tree))

    def bases(self, o):
        "(class, comments) of the exported classes which the class `o` inherits from, the farthest first"
        near = [self.classes[b.id] for b in getattr(o, 'bases', []) if isinstance(b, ast.Name) and b.id in self.classes]
        return [pair for node, notes in near for pair in (*self.bases(node), (node, notes))]

    def api_index(self):
        "Markdown of all exported names by module, the experiments apart at the end"
        index = {True: [], False: []}
        for (module, page), found in sorted(self.modules.items()):
            apart = self.experiments(module)
            index[apart] += self.module_index('###' if apart else '##', module, page, found)
        head = ['## Experiments', '', 'How the claims of the papers are put to the test; users of the methods need none of it.', '']
        return '\n'.join(index[False] + head*bool(index[True]) + index[True])

    def module_index(self, heading, module, page, found):
        "Lines of Markdown: a heading, and a table of the names `found` in a module"
        out = [f'{heading} `{module}`', '', f'Notebook: {{doc}}`/{page}`', '', '{.api-index}', '| | |', '|---|---|']
        return out + [f'| {{py:obj}}`{n} <{module}.{n}>` | {self.link(escape(s))} |' for n, s in found] + ['']

# --- hooks ----------------------------------------------------------------------------------------------------------
def read_notebook(app, docname, content):
    "Rewrite a notebook, or fill the places of a Markdown page that are generated"
    if not str(app.env.doc2path(docname)).endswith('.ipynb'):
        for marker, make in app.config.nbdev_pages.items():
            if f'<!-- {marker} -->' in content[0]: content[0] = content[0].replace(f'<!-- {marker} -->', make(app.nbdev))
        return
    nb = json.loads(content[0])
    nb['cells'] = list(app.nbdev.cells(nb))
    if docname == app.config.root_doc: nb['cells'].append(markdown(app.config.nbdev_toc))
    nb['nbformat_minor'] = 4   # the added cells carry no ids
    for c in nb['cells']: c.pop('id', None)
    content[0] = json.dumps(nb)

def module_source(app, name):
    "Source of a module for `viewcode`, without importing it, and where each object stands"
    p = Path(app.confdir).parent/(name.replace('.', '/') + '.py')
    return analysed(name, p.read_text(encoding='utf-8')) if p.exists() else None

@lru_cache # viewcode asks again for every object of a module
def analysed(name, source):
    code = ModuleAnalyzer.for_string(source, name)
    code.find_tags()
    funcs = (o for o in ast.parse(code.code).body if isinstance(o, FUNCS))
    return code.code, {**code.tags, **{qualname(o): ('def', (o.decorator_list or [o])[0].lineno, o.end_lineno) for o in funcs}}

def setup(app):
    app.add_config_value('nbdev_toc', '', 'env')       # appended to the root page
    app.add_config_value('nbdev_pages', {}, '')        # marker -> function of the Project: generated parts of Markdown pages
    app.connect('builder-inited', lambda app: setattr(app, 'nbdev', Project(Path(app.confdir).parent, Path(app.srcdir))))
    app.connect('env-get-outdated', lambda app, env, *_: [d for d in env.found_docs if not str(env.doc2path(d)).endswith('.ipynb')])
    app.connect('source-read', read_notebook, priority=100)
    app.connect('viewcode-find-source', module_source)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
