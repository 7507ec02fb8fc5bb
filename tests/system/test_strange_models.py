"""Every public function that takes a model meets models with peculiarities: it does what it promises or says in one sentence why not, and leaves model and data alone.

A new family joins by a line in `ENTRIES`, a new peculiarity by one in `ODD`. All single peculiarities are tried with every entry, pairs and triples at random.
"""
import itertools, tempfile, traceback, warnings
from pathlib import Path
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
import robustnb
from robustnb.attacks.apgd import apgd
from robustnb.attacks.autoattack import autoattack
from robustnb.attacks.checks import check_model, large_eps
from robustnb.attacks.fab import fab, minimal_distance
from robustnb.attacks.fourier import fourier_map, single_fourier
from robustnb.attacks.gradient import best_of, fgsm, pgd
from robustnb.attacks.square import square
from robustnb.attacks.threat_models import L1, L2, Linf
from robustnb.evaluation import accuracy_curve, evaluate, predict, show_adversarial
from robustnb.merging.matching import curve, match, merge, repair, reset_batch_norm
from robustnb.merging.permutations import check_spec, permutations
from robustnb.models import architecture, eval_mode, features, load_model, save_model, unwrapped
from robustnb.robustness import baselines
from robustnb.robustness.absum import absum
from robustnb.robustness.blf import prelogit_attack
from robustnb.robustness.sovr import sovr
from robustnb.training import EMA, Diverged, cross_entropy, fit

@architecture
def strange_net(classes=3, kind='plain'):
    "A small network for 8x8 images; `kind` says what is peculiar about its forward pass"
    return Net(classes, kind)

class Net(nn.Module):
    def __init__(self, classes, kind):
        super().__init__()
        self.kind, self.table = kind, nn.Embedding(17, 1) if kind == 'embedding' else None
        self.conv1, self.norm1 = nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4, track_running_stats=kind != 'no statistics')
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.relu, self.drop = nn.ReLU(inplace=kind == 'in place'), nn.Dropout(.5 if kind == 'dropout' else 0.)
        self.flatten, self.head = nn.Flatten(), nn.LazyLinear(classes) if kind == 'lazy' else nn.Linear(64, classes)

    def forward(self, x):
        if self.kind == 'writes to its input': x = x.mul_(.5)
        if self.kind == 'writes behind autograd': x.data.mul_(.5)
        if self.kind == 'NaN gradient': x = torch.where(x > 0, x.sqrt(), 0.)
        if self.kind == 'detach': x = x.detach()
        if self.kind == 'embedding': x = self.table((16 * x).long()).squeeze(-1)
        x = self.relu(self.norm1(self.conv1(x)))
        x = self.relu(self.norm2(self.conv2(x)))    # one ReLU, twice
        if self.kind == 'reused': x = self.relu(self.norm2(self.conv2(x)))    # a convolution and a norm, too
        z = self.head(self.drop(self.flatten(x)))
        if self.kind == 'NaN': z = torch.where(x.flatten(1).amax(1, keepdim=True) > .5, torch.nan, z)
        return {'dict': lambda: {'logits': z}, 'tuple': lambda: (z, x), 'one column': lambda: z[:, :1], 'vector': lambda: z[:, 0],
                'half a batch': lambda: z[:len(z) // 2], 'integers': lambda: z.long()}.get(self.kind, lambda: z)()

KINDS = ['plain', 'in place', 'writes to its input', 'writes behind autograd', 'reused', 'dropout', 'no statistics', 'NaN gradient', 'NaN', 'detach',
         'embedding', 'lazy', 'dict', 'tuple', 'one column', 'vector', 'half a batch', 'integers']

def frozen(model):
    for p in model.parameters(): p.requires_grad_(False)
    return model

def mixed(model):
    model.eval()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).train()
    return model

def shifted(model):
    "A batch norm that has measured nothing yet but has momentum None"
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).momentum = None
    return model

def normed(model):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        nn.utils.weight_norm(next(m for m in model.modules() if isinstance(m, nn.Conv2d)))
    return model

def parametrised(model):
    nn.utils.parametrizations.spectral_norm(next(m for m in model.modules() if isinstance(m, nn.Conv2d)))
    return model

