"""The build's own tools: exporter of tests, runner of notebooks, README, notebooks as text"""
import base64, io, json, re, shutil, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT/'tools'))
nbformat = pytest.importorskip('nbformat')
pytest.importorskip('nbdev', reason='the tools need the dev requirements')
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
import check, export_tests, fingerprint, nbcells, nbtext, readme, run_nbs

PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

def write(path, *sources):
    "A notebook of code cells, `# ...` ones as headings"
    cells = [new_markdown_cell(s) if s.startswith('# ') else new_code_cell(s) for s in sources]
    nbformat.write(new_notebook(cells=cells, metadata=run_nbs.KERNEL), path)
    return path

def exported(tmp_path, *sources):
    "Text of the test file of a notebook"
    cells = export_tests.Cells(write(tmp_path/'nb.ipynb', '#| default_exp a.b', *sources), 'lib')
    return export_tests.test_source(cells, '../nbs/nb.ipynb')

def test_directives():
    assert nbcells.directives('#| test name\n# | slow\n\nx = 1\n#| no') == ({'test': 'name', 'slow': ''}, 'x = 1\n#| no')
    assert nbcells.directives('#| fig-cap: A: b\nx') == ({'fig-cap': 'A: b'}, 'x')
    assert nbcells.directives('x = 1') == ({}, 'x = 1')

def test_test_cell_becomes_a_function_with_what_it_uses(tmp_path):
    text = exported(tmp_path, '#| export\nimport os, math\ndef f(x): return math.sqrt(x)', '#| hide\nimport numpy as np, pandas as pd',
                    '#| test_setup\ndef helper(): return 4', '#| test root\n#| slow\ns = """a\nb"""\nassert f(helper()) == np.sqrt(4)')
    assert 'from lib.a.b import f\n' in text and 'import numpy as np\n' in text and 'pandas' not in text and 'import os' not in text
    assert '@pytest.mark.slow\ndef test_root():\n    s = """a\nb"""\n    assert' in text
    compile(text, 'test', 'exec')

def test_equal_names_are_numbered(tmp_path):
    text = exported(tmp_path, '# Square root', '#| test\nassert 1', '#| test\nassert 2')
    assert 'def test_square_root():' in text and 'def test_square_root_2():' in text

def test_test_that_leans_on_the_notebook_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"under 'Data'.*uses \['df'\]"): exported(tmp_path, '# Data', 'df = 1', '#| test\nassert df')

def test_test_uses_names_and_imports_of_experiment_cells(tmp_path):
    text = exported(tmp_path, '#| export\ndef f(x): return x', '#| code-fold: true\n#| experiment\nimport math\nfrom lib.a.b import f\narms = {1: f}',
                    '#| test arms\nassert arms[1](math.pi) == f(math.pi)')
    assert text.count('import') == 3 and 'from lib.experiments.b import arms\n' in text and 'from lib.a.b import f\n' in text and 'import math\n' in text

def run(nb, *args):
    return subprocess.run([sys.executable, ROOT/'tools'/'run_nbs.py', nb, *args], capture_output=True, text=True)

def test_notebook_is_run_and_stored(tmp_path):
    nb = write(tmp_path/'a.ipynb', '6*7', '#| slow\n1/0', '#| eval: false\n1/0')
    assert run(nb).returncode == 0
    cells = nbformat.read(nb, 4).cells
    assert cells[0].outputs[0].data['text/plain'] == '42' and not cells[1].outputs and cells[0].execution_count is None
    assert fingerprint.out_of_step(nbformat.read(nb, 4), ROOT) == []
    failed = run(nb, '--flags', 'slow', '--no-save')
    assert failed.returncode == 1 and 'ZeroDivisionError' in failed.stderr and 'FAIL' in failed.stdout

def test_outputs_of_a_failed_run_have_no_fingerprint(tmp_path):
    nb = write(tmp_path/'a.ipynb', '6*7')
    for src, parts in (('6*7', []), ('1/0', ['no fingerprint'])):
        old = nbformat.read(nb, 4)
        old.cells[0].source = src
        nbformat.write(old, nb)
        run(nb)
        assert fingerprint.out_of_step(nbformat.read(nb, 4), ROOT) == parts

def test_cell_that_needs_what_is_not_installed_is_left_out(tmp_path):
    nb = write(tmp_path/'a.ipynb', 'import pytest', "pytest.importorskip('not_there')", '6*7')
    assert run(nb).returncode == 0
    assert [len(c.outputs) for c in nbformat.read(nb, 4).cells] == [0, 0, 1]

