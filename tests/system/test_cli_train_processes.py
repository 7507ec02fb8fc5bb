"""`robustnb train` as its users run it: killed in the middle, in two processes, on a folder of images and code of their own, and with mistakes."""
import os, signal, subprocess, sys, time
from pathlib import Path
import pytest, torch
from PIL import Image
from processes import command, finish, launched
from safetensors.torch import load_file
import robustnb
from robustnb.cli import main
from robustnb.data import image_folder
from robustnb.evaluation import evaluate
from robustnb.training import load_state

ROOT = Path(robustnb.__file__).parents[1]
HOLD = '''
import os, time
from pathlib import Path
from torch import nn

class Hold(nn.Module):
    "Once there is a file like $HOLD, pass number $PASS stops the world until it is killed: where that happens does not depend on time"
    seen = 0
    def forward(self, x):
        if 'HOLD' in os.environ and list(Path().glob(os.environ['HOLD'])):
            self.seen += 1
            if self.seen == int(os.environ['PASS']):
                Path('held').touch()
                time.sleep(120)
                raise SystemExit('nobody came')
        return x

def build(): return nn.Sequential(Hold(), nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(.2), nn.Linear(32, 10))
'''
RUN = ('--model', 'holding:build', '--data', 'digits', '-n', '200', '--batch-size', '50', '--eps', '0.1', '--steps', '2', '--epochs', '4',
       '--valid', '100', '--judge', '0', '--ema', '.9')

def start(at, *args, **env): return command(at, 'train', *args, **env)

def here(capsys, *args):
    "The same in this process: quicker, where no signal is needed"
    try: code = main(['train', *args])
    except SystemExit as e: code = e.code
    return code, *capsys.readouterr()

def files(at): return sorted(p.name for p in at.rglob('*') if p.suffix not in ('.py', '.pyc') and p.is_file())

MOMENTS = [(5, 4), (20, 4), (40, 8)] # passes since there is a state, updates that are kept by then: within the second epoch, in its validation, in the third's
@pytest.mark.skipif(os.name != 'posix', reason='needs SIGKILL')
def test_killed_in_the_middle(tmp_path):
    "SIGKILL at three moments: nothing is written but the state; the same command goes on to the bits of the undisturbed run"
    for d in ('parts', 'whole', 'other'):
        (tmp_path/d).mkdir()
        (tmp_path/d/'holding.py').write_text(HOLD)
    at, run = tmp_path/'parts', (*RUN, '--out', 'm.safetensors')
    for passes, kept in MOMENTS:
        p, end = start(at, *run, HOLD='*.state', PASS=str(passes)), time.time() + 300
        while not (at/'held').exists():
            assert p.is_alive() and time.time() < end, finish(at, p)
            time.sleep(.02)
        p.kill(); p.join()
        assert p.exitcode == -signal.SIGKILL
        (at/'held').unlink()
        states = list(at.glob('m-*.state'))
        assert [load_state(s)['done'] for s in states] == [kept] and not (at/'m.safetensors').exists(), 'whole epochs of four updates are kept'
    status, out, err = finish(at, start(at, *run))
    assert status == 0 and not err and files(at) == ['m.safetensors'], err
    status, text, err = finish(tmp_path/'whole', start(tmp_path/'whole', *run))
    lines = out.replace(str(at), f'{tmp_path}/whole').splitlines() # the epochs before the interruptions were told before them
    assert (status, err) == (0, '') and lines == [s for s in text.splitlines() if s in lines] and len(lines) >= 3
    assert (tmp_path/'whole'/'m.safetensors').read_bytes() == (at/'m.safetensors').read_bytes()
    assert finish(tmp_path/'other', start(tmp_path/'other', *run, '--seed', '1'))[0] == 0
    assert (tmp_path/'other'/'m.safetensors').read_bytes() != (at/'m.safetensors').read_bytes(), 'the comparison can fail'

TWO = '''
import os, sys, torch
from accelerate import Accelerator
from torch import nn
from robustnb.attacks.gradient import pgd
from robustnb.attacks.threat_models import L2
from robustnb.cli import main
from robustnb.data import Batches, load
from robustnb.models import mlp
from robustnb.robustness.baselines import adversarial, awp
from robustnb.training import accelerated, fit, save_state, update

torch.set_num_threads(1)
rank, made = int(os.environ.get('RANK', 0)), []

def Net():
    made.append(mlp((1, 8, 8), hidden=(32, 32)))
    return made[-1]

def command(*more):
    "Weights that the command line ends with in this process; 51 images per batch make unequal parts"
    argv = ['train', '--model', 'two:Net', '--data', 'digits', '-n', '204', '--batch-size', '51', '--epochs', '3', '--judge', '0', '--eps', '.1', '--steps', '2', *more]
    assert main(argv) == 0
    return made[-1].state_dict()

def library(gamma):
    "The same inside, with an attack that draws nothing"
    torch.manual_seed(0)
    model, loss = Net(), adversarial(pgd(L2(.5), 2, random_start=False))
    step = awp(gamma)
    if 'RANK' in os.environ: step = accelerated(Accelerator(cpu=True), step)
    fit(model, Batches(load('digits', n=204), batch_size=51), loss, torch.optim.SGD(model.parameters(), .1, momentum=.9), 3, step, progress=False)
    return model.state_dict()

def all_of_it(at):
    found = dict(standard=command('--objective', 'standard', '--valid', '0', '--out', f'{at}/standard.safetensors'),
                 awp=command('--objective', 'standard', '--awp', '.01', '--valid', '0', '--out', f'{at}/awp.safetensors'),
                 at=command('--objective', 'at', '--awp', '.01', '--valid', '0', '--out', f'{at}/at.safetensors'),
                 library=library(.01))
    save_state(found, f'{at}/{rank}.all')

if __name__ == '__main__':
    import two # one module for both names
    two.all_of_it(sys.argv[1])
    Accelerator(cpu=True).end_training()
'''