def hooked(model):
    next(m for m in model.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(lambda m, args, out: None)
    return model

ODD = {'float64': lambda m: m.double(), 'bfloat16': lambda m: m.bfloat16(), 'evaluation mode': lambda m: m.eval(), 'mixed modes': mixed, 'frozen': frozen,
       'momentum None': shifted, 'weight norm': normed, 'spectral norm': parametrised, 'a hook': hooked, 'channels last': lambda m: m.to(memory_format=torch.channels_last),
       'DataParallel': nn.DataParallel, 'compiled': lambda m: torch.compile(m, backend='eager')}

def data(classes):
    gen = torch.Generator().manual_seed(1)
    return (torch.rand(6, 1, 8, 8, generator=gen) * 16).round() / 16, torch.arange(6) % classes

def made(kind='plain', odd=(), classes=3):
    torch.manual_seed(0)
    model = strange_net(classes, kind)
    for o in odd: model = ODD[o](model)
    return model

# entry -> function(model, x, y): runs it, and looks at what it gives
def attacked(attack):
    def entry(model, x, y):
        z, threat = attack(model, x, y), attack.threat
        assert z.shape == x.shape and z.dtype == x.dtype and z.isfinite().all() and (z >= 0).all() and (z <= 1).all()
        if threat: assert (threat.norm(z.double() - x.double()) <= threat.eps * (1 + 1e-6)).all()
    return entry

def reported(model, x, y):
    small = {'pgd': pgd(Linf(.05), 2), 'square': square(Linf(.05), 5)}
    report = autoattack(Linf(.05), attacks=small).report(model, (x, y), progress=False)
    assert (Linf(.05).norm(report.x_adv.double() - x.double()) <= .05).all() and 0 <= report.robust <= 1
    flags, inner = {f.name for f in report.flags}, model
    while hasattr(inner, 'module') or hasattr(inner, '_orig_mod'): inner = getattr(inner, 'module', None) or inner._orig_mod
    if inner.kind == 'NaN gradient' and (report.by != 0).any(): assert 'NaN gradients' in flags
    if inner.kind in ('detach', 'embedding') and (report.by != 0).any(): assert 'no gradient' in flags

def evaluated(model, x, y):
    table = evaluate(model, (x, y), {'fgsm': fgsm(Linf(.05)), 'square': square(Linf(.05), 5)})
    assert table.notna().all().all() and (table.accuracy.loc['worst case'] <= table.accuracy).all()

def predicted(model, x, y):
    z = predict(model, x, 4)
    assert z.shape[0] == len(x) and z.dtype in (torch.float32, torch.float64)

def saved(model, x, y):
    with tempfile.TemporaryDirectory() as d:
        other = load_model(save_model(model, Path(d)/'m.safetensors'))
        inner = unwrapped(model)
        for (k, v), (l, w) in zip(inner.state_dict().items(), other.state_dict().items(), strict=True): assert k == l and v.dtype == w.dtype and torch.equal(v, w)

def described(model, x, y):
    with eval_mode(model): z = features(model, x)
    assert z.shape == (len(x), 64) and z.isfinite().all()

def symmetric(model, x, y): check_spec(model, permutations(model, x), x)

def matched(method):
    def entry(model, x, y):
        spec = permutations(model, x)
        other = {k: v.clone() for k, v in model.state_dict().items()}
        perms = match(model, other, spec, method, batches=[(x, y), (x[:1], y[:1])])
        for s, p in perms.items(): assert sorted(p.tolist()) == list(range(spec.sizes[s]))
        if method == 'weights': assert all(torch.equal(p, torch.arange(len(p))) for p in perms.values())
    return entry

def merged(model, x, y):
    spec, state = permutations(model, x), model.state_dict()
    new = merge(model, {k: v.clone() for k, v in state.items()}, spec)
    for k, v in state.items(): assert new[k].dtype == v.dtype; torch.testing.assert_close(new[k], v)

def repaired(model, x, y):
    state = model.state_dict()
    new = repair(model, state, (state, state), [(x, y), (x[:1], y[:1])])
    assert list(new) == list(state) and all(new[k].dtype == v.dtype and new[k].isfinite().all() for k, v in state.items())

def remeasured(model, x, y):
    new = reset_batch_norm(model, [(x, y), (x[:1], y[:1])])
    assert all(v.isfinite().all() for v in new.values())

def curved(model, x, y):
    c = curve(model, model.state_dict(), model.state_dict(), [(x, y), (x[:1], y[:1])], points=2)
    assert len(c) == 2 and c.accuracy.between(0, 1).all()

def trained(loss, **kw):
    def entry(model, x, y):
        opt = torch.optim.SGD(model.parameters(), .01)
        history = fit(model, [(x, y.int()), (x[:3], y[:3])], loss, opt, progress=False, **kw)
        assert len(history.frame) == 2
    entry.trains = True
    return entry

few = Linf(.05), 2
ENTRIES = {
    'fgsm': attacked(fgsm(Linf(.05))), 'pgd': attacked(pgd(L2(.5), 2, restarts=2)), 'pgd, train': attacked(pgd(Linf(.05), 2, mode='train')),
    'best_of': attacked(best_of(fgsm(Linf(.05)), pgd(Linf(.05), 2))), 'apgd': attacked(apgd(L1(2.), 3)), 'fab': attacked(fab(Linf(.05), 2)),
    'square': attacked(square(Linf(.05), 5)), 'square, L2': attacked(square(L2(.5), 5)), 'fourier': attacked(single_fourier(.1, [(0, 1), (2, 3)])),
    'kl_pgd': attacked(baselines.kl_pgd(*few)), 'prelogit': attacked(prelogit_attack(Linf(.05))),
    'minimal distance': lambda m, x, y: minimal_distance(Linf, 2)(m, x, y), 'fourier map': lambda m, x, y: fourier_map(m, x, y, .1, [(0, 1)]),
    'report': reported, 'checks': lambda m, x, y: check_model(m, x, y, Linf(.05)), 'large eps': lambda m, x, y: large_eps(m, x, y, Linf(.05), 3),
    'evaluate': evaluated, 'predict': predicted, 'accuracy curve': lambda m, x, y: accuracy_curve(m, (x, y), lambda e: fgsm(Linf(e)), [.05]),
    'pictures': lambda m, x, y: show_adversarial(m, (x, y), fgsm(Linf(.05)), 2), 'save': saved, 'features': described,
    'spec': symmetric, 'match weights': matched('weights'), 'match activations': matched('activations'), 'merge': merged, 'repair': repaired,
    'batch norm': remeasured, 'curve': curved, 'fit': trained(cross_entropy, averages=EMA), 'fit trades': trained(baselines.trades(baselines.kl_pgd(*few))),
    'fit mart': trained(baselines.mart(pgd(*few))), 'fit sovr': trained(sovr(pgd(*few))), 'fit absum': trained(cross_entropy, step=absum(.1)),
    'fit awp': trained(cross_entropy, step=baselines.awp())}

def snapshot(model):
    "What must not change: values, flags, hooks"
    parts = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
    values = {k: None if nn.parameter.is_lazy(t) else t.detach().clone() for k, t in parts.items()}
    flags = {k: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), getattr(m, 'momentum', 0), getattr(m, 'track_running_stats', 0)) for k, m in model.named_modules()}
    return values, flags, {k: (t.requires_grad, t.grad is None, id(t)) for k, t in parts.items()}