def test_pictures_are_stored_light_and_look_the_same():
    def drawn(**kw):
        out, fig = io.BytesIO(), Figure(figsize=(5, 3))
        ax = fig.subplots()
        for i in range(12): ax.plot(np.sin(np.arange(100)/10 + i), '.-')
        fig.savefig(out, **kw)
        return base64.b64encode(out.getvalue()).decode()
    def pixels(png): return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB')).astype(int)
    png = drawn()
    light = run_nbs.lighter(png)
    assert len(light) < len(png)/2 and abs(pixels(light) - pixels(png)).max() < 40
    white = (pixels(png) == 255).all(-1)
    assert white.any() and (pixels(light)[white] == 255).all(), 'white stays white'
    assert run_nbs.lighter(light) == light
    through = drawn(transparent=True)
    assert run_nbs.lighter(through) == through, 'what is transparent stays so'

def test_notebook_over_its_time_is_stopped(tmp_path):
    late = run(write(tmp_path/'a.ipynb', 'import time; time.sleep(60)'), '--timeout', '3', '--no-save')
    assert late.returncode == 1 and 'timed out' in late.stderr

def index():
    "A home page with a link, a hidden cell, a folded figure and a table"
    fig = new_code_cell('#| code-fold: true\n#| fig-cap: "A wave"\nplot()', outputs=[new_output('display_data', data={'image/png': PNG})])
    html = '<table><thead><tr><th></th><th>v</th></tr><tr><th>paper</th><th></th></tr></thead><tbody><tr><th>a|b</th><td>1</td></tr></tbody></table>'
    tab = new_code_cell('table()', outputs=[new_output('execute_result', data={'text/html': html, 'text/plain': 'v'})])
    noise = new_code_cell('fit()', outputs=[new_output('stream', name='stderr', text='50%|')])
    text = new_markdown_cell('# Home\n\n[data](00_data.ipynb), [web](https://example.org), [below](#use)')
    return new_notebook(cells=[text, new_code_cell('#| hide\nsecret()'), fig, tab, noise])

def test_readme(tmp_path):
    text, figures = readme.convert(index())
    assert '[data](nbs/00_data.ipynb), [web](https://example.org), [below](#use)' in text
    assert 'secret' not in text and '#|' not in text and 'plot()' not in text and '50%' not in text
    assert '![A wave](docs/images/index_1_0.png)' in text and list(figures) == ['docs/images/index_1_0.png']
    assert '| paper | v |\n| --- | --- |\n| a\\|b | 1 |' in text and '```python\ntable()\n```' in text

def test_readme_is_idempotent_and_drops_old_figures(tmp_path):
    (tmp_path/'nbs').mkdir()
    nbformat.write(index(), tmp_path/'nbs'/'index.ipynb')
    (tmp_path/'docs'/'images').mkdir(parents=True)
    (tmp_path/'docs'/'images'/'index_9_0.png').write_bytes(b'old')
    readme.write_readme(tmp_path)
    first = (tmp_path/'README.md').read_text()
    readme.write_readme(tmp_path)
    assert (tmp_path/'README.md').read_text() == first
    assert [p.name for p in (tmp_path/'docs'/'images').iterdir()] == ['index_1_0.png']

def test_text_and_back_keeps_ids_and_outputs():
    old = index()
    cells = nbtext.parse(nbtext.to_text(old))
    new = nbtext.merge(old, cells[:2] + [('markdown', 'added')] + cells[2:-1] + [('code', 'fit(2)')])
    assert [c.id for c in new.cells if c.source != 'added'] == [c.id for c in old.cells]
    assert new.cells[3].outputs == old.cells[2].outputs and new.cells[-1].outputs == []

def test_text_and_back_keeps_the_fingerprint_while_no_output_is_lost():
    old = index()
    old.metadata[fingerprint.KEY] = {'cells': 'x'}
    cells = nbtext.parse(nbtext.to_text(old))
    for edited, kept in ((cells, True), (cells + [('markdown', 'more')], True), (cells[:-1], True), (cells[:-1] + [('code', 'fit(2)')], False)):
        assert (fingerprint.KEY in nbtext.merge(old, edited).metadata) == kept

SOURCES = dict(data='def load(): return 1', training='x = 1', models='from .data import load\ndef f():\n    "Doc"\n    return load()',
               evidence__ledger='def find_papers(): return 1\ndef ledger(papers=None): return papers or find_papers()',
               robustness__sovr='from ..models import f', experiments__sovr='from ..robustness.sovr import f\nimport robustnb.evidence.ledger',
               experiments__blf='arms = 1', commands__show='from ..evidence.ledger import find_papers', cli='name = "commands.show"')

