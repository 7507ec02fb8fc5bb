"""A headless Chromium for the system tests, or the reason why there is none"""
import json, shutil
import pytest

def chromium(width=1400, height=1000):
    "Selenium driver whose requests are logged and whose host names do not resolve, but for 127.0.0.1; skips the test without Chromium"
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed: pip install -e ".[docs]"')
    binary, driver = shutil.which('chromium') or shutil.which('google-chrome'), shutil.which('chromedriver')
    if not (binary and driver): pytest.skip('needs Chromium and its driver: apt-get install chromium chromium-driver')
    opts = webdriver.ChromeOptions()
    opts.binary_location = binary
    for a in ('headless=new', 'no-sandbox', 'disable-gpu', 'disable-dev-shm-usage', 'disable-background-networking', 'disable-component-update',
              'no-first-run', f'window-size={width},{height}', 'host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'): opts.add_argument('--' + a)
    opts.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    return webdriver.Chrome(options=opts, service=webdriver.ChromeService(driver))

def errors(browser):
    "Messages of the console's errors since the last call"
    return [e['message'] for e in browser.get_log('browser') if e['level'] == 'SEVERE']

def remote(browser, *local):
    "Addresses requested since the last call that do not start with one of `local`"
    events = [json.loads(e['message'])['message'] for e in browser.get_log('performance')]
    urls = [e['params']['request']['url'] for e in events if e['method'] == 'Network.requestWillBeSent']
    return [u for u in urls if not u.startswith(('data:', 'blob:', 'chrome', 'about:', *local))]

def wait(browser, condition, seconds, what):
    "The first true value of the JavaScript expression `condition`"
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait
    try: return WebDriverWait(browser, seconds).until(lambda b: b.execute_script(f'return {condition}'))
    except TimeoutException: pytest.fail(f'{what}: not within {seconds} s')
