"""The conventions of Faster R-CNN, one frozen set of options, and those of three code bases.

`detectron` is the one of the paper's table 7 (`e2e_faster_rcnn_R-50-FPN_2x`): boxes of whole pixels
with both ends inside ("+1"), anchors rounded on a window of one stride, RoIAlign without the shift
by half a pixel. `torchvision` (`fasterrcnn_resnet50_fpn`, its first version) and `detectron2` have
boxes of real numbers; `small` is for tests and CPUs.
"""

import dataclasses

from senet_jax import errors

ANCHOR_STYLES = ('detectron', 'torchvision', 'detectron2')
_RATES = ('nms_threshold', 'box_nms_threshold', 'score_threshold', 'rpn_fraction', 'roi_fraction')


@dataclasses.dataclass(frozen=True)
class DetectorSettings:
  """Options of proposals, targets, losses and detections; the defaults are Detectron's.

  Attributes:
    box_offset: added to `x2 - x1` for a width: 1 where both ends are pixels of the box, or else 0.
    anchor_style: how anchors are rounded and placed, one of `ANCHOR_STYLES`.
    anchor_sizes: the side of the anchors of each level, finest first, in pixels.
    aspect_ratios: of the anchors, height over width.
    roi_aligned: RoIAlign shifts by half a pixel, and boxes below a pixel stay as they are.
    roi_sampling: points an axis of a bin, whose mean the bin is.
    roi_resolution: bins an axis.
    level_epsilon: added to `sqrt(area) / 224` in the choice of a level, and to its logarithm.
    pre_nms: proposals of a level before NMS, in training and in inference.
    post_nms: proposals of an image after it, in training and in inference.
    proposals_of_batch: training keeps as many proposals of all images of a device together.
    nms_threshold: of proposals.
    min_proposal: proposals with a smaller side are left out, in pixels.
    rpn_batch: anchors that an image has in the loss.
    rpn_fraction: of them that are positive, at most.
    rpn_positive: IoU from which on an anchor is positive.
    rpn_negative: IoU below which an anchor is negative.
    rpn_straddle: pixels by which an anchor in the loss may reach over the image; None: any number.
    rpn_beta: where the smooth L1 loss of proposals becomes linear.
    rpn_fixed_norm: divide the losses of proposals by `rpn_batch` times images, not by the anchors
      that were found.
    roi_batch: boxes of an image in the loss.
    roi_fraction: of them that are foreground, at most.
    roi_positive: IoU from which on a box is foreground; below it is background.
    roi_beta: where the smooth L1 loss of boxes becomes linear; 0: nowhere before.
    roi_weights: that multiply the deltas of boxes; those of proposals are not multiplied.
    crowd_threshold: proposals with a larger share in a crowd are no background; None: they are.
    score_threshold: of detections.
    box_nms_threshold: of detections, each class by itself.
    min_detection: detections with a smaller side are left out, in pixels.
    detections: of an image, at most.

  Raises:
    UserError: a value is out of range.
  """

  box_offset: float = 1.0
  anchor_style: str = 'detectron'
  anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
  aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
  roi_aligned: bool = False
  roi_sampling: int = 2
  roi_resolution: int = 7
  level_epsilon: tuple[float, float] = (1e-6, 0.0)
  pre_nms: tuple[int, int] = (2000, 1000)
  post_nms: tuple[int, int] = (2000, 1000)
  proposals_of_batch: bool = True
  nms_threshold: float = 0.7
  min_proposal: float = 0.0
  rpn_batch: int = 256
  rpn_fraction: float = 0.5
  rpn_positive: float = 0.7
  rpn_negative: float = 0.3
  rpn_straddle: float | None = 0.0
  rpn_beta: float = 1 / 9
  rpn_fixed_norm: bool = True
  roi_batch: int = 512
  roi_fraction: float = 0.25
  roi_positive: float = 0.5
  roi_beta: float = 1.0
  roi_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
  crowd_threshold: float | None = 0.7
  score_threshold: float = 0.05
  box_nms_threshold: float = 0.5
  min_detection: float = 0.0
  detections: int = 100

  def __post_init__(self):
    errors.one_of('anchor_style', self.anchor_style, ANCHOR_STYLES)
    errors.one_of('box_offset', self.box_offset, (0, 1))
    for field in _RATES:
      if not 0 <= getattr(self, field) <= 1:
        raise errors.UserError(f'{field}={getattr(self, field)} must be from 0 to 1.')
    if not 0 <= self.rpn_negative <= self.rpn_positive <= 1:
      raise errors.UserError(
        f'rpn_negative={self.rpn_negative} must be at least 0 and at most '
        f'rpn_positive={self.rpn_positive}, and that at most 1.'
      )
    counts = ('roi_sampling', 'roi_resolution', 'rpn_batch', 'roi_batch', 'detections')
    values = [(field, getattr(self, field)) for field in counts]
    values += [('pre_nms', n) for n in self.pre_nms] + [('post_nms', n) for n in self.post_nms]
    for field, count in values:
      errors.at_least(field, count, 1)


DETECTRON = DetectorSettings()
TORCHVISION = DetectorSettings(
  box_offset=0.0,
  anchor_style='torchvision',
  level_epsilon=(0.0, 1e-6),
  proposals_of_batch=False,
  min_proposal=1e-3,
  rpn_straddle=None,
  rpn_fixed_norm=False,
  roi_beta=1 / 9,
  crowd_threshold=None,
  min_detection=1e-2,
)
# Its RoIAlign takes more points of larger boxes: up to some ten an axis, here always two.
DETECTRON2 = DetectorSettings(
  box_offset=0.0,
  anchor_style='detectron2',
  roi_aligned=True,
  level_epsilon=(1e-8, 0.0),
  post_nms=(1000, 1000),
  proposals_of_batch=False,
  min_proposal=1e-6,  # any, but none that is empty
  rpn_straddle=None,
  rpn_beta=0.0,
  roi_beta=0.0,
  crowd_threshold=None,
)
# Of images with a third of the usual side, and fewer boxes.
SMALL = dataclasses.replace(
  DETECTRON2,
  anchor_sizes=(12, 24, 48, 96, 192),
  pre_nms=(500, 300),
  post_nms=(300, 100),
  rpn_batch=128,
  roi_batch=64,
)
PRESETS = {
  'detectron': DETECTRON, 'torchvision': TORCHVISION, 'detectron2': DETECTRON2, 'small': SMALL,
}  # fmt: skip


def settings_of(settings: str | DetectorSettings) -> DetectorSettings:
  """Returns the options that a name of `PRESETS` stands for, or those given.

  Raises:
    UserError: the name is unknown.
  """
  if isinstance(settings, DetectorSettings):
    return settings
  errors.one_of('model.settings', settings, PRESETS)
  return PRESETS[settings]