@pytest.fixture
def house(tmp_path):
    "A checkout of a package with two papers, and a folder for notebooks; `change(path, text)` appends to a file of it"
    for name, src in SOURCES.items():
        p = tmp_path/'robustnb'/f"{name.replace('__', '/')}.py"
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_text(src + '\n')
    (tmp_path/'robustnb'/'results').mkdir()
    for key in ('sovr', 'blf'): (tmp_path/'robustnb'/'results'/f'{key}.json').write_text('{}')
    (tmp_path/'nbs').mkdir()
    return tmp_path

def recorded(root, *sources, name='a'):
    "Path of a notebook whose outputs are in step"
    path = write(root/'nbs'/f'{name}.ipynb', *sources)
    nb = nbformat.read(path, 4)
    nb.metadata[fingerprint.KEY] = fingerprint.fingerprint(nb, root)
    nbformat.write(nb, path)
    return path

def out_of_step(root, path): return fingerprint.out_of_step(nbformat.read(path, 4), root)

IMPORTS = {'models': ['from robustnb.models import f'], 'sovr': ['def g():\n    from robustnb.experiments import sovr'], 'cli': ['import robustnb.cli'],
           'none': ['1'], 'paper': ['#| default_exp robustness.sovr', '#| experiment\n1'], 'all': ['from robustnb.evidence.ledger import ledger\nledger()'],
           'one': ['from robustnb.evidence.ledger import ledger\nledger(1)'], 'named': ['run(["-m", "robustnb.models"])']}

@pytest.mark.parametrize('changed, stale', [
    ('data.py', 'models sovr named'), ('training.py', ''), ('models.py', 'models sovr named'), ('robustness/sovr.py', 'sovr'),
    ('experiments/sovr.py', 'sovr cli all'), ('experiments/blf.py', 'cli all'), ('evidence/ledger.py', 'sovr cli all one'), ('commands/show.py', 'cli'),
    ('results/sovr.json', 'sovr cli paper all'), ('results/blf.json', 'cli all')])
def test_outputs_are_out_of_step_with_what_they_come_from(house, changed, stale):
    nbs = {k: recorded(house, *v, name=k) for k, v in IMPORTS.items()}
    assert not any(out_of_step(house, p) for p in nbs.values())
    with (house/'robustnb'/changed).open('a') as f: f.write('\nnew = 1\n')
    part = 'results' if changed.endswith('json') else 'package'
    assert {k: out_of_step(house, p) for k, p in nbs.items()} == {k: [part]*(k in stale.split()) for k in nbs}

@pytest.mark.parametrize('old, new, changed', [
    ('x = 1', 'x = 2', True), ('x = 1', 'x=1 # why', False), ('x = 1', '"shown"', True), ('"shown"', '"else"', True), ('def f():\n    "A"', 'def f():\n    "B"', False),
    ('def f(): return "A"', 'def f(): return "B"', True), ('class A:\n    "A"\n    x = None', 'class A:\n    "B"\n    x = None', False), ('x = 1', 'x = 1.', True),
    ('#| fig-cap: a\nx', '#| fig-cap: b\nx', False), ('#| slow\nx', '#| slow\ny', False), ('!ls', '!ls -l', True), ('x = 1', 'x = True', True), ('x', 'x, y', True)])
def test_cells_count_by_what_they_do(house, old, new, changed):
    path = recorded(house, old)
    nb = nbformat.read(path, 4)
    nb.cells[0].source = new
    assert fingerprint.out_of_step(nb, house) == ['cells']*changed

def test_comments_and_docstrings_of_modules_count_for_nothing(house):
    path, models = recorded(house, 'import robustnb.models'), house/'robustnb'/'models.py'
    models.write_text('"New"\n# why\n' + models.read_text().replace('Doc', 'Other'))
    assert out_of_step(house, path) == []
    models.write_text(models.read_text().replace('load()', 'load() + 1'))
    assert out_of_step(house, path) == ['package']

