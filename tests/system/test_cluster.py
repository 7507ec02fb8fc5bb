"""`--on ray` on a cluster of two nodes that are both on this machine: kills, failures, artifacts, results equal to those of one process"""
import importlib, json, os, re, signal, sys, time, types
import pytest, torch
from safetensors.torch import load_file
from processes import finish, fork, free_port, settle
from robustnb.cli import main
from robustnb.evidence.runner import reproduce
from robustnb.evidence.store import Store
ray = pytest.importorskip('ray', reason='pip install "robustnb[ray]"')

PAPER = '''
import os, time
import torch
from robustnb.evidence.claims import Claim
from robustnb.evidence.trials import Arm, Paper, Setting

def note(line):
    with open({log!r}, 'a') as f: f.write(line + '\\n')

def source(trial):
    note(f'source {{trial.seed}} {{os.getpid()}}')
    time.sleep({pause!r})
    return dict(w=torch.arange(3.) + trial.seed)

def run(trial):
    note(f'{{trial.arm}} {{trial.seed}} {{os.getpid()}}')
    w = trial.artifact('source', lambda: source(trial))['w'] if {shared!r} else torch.zeros(3)
    time.sleep({pause!r})
    if trial.arm == 'b' and trial.seed == 3 and trial.scale == 'tiny': raise RuntimeError('the job broke')
    return dict(m=(torch.randn(500) @ torch.randn(500)) + w.sum() + (trial.arm == 'b'))

paper = Paper({key!r}, 'A toy', 'Nobody', 2020, '', [Claim(1, 'b is more', 'm', 'b', ['a'])],
              dict(a=Arm(), b=Arm()), {{(s, 'd'): Setting(None, 1, 1, 1) for s in ('tiny', 'small')}}, run)
'''

PORTS = 'metrics_agent_port metrics_export_port dashboard_agent_listen_port runtime_env_agent_port'.split()

def node(name):
    return dict(node_name=name, num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False) | {p: free_port() for p in PORTS}

