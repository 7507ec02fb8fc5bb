"""Shared by all tests: GPU tests are skipped without a GPU, and nothing imported counts as a test."""
import pytest, torch

def pytest_collection_modifyitems(items):
    if torch.cuda.is_available(): return
    for item in items:
        if 'gpu' in item.keywords: item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
