"""What the commands print never costs their work: output in an old code page, names that no code page has, a reader that leaves, a disk that is full."""
import io, json, os, subprocess, sys
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file, save_file
from torch import nn
import robustnb
from robustnb.cli import main
from robustnb.data import load
from robustnb.evidence.claims import Claim
from robustnb.evidence.store import Store
from robustnb.evidence.trials import Arm, Paper, Setting

ROOT = Path(robustnb.__file__).parents[1]
FOLDER = 'Größe 日本 ✓' # the first word is in cp1252, the second is not
NET = 'from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))\n'
TRAIN = ('train', '--model', 'printed:build', '--data', 'digits', '-n', '64', '--batch-size', '32', '--epochs', '1', '--eps', '.9', '--steps', '1', '--valid', '20', '--judge', '4', '--out', 'm.safetensors')
ATTACK = ('attack', '--model', 'printed:build', '--weights', 'a.safetensors', '--data', 'digits', '-n', '4', '--eps', '.9', '--no-checks', '--json', 'out.json', '--html', 'out.html')
MERGE = ('merge', 'a.safetensors', 'b.safetensors', '--model', 'printed:build', '--data', 'digits', '-n', '50', '--curve', 'c.csv', '--points', '3', '--out', 'm.safetensors')
REPRODUCE = ('reproduce', '--results', 'results', '--html', 'r.html')
LEDGER = ('ledger', '--results', 'results', '--html', 'r.html')
COMMANDS = {TRAIN: ['m.safetensors'], ATTACK: ['out.html', 'out.json'], MERGE: ['c.csv', 'm.safetensors'], REPRODUCE: ['r.html', 'results/example.json'], LEDGER: ['r.html'], ('list',): []}
LAST = {'train': 'images hold against', 'attack': 'written: ', 'merge': 'c.csv', 'reproduce': 'r.html', 'ledger': 'r.html', 'list': 'papers: 1'} # in the last lines

def named(command): return command[0]

def paper():
    claim = Claim(1, f'b is better on {FOLDER}', 'm', 'b', ['a'], unit='u', matters=0)
    return Paper('example', f'A paper on {FOLDER}', 'Nobody', 2025, '', [claim], dict(a=Arm(), b=Arm()),
                 {('tiny', 'moons'): Setting(None, 1, 1, 1, looks=(3,))}, lambda trial: {'m': (trial.arm == 'b') * (1 + .1*trial.seed)})

@pytest.fixture
def at(tmp_path, monkeypatch, request):
    "A folder whose name needs more than a code page, with what the commands need"
    at = tmp_path/getattr(request, 'param', FOLDER)
    at.mkdir()
    (at/'printed.py').write_text(NET)
    torch.manual_seed(0)
    for f in 'ab': save_file(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).state_dict(), at/f'{f}.safetensors')
    store = Store(at/'results')
    for arm in 'ab':
        for seed in range(3):
            result = dict(scale='tiny', dataset='moons', arm=arm, values={}, seed=seed, stage='final', version=1,
                          setting=paper().setting('tiny', 'moons').fingerprint(), metrics={'m': float(arm == 'b') * (1 + .1*seed)})
            store.save('example', result)
    store.close()
    monkeypatch.chdir(at)
    yield at
    sys.modules.pop('printed', None)

class Gone(io.RawIOBase):
    "A stream that cannot be written to any more, after some bytes"
    def __init__(self, error, room=0): self.error, self.room, self.held = error, room, b''
    def writable(self): return True
    def write(self, b):
        if len(self.held) >= self.room: raise self.error
        self.held += bytes(b)
        return len(b)

def run(monkeypatch, argv, out, err=None):
    "The command in this process with these streams: exit status, and the error stream"
    err = err or io.TextIOWrapper(io.BytesIO(), 'utf-8', write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'stdout', out); patch.setattr(sys, 'stderr', err)
        return main(argv, papers=[paper()]), err

