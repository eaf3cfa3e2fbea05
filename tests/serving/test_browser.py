"""The page in a real Chromium, without a screen: pip install playwright, apt install chromium."""

import base64
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest

import senet_jax
from senet_jax.serving import app as app_lib, mean_gates
from senet_jax.serving.classifier import Classifier
from senet_jax.serving.guard import Guard
from senet_jax.serving.limits import Limits
from tests.helpers.encoded import encoded
from tests.helpers.served import served
from tests.helpers.until import until

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
OPTIONS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
  '--disable-background-networking', '--disable-component-update',
  '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
]  # fmt: skip
SIZES = {'wide': (1200, 800), 'phone': (390, 844)}
NAME = 'se_resnet20_cifar10'
LIMITS = Limits(bytes=2**20)
# Hands a file to an element, as somebody does who drops or pastes it.
GIVE = """(target, [kind, name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name, { type }));
  const how = { bubbles: true, cancelable: true };
  target.dispatchEvent(kind === 'drop' ? new DragEvent('drop', { ...how, dataTransfer: given })
    : new ClipboardEvent('paste', { ...how, clipboardData: given }));
}"""


@pytest.fixture(scope='module')
def url():
  with Classifier(senet_jax.load(NAME, batch_size=8), 8) as classifier:
    means = mean_gates.read(mean_gates.of_shipped(NAME), classifier.blocks)
    app = Guard(app_lib.create_app(classifier, NAME, LIMITS, means), LIMITS)
    with served(app, LIMITS) as address:
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
def page(request, chromium, url, tmp_path):
  """The page, as wide as a desk's or a phone's; its screenshot is left in $SCREENSHOTS."""
  width, height = SIZES[request.param]
  page = chromium.new_page(viewport={'width': width, 'height': height})
  said, asked = [], []
  page.on('console', lambda message: said.append(message.text))
  page.on('pageerror', lambda error: said.append(str(error)))
  page.on('request', lambda request: asked.append(request.url))
  page.goto(url)
  yield page
  to = pathlib.Path(os.environ.get('SCREENSHOTS', tmp_path))
  name = re.sub(r'\W+', '_', request.node.name).strip('_')
  page.screenshot(path=to / f'{name}.png', full_page=True)
  assert page.evaluate('document.documentElement.scrollWidth') <= width  # nothing sticks out
  assert [text for text in said if 'status of 400' not in text] == []  # of a refused photo
  assert all(address.startswith((url, f'blob:{url}')) for address in asked)
  page.close()


def picture(seed: int) -> bytes:
  rng = np.random.default_rng(seed)
  return encoded(rng.integers(0, 256, (4, 6, 3), np.uint8).repeat(60, 0).repeat(60, 1))


def give(target, kind: str, data: bytes, name: str = 'a.png', type: str = 'image/png'):
  target.evaluate(GIVE, [kind, name, type, base64.b64encode(data).decode()])


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


def test_the_camera(page):
  button = page.locator('.camera').first
  button.click()
  until(lambda: page.locator('video').first.evaluate('video => video.videoWidth > 0'))
  assert button.text_content() == 'Take it'
  button.click()
  page.locator('.photo li').nth(4).wait_for()
  assert button.text_content() == 'Camera' and page.locator('video').first.is_hidden()


def test_a_script_is_no_photo(page):
  script = b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title="x"</script></svg>'
  give(page.locator('.photo').nth(0), 'drop', script, 'a.svg', 'image/svg+xml')
  status = page.get_by_role('status').first
  page.locator('.status.bad').wait_for()
  assert 'unreadable: no JPEG' in status.text_content() and page.title() == NAME
  give(page.locator('.photo').nth(0), 'drop', bytes(LIMITS.bytes + 1))
  page.get_by_text('larger than 1 MB').wait_for()
  assert page.locator('li').count() == 0 and page.locator('#gates').is_hidden()


def test_the_api_in_words(page, url):
  page.goto(f'{url}/docs')
  page.get_by_role('heading', name='POST /api/predict').wait_for()
  api = json.loads(page.request.get(f'{url}/openapi.json').text())
  for name in api['components']['schemas']:
    assert page.get_by_role('heading', name=name, exact=True).is_visible()
