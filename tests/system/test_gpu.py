"""What runs where there is a GPU, rehearsed on the CPU: `tools/gpu.py`"""
import json, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

def gpu(*args): return subprocess.run([sys.executable, 'tools/gpu.py', *map(str, args)], cwd=ROOT, capture_output=True, text=True)

def test_rehearsal(tmp_path):
    cut = gpu('run', tmp_path/'out', '--rehearse', '--minutes', .34)  # the plan, and no time for more than a first try
    assert cut.returncode == 1 and 'The tests marked gpu' in cut.stdout and 'papers: ' not in cut.stdout
    whole = gpu('run', tmp_path/'out', '--rehearse', '--minutes', 9)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    read = lambda name: json.loads((tmp_path/'out'/f'{name}.json').read_text())
    (found,), speed, (trained,) = read('tests'), read('speed'), read('cifar')
    assert found['passed'] >= 12 and not found['failed'] and len({r['job'] for r in speed}) == len(speed) == 4
    assert all(r['ours'] > 0 < r['peer'] for r in speed) and 0 < trained['robust'] <= trained['accuracy']
    assert len(list((tmp_path/'out'/'results').glob('*.json'))) == 1
    again = gpu('run', tmp_path/'out', '--rehearse')  # nothing is left to do
    assert again.returncode == 0 and again.stdout.count('done') == 4 and 'after' not in again.stdout
    refused = gpu('collect', tmp_path/'out')
    assert refused.returncode and 'a rehearsal' in refused.stderr

def test_collect_needs_a_run(tmp_path):
    refused = gpu('collect', tmp_path)
    assert refused.returncode and 'nothing that `run` has found' in refused.stderr
