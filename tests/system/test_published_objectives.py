"""The objectives, with their own defaults, against the forms and defaults of their authors' public code.

Each form is written anew in plain torch on logits, as short as it goes; for SOVR and EWAT, which have no public code, it is
that of the paper and of the abstract. Values and gradients are compared in float64 on logits that are right, wrong and saturated.
"""
import copy
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from robustnb.attacks.gradient import ce_loss, pgd
from robustnb.attacks.threat_models import Linf
from robustnb.robustness.baselines import adversarial, awp, ewat, friendly, gairat, kl_pgd, mail, mart, mma, soft_margin, trades
from robustnb.robustness.sovr import sovr, tsovr

class Given(nn.Module):
    "Logits `clean` for images of zeros, `attacked` for images of ones"
    def __init__(self, clean, attacked):
        super().__init__()
        self.clean, self.attacked = nn.Parameter(clean.clone()), nn.Parameter(attacked.clone())
    def forward(self, x): return torch.where(x[:, :1] > 0.5, self.attacked, self.clean)

def logits(n=120, classes=10, saturated=18.):
    "(clean, attacked, y): two thirds random, right and wrong; the rest sure of the class or of another one"
    g = torch.Generator().manual_seed(0)
    clean, attacked = (3*torch.randn(n, classes, generator=g, dtype=torch.float64) for _ in range(2))
    y, rows, third = torch.randint(classes, (n,), generator=g), torch.arange(n), n//3
    for z, shift in ((clean, 0), (attacked, 1)):
        winner = torch.where(rows % 2 == 0, y, (y + 1 + shift) % classes)
        z[rows[:third], winner[:third]] = saturated
    z = attacked.argmax(1)
    assert (z[:third] == y[:third]).any() and (z[:third] != y[:third]).any() and (z[third:] == y[third:]).any() and (z[third:] != y[third:]).any()
    return clean, attacked, y

def agree(objective, published, batch=None, rtol=1e-6, atol=1e-12):
    "Value and gradients of the outer half against those of `published(clean, attacked, y)`"
    clean, attacked, y = batch or logits()
    model, mine = Given(clean, attacked), [clean.clone().requires_grad_(), attacked.clone().requires_grad_()]
    value, expected = objective.outer(model, torch.zeros(len(y), 1), torch.ones(len(y), 1), y)[0], published(*mine, y)
    torch.testing.assert_close(value, expected, rtol=rtol, atol=atol)
    grads = torch.autograd.grad(value, (model.clean, model.attacked), allow_unused=True), torch.autograd.grad(expected, mine, allow_unused=True)
    for a, b in zip(*grads): torch.testing.assert_close(torch.zeros_like(clean) if a is None else a, torch.zeros_like(clean) if b is None else b, rtol=rtol, atol=atol)

def reweighted(attacked, y, w):
    "Cross-entropy under weights that no gradient enters, put to the mean 1 that ours have"
    w = w.detach()
    return (w*F.cross_entropy(attacked, y, reduction='none')).sum()/w.sum()

# --- outer halves -----------------------------------------------------------------------------------------------------
def published_trades(clean, attacked, y, beta=6.):
    divergence = F.kl_div(F.log_softmax(attacked, 1), F.softmax(clean, 1), reduction='sum')/len(y)
    return F.cross_entropy(clean, y) + beta*divergence

def published_mart(clean, attacked, y, beta=5., guards=(1.0001, 1e-12, 1.0000001)):
    one, tiny, also_one = guards
    p, q = clean.softmax(1), attacked.softmax(1)
    order = q.argsort(1)
    other = torch.where(order[:, -1] == y, order[:, -2], order[:, -1])
    boosted = F.cross_entropy(attacked, y) + F.nll_loss((one - q + tiny).log(), other)
    divergence = F.kl_div((q + tiny).log(), p, reduction='none').sum(1)
    return boosted + beta*((also_one - p[torch.arange(len(y)), y])*divergence).mean()

def published_mail(clean, attacked, y, slope=10., bias=-0.5): # run with --slope 10 --bias -0.5; its factor 3 is lost in the mean 1
    p = attacked.softmax(1)
    own = p[torch.arange(len(y)), y]
    ahead = p.scatter(1, y[:, None], -1).amax(1) - own # the best other class: the margin's negative
    return reweighted(attacked, y, torch.sigmoid(slope*(ahead + bias)))

