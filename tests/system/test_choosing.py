"""What chooses among the candidates of an arm sees no test example.

A candidate of each paper runs twice, the second time with images and labels of every test split in another order, and
says the same to the last digit.
"""
import copy, importlib, pkgutil, sys, warnings
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock
import pytest, torch
import robustnb.experiments
from robustnb import data
from robustnb.evidence.runner import run_job
from robustnb.evidence.store import Job
from robustnb.evidence.trials import Artifacts

# of each paper a tuned arm that takes little time
ARMS = dict(
    abc='network', absum='wd', adarand='probe', ardir='ardir', blf='tanh', cafe='coral', cross_dataset='ft condensed',
    defrosting='scratch', differentiable_sparsification='magnitude', halo='l1', kakurenbo='kakurenbo',
    key_value_bottleneck='kvb', mgr='penalty', mixed_privacy='nonlinear', mnemonic_code='codes', mpssl='uda real',
    nib='vib', pseudo_pretraining='pssl', robustify='no teacher', smoothness='entropy', smsp='random', sovr='sovr')
SKIPPED = dict(
    gcn_nas='its landscapes are made up, no test split is loaded',
    meta_ticket='its tiny tasks come from classes of the training split alone',
    udah='its tiny sequences are made up, no test split is loaded')
CASES = [*ARMS, *(pytest.param(k, marks=pytest.mark.skip(reason=why)) for k, why in SKIPPED.items())]

def paper_of(key): return getattr(importlib.import_module(f'robustnb.experiments.{key}'), 'paper', None)

def tuned(paper, dataset):
    return [a for a in paper.arms_at('tiny', dataset) if paper.arms[a].tuned and paper.arms[a].of == a]

class Loads:
    "`data.load`, which notes what test splits are asked for and mixes their labels if it shall"
    def __init__(self, mixed): self.mixed, self.true, self.asked = mixed, data.load, []

    def __call__(self, name, split='train', *args, **kw):
        d = self.true(name, split, *args, **kw)
        if split != 'test': return d
        self.asked.append(name)
        if not self.mixed: return d
        x, y = (torch.randperm(len(d), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
        return replace(d, x=d.x[x], y=d.y[y])

@contextmanager
def loading(loads):
    "All modules load by `loads`, and none remembers what it loaded before"
    modules = [m for k, m in sys.modules.items() if k.startswith('robustnb')]
    caches = [f for m in modules for f in list(vars(m).values()) if hasattr(f, 'cache_clear')]
    with mock.patch.multiple(data, load=loads):
        held = [m for m in modules if getattr(m, 'load', None) is loads.true]
        for f in caches: f.cache_clear()
        for m in held: m.load = loads
        try: yield
        finally:
            for m in held: m.load = loads.true
            for f in caches: f.cache_clear()

def measured(key, folder, mixed, stage):
    "(metrics of a candidate's run, the test splits that it asked for)"
    paper, loads = paper_of(key), Loads(mixed)
    place, values = ('tiny', paper.datasets('tiny')[-1]), paper.arms[ARMS[key]].candidates[0]
    setting = copy.copy(paper.settings[place])
    setting.valid = setting.valid or 100    # at this scale some papers choose nothing
    with mock.patch.dict(paper.settings, {place: setting}), loading(loads), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        result = run_job(paper, Job(*place, ARMS[key], values, 0, stage), 'cpu', Artifacts(folder))
    return result['metrics'], loads.asked

def test_no_paper_is_forgotten():
    keys = [m.name for m in pkgutil.iter_modules(robustnb.experiments.__path__)]
    papers = {k: p for k in keys if (p := paper_of(k)) and 'tiny' in p.scales}
    chosen = {k for k, p in papers.items() if any(tuned(p, d) for d in p.datasets('tiny'))}
    assert chosen == ARMS.keys() | SKIPPED.keys()
    for k, a in ARMS.items(): assert a in tuned(papers[k], papers[k].datasets('tiny')[-1]), k

@pytest.mark.parametrize('key', CASES)
def test_a_candidate_does_not_see_the_test_examples(key, tmp_path):
    (usual, asked), (mixed, _) = (measured(key, tmp_path/str(m), m, 'tuning') for m in (False, True))
    assert usual and str(usual) == str(mixed)
    assert asked or key == 'smsp'    # whose candidates do not even load them

@pytest.mark.parametrize('key', ['kakurenbo', 'mixed_privacy', 'halo'])
def test_a_final_run_does(key, tmp_path):
    usual, mixed = (measured(key, tmp_path/str(m), m, 'final')[0] for m in (False, True))
    assert str(usual) != str(mixed)