def whole(at, argv):
    "The files that the command writes are there, and whole"
    for name in COMMANDS[argv]:
        text = None if name.endswith('.safetensors') else Path(at/name).read_text('utf-8')
        if name.endswith('.safetensors'): assert load_file(at/name)
        elif name.endswith('.json'): json.loads(text)
        elif name.endswith('.html'): assert text.endswith('</html>\n')
        else: assert len(text.splitlines()) == 1 + 2*3
    assert not list(at.glob('*.state')) + list(at.glob('*.best')) + list(at.glob('tmp*'))

def forget(at, argv):
    for name in COMMANDS[argv]: (at/name).unlink(missing_ok=True)

@pytest.mark.parametrize('at', [FOLDER, 'plain'], indirect=True)
@pytest.mark.parametrize('encoding', ['cp1252', 'ascii', 'utf-8'])
@pytest.mark.parametrize('argv', COMMANDS, ids=named)
def test_an_old_code_page(at, monkeypatch, argv, encoding):
    "Escapes stand for what the encoding lacks; every line is printed, and every file is written, in UTF-8"
    forget(at, argv)
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    status, err = run(monkeypatch, argv, out, io.TextIOWrapper(io.BytesIO(), encoding, 'strict', write_through=True))
    text = out.buffer.getvalue().decode(encoding)
    assert status == 0 and LAST[argv[0]] in '\n'.join(text.splitlines()[-4:]), (status, text, err.buffer.getvalue())
    if at.name == FOLDER and COMMANDS[argv]: assert FOLDER.encode(encoding, 'backslashreplace').decode(encoding) in text
    whole(at, argv)

@pytest.mark.parametrize('room', [0, 1])
@pytest.mark.parametrize('error', [BrokenPipeError(32, 'Broken pipe'), OSError(28, 'No space left on device')], ids=['pipe', 'disk'])
@pytest.mark.parametrize('argv', COMMANDS, ids=named)
def test_nobody_listens(at, monkeypatch, argv, error, room):
    "A reader that has left, or a full disk behind the output: the work is done all the same; of a full disk a line tells"
    forget(at, argv)
    status, err = run(monkeypatch, argv, io.TextIOWrapper(Gone(error, room), 'utf-8', line_buffering=True))
    said = err.buffer.getvalue().decode()
    assert (status, said) == ((0, '') if error.errno == 32 else (1, 'robustnb: the output could not be printed: No space left on device\n'))
    whole(at, argv)

def test_nobody_listens_to_mistakes(at, monkeypatch):
    "An error stream in an old code page, or one that is gone"
    for err in (io.TextIOWrapper(io.BytesIO(), 'ascii', 'strict', write_through=True), io.TextIOWrapper(Gone(OSError(28, 'No space left on device')), 'utf-8', line_buffering=True)):
        out = io.TextIOWrapper(io.BytesIO(), 'ascii')
        status, said = run(monkeypatch, ('attack', '--model', f'{FOLDER}:build', '--data', 'digits', '--eps', '.1'), out, err)
        assert status == 2 and not out.buffer.getvalue()
        if isinstance(err.buffer, io.BytesIO): assert err.buffer.getvalue().startswith(b'robustnb: --model Gr\\xf6\\xdfe \\u65e5\\u672c')

