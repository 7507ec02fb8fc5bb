"""`robustnb merge` as its users run it: a process of its own, files and code that know nothing of this library, and mistakes that leave nothing behind."""
import json, os, subprocess, sys
from pathlib import Path
import pytest, torch
from processes import command, finish
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
import robustnb
from robustnb.cli import main
from robustnb.data import load
from robustnb.merging.matching import merge, merge_many, reset_batch_norm
from robustnb.merging.permutations import permutations

ROOT = Path(robustnb.__file__).parents[1]
NET = '''
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
    def forward(self, x): return torch.relu(x + self.bn(self.conv(x)))

def build(width=12): return nn.Sequential(nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), Block(width), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4*width, 10))

class Odd(nn.Module):
    "Goes another way for every input: nothing can follow it"
    def __init__(self): super().__init__(); self.body = build()
    def forward(self, x): return self.body(x) if float(x.mean()) < 2 else self.body(-x)
'''

def run(at, *args, **env):
    "The command in a process: status, stdout, stderr"
    r = subprocess.run([sys.executable, '-m', 'robustnb.cli', 'merge', *args], cwd=at, capture_output=True, text=True, timeout=600,
                       env=os.environ | dict(PYTHONPATH=f"{ROOT}{os.pathsep}{at/'lib'}") | env)
    return r.returncode, r.stdout, r.stderr

def here(capsys, *args):
    "The same in this process: quicker"
    try: code = main(['merge', *args])
    except SystemExit as e: code = e.code
    return code, *capsys.readouterr()

def files(at): return sorted(p.relative_to(at).as_posix() for p in at.rglob('*') if '__pycache__' not in p.parts)

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A folder with three trainings by plain torch, and the code in lib/own/net.py; not to be written to"
    at = tmp_path_factory.mktemp('trained')
    (at/'lib'/'own').mkdir(parents=True)
    (at/'lib'/'own'/'net.py').write_text(NET)
    space = {}
    exec(NET, space)
    data = load('digits', 'train')
    x, y = data.x.float()/255, data.y
    for name in 'abc':
        torch.manual_seed(ord(name))
        model = space['build']()
        opt = torch.optim.SGD(model.parameters(), .1, momentum=.9)
        for i in torch.randperm(len(x)).repeat(3).split(64):
            opt.zero_grad(); nn.functional.cross_entropy(model(x[i]), y[i]).backward(); opt.step()
        save_file(model.state_dict(), at/f'{name}.safetensors')
    return at

@pytest.fixture
def at(trained, tmp_path, monkeypatch):
    "A folder of the test's own with links to the files, as the current one"
    for p in trained.iterdir(): (tmp_path/p.name).symlink_to(p, target_is_directory=p.is_dir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path/'lib')
    yield tmp_path
    for name in [n for n in sys.modules if n.split('.')[0] == 'own']: del sys.modules[name]

TWO = ('a.safetensors', 'b.safetensors', '--model', 'own.net:build', '--out', 'm.safetensors')

def model_and_spec():
    from own.net import build
    return build(), permutations(build(), torch.zeros(2, 1, 8, 8))

def test_a_process_gives_the_bits_of_the_library(at):
    "In a process, with REPAIR and curve: the same weights as by the functions, files without metadata, and a network that is better than the naive average"
    status, out, err = run(at, *TWO, '--data', 'digits', '-n', '500', '--repair', '--curve', 'c.json', '--points', '5')
    assert status == 0 and not err, err
    assert f"written: {at/'m.safetensors'}" in out and f"written: {at/'c.json'}" in out
    (model, spec), found = model_and_spec(), load_file('m.safetensors')
    ours = merge('a.safetensors', 'b.safetensors', spec)
    statistics = {k for k in ours if k.rpartition('.')[2] in ('running_mean', 'running_var', 'num_batches_tracked')}
    assert found.keys() == ours.keys() and all(found[k].equal(v) for k, v in ours.items() if k not in statistics)
    x = load('digits', 'train').x[:500].float()/255
    once = reset_batch_norm(model, [(x, None)], ours)    # one batch of all: its variance is not that of two halves, but near
    assert all(torch.allclose(found[k].float(), once[k].float(), rtol=.1, atol=.05) for k in statistics if 'num' not in k)
    with safe_open('m.safetensors', 'pt') as f, safe_open('a.safetensors', 'pt') as a: assert f.metadata() == a.metadata() and list(f.keys()) == list(a.keys())
    points = json.loads(Path('c.json').read_text())
    middle = {p['way']: p for p in points if p['t'] == .5}
    assert middle['merged, REPAIR']['loss'] < middle['naive']['loss'] and middle['merged, REPAIR']['accuracy'] > .8 and len(points) == 20
    rows = {l.split('  ')[0]: l.split()[-4] for l in out.splitlines() if l.startswith(('naive ', 'merged'))}
    assert all(float(v) == pytest.approx(middle[k]['loss'], abs=6e-5) for k, v in rows.items()) and rows, 'the table shows the points of the curve'

def test_without_data_and_with_metadata(at, capsys):
    "A shape is enough; metadata of the first file, whatever it says, are those of the result; what is there already is replaced"
    for name in 'ab': save_file(load_file(f'{name}.safetensors'), f'{name}2.safetensors', metadata=dict(format='pt', epoch=name))
    Path('m.safetensors').write_text('old')
    code, out, err = here(capsys, 'a2.safetensors', 'b2.safetensors', *TWO[2:], '--shape', '1,8,8', '--t', '0.25', '--seed', '3')
    assert code == 0 and err.startswith('robustnb: warning: the network has batch norm') and err.count('\n') == 1
    ours, found = merge('a.safetensors', 'b.safetensors', model_and_spec()[1], t=.25, seed=3), load_file('m.safetensors')
    with safe_open('m.safetensors', 'pt') as f: assert f.metadata() == dict(format='pt', epoch='a')
    assert all(found[k].equal(v) for k, v in ours.items())

