"""Writes what torchvision's Faster R-CNN makes of two photos, for `test_torchvision.py`.

With Debian's torchvision (`apt-get install python3-torchvision`, 0.14.1), from the checkout:

  /usr/bin/python3 tests/detection/make_golden.py
"""

import pathlib
import sys

import numpy as np
import torch
import torchvision
from torchvision.models.detection import faster_rcnn, image_list, rpn

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.helpers import detection_case as case  # noqa: E402

FILE = ROOT / 'tests' / 'golden' / 'numbers' / 'torchvision_detection.npz'
SHARED_DATA = ROOT.parent / 'shared' / 'data'


class FixedSampler:
  """Draws the boxes of the highest priorities, instead of random ones."""

  def __init__(self, size, fraction, priorities):
    self.size, self.fraction, self.priorities = size, fraction, priorities

  def __call__(self, labels):
    masks = [], []
    for of_image, priority in zip(labels, self.priorities, strict=True):
      order = np.argsort(-priority(len(of_image)), kind='stable')
      of_image = of_image.numpy()
      positive = [i for i in order if of_image[i] >= 1][: int(self.size * self.fraction)]
      negative = [i for i in order if of_image[i] == 0][: self.size - len(positive)]
      for mask, chosen in zip(masks, (positive, negative), strict=True):
        mask.append(torch.zeros(len(of_image), dtype=torch.uint8))
        mask[-1][torch.as_tensor(np.array(chosen, np.int64))] = 1
    return masks


def build():
  """Returns the network with the weights of the case, and normalisation by running statistics."""
  model = faster_rcnn.fasterrcnn_resnet50_fpn(
    weights=None,
    weights_backbone=None,
    num_classes=case.CLASSES + 1,
    rpn_post_nms_top_n_train=case.PROPOSALS[0],
    rpn_post_nms_top_n_test=case.PROPOSALS[1],
  )
  state = model.state_dict()
  names = [(name, tuple(v.shape)) for name, v in state.items() if 'num_batches' not in name]
  state = {name: torch.from_numpy(value) for name, value in case.weights(names).items()}
  model.load_state_dict(state, strict=False)
  return model.eval()


def channels_last(tensor):
  return tensor.permute(0, 2, 3, 1).numpy()


def inference(model, images, sizes):
  """Returns all that the network computes on the way to its detections."""
  found = {}
  maps = model.backbone.body(images)
  levels = model.backbone.fpn(maps)
  for i, x in enumerate(maps.values(), start=2):
    found[f'c{i}'] = case.kept(channels_last(x))
  for i, x in enumerate(levels.values(), start=2):
    found[f'p{i}'] = case.kept(channels_last(x))
  padded = image_list.ImageList(images, sizes)
  logits, deltas = model.rpn.head(list(levels.values()))
  logits, deltas = rpn.concat_box_prediction_layers(logits, deltas)
  found['rpn_logits'] = case.kept(logits.reshape(2, -1))
  found['rpn_deltas'] = case.kept(deltas.reshape(2, -1, 4))
  found['anchors'] = case.kept(model.rpn.anchor_generator(padded, list(levels.values()))[0])
  proposals, _ = model.rpn(padded, levels)
  features = {name: x for name, x in levels.items() if name != 'pool'}
  pooled = model.roi_heads.box_roi_pool(features, proposals, sizes)
  logits, deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
  found['pooled'] = case.kept(channels_last(pooled))
  found['class_logits'] = case.kept(logits)
  found['box_deltas'] = case.kept(deltas)
  detections, _ = model.roi_heads(features, proposals, sizes)
  for i in range(2):
    found[f'proposals{i}'] = proposals[i].numpy()
    for name, value in detections[i].items():
      found[f'{name}{i}'] = value.numpy()
  return found, levels, padded


def training(model, levels, padded, boxes, classes, anchors):
  """Returns the four losses and the proposals of training."""
  most = max(map(len, boxes))
  first, second = case.priorities(anchors, most)
  model.rpn.fg_bg_sampler = FixedSampler(256, 0.5, [lambda n, i=i: first[i] for i in range(2)])

  def of_proposals(i):
    own = len(boxes[i])
    at = case.PROPOSALS[0]
    return lambda n: np.concatenate([second[i][: n - own], second[i][at : at + own]])

  model.roi_heads.fg_bg_sampler = FixedSampler(512, 0.25, [of_proposals(i) for i in range(2)])
  targets = [
    {'boxes': torch.from_numpy(b), 'labels': torch.from_numpy(c + 1)}
    for b, c in zip(boxes, classes, strict=True)
  ]
  model.rpn.training = model.roi_heads.training = True
  proposals, losses = model.rpn(padded, levels, targets)
  features = {name: x for name, x in levels.items() if name != 'pool'}
  _, more = model.roi_heads(features, proposals, padded.image_sizes, targets)
  found = {name: np.float64(value) for name, value in {**losses, **more}.items()}
  return {**found, **{f'train_proposals{i}': p.numpy() for i, p in enumerate(proposals)}}


def main():
  images, boxes, classes = case.photos(SHARED_DATA)
  model = build()
  with torch.no_grad():
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    found, levels, padded = inference(model, tensor, list(case.SIZES))
    anchors = sum(3 * x.shape[2] * x.shape[3] for x in levels.values())
    found.update(training(model, levels, padded, boxes, classes, anchors))
  found['images'] = case.kept(images)
  found['versions'] = np.array([torch.__version__, torchvision.__version__])
  found = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in found.items()}
  np.savez_compressed(FILE, **found)
  for name, value in found.items():
    shown = value if value.size < 5 else f'spread {value[-1]:.4g}' if value.ndim == 1 else ''
    print(name, value.shape, shown)
  print(FILE, FILE.stat().st_size)


if __name__ == '__main__':
  main()