def published_sovr(clean, attacked, y, share=0.4, weight=0.4): # of the paper: there is no public code
    signs = 1 - 2*F.one_hot(y, attacked.shape[1])
    margin = (attacked - 1e9*(signs < 0)).amax(1) - attacked[torch.arange(len(y)), y]
    chosen = margin.argsort(descending=True)[:round(share*len(y))].tolist()
    one_versus_rest = torch.log1p((signs*attacked).exp()).sum(1)
    terms = [weight*one_versus_rest[i] if i in chosen else F.cross_entropy(attacked[i:i+1], y[i:i+1]) for i in range(len(y))]
    return torch.stack(terms).mean()

def entropy_weighted(clean, attacked, y): # of the abstract: weights proportional to the entropy
    return reweighted(attacked, y, torch.distributions.Categorical(logits=attacked).entropy())

def test_adversarial_training(): agree(adversarial(None), lambda clean, attacked, y: F.cross_entropy(attacked, y))
def test_trades(): agree(trades(None), published_trades)

def test_mail():
    agree(mail(None), published_mail)
    with pytest.raises(AssertionError): agree(mail(None, bias=0.5), published_mail) # the other sign is another method

def test_sovr(): agree(sovr(None), published_sovr)
def test_tsovr_of_nobody_is_trades(): agree(tsovr(None, share=0.), published_trades)
def test_ewat_where_it_is_strong(): agree(ewat(None, 1e12), entropy_weighted)

def test_mart():
    agree(mart(None), lambda *batch: published_mart(*batch, guards=(1, 0, 1))) # the form itself, everywhere
    clean, attacked, y = logits()
    calm = torch.maximum(clean.softmax(1).amax(1), attacked.softmax(1).amax(1)) < 0.9 # with its small numbers, where they are small
    assert calm.sum() > 20
    agree(mart(None), published_mart, (clean[calm], attacked[calm], y[calm]), rtol=2e-3, atol=2e-5)

@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
@pytest.mark.parametrize('objective', (trades(None), mart(None), mail(None), ewat(None), sovr(None), tsovr(None)))
def test_nothing_is_infinite_where_probabilities_are_below_1e_30(objective, dtype):
    clean, attacked, y = (t.to(dtype) if t.is_floating_point() else t for t in logits(saturated=90.))
    assert attacked.softmax(1).min() < 1e-30
    model = Given(clean, attacked)
    value = objective.outer(model, torch.zeros(len(y), 1), torch.ones(len(y), 1), y)[0]
    value.backward()
    assert value.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

# --- examples ---------------------------------------------------------------------------------------------------------
def small(n=48, pixels=12, classes=5):
    "(network in float64, images away from the box's faces, labels that it mostly gets right)"
    g = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 24), nn.Tanh(), nn.Linear(24, classes)).double()
    with torch.no_grad():
        for p in model.parameters(): p.mul_(3)
    x = 0.3 + 0.4*torch.rand(n, 1, pixels, 1, generator=g, dtype=torch.float64)
    y = model(x).argmax(1)
    return model, x, torch.where(torch.arange(n) % 6 == 0, (y + 1) % classes, y)

def climbed(model, x, z, y, size, eps):
    "One step of PGD on the cross-entropy, from `z`"
    z = z.detach().requires_grad_()
    grad, = torch.autograd.grad(F.cross_entropy(model(z), y), z)
    return torch.minimum(torch.maximum(z.detach() + size*grad.sign(), x - eps), x + eps).clamp(0, 1)

def test_gairat():
    model, x, y = small()
    eps, steps, size, strength = 0.25, 10, 0.05, -1.
    z, withstood = x, torch.zeros(len(x), dtype=torch.float64)
    for _ in range(steps):
        withstood += model(z).argmax(1) == y
        z = climbed(model, x, z, y, size, eps)
    assert len(withstood.unique()) > 4
    half = int(steps/2)
    w = ((strength + 5*(half - withstood)/half).tanh() + 1)/2
    expected = reweighted(model(z), y, w)
    value = gairat(Linf(eps), steps, size, random_start=False)(model, x, y)[0]
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    for a, b in zip(*(torch.autograd.grad(v, list(model.parameters())) for v in (value, expected))): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)

