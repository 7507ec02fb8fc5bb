"""The command line as its users run it: processes, signals, exit statuses."""
import importlib, json, multiprocessing, os, re, signal, subprocess, sys, time
from pathlib import Path
import pytest
from processes import finish, fork, settle
from robustnb.cli import main
from robustnb.evidence.store import Store

FORK = multiprocessing.get_context('fork')
FINISHED = r'\d s  \('  # as in '0.3 s  (0:01 gone, ...'
TOY = '''
import time
from robustnb.data import DataNotFound
from robustnb.evidence.claims import Claim
from robustnb.evidence.trials import Arm, Paper, Setting

def note(line):
    with open({log!r}, 'a') as f: f.write(line + '\\n')

def run(trial):
    note(f'{{trial.arm}} {{trial.dataset}} {{trial.seed}}')
    if trial.arm == 'b' and trial.seed in {broken!r}: raise RuntimeError('the job broke')
    if trial.dataset in {absent!r}: raise DataNotFound('it was looked for in a, b and c')
    time.sleep({pause!r})
    ahead = trial.arm == 'b'
    return dict(accuracy=.8 + .1*ahead + .001*trial.seed*ahead, time=1.)

def figure(records):
    from matplotlib.figure import Figure
    fig = Figure(); fig.subplots().plot([0, 1])
    return fig

claims = [Claim(1, 'b is more accurate', 'accuracy', 'b', ['a'], paper_value=9.),
          Claim(2, 'b is faster', 'time', 'b', ['a'], better='lower', unit='s', matters=0)]
settings = {{('tiny', d): Setting(None, 1, 1, 1, looks=(4,)) for d in ('moons', 'digits')}} | {{('small', 'mnist'): Setting(None, 1, 1, 1)}}
paper = Paper({key!r}, 'A toy', 'Nobody', 2020, '', claims, dict(a=Arm(), b=Arm()), settings, run, figures={{'A line': figure}})
'''

def life(at, key, said, args):
    "What a process does: the command, at the head of a group of its own, with the toy paper; what it prints goes to `said`.out and `said`.err"
    os.setsid()
    settle(at, dict(XDG_DATA_HOME=str(at/'data')))
    paper = importlib.import_module(key).paper
    with open(f'{said}.out', 'w') as sys.stdout, open(f'{said}.err', 'w') as sys.stderr: sys.exit(main(args, papers=[paper]))

class Toy:
    "A module with a toy paper, whose experiment logs each call"
    def __init__(self, at, pause=0., broken=(), absent=(), key='toy'):
        self.at, self.key, self.log, self.results, self.said = at, key, at/f'{key}.log', at/'results', {}
        (at/f'{key}.py').write_text(TOY.format(log=str(self.log), pause=pause, broken=broken, absent=absent, key=key))
    def start(self, *args):
        said = self.at/f'{self.key}{len(self.said)}'
        p = fork(life, self.at, self.key, said, args)
        self.said[p] = said
        return p
    def end(self, p): return finish(self.said[p], p)
    def here(self, capsys, *args):
        "The same in this process: quicker, where no signal is needed"
        space = {'__name__': self.key}
        exec((self.at/f'{self.key}.py').read_text(), space)
        try: code = main(args, papers=[space['paper']])
        except SystemExit as e: code = e.code
        return code, *capsys.readouterr()
    def calls(self): return self.log.read_text().splitlines() if self.log.exists() else []
    def stored(self, key='toy'):
        return [f'{j.arm} {j.dataset} {j.seed}' for j in Store(self.results).jobs(key)]

def until(condition, seconds=300):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'waited in vain'
        time.sleep(.02)

def args(toy, *more): return ('reproduce', 'toy', '--results', str(toy.results), *more)