@pytest.fixture(scope='module')
def cluster():
    "Two nodes. A machine busy with other tests exceeds Ray's limits for starting them, which cannot be set: 30 s for a node, and 15 s for its agents to say their ports"
    from ray._private.node import Node
    from ray._raylet import persist_port
    from ray.cluster_utils import Cluster
    start = Node.start_raylet
    def start_raylet(self, *args, **kw):
        for p in PORTS: persist_port(self._session_dir, self._node_id, p, getattr(self._ray_params, p))
        return start(self, *args, **kw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
        patch.setattr('ray._private.node.time', types.SimpleNamespace(**{**vars(time), 'monotonic': lambda: time.monotonic()/10}))
        patch.setattr(Node, 'start_raylet', start_raylet)
        cluster = Cluster(initialize_head=True, head_node_args=node('first'))
        cluster.second = cluster.add_node(**node('second'))
        yield cluster
        cluster.shutdown()

def _driver(at, key, said, argv, address):
    os.setsid()
    settle(at, dict(RAY_ADDRESS=address, XDG_CACHE_HOME=str(at/'cache')))
    paper = importlib.import_module(key).paper
    with open(f'{said}.out', 'w') as sys.stdout, open(f'{said}.err', 'w') as sys.stderr: sys.exit(main(argv, papers=[paper]))

class Toy:
    "A paper whose jobs log their start, and the command on it"
    def __init__(self, at, cluster, key, pause=.1, shared=False):
        self.at, self.key, self.log, self.store, self.address = at, key, at/'log', Store(at/'results'), cluster.address
        (at/f'{key}.py').write_text(PAPER.format(log=str(self.log), pause=pause, shared=shared, key=key))
    def start(self, *argv):
        self.argv = ('reproduce', self.key, '--on', 'ray', '--results', str(self.at/'results'), *argv)
        return fork(_driver, self.at, self.key, self.at/'said', self.argv, self.address)
    def end(self, p): return finish(self.at/'said', p)
    def calls(self): return [l.split() for l in self.log.read_text().splitlines()] if self.log.exists() else []
    def stored(self): return {(j.arm, str(j.seed)) for j in self.store.jobs(self.key)}
    def until(self, n, p, seconds=200):
        end = time.time() + seconds
        while len(self.stored()) < n:
            assert p.is_alive() and time.time() < end, ((self.at/'said.err').read_text(), len(self.stored()))
            time.sleep(.05)

def metrics(store, key): return {(j.arm, j.seed): r['metrics'] for j, r in store.jobs(key).items()}

def test_kills(tmp_path, cluster, monkeypatch):
    "200 jobs; SIGKILL of a worker, of the second node and of the driver: the same command goes on, nothing is lost or run twice"
    toy = Toy(tmp_path, cluster, 'killed')
    p = toy.start('--seeds', '100')
    toy.until(20, p)
    os.kill(int(toy.calls()[-1][2]), signal.SIGKILL)
    toy.until(50, p)
    cluster.remove_node(cluster.second, allow_graceful=False)
    toy.until(80, p)
    p.kill()
    code, out, err = toy.end(p)
    told, before, n = set(re.findall(r'killed  d  (\w), seed (\d+)  \d+\.\d s on', out)), toy.stored(), len(toy.calls())
    assert code == -signal.SIGKILL and told <= before and len(before) >= 80 and {'on first', 'on second'} <= set(re.findall(r'on \w+', out))
    cluster.second = cluster.add_node(**node('second'))
    code, out, err = toy.end(toy.start('--seeds', '100'))
    assert code == 1 and 'jobs failed, the first one: killed d b, seed 3: RuntimeError: the job broke' in err and 'in run\n' in err
    assert f'{len(before)} of 200 jobs are finished already' in out
    again = [(a, s) for a, s, _ in toy.calls()[n:]]
    assert not before & set(again), 'what was stored ran again'
    assert toy.stored() == {(a, str(s)) for a in 'ab' for s in range(100)} - {('b', '3')}
    monkeypatch.syspath_prepend(tmp_path)
    paper, one = importlib.import_module('killed').paper, Store(tmp_path/'one')
    paper.run.__globals__['time'] = type('time', (), dict(sleep=lambda s: None)) # no pauses here
    with pytest.raises(RuntimeError, match='1 of 200'): reproduce(paper, store=one, seeds=100, device='cpu', say=None)
    assert metrics(one, 'killed') == metrics(toy.store, 'killed'), 'bit for bit those of one process'

def test_artifacts_are_made_once_in_the_cluster(tmp_path, cluster):
    "Two arms share a source: whoever comes second waits without a core, so that both cores are busy with other things"
    toy = Toy(tmp_path, cluster, 'shared', pause=.3, shared=True)
    code, out, err = toy.end(toy.start('--scale', 'small', '--seeds', '6'))
    assert code == 0 and len(toy.stored()) == 12, err
    made = sorted(c[1] for c in toy.calls() if c[0] == 'source')
    assert made == [str(s) for s in range(6)] and len(list((tmp_path/'cache').rglob('source-*.safetensors'))) == 6
    code, out, err = toy.end(toy.start('--scale', 'small', '--seeds', '6', '--again')) # from the driver's folder
    assert code == 0 and len([c for c in toy.calls() if c[0] == 'source']) == 6 and 'made by other code' not in err

def test_refusals(tmp_path, cluster):
    for address, argv, words in (('127.0.0.1:1', (), 'no Ray cluster answers at 127.0.0.1:1 '), ('ray://h:1', (), 'expected host:port'),
                                 (cluster.address, ('--cpus-per-job', '3'), 'no node has room for a job of 3 cores and 0 GPUs: '),
                                 (cluster.address, ('--device', 'cuda'), 'how much of a GPU'), (cluster.address, ('--workers', '2'), 'leave workers out')):
        toy, start = Toy(tmp_path, cluster, 'refused'), time.time()
        toy.address = address
        code, out, err = toy.end(toy.start(*argv))
        assert code == 2 and words in err and err.count('\n') == 1 and not out and not toy.calls(), (address, err)

def _attack(at, address, *more):
    settle(at, dict(RAY_ADDRESS=address))
    with open(at/'said', 'a') as sys.stdout:
        sys.exit(main(['attack', '--model', 'its_net:net', '--data', 'digits', '-n', '30', '--eps', '.03', '--version', 'rand', '--json', *more]))

def test_attack_on_a_cluster(tmp_path, cluster):
    "The images are shared by the nodes, which have the model's code from the driver; each meets the fate that it meets in one process"
    (tmp_path/'its_net.py').write_text('''import torch
from robustnb.models import mlp
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0); self.net = mlp((1, 8, 8), hidden=(16,))
    def forward(self, x): return 9*self.net(x)
def net(): return Net()
''')
    for argv in (('one.json',), ('spread.json', '--on', 'ray')):
        p = fork(_attack, tmp_path, cluster.address, *argv)
        p.join(300)
        assert p.exitcode == 0, argv
    one, spread = (json.loads((tmp_path/f'{name}.json').read_text())['images'] for name in ('one', 'spread'))
    assert one['label'] == spread['label'] and one['margin'] == pytest.approx(spread['margin'], abs=1e-4) # the last bits depend on the batch
    assert [b is None for b in one['broken_by']] == [b is None for b in spread['broken_by']] and 'room for 2 parts' in (tmp_path/'said').read_text()

def _condense(at, address, *more):
    settle(at, dict(RAY_ADDRESS=address))
    sys.exit(main(['condense', '--data', 'digits', '--per-class', '2', '--iterations', '3', '--out', *more]))

def test_condense_on_a_cluster(tmp_path, cluster):
    "The classes are shared by the nodes; the images are those of one process"
    for argv in (('one.safetensors',), ('spread.safetensors', '--on', 'ray')):
        p = fork(_condense, tmp_path, cluster.address, *argv)
        p.join(300)
        assert p.exitcode == 0, argv
    one, spread = (load_file(tmp_path/f'{name}.safetensors') for name in ('one', 'spread'))
    assert len(one['x']) == 20 and one.keys() == spread.keys()
    for k in one: torch.testing.assert_close(one[k], spread[k], atol=1e-5, rtol=0)
