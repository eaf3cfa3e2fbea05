"""The page in a real Chromium, without a screen: pip install playwright, apt install chromium."""

import base64
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.helpers.encoded import encoded
from tests.helpers.served import senet_serve
from tests.helpers.until import until

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
OPTIONS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
  '--disable-background-networking', '--disable-component-update',
  '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
]  # fmt: skip
SIZES = {'wide': (1280, 800), 'phone': (390, 844)}
NAME = 'se_resnet20_cifar10'
SCRIPT = b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title="x"</script></svg>'
# Hands a file to an element, as somebody does who drops or pastes it; zeros may follow its data.
GIVE = """(target, [kind, name, type, data, zeros]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes, new Uint8Array(zeros)], name, { type }));
  const how = { bubbles: true, cancelable: true };
  target.dispatchEvent(kind === 'drop' ? new DragEvent('drop', { ...how, dataTransfer: given })
    : new ClipboardEvent('paste', { ...how, clipboardData: given }));
}"""
# Keeps all that the camera gives; `allow` holds it back until it resolves, as a question does.
WATCH_CAMERA = """(() => {
  const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
  window.tracks = [];
  window.asked = 0;
  devices.getUserMedia = async (wanted) => {
    window.asked++;
    await window.allow;
    const stream = await open(wanted);
    window.tracks.push(...stream.getTracks());
    return stream;
  };
})()"""
LIVE = "() => tracks.filter((track) => track.readyState === 'live').length"


@pytest.fixture(scope='module')
def url():
  with senet_serve(NAME, '--max_megabytes=1') as address:
    yield address


@pytest.fixture(scope='module')
def chromium():
  playwright = pytest.importorskip('playwright.sync_api')
  if CHROMIUM is None:
    pytest.skip('needs chromium')
  with playwright.sync_playwright() as started:
    browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
    yield browser
    browser.close()


@pytest.fixture(params=SIZES)
def blank(request, chromium, tmp_path):
  """A window as wide as a desk's or a phone's; its screenshot is left in $SCREENSHOTS."""
  width, height = SIZES[request.param]
  page = chromium.new_page(viewport={'width': width, 'height': height})
  yield page
  to = pathlib.Path(os.environ.get('SCREENSHOTS', tmp_path))
  name = re.sub(r'\W+', '_', request.node.name).strip('_')
  page.screenshot(path=to / f'{name}.png', full_page=True)
  assert page.evaluate('document.documentElement.scrollWidth') <= width  # nothing sticks out
  page.close()


@pytest.fixture
def page(blank, url):
  """The page; its scripts may not fail, nor load anything from elsewhere."""
  said, asked = [], []
  blank.on('console', lambda message: said.append(message.text))
  blank.on('pageerror', lambda error: said.append(str(error)))
  blank.on('request', lambda request: asked.append(request.url))
  blank.add_init_script(WATCH_CAMERA)
  blank.goto(url)
  yield blank
  # Chromium itself tells of answers that are refusals, and of requests that come to nothing.
  assert [text for text in said if not text.startswith('Failed to load resource')] == []
  assert all(address.startswith((url, f'blob:{url}')) for address in asked)


def picture(seed: int) -> bytes:
  rng = np.random.default_rng(seed)
  return encoded(rng.integers(0, 256, (4, 6, 3), np.uint8).repeat(60, 0).repeat(60, 1))


def give(target, kind: str, data: bytes, name='a.png', type='image/png', zeros=0):
  target.evaluate(GIVE, [kind, name, type, base64.b64encode(data).decode(), zeros])


def complaint(page) -> str:
  """What the first photo says has gone wrong."""
  status = page.locator('.photo .status').first
  until(lambda: 'bad' in status.get_attribute('class') and status.text_content())
  assert page.locator('.busy').count() == 0
  return status.text_content()


def answers(page, url: str, photo: int, data: bytes) -> None:
  """Checks that a photo's answer in the page is that of the API."""
  found = page.request.post(f'{url}/api/predict', data=data).json()['predictions']
  rows = page.locator('.photo').nth(photo).locator('li')
  rows.nth(4).wait_for()
  for row, expected in zip(rows.all(), found, strict=True):
    name, percent = row.locator('span').all_text_contents()
    assert name == expected['name']
    if percent != '< 0.1 %':
      assert float(percent[:-2]) == pytest.approx(100 * expected['probability'], abs=0.051)


