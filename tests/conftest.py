"""Shared by all tests: one thread, since the networks are tiny; what needs a GPU, or data that can be neither found nor downloaded, is skipped"""
import os, random, signal
import numpy as np
import pytest, torch
from robustnb.data import DataNotFound

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it, and children inherit that

torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'  # processes that tests start inherit it

@pytest.fixture(autouse=True)
def drawn_alike():
    "Each test begins with the same random state, whatever ran before it"
    random.seed(0); np.random.seed(0); torch.manual_seed(0)

def pytest_collection_modifyitems(items):
    if torch.cuda.is_available() or 'ROBUSTNB_GPU' in os.environ: return  # a device to rehearse them on, such as cpu
    for item in items:
        if 'gpu' in item.keywords: item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    "Whoever names a folder of data sets means it: then what is not there is an error"
    try: return (yield)
    except DataNotFound as e:
        if 'ROBUSTNB_DATA' in os.environ: raise
        pytest.skip(str(e).partition(' not found')[0] + ' can be neither found nor downloaded: set ROBUSTNB_DATA')
