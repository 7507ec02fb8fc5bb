"""Shared by all tests: one thread, since the networks are tiny, and GPU tests are skipped where there is no GPU"""
import os, signal, pytest, torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it, and children inherit that

torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'  # processes that tests start inherit it

def pytest_collection_modifyitems(items):
    if torch.cuda.is_available(): return
    for item in items:
        if 'gpu' in item.keywords: item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
