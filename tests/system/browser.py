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
style.textContent = '* { transition: none !important; animation: none !important } mjx-assistive-mml { display: none !important }'
document.head.append(style)
document.querySelectorAll('details').forEach(d => d.open = true)
const done = arguments[0]
requestAnimationFrame(() => requestAnimationFrame(done))  // the page's own scripts have answered to a new width
"""

CLIPPED = r"""
const SLACK = 2, root = document.scrollingElement, found = []
const name = e => e.tagName.toLowerCase() + [...e.classList].map(c => '.' + c).join('')
const stretched = o => o.closest('mjx-stretchy-v, mjx-stretchy-h')  // a tall bracket or a long brace is seen through windows smaller than its parts
function drawn(e) {  // the box of what an element draws, which may be larger than its own
  const range = document.createRange()
  range.selectNodeContents(e)
  const boxes = e.tagName == 'IMG' ? [e.getBoundingClientRect()] : e.closest('mjx-container')
    ? [...e.querySelectorAll('mjx-c, mjx-utext, mjx-mspace')].filter(o => !stretched(o)).map(o => o.getBoundingClientRect()) : [...range.getClientRects()]
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
for (const e of document.querySelectorAll(':is(.bd-article-container, body > main) :is(mjx-container, table, pre, code, img, dt.sig, h1, h2, h3)')) {
  const lost = check(e)
  if (lost) found.push(`${name(e)} "${e.textContent.trim().slice(0, 60)}": ${lost}`)
}
return found
"""

def clipped(browser):
    "What of the page's equations, tables, lines of code and figures is cut off with no way to scroll there, all folded cells open"
    browser.execute_async_script(STILL)
    return browser.execute_script(CLIPPED)

CONTRAST = r"""
const parse = c => { const v = c.match(/[\d.]+/g).map(Number); return [v[0], v[1], v[2], v[3] ?? 1] }
const over = (top, under) => top.slice(0, 3).map((c, i) => c*top[3] + under[i]*(1 - top[3]))
const light = c => c.map(v => v/255).map(v => v <= .04045 ? v/12.92 : ((v + .055)/1.055)**2.4).reduce((s, v, i) => s + v*[.2126, .7152, .0722][i], 0)
const once = f => { const known = new Map(); return e => { if (!known.has(e)) known.set(e, f(e)); return known.get(e) } }
const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255]
const ground = once(e => {  // the colour behind an element; null where there is a picture
  if (!e) return canvas
  const s = getComputedStyle(e), top = parse(s.backgroundColor)
  if (s.backgroundImage != 'none') return null
  const under = top[3] == 1 ? canvas : ground(e.parentElement)
  return under && over(top, under)
})
const shade = once(e => e ? Number(getComputedStyle(e).opacity)*shade(e.parentElement) : 1)
const found = new Map(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim()
  if (!text || e.closest('script, style, noscript, mjx-container, option, [disabled], .visually-hidden')) continue
  if (!e.checkVisibility({opacityProperty: true, visibilityProperty: true}) || !e.getClientRects().length) continue
  const s = getComputedStyle(e), back = ground(e), svg = e.closest('svg')
  if (!back) continue
  const ink = parse(svg ? s.fill : s.color)
  const [a, b] = [light(over([...ink.slice(0, 3), ink[3]*shade(e)], back)), light(back)].sort((x, y) => y - x)
  const ratio = (a + .05)/(b + .05), size = parseFloat(s.fontSize)
  const least = size >= 24 || size >= 18.66 && Number(s.fontWeight) >= 700 ? 3 : 4.5
  if (ratio < least - .01) found.set(`${e.tagName.toLowerCase()}.${e.className.baseVal ?? e.className} ${ratio.toFixed(2)}`, text.slice(0, 40))
}
return [...found].map(([k, v]) => `${k}: ${v}`)
"""

def faint(browser):
    "Texts of the page whose contrast with what lies behind them is below 4.5, or 3 for large ones, all folded cells open"
    browser.execute_async_script(STILL)
    return browser.execute_script(CONTRAST)

def weight(browser):
    "Bytes of the page and all that it has loaded, before compression"
    return browser.execute_script("return performance.getEntries().reduce((s, o) => s + (o.decodedBodySize || 0), 0)")