def test_two_photos_are_compared(page, url):
  first, second = picture(0), picture(1)
  assert page.locator('#gates').is_hidden()
  give(page.locator('.photo').nth(0), 'drop', first)
  answers(page, url, 0, first)
  assert page.locator('.strip').count() == 9
  give(page.locator('body'), 'paste', second)  # goes where there is none yet
  answers(page, url, 1, second)
  assert page.locator('.strip').count() == 18
  sides = [page.locator('.photo').nth(i).bounding_box() for i in (0, 1)]
  assert sides[0]['y'] == sides[1]['y'] and sides[0]['x'] < sides[1]['x']
  page.get_by_label('1 against 2').check()
  assert page.locator('.strip').count() == 9
  page.get_by_label('As they are').check()
  shown = page.request.post(f'{url}/api/predict?gates=true', data=first).json()['gates']
  strip = page.get_by_role('slider', name='Gates of SE_4_3, photo 1')
  strip.focus()
  for _ in range(2):
    page.keyboard.press('ArrowRight')
  value = next(row['values'][2] for row in shown if row['block'] == 'SE_4_3')
  expected = rf'SE_4_3, channel 3: photo 1 {value:.2f}, photo 2 \d\.\d\d, mean \d\.\d\d'
  assert re.fullmatch(expected, page.locator('#channel').text_content())
  assert strip.get_attribute('aria-valuetext') == page.locator('#channel').text_content()


def test_a_file_is_chosen_and_replaced(page, url):
  chooser = page.get_by_label('Choose a photo').first
  for seed in (2, 3):
    photo = {'name': 'a.png', 'mimeType': 'image/png', 'buffer': picture(seed)}
    chooser.or_(page.get_by_label('Another photo').first).first.set_input_files(photo)
    page.locator('.full:not(.busy)').wait_for()
    answers(page, url, 0, picture(seed))


def test_the_camera(page, url):
  button = page.locator('.camera').first
  button.dblclick()
  page.get_by_text('Take it').wait_for()
  assert page.evaluate('asked') == page.evaluate(LIVE) == 1
  assert page.locator('video').first.evaluate('video => video.videoWidth > 0')
  button.dblclick()
  page.locator('.photo li').nth(4).wait_for()
  assert button.text_content() == 'Camera' and page.locator('video').first.is_hidden()
  assert page.evaluate(LIVE) == 0


def test_the_camera_is_on_for_one_photo(page, url):
  first, second = (page.locator('.photo').nth(i) for i in (0, 1))
  first.get_by_text('Camera', exact=True).click()
  first.get_by_text('Take it').wait_for()
  second.get_by_text('Camera', exact=True).click()
  second.get_by_text('Take it').wait_for()
  assert page.evaluate(LIVE) == 1 and first.locator('.camera').text_content() == 'Camera'
  second.get_by_text('Camera off').click()
  assert page.evaluate(LIVE) == 0 and second.locator('video').is_hidden()
  second.get_by_text('Camera', exact=True).click()
  second.get_by_text('Take it').wait_for()
  page.evaluate("tracks.at(-1).dispatchEvent(new Event('ended'))")  # as if it were pulled out
  assert second.locator('.status.bad').text_content() == 'The camera has gone.'
  assert page.evaluate(LIVE) == 0


@pytest.mark.parametrize(
  ('kind', 'camera', 'place'), [('drop', 0, 0), ('drop', 1, 0), ('paste', 1, 1)]
)
@pytest.mark.parametrize('asking', [False, True])
def test_a_photo_turns_the_camera_off(page, url, kind, camera, place, asking):
  if asking:
    page.evaluate('() => { window.allow = new Promise((resolve) => { window.yes = resolve; }); }')
  page.locator('.camera').nth(camera).click()
  if asking:
    assert page.evaluate('asked') == 1
  else:
    page.get_by_text('Take it').wait_for()
  give(page.locator('.photo').nth(place), kind, picture(4))
  if asking:
    page.evaluate('yes()')
    until(lambda: page.evaluate('tracks.length') == 1)
  answers(page, url, place, picture(4))
  assert page.evaluate(LIVE) == 0 and page.locator('.filming').count() == 0


def test_a_camera_that_may_not_be_used(page, url):
  page.evaluate(
    "() => { window.allow = { then: (_, refuse) => refuse(new Error('Permission denied')) }; }"
  )
  page.locator('.camera').first.click()
  assert complaint(page) == 'There is no camera to use: Permission denied'
  page.evaluate('window.allow = null')
  page.locator('.camera').first.click()
  page.get_by_text('Take it').wait_for()
  assert page.locator('.status.bad').count() == 0


@pytest.mark.parametrize(
  ('name', 'kind', 'data', 'zeros', 'message'),
  [
    ('a.svg', 'image/svg+xml', SCRIPT, 0, 'the photo is unreadable: no JPEG'),
    ('a.png', 'image/png', SCRIPT, 0, 'the photo is unreadable: no JPEG'),
    ('a.png', 'image/png', encoded(Image.new('1', (10_000, 10_000))), 0, '10000 x 10000 pixels'),
    ('a.png', 'image/png', b'', 50 * 2**20, 'larger than 1 MB; choose a smaller one.'),
  ],
  ids=['svg', 'script', 'bomb', 'fifty_megabytes'],
)
def test_what_is_no_photo(page, url, name, kind, data, zeros, message):
  give(page.locator('.photo').first, 'drop', data, name, kind, zeros)
  said = complaint(page)
  assert message in said and '\n' not in said and page.title() == NAME
  assert page.locator('li').count() == 0 and page.locator('#gates').is_hidden()
  give(page.locator('.photo').first, 'drop', picture(5))
  answers(page, url, 0, picture(5))


