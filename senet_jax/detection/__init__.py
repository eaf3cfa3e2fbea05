"""Object detection: Faster R-CNN with a feature pyramid (table 7 of the SENet paper)."""

from senet_jax.detection.detectors import register_detectors
from senet_jax.detection.faster_rcnn import SIDE_MULTIPLE, FasterRCNN
from senet_jax.detection.objective import is_frozen, loss_fn
from senet_jax.detection.settings import DetectorSettings

register_detectors()

__all__ = ['SIDE_MULTIPLE', 'DetectorSettings', 'FasterRCNN', 'is_frozen', 'loss_fn']