def test_notebooks_in_other_states_are_listed_and_picked(house):
    for i in range(20): recorded(house, f'{i}', name=f'{i:02}')
    stale, unknown = recorded(house, 'import robustnb.data', name='stale'), write(house/'nbs'/'unknown.ipynb', '1')
    write(house/'nbs'/'prose.ipynb', '# Nothing is run')
    (house/'nbs'/'benchmarks').mkdir()
    slow = write(house/'nbs'/'benchmarks'/'slow.ipynb', '1')
    (house/'robustnb'/'data.py').write_text('y = 1')
    listed = list(check.other_code(house))
    assert len(listed) == 3 and '(package)' in listed[1] and listed[1].startswith('nbs/stale.ipynb') and '(no fingerprint)' in listed[2]
    assert run_nbs.pick('stale', house, '') == [slow, stale, unknown] and len(run_nbs.pick('all', house, '')) == 24
    samples = [run_nbs.pick('due', house, commit) for commit in 'abcdefghijkl']
    assert all(s[:2] == [stale, unknown] and len(set(s)) == 2 + run_nbs.SAMPLE for s in samples) and samples[0] == run_nbs.pick('due', house, 'a')
    assert len(set().union(*samples)) > 18

def test_a_notebook_is_not_begun_when_time_is_up(tmp_path):
    nb = write(tmp_path/'a.ipynb', '#| hide\n1/0')
    late = run(nb, '--minutes', '0')
    assert late.returncode == 0 and 'left, for want of time' in late.stdout and run(nb, '--minutes', '1').returncode == 1

def test_cleaning_keeps_the_fingerprint(checkout):
    path = checkout/'nbs'/'00_a.ipynb'
    nb = nbformat.read(path, 4)
    nb.metadata.update({fingerprint.KEY: {'cells': 'x'}, 'mine': 1})
    nbformat.write(nb, path)
    subprocess.run([Path(sys.executable).parent/'nbdev_clean'], cwd=checkout, check=True)
    assert nbformat.read(path, 4).metadata.keys() == {fingerprint.KEY, 'kernelspec'}

@pytest.fixture
def checkout(tmp_path):
    "A checkout with two notebooks, one in a folder, and of each an older copy below .ipynb_checkpoints, where Jupyter keeps it"
    root = tmp_path/'checkout'
    for name in ('00_a', 'deep/01_b'):
        nb = root/'nbs'/f'{name}.ipynb'
        old = nb.parent/'.ipynb_checkpoints'/f'{nb.stem}-checkpoint.ipynb'
        old.parent.mkdir(parents=True)
        module = name.replace('/', '.').replace('00_', '').replace('01_', '')
        for path, f in ((nb, 'new'), (old, 'old')):
            write(path, f'#| default_exp {module}', f'#| export\ndef {f}(): return 1', f'#| test {f}\nassert {f}() == 1')
    shutil.copy(ROOT/'nbs'/'index.ipynb', root/'nbs')
    shutil.copy(ROOT/'settings.ini', root)
    shutil.copytree(ROOT/'tools', root/'tools')
    return root

PAPER = ['#| default_exp family.own', '#| export\ndef own(): return 1', '#| experiment\n#| code-fold: true\nfrom robustnb.family.own import own\nimport os',
         'print(own())', '#| experiment\narms = {os.sep: own}', '#| experiment\n_hidden = 1\ndef run(trial): return arms']

def test_experiment_cells_make_a_module_of_their_own(checkout, tmp_path):
    (checkout/'nbs'/'family').mkdir()
    nb = write(checkout/'nbs'/'family'/'01_own.ipynb', *PAPER)
    fresh = tmp_path/'fresh'
    fresh.mkdir()
    check.regenerate(checkout, fresh)
    made, ids = (fresh/'robustnb'/'experiments'/'own.py').read_text(), [c.id for c in nbformat.read(nb, 4).cells]
    assert '# AUTOGENERATED! DO NOT EDIT! File to edit: ../../nbs/family/01_own.ipynb.' in made and check.GENERATED in made
    body = [('from ..family.own import own\nimport os', ids[2]), ('arms = {os.sep: own}', ids[4]), ('_hidden = 1\ndef run(trial): return arms', ids[5])]
    assert made.endswith("__all__ = ['arms', 'run']" + ''.join(f'\n\n# %% ../../nbs/family/01_own.ipynb #{id}\n{src}' for src, id in body) + '\n')
    assert 'def run' not in (fresh/'robustnb'/'family'/'own.py').read_text() and (fresh/'robustnb'/'experiments'/'__init__.py').exists()
    assert "'robustnb.experiments.own.run'" in (fresh/'robustnb'/'_modidx.py').read_text()

def export_experiments(root): return subprocess.run([sys.executable, 'tools/export_experiments.py'], cwd=root, capture_output=True, text=True)

