"""The jobs of `gpu.py`'s speed table: name -> make(device) -> {'ours': function, 'peer': function} of no arguments"""
import time
import torch, torch.nn.functional as F
from torch.func import functional_call, grad, stack_module_state, vmap
from robustnb.attacks.gradient import pgd
from robustnb.attacks.threat_models import Linf
from robustnb.curvature import diagonal_fisher
from robustnb.merging.matching import weight_matching
from robustnb.merging.permutations import permutations
from robustnb.models import mlp, preact_resnet8, preact_resnet18
from robustnb.robustness.baselines import adversarial
from robustnb.training import update

EPS, ALPHA = 8/255, 2/255

def clock(f, device):
    "Seconds that `f()` takes"
    wait = torch.cuda.synchronize if device.startswith('cuda') else lambda: None
    wait(); start = time.perf_counter(); f(); wait()
    return time.perf_counter() - start

def images(n, device, shape=(3, 32, 32)):
    "Random images and labels, the same on each device"
    gen = torch.Generator().manual_seed(0)
    return torch.rand(n, *shape, generator=gen).to(device), torch.randint(10, (n,), generator=gen).to(device)

def published(model, x, y, opt, steps):
    "An adversarial training step as most repositories have it: float32, PGD with the gradients of the mean loss"
    x_adv = x + torch.empty_like(x).uniform_(-EPS, EPS)
    for _ in range(steps):
        x_adv.requires_grad_()
        g, = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
        x_adv = torch.min(torch.max(x_adv.detach() + ALPHA*g.sign(), x - EPS), x + EPS).clamp(0, 1)
    opt.zero_grad(); F.cross_entropy(model(x_adv), y).backward(); opt.step()

def training_step(build, batch, steps, compile):
    "A PGD training step; the peer is `published`"
    def make(device):
        x, y = images(batch, device)
        nets = build().to(device, memory_format=torch.channels_last), build().to(device)
        opts = [torch.optim.SGD(m.parameters(), 1e-4, momentum=.9) for m in nets]
        loss = adversarial(pgd(Linf(EPS), steps, ALPHA, precision='bf16', compile=compile))
        last = x.contiguous(memory_format=torch.channels_last)
        return dict(ours=lambda: update(nets[0], last, y, loss, opts[0], precision='bf16'),
                    peer=lambda: published(nets[1], x, y, opts[1], steps))
    return make

def fisher(build, n):
    "The diagonal of the empirical Fisher information; the peer takes one image at a time"
    def make(device):
        model, (x, y) = build().to(device).eval(), images(n, device)
        def loop():
            total = [torch.zeros_like(p) for p in model.parameters()]
            for i in range(n):
                loss = F.cross_entropy(model(x[i:i + 1]), y[i:i + 1])
                for t, g in zip(total, torch.autograd.grad(loss, list(model.parameters()))): t += g*g
        return dict(ours=lambda: diagonal_fisher(model, (x, y)), peer=loop)
    return make

def matching(width):
    "Weight matching of two perceptrons; the peer is the same on the CPU"
    def make(device):
        here = [mlp(hidden=(width,)*3) for _ in range(2)]
        spec = permutations(here[0], images(2, 'cpu', (1, 28, 28))[0])
        there = [mlp(hidden=(width,)*3).to(device) for _ in range(2)]
        for a, b in zip(here, there): b.load_state_dict(a.state_dict())
        return dict(ours=lambda: weight_matching(*there, spec), peer=lambda: weight_matching(*here, spec))
    return make

def stacked(seeds):
    "Gradients of small perceptrons, stacked by vmap; the peer takes one after the other"
    def make(device):
        nets, (x, y) = [mlp(hidden=(128,)).to(device) for _ in range(seeds)], images(64, device, (1, 28, 28))
        params, buffers = stack_module_state(nets)
        gradients = vmap(grad(lambda p, b: F.cross_entropy(functional_call(nets[0], (p, b), (x,)), y)))
        def each():
            for m in nets: torch.autograd.grad(F.cross_entropy(m(x), y), list(m.parameters()))
        return dict(ours=lambda: gradients(params, buffers), peer=each)
    return make

def jobs(small):
    "All of them, in order of value; `small`: a rehearsal"
    if small:
        build = lambda: preact_resnet8(width=4)
        return {'PGD-2 step, batch 8': training_step(build, 8, 2, False), 'diagonal Fisher': fisher(build, 8),
                'weight matching, width 32': matching(32), 'gradients of 4 seeds': stacked(4)}
    return {**{f'PGD-10 step, ResNet-18, batch {b}': training_step(preact_resnet18, b, 10, True) for b in (128, 512)},
            'diagonal Fisher, ResNet-18, 256 images': fisher(preact_resnet18, 256),
            **{f'weight matching, width {w}': matching(w) for w in (2048, 8192)},
            'gradients of 32 seeds': stacked(32)}