def same(a, b): return a is None and b is None or (a is not None and b is not None and torch.equal(a.nan_to_num(7), b.nan_to_num(7)))

def ours(e):
    "Whether an exception is a sentence of the library's own, raised by its own code"
    package = Path(robustnb.__file__).parent
    return isinstance(e, (TypeError, ValueError, Diverged, AssertionError)) and package in Path(traceback.extract_tb(e.__traceback__)[-1].filename).parents and len(str(e)) > 20

def meet(entry, model, x, y):
    old, images, labels, rng = snapshot(model), x.clone(), y.clone(), torch.get_rng_state()
    trains = getattr(ENTRIES[entry], 'trains', False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: ENTRIES[entry](model, x, y)
        except Exception as e:
            if not ours(e): raise
    assert torch.equal(x, images) and torch.equal(y, labels), 'the data changed'
    new = snapshot(model)
    assert old[1] == new[1], 'modes, hooks or settings changed'
    if trains: return
    assert old[0].keys() == new[0].keys() and all(same(v, new[0][k]) for k, v in old[0].items()), 'weights or buffers changed'
    assert old[2] == new[2], 'gradients, their flags or the tensors themselves changed'

@pytest.mark.parametrize('entry', ENTRIES)
def test_single_peculiarities(entry):
    for kind in KINDS: meet(entry, made(kind), *data(3))
    for odd in ODD: meet(entry, made(odd=[odd]), *data(3))
    for classes in (1, 2): meet(entry, made(classes=classes), *data(classes))

@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(ENTRIES)), st.sampled_from(KINDS), st.lists(st.sampled_from(sorted(set(ODD) - {'compiled'})), max_size=2, unique=True), st.sampled_from([2, 3, 10]))
def test_peculiarities_together(entry, kind, odd, classes):
    odd = sorted(odd, key=lambda o: (o == 'DataParallel', o in ('float64', 'bfloat16')))    # wrappers last
    if set(odd) == {'weight norm', 'spectral norm'} or kind == 'lazy' and set(odd) & {'channels last', 'float64', 'bfloat16'}: odd = odd[:1] * (kind != 'lazy')
    meet(entry, made(kind, odd, classes), *data(classes))