def test_a_file_that_cannot_be_read(page):
  page.evaluate(
    '() => { File.prototype.arrayBuffer = () => Promise.reject(new Error()); }'
  )  # as of a folder
  give(page.locator('.photo').first, 'drop', picture(5))
  assert complaint(page) == 'The file cannot be read; choose another.'
  page.evaluate("""document.body.dispatchEvent(new DragEvent('drop', {
    bubbles: true, cancelable: true, dataTransfer: new DataTransfer() }))""")
  page.get_by_text('That is no file').wait_for()


def test_a_hundred_requests_at_once_and_fifty_megabytes(page, url):
  photo = list(picture(6))
  found = page.evaluate(
    """async (photo) => {
      const ask = async (body) => {
        const response = await fetch('/api/predict', { method: 'POST', body });
        await response.text(); // or it keeps its connection, and the others wait
        return response.status;
      };
      const large = await ask(new Uint8Array(50 * 2 ** 20));
      const many = await Promise.all(Array.from({ length: 100 }, () => ask(new Uint8Array(photo))));
      return [large, ...many];
    }""",
    photo,
  )
  assert found == [413] + [200] * 100
  give(page.locator('.photo').first, 'drop', picture(6))
  answers(page, url, 0, picture(6))


def test_a_second_photo_while_the_first_is_on_its_way(page, url):
  held = []
  page.route('**/api/predict*', lambda route: held.append(route))
  give(page.locator('.photo').first, 'drop', picture(7))
  until(lambda: page.wait_for_timeout(20) or held)
  page.unroute('**/api/predict*')
  give(page.locator('.photo').first, 'drop', picture(8))
  answers(page, url, 0, picture(8))
  assert page.locator('.busy').count() == 0


def failing(page, path: str, how: str) -> None:
  """Has requests to a path fail: nobody is there, or it is refused, or another answers."""
  ways = {
    'gone': lambda route: route.abort(),
    'busy': lambda route: route.fulfill(status=503, json={'error': 'too many requests at once.'}),
    'proxy': lambda route: route.fulfill(status=502, content_type='text/html', body='<h1>Bad'),
  }
  page.route(path, ways[how])


FAILURES = [
  ('gone', 'The server cannot be reached; see whether it still runs, and try again.'),
  ('busy', 'too many requests at once.'),
  ('proxy', 'The server gives no answer, but status 502; try again later.'),
]


@pytest.mark.parametrize(('how', 'message'), FAILURES)
def test_a_photo_without_an_answer(page, url, how, message):
  failing(page, '**/api/predict*', how)
  give(page.locator('.photo').first, 'drop', picture(9))
  assert complaint(page) == message
  page.unroute('**/api/predict*')
  give(page.locator('.photo').first, 'drop', picture(9))
  answers(page, url, 0, picture(9))


@pytest.mark.parametrize(('how', 'message'), FAILURES)
@pytest.mark.parametrize(('path', 'needed'), [('/', '/api/model'), ('/docs', '/openapi.json')])
def test_a_page_without_what_it_needs(blank, url, path, needed, how, message):
  failing(blank, f'**{needed}', how)
  blank.goto(url + path)
  alert = blank.get_by_role('alert')
  alert.wait_for()
  assert alert.text_content() == message


def test_a_server_that_never_answers(blank, url):
  def impatient(route):
    about = route.fetch().json()
    route.fulfill(json={**about, 'max_seconds': -4.5})  # and 5 more

  blank.route('**/api/model', impatient)
  blank.route('**/api/predict*', lambda route: None)
  blank.goto(url)
  give(blank.locator('.photo').first, 'drop', picture(10))
  assert complaint(blank) == 'The server has given no answer within 0.5 s; try again.'


@pytest.mark.parametrize(('path', 'script'), [('/', 'gates.js'), ('/docs', 'ask.js')])
def test_a_script_that_does_not_come(blank, url, path, script):
  failing(blank, f'**/static/{script}', 'busy')
  blank.goto(url + path)
  hint = blank.get_by_text('Reload the page if it never says.')
  assert hint.evaluate('hint => getComputedStyle(hint).visibility') == 'hidden'
  hint.wait_for()


def test_the_api_in_words(page, url):
  page.goto(f'{url}/docs')
  page.get_by_role('heading', name='POST /api/predict').wait_for()
  api = json.loads(page.request.get(f'{url}/openapi.json').text())
  for name in api['components']['schemas']:
    assert page.get_by_role('heading', name=name, exact=True).is_visible()