@pytest.mark.parametrize('tau', (0, 1, 2))
def test_fat(tau):
    model, x, y = small()
    eps, steps, size = 0.25, 10, 0.05
    def stopped(x, y): # one image at a time, as its early-stopped PGD treats it
        z, patience = x, tau
        for step in range(steps):
            if model(z).argmax(1) != y:
                if not patience: return z, step
                patience -= 1
            z = climbed(model, x, z, y, size, eps)
        return z, steps
    expected, taken = zip(*(stopped(x[i:i+1], y[i:i+1]) for i in range(len(x))))
    assert len(set(taken)) > 3 # early and late ones
    expected = torch.cat(expected)
    torch.testing.assert_close(friendly(Linf(eps), steps, size, tau, random_start=False)(model, x, y), expected, rtol=0, atol=1e-9)

def test_mma():
    model, x, y = small()
    far = (x + 0.2*torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype).sign()).clamp(0, 1)
    def margin(z): # soft: the logarithm of the other classes' odds
        p = model(z).softmax(1)[torch.arange(len(y)), y]
        return ((1 - p)/p).log()
    with torch.no_grad():
        right, t, low, high = margin(x) < 0, torch.ones(len(x), 1, 1, 1, dtype=x.dtype), torch.zeros(len(x), 1, 1, 1, dtype=x.dtype), torch.ones(len(x), 1, 1, 1, dtype=x.dtype)
        for _ in range(11): # the far end, then ten halvings
            wrong = (margin(x + t*(far - x)) >= 0)[:, None, None, None]
            low, high = torch.where(wrong, low, torch.maximum(low, t)), torch.where(wrong, torch.minimum(high, t), high)
            t = (low + high)/2
        reached = right & (t.flatten() < 1 - 1e-9)
        at = torch.where(right[:, None, None, None], x + t*(far - x), x)
    assert reached.sum() > 5 and (right & ~reached).sum() > 5 and (~right).sum() > 5
    near = ce_loss(model(at), y)
    expected = F.cross_entropy(model(x), y)/3 + 2/3*(near[reached].sum() + near[~right].sum())/len(y)
    value, logs = mma(lambda model, x, y: far, loss=soft_margin, mode='train', halvings=10)(model, x, y)
    assert logs['near'] == (reached | ~right).double().mean()
    torch.testing.assert_close(value, expected, rtol=2e-3, atol=0) # up to the last halving
    a, b = (torch.cat([g.flatten() for g in torch.autograd.grad(v, list(model.parameters()))]) for v in (value, expected))
    assert (a - b).norm() < 0.01*b.norm()

# --- weight perturbation ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name, gamma', (('at', 0.01), ('trades', 0.005)))
def test_awp(name, gamma):
    model, x, y = small()
    attack = pgd(Linf(0.1), 3) if name == 'at' else kl_pgd(Linf(0.1), 3)
    objective = adversarial(attack) if name == 'at' else trades(attack)
    x_adv, ours, theirs = attack(model, x, y), copy.deepcopy(model), copy.deepcopy(model)
    loss = (lambda m: F.cross_entropy(m(x_adv), y)) if name == 'at' else lambda m: published_trades(m(x), m(x_adv), y)
    make = lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    (awp() if name == 'at' else awp(gamma))(ours, x, y, objective, make(ours))
    proxy, opt = copy.deepcopy(theirs), make(theirs)
    (-loss(proxy)).backward() # the copy climbs by a step of SGD; how far it went is rescaled
    torch.optim.SGD(proxy.parameters(), 0.01).step()
    moves = [gamma*p.norm()/((q - p).norm() + 1e-20)*(q - p) if p.ndim > 1 else torch.zeros_like(p) for p, q in zip(theirs.parameters(), proxy.parameters())]
    with torch.no_grad(): [p.add_(v) for p, v in zip(theirs.parameters(), moves)]
    loss(theirs).backward()
    opt.step()
    with torch.no_grad(): [p.sub_(v) for p, v in zip(theirs.parameters(), moves)]
    for a, b in zip(ours.parameters(), theirs.parameters()): torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
