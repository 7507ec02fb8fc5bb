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

def resize(browser, width=None, height=900):
    "Give the page a width, which may be narrower than any window; without one it has the window's again"
    if width is None: browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    else: browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=False))

STILL = """
const style = document.createElement('style')
style.textContent = '* { transition: none !important; animation: none !important }'
document.head.append(style)
document.querySelectorAll('details').forEach(d => d.open = true)
const done = arguments[0]
requestAnimationFrame(() => requestAnimationFrame(done))  // the page's own scripts have answered to a new width
"""

CLIPPED = r"""
const SLACK = 2, root = document.scrollingElement, found = []
const name = e => e.tagName.toLowerCase() + [...e.classList].map(c => '.' + c).join('')
const stretched = o => {  // the middle of a tall bracket or a long brace: larger than the window through which it is seen
  const window = o.closest('svg'), svg = o.closest('mjx-container').querySelector('svg')
  return window != svg && getComputedStyle(window).overflowX == 'hidden'
}
function drawn(e) {  // the box of what an element draws, which may be larger than its own
  const range = document.createRange()
  range.selectNodeContents(e)
  const boxes = e.tagName == 'IMG' ? [e.getBoundingClientRect()] : e.closest('mjx-container')
    ? [...e.querySelectorAll('use, rect, path, line, text')].filter(o => !stretched(o)).map(o => o.getBoundingClientRect()) : [...range.getClientRects()]
  const seen = boxes.filter(b => b.width && b.height)
  const all = (f, side) => f(...seen.map(b => b[side]))
  return seen.length ? {left: all(Math.min, 'left'), right: all(Math.max, 'right'), top: all(Math.min, 'top'), bottom: all(Math.max, 'bottom')} : null
}
function out(box, left, right, top, bottom) {  // by how many pixels a box reaches out of another, and where
  const by = {left: left - box.left, right: box.right - right, top: top - box.top, bottom: box.bottom - bottom}
  return Object.keys(by).filter(k => by[k] > SLACK).map(k => `${Math.round(by[k])} px ${k}`).join(', ')
}
function check(e) {  // what no scrolling brings into view
  let box = drawn(e)
  for (let a = e.tagName == 'IMG' ? e.parentElement : e; box && a && a != document.body; a = a.parentElement) {
    const s = getComputedStyle(a), scrolls = v => ['auto', 'scroll'].includes(v)
    if (s.display == 'inline' || s.display == 'contents' || s.overflowX == 'visible') continue
    const r = a.getBoundingClientRect(), x = r.left + a.clientLeft, y = r.top + a.clientTop, w = a.clientWidth, h = a.clientHeight
    const x0 = scrolls(s.overflowX) ? x - a.scrollLeft : x, x1 = scrolls(s.overflowX) ? x0 + a.scrollWidth : x + w
    const y0 = scrolls(s.overflowY) ? y - a.scrollTop : y, y1 = scrolls(s.overflowY) ? y0 + a.scrollHeight : y + h
    const lost = out(box, x0, x1, y0, y1)
    if (lost) return `${lost} of ${name(a)}`
    box = {left: Math.max(box.left, x), right: Math.min(box.right, x + w), top: Math.max(box.top, y), bottom: Math.min(box.bottom, y + h)}
  }
  const lost = box && out(box, 0, root.clientWidth, -Infinity, Infinity)
  return lost ? `${lost} of the page` : ''
}
for (const e of document.querySelectorAll('.bd-article-container :is(mjx-container, table, pre, code, img, dt.sig, h1, h2, h3)')) {
  const lost = check(e)
  if (lost) found.push(`${name(e)} "${e.textContent.trim().slice(0, 60)}": ${lost}`)
}
return found
"""

def clipped(browser):
    "What of the page's equations, tables, lines of code and figures is cut off with no way to scroll there, all folded cells open"
    browser.execute_async_script(STILL)
    return browser.execute_script(CLIPPED)
