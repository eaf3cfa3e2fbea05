"""Photos, boxes and weights on which Faster R-CNN is compared with torchvision's.

NumPy and Pillow alone, so that Python of the system, which has Debian's torchvision, runs it too.
"""

import io
import json
import pathlib
import tarfile
import zlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

ARCHIVE = 'coco64_32.tar.xz'
CLASSES = 80
# Height and width of the padded images; multiples of the stride of P6, for which torchvision has
# another stride elsewhere.
CANVAS = (192, 256)
# Photos with many annotated objects, wide and high, and their sizes here.
SIZES = ((192, 256), (192, 144))
ANCHORS = 3 * sum(CANVAS[0] * CANVAS[1] // stride**2 for stride in (4, 8, 16, 32, 64))
# Kept of an image in training and in inference; torchvision's 2000 and 1000 take minutes.
PROPOSALS = (600, 300)
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


def photos(shared_data: pathlib.Path) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
  """Returns images `[2, H, W, 3]`, normalised and padded, and their boxes and classes from 0."""
  with tarfile.open(shared_data / ARCHIVE) as archive:
    files = {pathlib.PurePath(m.name): archive.extractfile(m).read() for m in archive if m.isfile()}
  name = next(path for path in files if path.suffix == '.json')
  instances = json.loads(files[name])
  by_name = {path.name: content for path, content in files.items()}
  categories = sorted(c['id'] for c in instances['categories'])
  images, all_boxes, all_classes = np.zeros((2, *CANVAS, 3), np.float32), [], []
  for i, (entry, (height, width)) in enumerate(zip(_chosen(instances), SIZES, strict=True)):
    photo = Image.open(io.BytesIO(by_name[entry['file_name']])).convert('RGB')
    scale = np.array([width / photo.width, height / photo.height] * 2)
    pixels = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    images[i, :height, :width] = (pixels - MEAN) / STD
    found = _objects(instances, entry)
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in (a['bbox'] for a in found)])
    all_boxes.append((corners * scale).astype(np.float32))
    classes = [categories.index(a['category_id']) for a in found]
    all_classes.append(np.array(classes, np.int64) % CLASSES)
  return images, all_boxes, all_classes


def _objects(instances: dict, entry: dict) -> list[dict]:
  return [a for a in instances['annotations'] if a['image_id'] == entry['id'] and not a['iscrowd']]


def _chosen(instances: dict) -> list[dict]:
  """The photos of either shape with the most objects among those of at most twelve."""
  chosen = []
  for high in (False, True):
    entries = [e for e in instances['images'] if (e['height'] > e['width']) == high]
    counted = [(len(_objects(instances, e)), e['id'], e) for e in entries]
    chosen.append(max(c for c in counted if c[0] <= 12)[2])
  return chosen


def weights(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
  """Returns weights by torchvision's names, float32, each from a seed of its own.

  Activations keep their size through the trunk, statistics of normalisations are not 0 and 1, and
  scores and boxes have a spread as after training.
  """
  return {name: _weight(name, shape) for name, shape in shapes}


def _weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  random = np.random.default_rng([22, zlib.crc32(name.encode())]).random(shape, np.float32)
  centered = 2 * random - 1
  if name.endswith('running_var'):
    return 0.5 + random
  if name.endswith('running_mean'):
    return 0.2 * centered
  if len(shape) > 1:
    gain = next((g for part, g in _GAINS.items() if part in name), 2.0)
    return centered * np.float32(np.sqrt(3 * gain / np.prod(shape[1:])))
  if name.endswith('.bias'):
    return 0.1 * centered
  return (0.2 if '.bn3.' in name else 0.6) + 0.3 * random


_GAINS = {
  'fpn.': 1.0,
  'rpn.head.cls_logits': 4.0,
  'rpn.head.bbox_pred': 0.1,
  'cls_score': 3.0,
  'bbox_pred': 1.0,
}


def priorities(anchors: int, boxes: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns numbers that decide on the samples, `[2, anchors]` and `[2, proposals + boxes]`."""
  rng = np.random.default_rng(22)
  return rng.random((2, anchors), np.float32), rng.random((2, PROPOSALS[0] + boxes), np.float32)


def kept(array: np.ndarray, most: int = 200) -> np.ndarray:
  """Returns evenly spaced elements of `array`, its root mean square and its spread."""
  flat = np.asarray(array, np.float64).ravel()
  index = np.linspace(0, flat.size - 1, min(most, flat.size)).round().astype(int)
  return np.array([*flat[index], np.sqrt(np.mean(flat * flat)), np.ptp(flat)])
