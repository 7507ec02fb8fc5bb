"""JupyterLab in a real browser: a notebook of this project opens, and all its cells run"""
import json, os, secrets, shutil, subprocess, sys, time
from pathlib import Path
import pytest
from browser import chromium, wait

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT/'nbs'/'attacks'/'00_threat_models.ipynb'
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
def lab(tmp_path):
    "Address of a JupyterLab that serves a copy of the notebook, with its token"
    pytest.importorskip('jupyterlab', reason='JupyterLab is not installed: pip install -e ".[dev]"')
    (tmp_path/'nbs').mkdir()
    shutil.copy(ROOT/'settings.ini', tmp_path)
    nb = shutil.copy(NOTEBOOK, tmp_path/'nbs')
    token, log = secrets.token_hex(16), open(tmp_path/'lab.log', 'w+')
    cmd = [sys.executable, '-m', 'jupyterlab', f"--config={ROOT/'tools'/'jupyter_server_config.py'}", '--no-browser', '--allow-root',
           '--ServerApp.ip=127.0.0.1', '--ServerApp.port=0', f'--IdentityProvider.token={token}', f"--ServerApp.root_dir={tmp_path/'nbs'}"]
    server = subprocess.Popen(cmd, cwd=tmp_path, env=environment(tmp_path), stdout=log, stderr=log)
    try:
        yield f'{address(tmp_path, server, log)}lab/tree/{Path(nb).name}?token={token}'
    finally:
        server.terminate()
        try: server.wait(60)
        except subprocess.TimeoutExpired: server.kill()
        log.close()

def address(tmp, server, log, seconds=300):
    "Address that the server has written down"
    end = time.time() + seconds
    while time.time() < end and server.poll() is None:
        for f in (tmp/'runtime').glob('jpserver-*.json'):
            try: return json.loads(f.read_text())['url']
            except ValueError: pass  # half written
        time.sleep(.2)
    log.seek(0)
    pytest.fail(f'JupyterLab did not start within {seconds} s:\n{log.read()[-2000:]}')

IDLE = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == 'idle'"
PROMPTS = "[...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')].map(e => e.textContent.trim())"

def test_all_cells_run(lab, tmp_path):
    browser = chromium()
    try:
        browser.get(lab)
        wait(browser, "document.querySelectorAll('.jp-Notebook .jp-CodeCell').length", 240, 'the notebook in JupyterLab')
        wait(browser, IDLE, 240, 'an idle kernel')
        time.sleep(3)  # the indicator says idle before the kernel is connected
        run_all(browser)
        wait(browser, f"{PROMPTS}.every(p => /^\\[\\d+\\]:?$/.test(p))", 240, 'a number at each cell')
        wait(browser, IDLE, 240, 'an idle kernel after the last cell')  # a cell has its number before its output
        failed = browser.find_elements('css selector', '[data-mime-type="application/vnd.jupyter.error"]')
        assert not failed, failed[0].text
        for css, what in (('.jp-OutputArea img', 'a figure'), ('mjx-container', 'a formula')):
            wait(browser, f"document.querySelectorAll('{css}').length", 240, what)
    finally: browser.quit()

def run_all(browser):
    "Menu Run, Run All Cells"
    for css, name in (('.lm-MenuBar-itemLabel', 'Run'), ('.lm-Menu-itemLabel', 'Run All Cells')):
        item = f"[...document.querySelectorAll('{css}')].find(e => e.textContent == '{name}')"
        wait(browser, item, 120, f'the menu item {name}').click()
