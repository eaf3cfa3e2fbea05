"""Faster R-CNN on a feature pyramid, with any residual network of one path as the trunk.

Ren et al. 2015 with Lin et al. 2017; settings of Detectron's `e2e_faster_rcnn_R-50-FPN_2x`, which
table 7 of the SENet paper builds on. Shapes are static and everything stays on the device: boxes
are padded and masked.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax import errors, runtime
from senet_jax.detection import objective, roi_heads, rpn as rpn_lib
from senet_jax.detection.fpn import FPN
from senet_jax.detection.roi_align import assign_levels, roi_align
from senet_jax.detection.rpn import Proposals, RPNHead
from senet_jax.detection.settings import DetectorSettings, settings_of
from senet_jax.layers import BatchNormConfig, SEConfig
from senet_jax.models import create_model, list_models, model_info

# Stages of the trunk whose maps the pyramid has, and the stride of the first.
_STAGES, _FIRST_STRIDE = (2, 3, 4, 5), 4
# Channels of the stem that the usual widths of pyramid and head go with.
_WIDTH = 64
_TRUNK_FAMILIES = ('resnet', 'resnext', 'senet')
# The sides of images are multiples of the stride of the last stage.
SIDE_MULTIPLE = 32


class FasterRCNN(nn.Module):
  """A detector of two stages.

  Normalisation in the trunk is a fixed affine map: training takes the running statistics and leaves
  them; `frozen` says what else it leaves.

  Attributes:
    num_classes: of objects, without the background.
    trunk: a residual network of four stages, by its name without `se_`.
    settings: conventions, a name of `settings.PRESETS` or a `DetectorSettings`.
    freeze_at: stages of the trunk that training leaves, from the stem on, 0 to 5.
    width: channels of the trunk's stem, of which the pyramid has 4 times as many and the hidden
      layers of the head 16 times; None: the trunk's own, and 64.
    stride_in: convolution of a bottleneck with the stride, `1x1` or `3x3`; None: the trunk's.
    pool_align: of the trunk's pooling; detectors of Caffe2 and torch pad it as `torch` does.
    attention: what gates the trunk's units, a name of `layers.register_attention`.
    se: options of the attention, or None for none.
    bn: normalisation of the trunk; only its `epsilon` matters.
    dtype: of trunk, pyramid and hidden layers; scores, boxes and losses are float32.

  Raises:
    UserError: the trunk or the settings are unknown, or there is no such stage.
  """

  num_classes: int
  trunk: str = 'resnet50'
  settings: str | DetectorSettings = 'detectron'
  freeze_at: int = objective.FREEZE_AT
  width: int | None = None
  stride_in: str | None = None
  pool_align: str = 'torch'
  attention: str = 'se'
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  def __post_init__(self):
    settings_of(self.settings)
    trunks = [name for name in list_models() if model_info(name).family in _TRUNK_FAMILIES]
    trunks = [name for name in trunks if not name.startswith('se_')]
    errors.one_of('model.trunk', self.trunk, trunks, 'SE is an option of the detector.')
    errors.one_of('model.freeze_at', self.freeze_at, range(objective.STAGES + 1))
    super().__post_init__()

  def setup(self):
    """Makes the parts, whose names are those of the variables."""
    self.backbone = self.make_trunk()
    width = self.width or _WIDTH
    self.fpn = FPN(channels=4 * width, dtype=self.dtype)
    self.rpn = RPNHead(len(self.options.aspect_ratios), dtype=self.dtype)
    self.roi_head = roi_heads.RoIHead(self.num_classes, 16 * width, dtype=self.dtype)

  @nn.nowrap
  def make_trunk(self) -> nn.Module:
    """Returns the classifier whose maps the pyramid is made of."""
    given = {'stride_in': self.stride_in, 'width': self.width}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return create_model(
      self.trunk,
      dtype=self.dtype,
      pool_align=self.pool_align,
      attention=self.attention,
      se=self.se,
      bn=dataclasses.replace(self.bn, frozen=True),
      **options,
    )

  @property
  def frozen(self) -> tuple[str, ...]:
    """The beginnings of the paths of all variables that training leaves, see `objective.frozen`."""
    return objective.frozen(self.freeze_at)

  @property
  def options(self) -> DetectorSettings:
    """The conventions."""
    return settings_of(self.settings)

  def __call__(
    self,
    images: jax.Array,
    train: bool,
    sizes: jax.Array | None = None,
    targets: dict[str, jax.Array] | None = None,
    priorities: tuple[jax.Array, jax.Array] | None = None,
  ) -> dict[str, jax.Array]:
    """Detects objects, or returns the losses of training.

    Args:
      images: `[N, H, W, 3]`, any float dtype, normalised, zeros behind their ends; H and W are
        multiples of 32.
      train: return the losses.
      sizes: height and width of each image, `[N, 2]` integers; None: they are H and W.
      targets: of training, M boxes an image: `boxes` `[N, M, 4]` float32 in pixels of `images`,
        `classes` int `[N, M]` from 0, `valid` bool `[N, M]`, False for padding, and `crowd` bool
        `[N, M]`, True for a box around many objects, which is no object.
      priorities: random numbers in [0, 1) that decide on the samples of training, of all anchors
        `[N, A]` and of proposals and boxes `[N, P + M]`; None: drawn from the rng `sampling`, for
        each image by its place in the batch of all devices.

    Returns:
      As `roi_heads.detect`: `boxes` `[N, D, 4]` in pixels of `images`, `scores`, `classes` and
      `valid` `[N, D]`. With `train`, the losses `rpn_objectness`, `rpn_boxes`, `roi_classes` and
      `roi_boxes`, float32 scalars, whose sum is to be minimised.

    Raises:
      UserError: the sides of the images are no multiples of 32, or training has no targets.
    """
    image, options = images.shape[1:3], self.options
    if sizes is None:
      sizes = jnp.broadcast_to(jnp.asarray(image, jnp.int32), (images.shape[0], 2))
    levels = self.pyramid(images, train)
    with jax.named_scope('rpn'):
      logits, deltas = self.rpn(levels)
      anchors = rpn_lib.anchors(image, levels, _FIRST_STRIDE, options)
    with jax.named_scope('proposals'):
      proposals = rpn_lib.propose(logits, deltas, anchors, sizes, options, train)
    if not train:
      class_logits, box_deltas = self.regions(levels, proposals.boxes)
      with jax.named_scope('detections'):
        return roi_heads.detect(class_logits, box_deltas, proposals, sizes, options)
    if targets is None:
      raise errors.UserError('train=True needs targets: boxes, classes, valid and crowd.')
    of_anchors = jnp.concatenate(logits, 1), jnp.concatenate(deltas, 1)
    first, second = priorities or self._priorities(of_anchors[0], proposals, targets)
    with jax.named_scope('rpn_losses'):
      all_anchors = jnp.concatenate(anchors)
      rpn = rpn_lib.rpn_losses(*of_anchors, all_anchors, sizes, targets, first, options)
    roi = self.region_losses(levels, proposals, targets, second)
    return {'rpn_objectness': rpn[0], 'rpn_boxes': rpn[1], **roi}

  def pyramid(self, images: jax.Array, train: bool) -> list[jax.Array]:
    """Returns the levels P2 to P6 of `images` `[N, H, W, 3]`, each `[N, H', W', C]`."""
    if any(side % SIDE_MULTIPLE for side in images.shape[1:3]):
      raise errors.UserError(
        f'images of {images.shape[1]}x{images.shape[2]} pixels: both sides must be multiples of '
        f'{SIDE_MULTIPLE}; pad them with zeros behind and give their sizes.'
      )
    maps = self.backbone(images, train, maps=True)
    with jax.named_scope('fpn'):
      return self.fpn([maps[stage] for stage in _STAGES])

  def regions(self, levels: Sequence[jax.Array], boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns class logits `[N, R, 1 + K]` and deltas `[N, R, 1 + K, 4]` of `boxes` `[N, R, 4]`."""
    with jax.named_scope('roi_align'):
      pooled = self.pool(levels, boxes)
    with jax.named_scope('roi_head'):
      return self.roi_head(pooled)

  @nn.nowrap
  def pool(self, levels: Sequence[jax.Array], boxes: jax.Array) -> jax.Array:
    """Returns what RoIAlign makes of `boxes` `[N, R, 4]`, `[N, R, 7, 7, C]`."""
    options, first, last = self.options, _STAGES[0], _STAGES[-1]
    level = assign_levels(boxes, first, last, options.level_epsilon, options.box_offset)
    return roi_align(
      levels[: len(_STAGES)],
      [_FIRST_STRIDE * 2**i for i in range(len(_STAGES))],
      boxes,
      level - first,
      resolution=options.roi_resolution,
      sampling=options.roi_sampling,
      aligned=options.roi_aligned,
    )

  def region_losses(
    self,
    levels: Sequence[jax.Array],
    proposals: Proposals,
    targets: dict[str, jax.Array],
    priority: jax.Array,
  ) -> dict[str, jax.Array]:
    """Returns the losses of the second stage, over a sample of proposals and true boxes."""
    with jax.named_scope('roi_sample'):
      rois = roi_heads.sample_rois(proposals, targets, priority, self.options)
    logits, deltas = self.regions(levels, rois['boxes'])
    with jax.named_scope('roi_losses'):
      classes, boxes = roi_heads.roi_losses(logits, deltas, rois, self.options)
    return {'roi_classes': classes, 'roi_boxes': boxes}

  def _priorities(self, logits, proposals: Proposals, targets) -> tuple[jax.Array, jax.Array]:
    images, count = proposals.valid.shape
    boxes = count + targets['valid'].shape[1]
    places, _ = runtime.places_of(images)

    def of_image(key, place):
      first, second = jax.random.split(jax.random.fold_in(key, place))
      return jax.random.uniform(first, logits.shape[1:]), jax.random.uniform(second, (boxes,))

    return jax.vmap(of_image, (None, 0))(self.make_rng('sampling'), places)
