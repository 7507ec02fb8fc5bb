"""Square's proposals in the L1 and L2 balls against the authors', draw for draw: `compare_square.py CHECKOUT`.

CHECKOUT is a folder with a clone of fra31/auto-attack. Its attack is given our random numbers, and both run on digits that
hold; the largest difference of their images is printed: rounding, until after some hundred queries it decides a proposal.
Models come from runs/, as `compare_autoattack.py` leaves them there.
"""
import argparse, sys
from pathlib import Path
import torch
from robustnb.attacks import square as ours
from robustnb.attacks.gradient import margin_loss
from robustnb.attacks.search import sample_keys, uniform
from robustnb.attacks.threat_models import L1, L2
from robustnb.data import as_float, load
from robustnb.evaluation import predict
from compare_autoattack import target

SEED = 3

def shared(keys, shape, draw=0):
    "Our random numbers, the last of each draw alike for all images: rows or columns are one choice for a batch with the authors"
    u = uniform(keys, shape, draw)
    u[..., -1] = u[:1, ..., -1].clone()
    return u

def digits(model, threat, n=16):
    "The `n` digits with the largest margins left after 100 queries, which neither side breaks"
    data = load('mnist', 'test', n=200)
    x, y = as_float(data.x), data.y
    left = -margin_loss(predict(model, ours.square(threat, 100, seed=7)(model, x, y)), y)
    rows = left.topk(n)[1]
    return x[rows], y[rows]

def draws(x, queries):
    "Our random numbers in the order in which the authors' code asks for them: (what, value)"
    n, c, h, w = x.shape
    def bump(u): return [('turn', u[0, -1]), ('sign', torch.where(u[:, :-1] < .5, 1., -1.)[:, :, None, None])]
    start = shared(sample_keys(x, SEED), (5, 5, c + 1), 0)
    for cell in start.flatten(1, 2).unbind(1): yield from bump(cell)
    for i, (_, *places) in enumerate(ours._plan(queries, h, w, 3, .8, False, torch.Generator().manual_seed(SEED))):
        if i % ours._BLOCK == 0: noise = shared(sample_keys(x, SEED), (ours._BLOCK, c + 1), 1 + i // ours._BLOCK)
        yield from [('place', torch.tensor([p])) for p in places] + bump(noise[:, i % ours._BLOCK])

def authors(checkout):
    "Their attack with `draws` in the place of its own random numbers"
    sys.path.insert(0, str(checkout))
    from autoattack.square import SquareAttack
    class Dealt(SquareAttack):
        def deal(self, what):
            name, value = next(self.draws)
            assert name == what, f'{what} was asked for, {name} comes next'
            return value
        def random_int(self, *args, **kw): return self.deal('place')
        def random_choice(self, shape): return self.deal('sign')
        def eta(self, s):
            turn, rand = self.deal('turn'), torch.rand
            torch.rand = lambda *args: turn[None]
            try: return super().eta(s)
            finally: torch.rand = rand
    return Dealt

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('checkout', type=Path)
    p.add_argument('--queries', type=int, default=100)
    args = p.parse_args()
    torch.set_num_threads(1)
    model, ours.uniform = target('mnist adversarial'), shared
    for threat in (L1(10.), L2(2.)):
        x, y = digits(model, threat)
        mine = ours.square(threat, args.queries, seed=SEED)(model, x, y)
        attack = authors(args.checkout)(model, norm=type(threat).__name__, n_queries=args.queries, eps=threat.eps, loss='margin', resc_schedule=False)
        attack.draws = draws(x, args.queries)
        attack.init_hyperparam(x)
        theirs = attack.attack_single_run(x, y)[1]
        print(f'{threat}: {len(x)} digits, {args.queries} queries, largest difference {(mine - theirs).abs().max():.1e}', flush=True)

if __name__ == '__main__': main()
