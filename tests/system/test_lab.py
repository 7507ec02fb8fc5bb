"""JupyterLab as `make lab` starts it: a notebook of this project opens in a real browser, all its cells run, and it is cleaned when saved"""
import json, os, secrets, shutil, subprocess, sys, time
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import Request, urlopen
import pytest
from browser import chromium, wait

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT/'nbs'/'attacks'/'00_threat_models.ipynb'
OTHERS = ['evidence/05_figures', 'merging/00_permutations', 'robustness/00_battery']  # one of each family, the quick ones
SETTINGS = {'notebook-extension/tracker': {'windowingMode': 'none'},   # all cells are in the page, not only those in view
            'apputils-extension/notification': {'fetchNews': 'false', 'checkForUpdates': False}}

def environment(tmp):
    "Environment in which Jupyter reads and writes below `tmp` only"
    for name, value in SETTINGS.items():
        f = tmp/'settings'/'@jupyterlab'/f'{name}.jupyterlab-settings'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(json.dumps(value))
    own = {f'JUPYTER_{k}_DIR': str(tmp/k.lower()) for k in ('CONFIG', 'DATA', 'RUNTIME')}
    env = {k: v for k, v in os.environ.items() if k != 'MPLBACKEND'}  # the kernel's own: figures in the page
    return {**env, **own, 'JUPYTERLAB_SETTINGS_DIR': str(tmp/'settings'), 'JUPYTERLAB_WORKSPACES_DIR': str(tmp/'workspaces'),
            'PYTHONPATH': str(ROOT)}

@pytest.fixture
def server(tmp_path, request):
    "A JupyterLab that serves a copy of a notebook, in a folder of it, as `make lab` does: its `url`, `token` and `log` file, and `nb`, the copy"
    pytest.importorskip('jupyterlab', reason='JupyterLab is not installed: pip install -e ".[dev]"')
    source = getattr(request, 'param', NOTEBOOK)
    nb = tmp_path/'nbs'/source.relative_to(ROOT/'nbs')
    nb.parent.mkdir(parents=True)
    shutil.copy(ROOT/'settings.ini', tmp_path)
    shutil.copytree(ROOT/'tools', tmp_path/'tools')
    shutil.copy(source, nb)
    token, log = secrets.token_hex(16), tmp_path/'lab.log'
    cmd = [sys.executable, '-m', 'jupyterlab', '--config=tools/jupyter_server_config.py', 'nbs', '--no-browser', '--allow-root',
           '--ServerApp.ip=127.0.0.1', '--ServerApp.port=0', f'--IdentityProvider.token={token}']
    with log.open('w') as f: process = subprocess.Popen(cmd, cwd=tmp_path, env=environment(tmp_path), stdout=f, stderr=f)
    try: yield SimpleNamespace(url=address(tmp_path, process, log), token=token, log=log, nb=nb)
    finally:
        process.terminate()
        try: process.wait(60)
        except subprocess.TimeoutExpired: process.kill()

def address(tmp, server, log, seconds=300):
    "Address that the server has written down"
    end = time.time() + seconds
    while time.time() < end and server.poll() is None:
        for f in (tmp/'runtime').glob('jpserver-*.json'):
            try: url = json.loads(f.read_text())['url']
            except ValueError: continue  # half written
            if answers(url): return url
        time.sleep(.2)
    pytest.fail(f'JupyterLab did not start within {seconds} s:\n{log.read_text()[-2000:]}')

def answers(url):
    "Whether a server listens there; it writes down its address before it does"
    try: urlopen(f'{url}api', timeout=60).close()
    except URLError: return False
    return True

def contents(server, method, path, **model):
    "Answer of the server's contents API, by which JupyterLab opens, creates and saves"
    data = json.dumps(model).encode() if model else None
    head = {'Authorization': f'token {server.token}', 'Content-Type': 'application/json'}
    with urlopen(Request(f'{server.url}api/contents/{path}', data, head, method=method), timeout=60) as r: return json.load(r)

def used(nb):
    "The notebook as JupyterLab holds it after some work: cells numbered and marked, and the kernel's particulars"
    nb = deepcopy(nb)
    nb['metadata'].update(language_info={'name': 'python', 'version': '3.0'}, mine=1)
    for i, c in enumerate(nb['cells']):
        c['metadata'].update(collapsed=True, editable=False)
        if c['cell_type'] == 'code': c['execution_count'] = i + 1
    return nb

