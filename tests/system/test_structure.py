"""The project's own rules: imports one way, modules where their notebooks are, no path of a machine in any file"""
import subprocess, sys
from itertools import combinations
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT/'tools'))
import check

def test_imports_go_one_way(): assert list(check.wrong_way(ROOT)) == []

def test_names_are_defined_and_used(tmp_path):
    assert list(check.loose_names(ROOT)) == []
    (tmp_path/'robustnb').mkdir()
    (tmp_path/'robustnb'/'one.py').write_text('import os, sys\ndef f(): return sys.path, unheard\n')
    assert [l.split(' ', 1)[1] for l in check.loose_names(tmp_path)] == ["'os' imported but unused", "undefined name 'unheard'"]
    page(tmp_path, 'a', '#| hide\n%time\nimport os, re\nfrom json import dumps as text, loads', '#| test one\nre, loads')
    assert [l.partition(': ')[2] for l in check.loose_names(tmp_path)][2:] == ["'os' imported but unused", "'json.dumps as text' imported but unused"]

def test_modules_lie_where_their_notebooks_do(): assert list(check.misplaced(ROOT)) == []

def test_no_file_names_a_path_of_a_machine():
    if subprocess.run(['git', 'rev-parse'], cwd=ROOT, capture_output=True).returncode: pytest.skip('not a git checkout')
    assert list(check.stray_paths(ROOT)) == []

def test_start_up_waits_for_nothing_that_few_need():
    "Whoever trains, attacks or merges does not wait for figures, statistics and compilers"
    late = ('matplotlib', 'scipy.stats', 'scipy.integrate', 'sklearn', 'torchvision', 'accelerate', 'torch._dynamo', 'torch.utils.flop_counter')
    code = f'import sys; from robustnb.evidence.ledger import find_papers; find_papers(); print(*sorted(set({late}) & sys.modules.keys()))'
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.strip() == '', run.stdout + run.stderr

def page(root, name, *cells):
    "A notebook in `root`: Markdown cells, as they are, and code cells, those that start with `#|`"
    nbformat = pytest.importorskip('nbformat')
    p = root/'nbs'/f'{name}.ipynb'
    p.parent.mkdir(parents=True, exist_ok=True)
    make = lambda s: (nbformat.v4.new_code_cell if s.startswith('#|') else nbformat.v4.new_markdown_cell)(s)
    nbformat.write(nbformat.v4.new_notebook(cells=[make(s) for s in cells]), p)

MEASURED = ['AutoAttack leaves 94.0 % of them', 'by 17 and 20 points in the mean', '**12.5 %**', '0.4 to 1.1 % longer', '0.06 nats', 'takes 3 s', '3 seconds',
            'a loss of $1.3\\,\\%$', '30 percent', '30 per cent', 'a two-digit 10-point gain', '1,5 points', '40~%', 'a 95 % interval of 3 points']
ALLOWED = ['its 95 % interval', 'each at the full 95 % level', 'Wilson intervals at 95 %', 'an overall error of 5 %', 'a 95 per cent prediction interval', 'run `--share 30 %`',
           '12 seeds at 3 scales', 'the 1990s', '8/255', 'many points', '```\n10 % done\n```', 'in 20 steps', 'claim 3 says', '$x_3$ points']

@pytest.mark.parametrize('text, typed', [(t, True) for t in MEASURED] + [(t, False) for t in ALLOWED])
def test_typed_numbers_are_found_and_definitions_are_not(tmp_path, text, typed):
    page(tmp_path, 'guides/00_a', text)
    assert len(list(check.typed_numbers(tmp_path))) == typed

def test_typed_numbers_are_sought_in_evidence_guides_and_the_home_page(tmp_path):
    n = 'gains {} %'.format
    page(tmp_path, 'family/01_a', '# Evidence of nothing', n(1), '## Derivation\n' + n(2), '## Evidence on MNIST', n(3), '### Small\n\n' + n(4),
         '#| echo: false\n"gains 5 %"', '```\n## No heading\n```\n' + n(6), '## Limits', n(7), '### Evidence\n' + n(8), '## Use', n(9))
    page(tmp_path, 'index', n(1))
    page(tmp_path, 'guides/01_b', '# Title', n(2), n(3))
    found = list(check.typed_numbers(tmp_path))
    assert [f.partition('types ')[2][:3] for f in found] == ['3 %', '4 %', '6 %', '8 %', '2 %', '3 %', '1 %']
    assert found[0].startswith("nbs/family/01_a.ipynb, under 'Evidence on MNIST' (#") and "'Small'" in found[1]

