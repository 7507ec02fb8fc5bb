"""Networks on a GPU, images there or on the CPU: nothing needs a change. Rehearsed without one, by the numbers.

The device 'meta' stands in for it: its tensors hold numbers here, and like those of a GPU they refuse tensors of the CPU beside them."""
import copy, pytest, torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from robustnb.data import Batches, Data, load
from robustnb.efficiency.pruning import best, magnitude, masked, random_scores, pruned, snip, wanda
from robustnb.efficiency.smsp import TaskBank, embedded_in, importance, smsp, started, task_order, within
from robustnb.evaluation import predict
from robustnb.evidence.trials import Artifacts
from robustnb.merging.cross_dataset import finetuned, flipped_loss, line_terms, search, stacked
from robustnb.merging.permutations import permutations
from robustnb.models import convnet, mlp
from robustnb.synthesis import diffusion, diffusion_gap, generators
from robustnb.synthesis.mgr import MGR, Finder, filtered, fresh, gda, pcr, penalty, pool, regularised
from robustnb.synthesis.mpssl import MPSSL, scr
from robustnb.synthesis.pseudo_pretraining import cascade
from robustnb.synthesis.ssl import Steps, accuracy, fitted, semi_supervised, strong, uda
from robustnb.training import cross_entropy, fit, update

class Far(torch.Tensor):
    "Numbers of the CPU that say they are on the device 'meta'"
    def __new__(cls, t): return cls._make_wrapper_subclass(cls, t.shape, t.stride(), dtype=t.dtype, device='meta')
    def __init__(self, t): self.t = t
    def new_tensor(self, v): return Far(self.t.new_tensor(v))
    def tolist(self): return self.t.tolist()
    @classmethod
    def __torch_dispatch__(cls, f, types, args=(), kw=None): return Apart.__torch_dispatch__(None, f, types, args, kw)

class Apart(TorchDispatchMode):
    "Meanwhile 'meta' is a device that computes"
    def __torch_dispatch__(self, f, types, args=(), kw=None):
        kw, name = kw or {}, f.overloadpacket.__name__
        leaves = [t for t in tree_leaves((args, kw)) if isinstance(t, torch.Tensor)]
        own = {id(t.t): t for t in leaves if isinstance(t, Far)}
        free = name in ('_to_copy', 'copy_') or name.startswith('index') and isinstance(args[0], Far)    # as on a GPU
        if own and not free and any(t.ndim for t in leaves if not isinstance(t, Far)): raise RuntimeError(f'{f}: two devices')
        place = kw.get('device')
        far = place.type == 'meta' if place else own
        args, kw = tree_map_only(Far, lambda t: t.t, (args, kw | ({'device': 'cpu'} if place else {})))
        return tree_map_only(torch.Tensor, lambda t: own.get(id(t), Far(t) if far else t), f(*args, **kw))

def numbers(o):
    "All numbers of a result, on the CPU"
    if isinstance(o, nn.Module): o = o.state_dict()
    if isinstance(o, Data): o = [o.x, o.y]
    if isinstance(o, dict): o = list(o.values())
    if isinstance(o, (list, tuple)): return [n for part in o for n in numbers(part)]
    return [torch.as_tensor(o).cpu().double()]

data = load('digits').take(60)
torch.manual_seed(0)
net, gan, finder = convnet((1, 8, 8), width=4).eval(), generators.dcgan((1, 8, 8), 10, 8, 8).eval(), Finder((8,))
painter = diffusion.Diffusion(diffusion.unet((1, 8, 8), 10, 8), (1, 8, 8), 10, steps=2).eval()
one, two = (mlp((1, 8, 8), hidden=(16,)).eval() for _ in 'ab')
spec = permutations(one, data.x[:2].float())
clouds, PLAIN = torch.rand(2, 20, 3), Steps(3, optimiser=torch.optim.SGD)    # Adam magnifies rounding

def trained(net, d, loss=cross_entropy, step=update):
    fit(net.train(), Batches(d, batch_size=20), loss, torch.optim.SGD(net.parameters(), .05), 1, step=step, progress=False)
    return net

def made(at, d):
    folder, where = Artifacts(at.folder), at(torch.zeros(1)).device
    return [generators.trained_gan(folder, d, steps=3, batch=20, latent=4, width=4, device=where) for _ in range(2)]

def looked_up(at, d, by='cosine'):
    bank = TaskBank()
    for k in range(3):
        x, y = d.x.roll(k, 0), d.y
        bank.add(embedded_in(at(net), x), y, task_order(started(at(net), x, y), x, y))
    bank.load_state_dict({k: v.cpu() for k, v in bank.state_dict().items()})    # as from a file
    return smsp(at(net), bank, d.x, d.y, .3, k=2, by=by)

