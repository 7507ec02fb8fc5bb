"""Training under real conditions: processes that are killed at random moments, and several processes at once."""
import os, random, signal
import pytest, torch
from accelerate import Accelerator
from processes import CONTEXT, fork, pair
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from robustnb.data import Batches, load
from robustnb.models import convnet
from robustnb.training import EMA, SWA, accelerated, cosine, cross_entropy, fit, load_state, one_cycle, save_state, update

def jitter(x, g): return x + torch.randint(0, 3, x.shape, generator=g, dtype=torch.uint8)*(x < 250)

def life(folder, told):
    "Two trainings with everything in use; sends one byte per update, so that the parent knows when to strike"
    torch.set_num_threads(1)
    data = load('digits', n=480)
    def step(*args, **kw):
        logs = update(*args, **kw)
        told.send_bytes(b'.')
        return logs
    runs = dict(batches=(Batches(data, batch_size=32, augment=jitter), torch.optim.AdamW),
                loader=(DataLoader(TensorDataset(data.x.float()/255, data.y), 32, shuffle=True), torch.optim.Adagrad))
    for name, (batches, make) in runs.items():
        torch.manual_seed(0)
        model = nn.Sequential(convnet((1, 8, 8), 16, width=4), nn.Dropout(0.3), nn.Linear(16, 10))
        averages = EMA(0.9), SWA(0.3)
        history = fit(model, batches, cross_entropy, make(model.parameters(), 0.01), 10, step, one_cycle(), averages=averages, clip=1., every=4,
                      checkpoint=f'{folder}/{name}.safetensors', callback=lambda m, e: {'noise': torch.rand(())}, progress=False)
        save_state(dict(model=model.state_dict(), averages=[a.averaged(model).state_dict() for a in averages], random=torch.rand(3),
                        history=history.frame.to_dict('list')), f'{folder}/{name}.result')

def begin(folder):
    "A process that lives `life`, and the end of the pipe on which it is heard"
    hear, told = CONTEXT.Pipe(duplex=False)
    p = fork(life, str(folder), told)
    told.close()
    return p, hear

def to_the_end(p, hear):
    "The number of updates until the process ends by itself"
    n = 0
    try:
        while True: n += len(hear.recv_bytes())
    except EOFError: p.join()
    assert p.exitcode == 0
    return n

def equal(a, b):
    "Whether two nested states hold the same bits (NaN equals NaN)"
    if isinstance(a, torch.Tensor): return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict): return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (a != a and b != b)

@pytest.mark.skipif(os.name != 'posix', reason='needs SIGKILL')
def test_killed_five_times(tmp_path):
    "SIGKILL at random moments: the resumed run has the weights, averages, history and random numbers of the uninterrupted one"
    assert to_the_end(*begin(tmp_path/'whole')) == 300
    chance = random.Random(os.urandom(8)) # new moments in every run of this test
    for _ in range(5):
        p, hear = begin(tmp_path/'parts')
        for _ in range(chance.randint(30, 48)): hear.recv_bytes() # five lives never finish the 300 updates
        p.join(chance.uniform(0, 0.01)) # somewhere within an update or a checkpoint
        p.kill(); p.join()
        assert p.exitcode == -signal.SIGKILL
    assert to_the_end(*begin(tmp_path/'parts')) < 200
    for name in ('batches', 'loader'):
        a, b = (load_state(tmp_path/d/f'{name}.result') for d in ('whole', 'parts'))
        for k in a: assert equal(a[k], b[k]), f'{name}: {k} differs after five kills'

def together(folder):
    "What each process does: a training on the joint batches, on CPUs"
    accelerator = Accelerator(cpu=True)
    rank, data = accelerator.process_index, load('digits', n=205)
    torch.manual_seed(rank) # different weights on purpose: those of the main process count
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    opt = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    batches = Batches(data, batch_size=51) # unequal parts, and a last batch of a single image
    history = fit(model, batches, cross_entropy, opt, 6, accelerated(accelerator), cosine(), clip=1., checkpoint=f'{folder}/c', progress=False)
    save_state(dict(n=accelerator.num_processes, model=model.state_dict(), history=history.frame.to_dict('list')), f'{folder}/{rank}')
    if accelerator.num_processes > 1:
        try: fit(model, Batches(data, batch_size=51, seed=rank), cross_entropy, opt, 1, accelerated(accelerator), progress=False)
        except ValueError as e: assert 'different batches' in str(e)
        else: raise SystemExit('different batches were not noticed')
    accelerator.end_training()

def test_two_processes(tmp_path):
    "Two processes under accelerate give the weights of one with the joint batch, to the rounding of float32 sums"
    for folder in ('one', 'two'): (tmp_path/folder).mkdir()
    alone = fork(together, str(tmp_path/'one'))
    alone.join(300)
    assert alone.exitcode == 0
    pair(tmp_path, together, str(tmp_path/'two'))
    one, first, second = (load_state(tmp_path/f) for f in ('one/0', 'two/0', 'two/1'))
    assert (one['n'], first['n']) == (1, 2)
    assert equal(first, second)
    for k, v in one['model'].items(): torch.testing.assert_close(first['model'][k], v, rtol=1e-4, atol=1e-5)
    for k, v in one['history'].items(): torch.testing.assert_close(torch.tensor(first['history'][k]), torch.tensor(v), rtol=1e-4, atol=1e-5)
