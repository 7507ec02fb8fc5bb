"""The README keeps its word: its Python runs as a file and prints what stands below it, its commands and links exist"""
import importlib, os, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT/'README.md').read_text(encoding='utf-8')
SNIPPETS = re.findall(r'^```python\n(.*?)^```\n\n((?:    [^\n]*\n)*)', README, re.M | re.S)  # (code, what it printed, indented)
LINKS = re.findall(r'\]\(([^)\s]+)\)', README)

def table(text):
    "{row: {column: number}} of a printed data frame"
    head, *rows = [re.split(r'\s{2,}', l.strip()) for l in text.rstrip().splitlines()]
    return {name: dict(zip(head, map(float, numbers), strict=True)) for name, *numbers in rows}

def stranger(code, folder):
    "Output of `code` run as a file in a folder of its own, on the CPU, by somebody who has installed the package"
    (folder/'mine.py').write_text(code, encoding='utf-8')
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}
    run = subprocess.run([sys.executable, 'mine.py'], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return run.stdout

def test_there_is_a_snippet_with_its_output():
    assert SNIPPETS and all(printed for _, printed in SNIPPETS) and len(SNIPPETS) == README.count('```python')

@pytest.mark.parametrize('code, printed', SNIPPETS)
def test_snippet_prints_what_the_readme_shows(tmp_path, code, printed):
    got, want = table(stranger(code, tmp_path)), table(printed)
    assert got.keys() == want.keys()
    for row in want: assert got[row] == pytest.approx(want[row], rel=.004, abs=.004), row  # one image of 360 apart, on another processor

def commands():
    "Commands which the README names: lines of its shell blocks, and inline code"
    blocks = re.findall(r'^```sh\n(.*?)^```', README, re.M | re.S)
    prose = re.sub(r'^```.*?^```', '', README, flags=re.M | re.S)
    return [l.partition('#')[0].strip() for b in blocks for l in b.splitlines() if l.strip()] + re.findall(r'`([^`\n]+)`', prose)

def named(program):
    "What the README has the program do: the words that follow its name"
    return sorted({m[1] for m in (re.match(rf'{program} ([a-z_]+)', o) for o in commands()) if m})

def test_targets_of_make_exist():
    targets = re.findall(r'^([a-z]+):.*## ', (ROOT/'Makefile').read_text(), re.M)
    assert named('make') and set(named('make')) <= set(targets)

@pytest.mark.parametrize('command', named('robustnb'))
def test_subcommands_exist(command):
    run = subprocess.run([sys.executable, '-m', 'robustnb.cli', command, '--help'], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and f'robustnb {command}' in run.stdout, run.stderr

def test_options_exist():
    for line in commands():
        if not re.match(r'robustnb [a-z]+ .*--', line): continue
        run = subprocess.run([sys.executable, '-m', 'robustnb.cli', line.split()[1], '--help'], cwd=ROOT, capture_output=True, text=True)
        assert set(re.findall(r'--[\w-]+', line)) <= set(re.findall(r'--[\w-]+', run.stdout)), line

def test_modules_named_in_prose_exist():
    found = set(re.findall(r'`(robustnb(?:\.\w+)+)`', README))
    assert found
    for module in found: importlib.import_module(module)

def anchors():
    "Where GitHub lets a link into the README point: its headings"
    return {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in re.findall(r'^#+ (.*)$', README, re.M)}

@pytest.mark.parametrize('link', LINKS)
def test_links_lead_somewhere(link):
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    own = f"{ini['DEFAULT']['git_url']}/blob/{ini['DEFAULT']['branch']}/"
    if link.startswith('#'): assert link[1:] in anchors()
    elif link.startswith(own): assert (ROOT/link.removeprefix(own).partition('#')[0]).exists()
    else: assert '://' in link or (ROOT/link.partition('#')[0]).exists()

def test_front_page_promises_only_what_is_there():
    "A family without notebooks is named in one place: the sentence that says what is planned"
    families = {'unlearning': 'unlearning', 'synthesis': 'generative augmentation', 'transfer': 'transfer,', 'adaptation': 'test-time adaptation',
                'anomaly': 'anomaly detection', 'efficiency': 'efficiency'}
    sentences = re.split(r'(?<=\.)\s', README)
    for folder, name in families.items():
        if list((ROOT/'nbs'/folder).glob('[0-9]*.ipynb')): continue
        said = [s for s in sentences if name in s]
        assert said and all('planned' in s for s in said), name
        assert name not in (ROOT/'settings.ini').read_text()
