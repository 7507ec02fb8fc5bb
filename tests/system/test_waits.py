"""Where a computation waits for its device: Python asks for a value, and a GPU is idle until it has the next order.

On a CPU the operators that would ask are counted; on a GPU (tests marked gpu) PyTorch itself tells."""
import os, traceback, warnings
from collections import Counter
import pytest, torch
from torch.utils._python_dispatch import TorchDispatchMode
from robustnb.attacks.apgd import apgd
from robustnb.attacks.fab import fab
from robustnb.attacks.gradient import pgd
from robustnb.attacks.square import square
from robustnb.attacks.threat_models import L1, L2, Linf
from robustnb.data import as_float, load
from robustnb.models import convnet
from robustnb.robustness.baselines import adversarial, awp, trades
from robustnb.training import update

ASKING = {'_local_scalar_dense', 'equal', 'masked_select', 'nonzero'}

class Asked(TorchDispatchMode):
    "Counts by function of the package how often a value of a tensor is asked for"
    def __init__(self):
        super().__init__()
        self.by = Counter()
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ('index', 'index_put', 'index_put_') and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in ASKING or by_mask:
            frames = [f for f in traceback.extract_stack() if f'{os.sep}robustnb{os.sep}' in f.filename and f.name[0] != '<']
            self.by[frames[-1].name] += 1
        return func(*args, **(kwargs or {}))

def problem(device='cpu'):
    torch.manual_seed(0)
    model, x = convnet((1, 8, 8), width=4).to(device), as_float(load('digits').x[:12]).to(device)
    with torch.no_grad(): return model, x, model.eval()(x).argmax(1)

def asked(f, *args):
    with Asked() as mode: f(*args)
    return mode.by

def of_iterations(attack, model, x, y):
    "What the second half of twice as many iterations asks for: `attack(steps)` is an attack"
    few, many = (asked(attack(n), model, x, y) for n in (10, 20))
    return many - few

BROKEN = {'record', 'drop', 'keep'}  # which images are, and taking them out
THREATS = [Linf(.01), L2(.05), L1(.2)]

@pytest.mark.parametrize('threat', THREATS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize('precision', [None, 'bf16'])
def test_steps_of_pgd_ask_for_nothing(threat, precision):
    assert not of_iterations(lambda n: pgd(threat, n, precision=precision), *problem())

@pytest.mark.parametrize('loss, step', [(adversarial, update), (trades, update), (adversarial, awp(.01))], ids=['at', 'trades', 'awp'])
def test_a_training_step_asks_three_times(loss, step):
    "Once per attack: do the labels fit, which seed do these images have, were gradients finite; `around` asks on the CPU"
    model, x, y = problem()
    found = asked(step, model.train(), x, y, loss(pgd(Linf(.1), 3)), torch.optim.SGD(model.parameters(), .1))
    found.pop('around')
    assert found == dict(fitting=1, generator_for=1, blind_warning=1)

@pytest.mark.parametrize('threat', THREATS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize('attack, places', [(apgd, BROKEN), (square, {*BROKEN, '_rows', '_search', '_settle'}), (fab, {*BROKEN, '_hit', '_fill'})],
                         ids=['apgd', 'square', 'fab'])
def test_searches_ask_which_images_are_broken(attack, places, threat):
    found = of_iterations(lambda n: attack(threat, n), *problem())
    assert found and found.keys() <= places, found

def warned(f, *args):
    "How often PyTorch warns that Python waits for the GPU"
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always')
            f(*args)
    finally: torch.cuda.set_sync_debug_mode('default')
    return sum('synchronizing' in str(w.message) for w in told)

@pytest.mark.gpu
@pytest.mark.parametrize('threat', THREATS, ids=lambda t: type(t).__name__)
def test_steps_of_pgd_never_wait(threat):
    device = os.environ.get('ROBUSTNB_GPU', 'cuda')
    count = warned if device.startswith('cuda') else lambda f, *args: asked(f, *args).total()
    model, x, y = problem(device)
    pgd(threat, 1)(model, x, y)
    assert count(pgd(threat, 3), model, x, y) == count(pgd(threat, 6), model, x, y)