def clean(path):
    "Whether the notebook is as `nbdev_clean` leaves it"
    before = path.read_bytes()
    subprocess.run([sys.executable, '-c', 'import sys; from nbdev.clean import nbdev_clean; nbdev_clean(sys.argv[1])', path], cwd=path.parent, check=True)
    return path.read_bytes() == before

def test_saved_notebook_is_clean_and_nothing_fails(server):
    here = server.nb.relative_to(server.nb.parents[1]).as_posix()
    original = contents(server, 'GET', here)['content']
    contents(server, 'PUT', here, type='notebook', format='json', content=used(original))
    saved = json.loads(server.nb.read_text(encoding='utf-8'))
    assert saved == json.loads(NOTEBOOK.read_text(encoding='utf-8')) and clean(server.nb)
    new = server.nb.parent/contents(server, 'POST', server.nb.parent.name, type='notebook')['name']  # not on disk before its first save
    cell = {'cell_type': 'code', 'id': 'abcd', 'source': '6*7', 'execution_count': 3, 'metadata': {'collapsed': True}, 'outputs': []}
    contents(server, 'PUT', f'{new.parent.name}/{new.name}', type='notebook', format='json', content={**original, 'cells': [cell]})
    saved = json.loads(new.read_text(encoding='utf-8'))['cells'][0]
    assert saved == {**cell, 'source': ['6*7'], 'execution_count': None, 'metadata': {}} and clean(new)
    contents(server, 'PUT', 'notes.txt', type='file', format='text', content='as it is')  # no notebook: left alone
    assert (server.nb.parents[1]/'notes.txt').read_text() == 'as it is'
    log = server.log.read_text()
    assert not [w for w in ('Error', 'Traceback', 'hook failed', '[E ') if w in log], log

IDLE = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == 'idle'"
PROMPTS = "[...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')].map(e => e.textContent.trim())"

@contextmanager
def opened(server):
    "A browser in which the notebook is open and its kernel is idle"
    browser = chromium()
    try:
        browser.get(f'{server.url}lab/tree/{server.nb.relative_to(server.nb.parents[1]).as_posix()}?token={server.token}')
        wait(browser, "document.querySelectorAll('.jp-Notebook .jp-CodeCell').length", 240, 'the notebook in JupyterLab')
        wait(browser, IDLE, 240, 'an idle kernel')
        time.sleep(3)  # the indicator says idle before the kernel is connected
        yield browser
    finally: browser.quit()

def run_to_the_end(browser):
    "All cells, none of which may fail"
    run_all(browser)
    wait(browser, f"{PROMPTS}.every(p => /^\\[\\d+\\]:?$/.test(p))", 240, 'a number at each cell')
    wait(browser, IDLE, 240, 'an idle kernel after the last cell')  # a cell has its number before its output
    failed = browser.find_elements('css selector', '[data-mime-type="application/vnd.jupyter.error"]')
    assert not failed, failed[0].text

def test_all_cells_run(server):
    with opened(server) as browser:
        run_to_the_end(browser)
        for css, what in (('.jp-OutputArea img', 'a figure'), ('mjx-container', 'a formula')):
            wait(browser, f"document.querySelectorAll('{css}').length", 240, what)

@pytest.mark.parametrize('server', [ROOT/'nbs'/f'{n}.ipynb' for n in OTHERS], indirect=True, ids=OTHERS)
def test_all_cells_run_in_each_family(server):
    with opened(server) as browser: run_to_the_end(browser)

def test_bars_are_drawn(server):
    "The bars of `fit` and of attacks are widgets, and no warning stands in their place"
    code = 'from tqdm.auto import tqdm\nfor i in tqdm(range(3), desc="epochs"): pass'
    nb = json.loads(server.nb.read_text(encoding='utf-8'))
    server.nb.write_text(json.dumps({**nb, 'cells': [{'cell_type': 'code', 'id': 'bars', 'source': code, 'execution_count': None, 'metadata': {}, 'outputs': []}]}))
    with opened(server) as browser:
        run_to_the_end(browser)
        wait(browser, "document.querySelector('.jupyter-widgets .progress-bar, .jupyter-widgets progress, .widget-hprogress')", 120, 'a bar')
        assert not browser.find_elements('css selector', '[data-mime-type="application/vnd.jupyter.stderr"]')

def run_all(browser):
    "Menu Run, Run All Cells"
    for css, name in (('.lm-MenuBar-itemLabel', 'Run'), ('.lm-Menu-itemLabel', 'Run All Cells')):
        item = f"[...document.querySelectorAll('{css}')].find(e => e.textContent == '{name}')"
        wait(browser, item, 120, f'the menu item {name}').click()