def package(root, **modules):
    "A package in `root` with the given sources: attacks__pgd='...' is robustnb/attacks/pgd.py"
    for name, src in modules.items():
        p = root/'robustnb'/(name.replace('__', '/') + '.py')
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_text(src)
    return root

@pytest.mark.parametrize('src, other', [
    ('from ..attacks.pgd import pgd', None), ('from ..data import load', None), ('from . import sovr', None), ('import robustnb.data', None),
    ('from ..merging.barrier import barrier', 'merging'), ('from ..merging import barrier', 'merging'), ('from .. import merging', 'merging'),
    ('import robustnb.merging.barrier as b', 'merging'), ('def f():\n    from robustnb.merging import barrier', 'merging')])
def test_import_of_another_family_is_found(tmp_path, src, other):
    package(tmp_path, data='', attacks__pgd='', robustness__sovr='', merging__barrier='', robustness__absum=src)
    found = list(check.wrong_way(tmp_path))
    assert len(found) == (other is not None), found
    if other: assert f'imports robustnb.{other}' in found[0]

PLACES = dict(cli='cli', commands='commands.reproduce', experiments='experiments.absum', robustness='robustness.absum', attacks='attacks.pgd',
              evidence='evidence.claims', foundations='data')  # a module of each layer, the highest first

@pytest.mark.parametrize('upper, lower', list(combinations(PLACES.values(), 2)))
def test_imports_go_down_the_layers_only(tmp_path, upper, lower):
    for me, other in ((upper, lower), (lower, upper)):
        package(tmp_path, **{m.replace('.', '__'): '' for m in PLACES.values()})
        package(tmp_path, **{me.replace('.', '__'): f'from robustnb.{other} import f'})
        wrong = [f'robustnb.{lower}'] if me == lower else []
        assert [f.split()[0] for f in check.wrong_way(tmp_path)] == wrong

@pytest.mark.parametrize('folder, wrong', [('experiments', True), ('commands', False), ('evidence', False), ('robustness', False)])
def test_neighbours_import_each_other_but_for_experiments(tmp_path, folder, wrong):
    package(tmp_path, **{f'{folder}__a': '', f'{folder}__b': 'from .a import f'})
    assert len(list(check.wrong_way(tmp_path))) == wrong

def test_exported_code_fits_its_column(tmp_path):
    assert list(check.long_lines(ROOT)) == []
    page(tmp_path, 'a/00_b', f'#| export\nx = 1\ny = "{"-" * 130}"', f'#| fig-cap: {"c" * 130}\nx', f'#| experiment\nz = "{"-" * 115}"')
    assert [s.partition(': ')[2][:14] for s in check.long_lines(tmp_path)] == ['136 characters', '121 characters']

def test_cells_take_nothing_from_tests(tmp_path):
    assert list(check.taken_from_tests(ROOT)) == []
    page(tmp_path, 'a/00_b', '#| export\nx = y = 1', '#| test one\nimport os\ny, z = 2, 3\ndef f(): return y', '#| hide\nx, [i for i in os.name]',
         '#| test two\nf(), y', '#| hide\ndef g(u): return u + z', '#| hide\n%time\ny', '#| hide\nz = 4\nz', '#| hide\nz, lambda y: y, f')
    assert [s.partition('takes ')[2].split(' #')[0] for s in check.taken_from_tests(tmp_path)] == [
        f'{name} from the test' for name in 'zyf']

def test_cells_take_nothing_from_below(tmp_path):
    assert list(check.used_early(ROOT)) == []
    page(tmp_path, 'a', '#| export\nimport os\ndef f(): return late(1)', '#| test f\nlate, g, input, os', '#| export\ndef late(x): return x',
         '#| hide\ninput = g = 1', '#| test g\nlate, g')
    assert [s.partition('takes ')[2] for s in check.used_early(tmp_path)] == [f'{name} from a cell below' for name in ('late', 'g')]

def test_random_numbers_are_seeded_in_one_place():
    "`torch.manual_seed` also seeds every GPU, for good, whatever is put back afterwards: methods use `models.seeded`"
    own = {'models.py', 'attacks/checks.py'}   # `seeded`; the checks, which seed while they put back more than numbers
    found = [f'{p.relative_to(ROOT)}: {line.strip()}' for p in sorted((ROOT/'robustnb').rglob('*.py'))
             for line in p.read_text().splitlines()
             if ('torch.manual_seed(' in line or 'fork_rng(' in line) and str(p.relative_to(ROOT/'robustnb')) not in own]
    assert found == ['robustnb/commands/train.py: torch.manual_seed(args.seed)']    # a process of its own