def start(at, *argv, **env):
    return subprocess.Popen([sys.executable, '-m', 'robustnb.cli', *argv], cwd=at, env=os.environ | dict(PYTHONPATH=str(ROOT)) | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def test_processes(at):
    "PYTHONIOENCODING as a Windows console has it: what follows `written: ...` is there too. `robustnb list | head -1`: no word of it"
    train, listed = start(at, *TRAIN, PYTHONIOENCODING='cp1252'), start(at, 'list')
    assert listed.stdout.readline() and not listed.stdout.close()
    out, err = train.communicate(timeout=600)
    assert train.returncode == 0 and not err and b'Gr\xf6\xdfe \\u65e5\\u672c \\u2713' in out and b'images hold against standard AutoAttack' in out.partition(b'written: ')[2], err
    assert load_file(at/'m.safetensors') and listed.wait(600) == 0 and not listed.stderr.read()
    listed.stderr.close()

@pytest.mark.skipif(sys.platform != 'linux', reason='needs names of files that are bytes')
def test_names_that_are_not_text(at, monkeypatch):
    "What safetensors cannot open is refused before any work; what Python can write is written, with escapes where it is shown"
    name = os.fsdecode(b'caf\xe9')
    Path(name).mkdir()
    for argv in ((*TRAIN[:-1], f'{name}/m.safetensors'), (*MERGE[:-1], f'{name}.safetensors'), (*ATTACK, '--state', f'{name}.state'), (*ATTACK, '--weights', f'{name}.safetensors'), (*ATTACK, '--data', f'{name}.safetensors')):
        out = io.TextIOWrapper(io.BytesIO(), 'utf-8')
        status, err = run(monkeypatch, argv, out)
        said = err.buffer.getvalue().decode()
        assert status == 2 and not out.buffer.getvalue() and 'caf\\udce9' in said and 'is not UTF-8' in said and said.count('\n') == 1, said
    out = io.TextIOWrapper(io.BytesIO(), 'utf-8')
    status, err = run(monkeypatch, (*ATTACK[:-4], '--json', f'{name}/o.json', '--html', f'{name}/o.html', '--name', name), out)
    assert status == 0 and not err.buffer.getvalue() and f'{at.name}/caf\\udce9/o.html' in out.buffer.getvalue().decode()
    assert json.loads(Path(name, 'o.json').read_text('utf-8'))['name'] == 'caf\\udce9' and 'caf\\udce9' in Path(name, 'o.html').read_text('utf-8')
    status, err = run(monkeypatch, ('ledger', '--results', 'results', '--html', f'{name}/r.html'), io.TextIOWrapper(io.BytesIO(), 'ascii'))
    assert status == 0 and Path(name, 'r.html').read_text('utf-8').endswith('</html>\n')

def test_results_that_cannot_be_kept(at, monkeypatch):
    "A file where the folder is due, results that are damaged or those of unknown papers"
    Path('file').touch()
    out = lambda: io.TextIOWrapper(io.BytesIO(), 'utf-8')
    for argv, said in ((('reproduce', '--results', 'file', '--html', 'r.html'), 'no results can be kept in file'), (('reproduce', '--results', 'file/below', '--html', 'r.html'), 'no results can be kept in file/below'),
                       (('ledger', '--results', 'file'), 'there is no folder file')):
        status, err = run(monkeypatch, argv, printed := out())
        text = err.buffer.getvalue().decode()
        assert status == 2 and said in text and text.count('\n') == 1 and not printed.buffer.getvalue(), text
    Path('results/other.json').write_text('{}')
    status, err = run(monkeypatch, ('ledger', '--results', 'results'), out())
    assert status == 0 and err.buffer.getvalue().decode() == 'robustnb: warning: results has results of papers that are not known here: other\n'
    Path('results/other.json').unlink()
    held = Path('results/example.json')
    for text in (held.read_text()[:200], '', held.read_text().replace('"metrics": {"m": 0.0}', '"metrics": {"m": null}', 1)):
        held.write_text(text)
        for argv in (('ledger', '--results', 'results'), REPRODUCE):
            status, err = run(monkeypatch, argv, out())
            assert status == 2 and (said := err.buffer.getvalue().decode()).count('\n') == 1 and 'example.json is not a results file' in said, said

def test_a_page_that_cannot_be_written(at, monkeypatch):
    "The verdicts are printed all the same"
    def full(*args, **kw): raise OSError(28, 'No space left on device', str(at/'r.html'))
    monkeypatch.setattr('robustnb.commands.files.os.replace', full)
    monkeypatch.setattr(sys, 'stdout', out := io.StringIO()); monkeypatch.setattr(sys, 'stderr', err := io.StringIO())
    status = main(LEDGER, papers=[paper()])
    assert status == 2 and '1 claim: 1 reproduced' in out.getvalue() and err.getvalue() == 'robustnb: r.html could not be written: No space left on device\n' and not Path('r.html').exists()