@pytest.mark.parametrize('workers', '12')
def test_interrupt_and_go_on(tmp_path, capsys, monkeypatch, workers):
    monkeypatch.chdir(tmp_path)
    toy = Toy(tmp_path, pause=.3)
    p = toy.start(*args(toy, '--workers', workers))
    until(lambda: len(toy.stored()) >= 6)  # what a worker has stored is reported a little later
    os.killpg(p.pid, signal.SIGINT)  # as Ctrl-C does
    code, out, err = toy.end(p)
    stored, before = toy.stored(), toy.calls()
    assert code == 130 and 'Traceback' not in err
    assert 3 <= len(re.findall(FINISHED, out)) <= len(stored) < 16
    assert f'{len(stored)} of 16 jobs are stored in {toy.results}' in err and f'robustnb {" ".join(args(toy, "--workers", workers))}' in err
    code, out, err = toy.here(capsys, *args(toy))
    assert code == 0 and f'{len(stored)} of 16 jobs are finished already' in out
    assert sorted(stored + toy.calls()[len(before):]) == sorted(toy.stored()) and len(set(toy.stored())) == 16, 'nothing that was stored ran again'

def test_kill_and_go_on(tmp_path, capsys, monkeypatch):
    "SIGKILL in the middle of a job, twice: all that was reported finished is stored, and goes on from there"
    monkeypatch.chdir(tmp_path)
    toy, stored, before = Toy(tmp_path, pause=.1), [], []
    for wait in 2, 7:
        p = toy.start(*args(toy))
        until(lambda: len(toy.calls()) >= wait)
        p.kill()
        _, out, _ = toy.end(p)
        new = toy.calls()[len(before):]
        assert not set(new) & set(stored), 'nothing that was stored ran again'
        before, finished = toy.calls(), len(stored) + len(re.findall(FINISHED, out))
        stored = toy.stored()
        assert len(stored) >= max(finished, wait-2)
    assert toy.here(capsys, *args(toy))[0] == 0
    assert sorted(stored + toy.calls()[len(before):]) == sorted(toy.stored()) and len(set(toy.stored())) == 16

def result(arm, seed):
    return dict(scale='tiny', dataset='d', arm=arm, values={}, seed=seed, stage='final', version=1, setting='', metrics={'m': 1.}, pad='x'*2000)

def write(at, arm, n, said=None, merge=7):
    "Store n results, merge now and then, and tell the pipe `said` of each"
    store = Store(at)
    for i in range(n):
        store.save('k', result(arm, i))
        if said: os.write(said, b'.')
        if i % merge == merge - 1: store.close()

def read(at):
    if (at/'k.json').exists(): json.loads((at/'k.json').read_text()) # whole at any time
    return sorted((j.arm, j.seed) for j in Store(at).jobs('k'))

def test_kill_while_writing(tmp_path):
    "SIGKILL at five moments of a loop that writes and merges without pause: all that was reported stored is there, and can be added to"
    for k in range(5):
        at, (here, there) = tmp_path/str(k), os.pipe()
        p = FORK.Process(target=write, args=(at, 'a', 10**6, there))
        p.start(); os.close(there)
        os.read(here, 1); time.sleep(.02 + .03*k)
        p.kill(); p.join()
        said = 1 + len(os.read(here, 10**6)); os.close(here)
        assert said <= len(read(at)) <= said+1 and read(at) == [('a', i) for i in range(len(read(at)))]
        write(at, 'b', 1)  # the dead process holds no lock
        assert read(at)[-1] == ('b', 0)

def test_two_processes_write_at_once(tmp_path):
    both = [FORK.Process(target=write, args=(tmp_path, a, 40)) for a in 'ab']
    for p in both: p.start()
    for p in both: p.join(60); assert p.exitcode == 0
    assert read(tmp_path) == [(a, i) for a in 'ab' for i in range(40)]

def test_kills_of_two_writers_under_readers(tmp_path):
    "Two writers, one of which is killed again and again: what a reader has seen stays, what was reported is there, and every result is whole"
    (here, there), steady, store, seen = os.pipe(), FORK.Process(target=write, args=(tmp_path, 'a', 400)), Store(tmp_path), set()
    steady.start()
    for k in range(6):
        p = FORK.Process(target=write, args=(tmp_path, 'b', 10**6, there, 2))
        p.start(); os.read(here, 1)
        end = time.time() + .05 + .02*k
        while time.time() < end:
            now = set(store.jobs('k'))
            assert seen <= now <= set(Store(tmp_path).jobs('k'))
            seen = now
        p.kill(); p.join()
    steady.join(60); assert steady.exitcode == 0
    os.set_blocking(here, False)
    assert seen <= set(store.jobs('k')) and [s for a, s in read(tmp_path) if a == 'a'] == list(range(400))
    assert all(r == result(j.arm, j.seed) for j, r in Store(tmp_path).jobs('k').items())
    store.close()
    assert len(json.loads((tmp_path/'k.json').read_text())['jobs']) == len(store.jobs('k')) and not (tmp_path/'k.jsonl').exists()

