"""The build's own tools: exporter of tests, runner of notebooks, README, notebooks as text"""
import shutil, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT/'tools'))
nbformat = pytest.importorskip('nbformat')
pytest.importorskip('nbdev', reason='the tools need the dev requirements')
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
import check, export_tests, nbcells, nbtext, readme, run_nbs

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
    failed = run(nb, '--flags', 'slow', '--no-save')
    assert failed.returncode == 1 and 'ZeroDivisionError' in failed.stderr and 'FAIL' in failed.stdout

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