def test_module_of_experiments_goes_with_its_notebook(checkout):
    (checkout/'nbs'/'family').mkdir()
    nb, made = write(checkout/'nbs'/'family'/'01_own.ipynb', *PAPER), checkout/'robustnb'/'experiments'
    for there in (True, False):
        assert export_experiments(checkout).returncode == 0
        assert (made/'own.py').exists() == there and (made/'__init__.py').exists()
        nb.unlink(missing_ok=True)

@pytest.mark.parametrize('place, module, why', [('02_x', 'x', 'no <family>.<key>'), ('other/01_own', 'other.own', 'a key is for one paper')])
def test_misplaced_experiment_is_refused(checkout, place, module, why):
    for name, exp in (('family/01_own', 'family.own'), (place, module)):
        nb = checkout/'nbs'/f'{name}.ipynb'
        nb.parent.mkdir(exist_ok=True)
        write(nb, f'#| default_exp {exp}', *PAPER[1:])
    done = export_experiments(checkout)
    assert done.returncode == 1 and why in done.stderr and f'{place}.ipynb' in done.stderr

def test_copies_below_ipynb_checkpoints_are_not_exported(checkout, tmp_path):
    (tmp_path/'fresh').mkdir()
    check.regenerate(checkout, tmp_path/'fresh')
    made = check.generated(tmp_path/'fresh')
    assert {'robustnb/a.py', 'robustnb/deep/b.py', 'tests/test_a.py', 'tests/test_deep_b.py'} <= made.keys()
    assert not any('checkpoint' in p or b'def old' in text or b'def test_old' in text for p, text in made.items())
    assert list(check.misplaced(checkout)) == []

def test_copies_below_ipynb_checkpoints_are_not_run(checkout):
    done = run(*sorted((checkout/'nbs').rglob('0*.ipynb')), '--no-save')
    assert done.returncode == 0 and done.stdout.count('ok  ') == 2 and 'checkpoint' not in done.stdout, done.stdout + done.stderr

def test_copies_below_ipynb_checkpoints_are_no_pages(checkout):
    pytest.importorskip('sphinx', reason='the site needs the docs requirements: pip install -e ".[docs]"')
    code = '''if True:
        import sys; sys.path.insert(0, sys.argv[1])
        import conf, pathlib
        from sphinx.util.matching import get_matching_files
        nbs = pathlib.Path(sys.argv[2])/'nbs'
        print(*get_matching_files(nbs, exclude_patterns=conf.exclude_patterns), *conf.Project(nbs.parent, nbs).names, sep='\\n')'''
    done = subprocess.run([sys.executable, '-c', code, ROOT/'docs', checkout], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {'00_a.ipynb', 'deep/01_b.ipynb', 'robustnb.a.new', 'robustnb.deep.b.new'} <= set(done.stdout.split())
    assert 'checkpoint' not in done.stdout and 'old' not in done.stdout

def test_page_of_a_paper_shows_its_methods_and_folds_its_experiment(checkout):
    pytest.importorskip('sphinx', reason='the site needs the docs requirements: pip install -e ".[docs]"')
    sys.path.insert(0, str(ROOT/'docs'))
    from nbdev_sphinx import Project
    (checkout/'nbs'/'family').mkdir()
    nb = write(checkout/'nbs'/'family'/'01_own.ipynb', *PAPER, '#| export\n#| code-fold: true\ndef helper(): return 1', '#| exporti\ndef inner(): return 1')
    project = Project(checkout, checkout/'nbs')
    folded = lambda nb: [(c['source'].splitlines()[-1], c['metadata'].get('mystnb', {}).get('code_prompt_show'))
                         for c in project.cells(json.loads(nb.read_text())) if c['cell_type'] == 'code']
    assert folded(nb) == [('def own(): return 1', None), ('import os', 'Imports'), ('print(own())', None), ('arms = {os.sep: own}', 'Experiment: arms'),
                          ('def run(trial): return arms', 'Experiment: run'), ('def helper(): return 1', 'Source of helper'), ('def inner(): return 1', 'Source of inner')]
    assert folded(checkout/'nbs'/'00_a.ipynb')[0] == ('def new(): return 1', 'Source of new')  # no paper's page
    api = project.api_index()
    assert re.findall('^(#+) (.*)$', api, re.M) == [('##', f'`robustnb.{m}`') for m in ('a', 'deep.b', 'family.own')] + [('##', 'Experiments'), ('###', '`robustnb.experiments.own`')]
    assert '<robustnb.experiments.own.run>' in api.partition('## Experiments')[2] and '<robustnb.family.own.own>' in api.partition('## Experiments')[0]
    assert project.link('`own` and `run`') == '{py:obj}`own <robustnb.family.own.own>` and `run`'  # an experiment's names are words of prose
