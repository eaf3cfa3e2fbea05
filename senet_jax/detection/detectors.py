"""The published detectors, as arguments of `FasterRCNN`."""

from senet_jax.detection.faster_rcnn import FasterRCNN
from senet_jax.models.registry import DETECTION, Preprocessing, register_pair

# COCO's, and the side of images in pixels.
_CLASSES, _IMAGE_SIZE = 80, 800
# Means of Caffe's networks, as RGB.
_CAFFE = Preprocessing(mean=(122.7717, 115.9465, 102.9801), std=(1.0, 1.0, 1.0))


def register_detectors() -> None:
  """Registers the detectors of table 7, with and without SE in the trunk."""
  rows = [
    ('faster_rcnn_r50_fpn', 'resnet50', 'ResNet-50', (38.0, 57.9), (40.4, 61.0)),
    ('faster_rcnn_r101_fpn', 'resnet101', 'ResNet-101', (39.9, 60.1), (41.9, 62.7)),
  ]
  for name, trunk, label, plain, se in rows:
    register_pair(
      name,
      FasterRCNN,
      {'trunk': trunk},
      task=DETECTION,
      family='faster_rcnn',
      paper=f'table 7, {label}',
      image_size=_IMAGE_SIZE,
      num_classes=_CLASSES,
      preprocessing=_CAFFE,
      published={'table_7': _precision(*plain)},
      se_published={'table_7': _precision(*se)},
    )


def _precision(ap: float, ap50: float) -> dict[str, float]:
  """Returns average precision in percent, over IoU 0.5 to 0.95 and at 0.5."""
  return {'ap': ap, 'ap50': ap50}