def test_two_processes_share_the_work(tmp_path):
    toy = Toy(tmp_path, pause=.3)
    both = [toy.start(*args(toy)) for _ in range(2)]
    for p in both:
        code, _, err = toy.end(p)
        assert code == 0, err
    assert len(set(toy.stored())) == len(toy.stored()) == 16 and sorted(toy.calls()) == sorted(toy.stored()), 'nothing lost, nothing run twice'

def test_workers(tmp_path):
    "All jobs once, failures of some cost no others, and no worker outlives a killed first process"
    toy = Toy(tmp_path, pause=.3, broken=(1,))
    code, out, err = toy.end(toy.start(*args(toy, '--workers', '2')))
    assert code == 1 and '2 of 16 jobs failed' in err and 'the job broke' in out
    assert len(set(toy.calls())) == len(toy.calls()) == 16 and len(set(toy.stored())) == len(toy.stored()) == 14
    toy = Toy(tmp_path, pause=.3, key='other')
    p = toy.start('reproduce', 'other', '--results', str(toy.results), '--workers', '2')
    until(lambda: len(toy.calls()) >= 4)
    p.kill(); p.join()
    before = len(toy.calls())
    time.sleep(2)
    assert len(toy.calls()) <= before + 2 < 16, 'the workers went on'