def test_three_files(at, capsys):
    code, out, err = here(capsys, 'a.safetensors', 'b.safetensors', 'c.safetensors', *TWO[2:], '--data', 'digits', '-n', '500', '--repair')
    assert code == 0 and not err, err
    model, spec = model_and_spec()
    ours, found = merge_many(['a.safetensors', 'b.safetensors', 'c.safetensors'], spec)[1], load_file('m.safetensors')
    assert all(found[k].equal(v) for k, v in ours.items() if 'running' not in k and 'num_batches' not in k)
    assert [l.split('  ')[0].strip() for l in out.splitlines() if '%' in l] == ['a', 'b', 'c', 'naive', 'naive, REPAIR', 'merged', 'merged, REPAIR']

def test_the_command_is_killed_by_nothing_halfway(at, monkeypatch, capsys):
    "An error while writing, as of a full disk, leaves the old file and no other"
    Path('m.safetensors').write_text('old')
    before = files(at)
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('robustnb.commands.files.os.replace', full)
    code, out, err = here(capsys, *TWO, '--shape', '1,8,8')
    assert code == 2 and 'No space left on device' in err and 'written' not in out
    assert Path('m.safetensors').read_text() == 'old' and files(at) == before

WRONG = [(('--repair',), '--repair needs images: give --data'), (('--out', 'b.safetensors'), 'is one of the files to merge'), (('--out', 'other/../b.safetensors'), 'is one of the files to merge'),
         (('--out', 'no/such/m.safetensors'), 'no file can be written at no/such/m.safetensors'), (('--out', 'm.pth'), '.safetensors'), (('--curve', 'm.txt', '--data', 'digits'), '.csv or .json'),
         (('--model', 'own.net:Odd'), 'missing body.'), (('--model', 'own.net:built'), "did you mean 'build'"), (('--method', 'straight_through'), '--method straight_through needs images'),
         (('--data', 'nowhere'), "unknown data set 'nowhere'"), (('--t', '-1'), '--t -1.0 is not between 0 and 1'), (('--shape', '3,8,8'), 'Is x what the model takes')]

def test_mistakes_are_one_sentence_and_leave_nothing(at, capsys):
    state = load_file('a.safetensors')
    (at/'other').mkdir()
    torch.save(state, 'a.pt')
    save_file(state | {'6.bias': state['6.bias'].fill_(torch.inf)}, 'inf.safetensors')
    save_file({'module.' + k: v for k, v in load_file('a.safetensors').items()}, 'p1.safetensors')
    save_file({'module.' + k: v for k, v in load_file('a.safetensors').items()}, 'p2.safetensors')
    for k in 'ab': save_file({'body.' + n: v for n, v in load_file(f'{k}.safetensors').items()}, f'odd{k}.safetensors')
    (at/'half.safetensors').write_bytes(Path('a.safetensors').read_bytes()[:2000])
    before = files(at)
    shape = TWO + ('--shape', '1,8,8')
    slips = [(shape + more, said) for more, said in WRONG]
    slips += [((*first, *TWO[2:], '--shape', '1,8,8'), said) for first, said in (
        (('a.safetensors', 'inf.safetensors'), "inf.safetensors: '6.bias' has NaN or infinite values"), (('a.safetensors', 'half.safetensors'), 'half.safetensors is not a safetensors file, or is truncated'),
        (('a.pt', 'b.safetensors'), "safetensors.torch.save_file(torch.load('a.pt', weights_only=True), 'a.safetensors')"), (('p1.safetensors', 'p2.safetensors'), 'DataParallel'),
        (('a.safetensors', './a.safetensors'), 'is named twice'), (('a.safetensors',), 'two files or more'))]
    slips.append((('odda.safetensors', 'oddb.safetensors', '--model', 'own.net:Odd', *shape[4:]), 'cannot trace the model'))
    for argv, said in slips:
        code, out, err = here(capsys, *argv)
        assert code == 2 and said in err and not out and err.startswith('robustnb: ') and len(err.splitlines()) == 1, (argv, out, err)
        assert files(at) == before, f'{argv} left something behind'

def test_a_mistake_in_a_process(at):
    before = files(at)
    status, out, err = finish(at, command(at, 'merge', *TWO, '--repair'))
    assert (status, out) == (2, '') and err == 'robustnb: --repair needs images: give --data or --condensed\n' and files(at) == before

def test_the_conversion_that_is_advised_works(at, capsys):
    "The line in the message turns a pickle into a file that can be merged"
    torch.save(load_file('a.safetensors'), 'p.pt')
    err = here(capsys, 'p.pt', *TWO[1:], '--shape', '1,8,8')[2]
    import safetensors.torch
    eval(err.partition('convert it once: ')[2].strip(), dict(safetensors=safetensors, torch=torch))
    assert here(capsys, 'p.safetensors', *TWO[1:], '--shape', '1,8,8')[0] == 0
    ours = merge('a.safetensors', 'b.safetensors', model_and_spec()[1])
    assert all(v.equal(ours[k]) for k, v in load_file('m.safetensors').items())

def test_help_does_not_wait_for_torch(at):
    code = "import sys; from robustnb.cli import main\ntry: main(['merge', '--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules, file=sys.stderr)"
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)), timeout=600)
    assert r.stderr.strip() == 'False' and '--repair' in r.stdout