def test_two_processes(tmp_path, capsys, monkeypatch):
    """Two processes end with equal weights, and with those of one process on the joint batch where nothing is drawn at random, AWP included.
    A random start of PGD is drawn from the bits of the part that a process has: with one, only the former can hold."""
    (tmp_path/'two.py').write_text(TWO)
    for d in ('one', 'both'): (tmp_path/d).mkdir()
    r = subprocess.run(launched('two.py', 'both'), cwd=tmp_path, env=os.environ | dict(PYTHONPATH=f'{ROOT}{os.pathsep}{tmp_path}'), capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stderr[-3000:]
    assert r.stdout.count('written: ') == 3, 'one of the two writes'
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('RANK', '0'); monkeypatch.delenv('RANK')
    import two
    two.all_of_it('one')
    one, first, second = (load_state(f) for f in ('one/0.all', 'both/0.all', 'both/1.all'))
    for run in one:
        for k, v in one[run].items():
            assert torch.equal(first[run][k], second[run][k]), f'{run}: {k} differs between the processes'
            if run != 'at': torch.testing.assert_close(first[run][k], v, rtol=1e-4, atol=1e-5, msg=lambda m: f'{run}: {k}: {m}')
        if run != 'library': assert all(torch.equal(first[run][k], v) for k, v in load_file(f'both/{run}.safetensors').items())
    assert not all(torch.allclose(v, one['standard'][k], rtol=1e-4, atol=1e-5) for k, v in one['awp'].items()), 'AWP makes a difference that would be seen'

NET = '''
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    def forward(self, x): return self.body(x - .5)
'''

def photos(at, n=24):
    "A folder with two classes of PNG files, not square and of different sizes: dark ones and light ones"
    g = torch.Generator().manual_seed(0)
    for name, low in (('dark', 0), ('light', 150)):
        (at/'photos'/name).mkdir(parents=True)
        for i in range(n): Image.fromarray((torch.rand(14 + i % 3, 20, 3, generator=g)*100 + low).byte().numpy()).save(at/'photos'/name/f'{i}.png')

FOLDER = ('--data', 'photos', '--size', '12', '--model', 'own.net:Net', '--epochs', '6', '--batch-size', '8', '--eps', '8/255', '--steps', '2', '--valid', '8',
          '--out', 'net.safetensors')

def test_folder_and_own_model(tmp_path, monkeypatch):
    "Training on a folder of PNG files with a plain torch module; the file that is written holds the weights that were reported"
    photos(tmp_path)
    (tmp_path/'lib'/'own').mkdir(parents=True)
    (tmp_path/'lib'/'own'/'net.py').write_text(NET)
    env = os.environ | dict(PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path/'lib'}")
    r = subprocess.run([sys.executable, '-m', 'robustnb.cli', 'train', *FOLDER], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert r.returncode == 0 and not r.stderr, r.stderr
    assert f"written: {tmp_path/'net.safetensors'}" in r.stdout and not list(tmp_path.glob('*.state')) + list(tmp_path.glob('*.best'))
    monkeypatch.syspath_prepend(tmp_path/'lib')
    from own.net import Net
    model = Net()
    model.load_state_dict(load_file(tmp_path/'net.safetensors'))
    data = image_folder(tmp_path/'photos', 12)
    assert data.x.shape == (48, 3, 12, 12) and evaluate(model.eval(), data).accuracy['clean'] > .9

WRONG = [(('--objective', 'sovrr'), "unknown objective 'sovrr': did you mean 'sovr'"), (('--objective', 'sovr', '--set', 'shar=.5'), "did you mean 'share'"),
         (('--set', 'beta=1'), 'at has no settings'), (('--data', 'empty'), 'empty is not a folder with one subfolder of images per class'),
         (('--data', 'nowhere'), "unknown data set 'nowhere'"), (('--out', 'no/such/m.safetensors'), 'no file can be written at no/such/m.safetensors'),
         (('--batch-size', '64'), 'a batch of 64 is more than the 40 training images'), (('--out', 'm.pth'), '.safetensors'),
         (('--arch', 'resnet50'), "unknown architecture 'resnet50'")]

def test_mistakes_are_one_sentence(tmp_path, capsys, monkeypatch):
    photos(tmp_path)
    (tmp_path/'empty'/'dark').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    base, before = ('--data', 'photos', '--size', '12', '--arch', 'mlp', '--batch-size', '8', '--valid', '8', '--out', 'm.safetensors'), files(tmp_path)
    for more, said in WRONG:
        code, out, err = here(capsys, *base, *more)
        assert code == 2 and said in err and not out and err.startswith('robustnb: ') and len(err.splitlines()) == 1, (more, err)
        assert files(tmp_path) == before, f'{more} left something behind'

def test_a_mistake_in_a_process(tmp_path):
    status, out, err = finish(tmp_path, start(tmp_path, '--objective', 'trade', '--data', 'digits', '--out', 'm.safetensors'))
    assert (status, out) == (2, '') and err.startswith("robustnb: unknown objective 'trade': did you mean 'trades'") and err.count('\n') == 1 and not files(tmp_path)