def test_reproduce_and_ledger(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy = Toy(tmp_path)
    code, out, err = toy.here(capsys, 'reproduce', '--seeds', '3', '--dataset', 'moons')
    assert code == 0, err
    assert '2 claims: 1 partly, 1 open' in out and 'no records of b' in out
    report = tmp_path/'report.html'
    assert f'written: {report}' in out and 'data:image/png;base64,' in report.read_text()
    assert not re.search(r'(src|href)="(?!data:|https://arxiv.org|#)', report.read_text()), 'the page needs nothing but itself'
    assert '\033[' not in out and max(map(len, out.splitlines()[:-1])) <= 100
    code, out, err = toy.here(capsys, *args(toy))
    code, out, err = toy.here(capsys, 'ledger', '--results', str(toy.results), '--json')
    rows = json.loads(out)
    assert code == 0 and [r['verdict'] for r in rows] == ['reproduced', 'open']
    keys = 'paper claim statement scale verdict held n_seeds effect low high unit paper_value'.split()
    assert list(rows[0])[:len(keys)] == keys
    assert rows[0]['n_seeds'] == 3 and rows[0]['low'] <= rows[0]['effect'] <= rows[0]['high'] and abs(rows[0]['effect'] - 10.1) < 1e-6
    assert rows[1]['effect'] == 0 and 'every seed gave the same difference' in rows[1]['reason'] and len(rows[0]['comparisons']) == 2
    code, out, err = toy.here(capsys, 'ledger', '--results', str(toy.results), '--html', 'page.html')
    assert code == 0 and 'b is more accurate' in (tmp_path/'page.html').read_text()

def test_again_runs_again_and_tiny_starts_afresh(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy = Toy(tmp_path)
    one = ('--seeds', '0,', '--arm', 'a', '--dataset', 'moons')
    for more, calls in (((), 1), ((), 1), (('--again',), 2)):
        assert toy.here(capsys, *args(toy, *one, *more))[0] == 0 and len(toy.calls()) == calls
    for calls in 3, 4: assert toy.here(capsys, 'reproduce', *one)[0] == 0 and len(toy.calls()) == calls

def test_failing_jobs_cost_no_others(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy = Toy(tmp_path, broken=(1,), absent=('moons',))
    code, out, err = toy.here(capsys, *args(toy))
    assert code == 1 and 'the job broke' in err and '9 of 16 jobs failed' in err
    assert sum('moons' in c for c in toy.calls()) == 1, 'data that is not there is asked for once'
    assert sorted(toy.stored()) == sorted(f'{a} digits {s}' for a in 'ab' for s in range(4) if (a, s) != ('b', 1))
    assert '2 claims' in out, 'the ledger is printed all the same'

BAD = [(('reproduce', 'tyo'), "unknown paper 'tyo': did you mean 'toy'?"), (('ledger', 'tyo'), "did you mean 'toy'?"),
       (('reproduce', 'toy', '--scale', 'paper'), "unknown scale 'paper'"), (('reproduce', 'toy', '--arm', 'c'), "unknown arm 'c'. Known: a, b"),
       (('reproduce', 'toy', '--dataset', 'digit'), "did you mean 'digits'?"), (('reproduce', '--device', 'cdua'), "did you mean 'cuda'"),
       (('reproduce', '--html', 'no/such/place.html'), 'no file can be written at'), (('ledger', '--results', 'nowhere'), 'there is no folder nowhere'),
       (('ledger', '--results', 'broken'), 'toy.json is not a results file'), (('reproduce', '--results', 'broken'), 'toy.json is not a results file'),
       (('reproduce', '--scale', 'tny'), "did you mean 'tiny'"), (('reproduce', '--seeds', 'x'), "'x' is neither a number of seeds"),
       (('legder',), "did you mean 'ledger'"), (('ledger', '--jsno'), 'see robustnb ledger --help')]

def test_bad_input_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy = Toy(tmp_path)
    (tmp_path/'broken').mkdir(); (tmp_path/'broken'/'toy.json').write_text('<<<<<<< HEAD\n')
    for argv, message in BAD:
        code, out, err = toy.here(capsys, *argv)
        assert code == 2 and message in err and 'Traceback' not in err and not out, (argv, err)
        assert len(err.splitlines()) == 1
    assert not toy.calls() and not (tmp_path/'report.html').exists(), 'refused before any work'

def test_console_script(tmp_path):
    "The installed command: `list` works, so does `--help`, an unknown key is refused"
    script = Path(sys.executable).with_name('robustnb')
    if not script.exists(): pytest.skip('robustnb is not installed')
    run = lambda *a: subprocess.run([script, *a], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert (r := run('list')).returncode == 0 and 'papers: ' in r.stdout
    assert (r := run('--help')).returncode == 0 and 'robustnb reproduce' in r.stdout
    assert (r := run('reproduce', 'no-such-paper')).returncode == 2 and r.stderr.startswith("robustnb: unknown paper 'no-such-paper'")

SHARED = '''
from torch import zeros
from robustnb.evidence.claims import Claim
from robustnb.evidence.trials import Arm, Paper, Setting
import time

def source(trial):
    with open({log!r}, 'a') as f: f.write(f'source {{trial.seed}}\\n')
    time.sleep(.5)
    return dict(w=zeros(3) + trial.seed)

def run(trial): return dict(m=trial.artifact('source', lambda: source(trial))['w'].sum() + (trial.arm == 'b'))

paper = Paper({key!r}, 'Arms that share a model', 'Nobody', 2020, '', [Claim(1, 'b is more', 'm', 'b', ['a'])],
              dict(a=Arm(), b=Arm(), c=Arm()), {{('tiny', 'd'): Setting(None, 1, 1, 1)}}, run)
'''

@pytest.mark.parametrize('workers', '12')
def test_arms_share_what_is_made_once(tmp_path, workers):
    "Three arms that share a source model: it is made once per seed, by one process or two"
    toy = Toy(tmp_path, key='sharing')
    (tmp_path/'sharing.py').write_text(SHARED.format(log=str(toy.log), key='sharing'))
    code, out, err = toy.end(toy.start('reproduce', 'sharing', '--results', str(toy.results), '--workers', workers))
    assert code == 0, err
    assert sorted(toy.calls()) == [f'source {s}' for s in range(3)] and len(toy.stored('sharing')) == 9
