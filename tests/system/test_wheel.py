"""The wheel alone: built, installed with its runtime requirements into a clean environment, and put to work there"""
import json, os, shutil, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[2]
UNREACHABLE = ('dns error', 'error sending request', 'connect error', 'Connection', 'Temporary failure', 'No matching distribution', 'timed out')

def call(*cmd, cwd):
    return subprocess.run([str(c) for c in cmd], cwd=cwd, capture_output=True, text=True, timeout=900, env=clean_env())

def clean_env():
    "The environment without what would lead back to this checkout"
    return {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV', 'ROBUSTNB_DATA')}

def install(*cmd, cwd):
    "Run an installer; without a package index the test is skipped"
    run = call(*cmd, cwd=cwd)
    if run.returncode and any(s in run.stderr for s in UNREACHABLE): pytest.skip(f'the package index cannot be reached: {run.stderr.strip()[-200:]}')
    assert run.returncode == 0, run.stderr

@pytest.fixture
def installed(tmp_path):
    "Python of a clean environment that holds the wheel and its runtime requirements"
    src, env = tmp_path/'src', tmp_path/'env'
    keep = shutil.ignore_patterns('.*', 'build', 'dist', '*.egg-info', '_build', 'runs', '__pycache__')
    shutil.copytree(ROOT, src, ignore=keep)
    uv = Path(sys.executable).parent/'uv'
    if uv.exists():
        install(uv, 'build', '-q', '--wheel', '--out-dir', tmp_path/'dist', src, cwd=tmp_path)
        install(uv, 'venv', '-q', '-p', sys.executable, env, cwd=tmp_path)
        install(uv, 'pip', 'install', '-q', '-p', env/'bin'/'python', *(tmp_path/'dist').glob('*.whl'), cwd=tmp_path)
    else:
        install(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', tmp_path/'dist', src, cwd=tmp_path)
        install(sys.executable, '-m', 'venv', env, cwd=tmp_path)
        install(env/'bin'/'pip', 'install', '-q', *(tmp_path/'dist').glob('*.whl'), cwd=tmp_path)
    yield env/'bin'/'python'
    shutil.rmtree(env)  # gigabytes

def test_wheel_works_alone(installed, tmp_path):
    run = lambda *cmd: call(*cmd, cwd=tmp_path)
    where = run(installed, '-c', 'import robustnb; print(robustnb.__file__)').stdout
    assert where.startswith(str(tmp_path/'env')), where
    for absent in ('nbdev', 'sphinx', 'pytest'): assert run(installed, '-c', f'import {absent}').returncode, f'{absent} is a requirement of the wheel'
    everything = ('import importlib, pkgutil, robustnb\n'
                  'for m in pkgutil.walk_packages(robustnb.__path__, "robustnb."): importlib.import_module(m.name)')
    out = run(installed, '-c', everything)
    assert out.returncode == 0, out.stderr
    out = run(installed.parent/'robustnb', 'reproduce', 'absum', '--scale', 'tiny', '--seeds', '1')
    assert out.returncode == 0, out.stderr
    assert 'absum' in out.stdout and (tmp_path/'report.html').stat().st_size > 1000
    at = Path(where.strip()).parent/'templates'
    templates = {p.name for p in (ROOT/'robustnb'/'templates').glob('*.html')}
    assert {p.name for p in at.iterdir()} == templates != set(), 'the wheel lacks templates'
    out = run(installed.parent/'robustnb', 'ledger', '--json')
    assert out.returncode == 0, out.stderr
    stored = (ROOT/'robustnb'/'results'/'absum.json').exists()
    assert any(c['n_seeds'] for c in json.loads(out.stdout)) == stored, 'the stored results are not in the wheel'