CASES = {    # f(at, data): at moves a copy to the device
    'predict': lambda at, d: predict(at(net), d.x),
    'embedded': lambda at, d: generators.embedded(at(net), d.x),
    'prdc': lambda at, d: generators.prdc(*at(clouds)),
    'named': lambda at, d: generators.named(at(net), generators.sample_data(at(gan), 20)),
    'quality of images': lambda at, d: generators.quality(d, d, at(net), 20),
    'quality': lambda at, d: generators.quality(at(gan), d, at(net), 20),
    'check_generator': lambda at, d: generators.check_generator(at(gan)) or 0,
    'trained_gan': made,
    'reconstructions': lambda at, d: diffusion_gap.reconstructions(at(painter), d, (.2, .5)),
    'relabelled': lambda at, d: diffusion_gap.relabelled(d, at(net)),
    'as_many_wrong': lambda at, d: diffusion_gap.as_many_wrong(d, d, at(net)),
    'measures': lambda at, d: diffusion_gap.measures(generators.sample_data(at(gan), 30), d, at(net)),
    'filtered': lambda at, d: filtered(d, at(net)),
    'gda': lambda at, d: trained(at(net), d, regularised(gda(pool(d), strong()), .1)),
    'pcr': lambda at, d: trained(at(net), d, regularised(pcr(pool(d), strong()), .1)),
    'pcr, fresh': lambda at, d: trained(at(net), d, regularised(pcr(fresh(at(gan)), strong()), .1)),
    'penalty': lambda at, d: trained(at(net), d, regularised(penalty(pool(generators.sample_data(at(gan), 9)), strong()), .1)),
    'MGR': lambda at, d: trained(at(net), d, step=MGR(at(gan), copy.deepcopy(finder), d, strong(), rate=.1, every=1)),
    'MPSSL': lambda at, d: trained(at(net), d, scr(strong()), MPSSL(at(gan), d, 16, every=1)),
    'fitted': lambda at, d: accuracy(fitted(at(net), d, recipe=Steps(3, augment=strong())), d),
    'pseudo samples': lambda at, d: fitted(at(net), d, semi_supervised(uda, strong()), PLAIN, unlabelled=cascade(at(gan), at(net), d.x, 40)),
    'snip': lambda at, d: snip(at(net), d.x/255., d.y),
    'wanda': lambda at, d: wanda(at(net), d.x),
    'pruned': lambda at, d: pruned(at(net), .3, random_scores(net)),
    'masked': lambda at, d: trained(at(net), d, step=masked(best(magnitude(net), .3))),
    'importance': lambda at, d: within(at(net), importance(at(net), d.x, d.y), .3),
    'macs': lambda at, d: within(at(net), importance(net, data.x, data.y), .3, 'macs', x=d.x),
    'smsp': looked_up,
    'smsp by leep': lambda at, d: looked_up(at, d, 'leep'),
    'line_terms': lambda at, d: [*map(list, map(dict.values, line_terms(at(one), at(one).state_dict(), at(two).state_dict(),
                                                                        *[(d.x/255., d.y)]*2).values()))],
    'flipped_loss': lambda at, d: flipped_loss(at(one), at(two), d, d),
    'stacked': lambda at, d: stacked(at(one), at(two), d)(at(data.x/255.)),
    'finetuned': lambda at, d: finetuned(at(one), at(two).state_dict(), d, 3),
    'search': lambda at, d: search(at(one), at(one).state_dict(), at(two).state_dict(), spec, d, 3)}

class Here:
    def __init__(self, folder): self.folder = folder
    def __call__(self, o): return copy.deepcopy(o)

class There(Here):
    def __call__(self, o): return copy.deepcopy(o).to('meta')

@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    "Autocast does not know 'meta'"
    plain = torch.autocast
    monkeypatch.setattr(torch, 'autocast', lambda kind, *a, **kw: plain('cpu' if kind == 'meta' else kind, *a, **kw))

@pytest.mark.parametrize('images', ['cpu', 'meta'])
@pytest.mark.parametrize('case', CASES)
def test_the_numbers_are_those_of_the_cpu(case, images, tmp_path):
    want = numbers(CASES[case](Here(tmp_path/'here'), data))
    with Apart():
        moved = Data(data.x.to(images), data.y.to(images), data.classes, data.name)
        found = numbers(CASES[case](There(tmp_path/'there'), moved))
    assert len(want) == len(found)
    for a, b in zip(want, found): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)

def test_permutations_are_derived_where_the_model_is():
    far = copy.deepcopy(net).to('meta')    # the true device: only shapes count
    for images in ('cpu', 'meta'): assert permutations(far, data.x[:2].float().to(images)) == permutations(net, data.x[:2].float())

def test_the_stand_in_refuses_what_a_gpu_refuses():
    a, mask = torch.rand(4, 3), torch.tensor([True, False, True, True])
    with Apart():
        b = a.to('meta')
        assert b.device.type == 'meta' and (b + 1).cpu().equal(a + 1) and b[mask].cpu().equal(a[mask])
        for wrong in (lambda: a + b, lambda: a[mask.to('meta')], lambda: torch.zeros(4)[b[:, 0] > 0], lambda: b.numpy()):
            with pytest.raises(RuntimeError): wrong()
