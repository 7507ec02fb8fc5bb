"""Whether the stored outputs of a notebook come from the code as it is: the fingerprint of what is behind them.

It has three parts: `cells`, the notebook's own code, of the cells that are run without flags; `package`, the modules
which that code imports, and those which these import; `results`, the stored results which it reads. These are the files
of the papers whose experiment it imports or is. Whoever asks for all papers, by `find_papers` or a ledger without a paper,
reads all files and all modules of experiments, but not the methods below them: a verdict follows from claims and results.
The modules of `evidence` offer this and don't ask. Code counts by its syntax tree: comments, docstrings and layout don't.
"""
import ast, hashlib, json, re
from functools import lru_cache
from nbcells import LIB, destination, directives, imports, skipped

KEY = 'robustnb_fingerprint'  # of the notebook's metadata; settings.ini has it, so that cleaning keeps it
WITH_DOCSTRING = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

def digest(data:bytes): return hashlib.sha256(data).hexdigest()[:12]

def canonical(o):
    "The syntax tree `o` as nested lists without docstrings, the same for every version of Python"
    if isinstance(o, list): return [canonical(x) for x in o]
    if not isinstance(o, ast.AST): return repr(o)
    fields = dict(ast.iter_fields(o))
    if isinstance(o, WITH_DOCSTRING) and ast.get_docstring(o, clean=False) is not None: fields['body'] = o.body[1:]
    return [type(o).__name__, *([k, canonical(v)] for k, v in fields.items() if v not in (None, []) and k != 'kind')]

@lru_cache(maxsize=None)
def module(text):
    "(syntax tree, digest) of a module's source"
    tree = ast.parse(text)
    return tree, digest(json.dumps(canonical(tree)).encode())

def own_code(nb):
    "The parts of a notebook that are run: a syntax tree per cell, or its text where it is no Python"
    for c in nb.cells:
        if c.cell_type != 'code' or skipped(c): continue
        src = directives(c.source)[1]
        try: yield ast.parse(src)
        except SyntaxError: yield src

def imported(tree, root, package=()):
    "Names of the modules that code imports; a string that is a module's name counts, since commands import by name"
    yield from imports(tree, root, package)
    for o in ast.walk(tree):
        if isinstance(o, ast.Constant) and isinstance(o.value, str) and re.fullmatch(r'[a-z]\w*(\.\w+)*', o.value):
            yield o.value if o.value.startswith(LIB + '.') else f'{LIB}.{o.value}'

def modules_behind(trees, root):
    "{name: (syntax tree, digest)} of the package's modules that the code `trees` imports, directly or through others"
    found, todo = {}, {name for t in trees for name in imported(t, root)}
    while todo:
        name = todo.pop()
        path = root/f"{name.replace('.', '/')}.py"
        if name in found or not path.exists(): continue
        found[name] = module(path.read_text(encoding='utf-8'))
        todo |= set(imported(found[name][0], root, name.split('.')[:-1]))
    return found

def asks_for_all(tree):
    "Whether code names `find_papers`, or asks a ledger for no paper in particular"
    for o in ast.walk(tree):
        if 'find_papers' in (getattr(o, k, None) for k in ('id', 'attr', 'name')): return True
        if isinstance(o, ast.Call) and ast.unparse(o.func).split('.')[-1] in ('ledger', 'show_ledger'):
            if not o.args and not any(k.arg == 'papers' for k in o.keywords): return True
    return False

def fingerprint(nb, root):
    "{part: digest} of the notebook `nb` and of what it imports and reads in the checkout `root`"
    code, experiments = list(own_code(nb)), f'{LIB}.experiments.'
    trees = [o for o in code if isinstance(o, ast.AST)]
    behind = modules_behind(trees, root)
    ask = trees + [tree for name, (tree, _) in behind.items() if not name.startswith(f'{LIB}.evidence')]
    if any(map(asks_for_all, ask)):
        for p in (root/LIB/'experiments').glob('[!_]*.py'):
            behind[experiments + p.stem] = module(p.read_text(encoding='utf-8'))
        results = {p.stem for p in (root/LIB/'results').glob('*.json*')}
    else:
        results = {name.removeprefix(experiments) for name in behind if name.startswith(experiments)} | own_experiment(nb)
    files = [root/LIB/'results'/f'{key}.{kind}' for key in sorted(results) for kind in ('json', 'jsonl')] # lines not yet merged count
    parts = dict(cells=[canonical(o.body) if isinstance(o, ast.AST) else o for o in code],
                 package=sorted((name, d) for name, (_, d) in behind.items()),
                 results=[(p.stem, digest(p.read_bytes())) for p in files if p.exists()])
    return {k: digest(json.dumps(v).encode()) for k, v in parts.items()}

def own_experiment(nb):
    "The key of the paper whose experiment the notebook makes, as a set"
    found = [directives(c.source)[0] for c in nb.cells if c.cell_type == 'code']
    default = next((d['default_exp'] for d in found if 'default_exp' in d), '')
    return {destination(d, default).rpartition('.')[2] for d in found if 'experiment' in d}

def out_of_step(nb, root):
    "Parts of the fingerprint that changed since the notebook's outputs were stored; none for a notebook that runs nothing"
    if not any(own_code(nb)): return []
    stored = nb.metadata.get(KEY)
    return [k for k, v in fingerprint(nb, root).items() if stored.get(k) != v] if stored else ['no fingerprint']
