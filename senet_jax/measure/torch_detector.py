"""Faster R-CNN of torchvision in a process of its own, which takes as many steps as it is told.

  PYTHON -m senet_jax.measure.torch_detector OPTIONS

`PYTHON` needs torch, torchvision and NumPy alone: Debian's `/usr/bin/python3` with the package
python3-torchvision does. `OPTIONS` are JSON, see `main`. It says `{"ready": …}` when the first step
is done; for each number of steps that it reads it takes them and says `{"done": …}`.
"""

import json
import pathlib
import sys
import time
from typing import Any

VERSIONS, _TRAIN = 'versions', 'train'
# Stages of the trunk that are trained, behind the stem and the first one.
_TRAINED_STAGES = 3
_OBJECTS = 8


def main(argv: list[str]) -> None:
  """Answers numbers of steps until there are no more.

  Args:
    argv: `versions`, to say them and no more; or one JSON object: `weights`, a .npz file by
      torchvision's names; `trunk`, `classes`, `mode`, `batch`, `height`, `width`, `device`,
      `dtype`, `threads`, `channels_last`.
  """
  import torch
  import torchvision

  if argv[0] == VERSIONS:
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails where it does not fit torch
    return _say({**_versions(torch, torchvision), 'cuda': torch.cuda.is_available()})
  options = json.loads(argv[0])
  if options['device'] == 'cpu':
    torch.set_num_threads(options['threads'])
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
  start = time.perf_counter()
  step, wait, counts = _prepared(torch, torchvision, options)
  step()
  wait()
  _say({'ready': time.perf_counter() - start, 'counts': counts()})
  for line in sys.stdin:
    for _ in range(int(line)):
      step()
    wait()
    _say({'done': int(line)})


def _versions(torch: Any, torchvision: Any) -> dict[str, str]:
  """Returns versions of what times depend on; of BLAS the files that are loaded."""
  found = {'torch': torch.__version__, 'torchvision': torchvision.__version__}
  if torch.version.cuda:
    found |= {'torch_cuda': torch.version.cuda, 'cudnn': str(torch.backends.cudnn.version())}
  maps = pathlib.Path('/proc/self/maps')
  if maps.exists():
    files = {line.split()[-1] for line in maps.read_text().splitlines() if 'blas' in line}
    found['blas'] = ', '.join(sorted(pathlib.PurePath(file).name for file in files))
  return found


def _say(what: dict[str, Any]) -> None:
  print(json.dumps(what), flush=True)


def _prepared(torch: Any, torchvision: Any, options: dict[str, Any]):
  """Returns a step, what waits for it, and how many boxes the last one had."""
  import numpy as np

  device, training = options['device'], options['mode'] == _TRAIN
  model = _build(torchvision, options)
  with np.load(options['weights']) as file:
    model.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files}, strict=False)
  layout = torch.channels_last if options['channels_last'] else torch.contiguous_format
  model = model.to(device, memory_format=layout).train(training)
  size = options['height'], options['width']
  images = torch.randn(options['batch'], 3, *size, generator=torch.Generator().manual_seed(0))
  images = images.to(device).contiguous(memory_format=layout)
  padded = torchvision.models.detection.image_list.ImageList(images, [size] * len(images))
  targets = _targets(torch, options) if training else None
  half = torch.autocast(device, torch.bfloat16, enabled=options['dtype'] == 'bfloat16')
  trained = [p for p in model.parameters() if p.requires_grad]
  optimizer = torch.optim.SGD(trained, 1e-5, 0.9, weight_decay=1e-4)
  last: dict[str, int] = {}

  def forward():
    with half:
      levels = model.backbone(images)
      proposals, losses = model.rpn(padded, levels, targets)
      found, more = model.roi_heads(levels, proposals, padded.image_sizes, targets)
    last['proposals'] = sum(map(len, proposals))
    if not training:
      last['detections'] = sum(len(of['boxes']) for of in found)
    return {**losses, **more}

  def infer() -> None:
    with torch.inference_mode():
      forward()

  def train() -> None:
    optimizer.zero_grad(set_to_none=True)
    sum(forward().values()).backward()
    optimizer.step()

  wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
  return train if training else infer, wait, lambda: last


def _build(torchvision: Any, options: dict[str, Any]):
  """Returns the network, whose normalisations keep their statistics, as ours."""
  from torchvision.models.detection import backbone_utils, faster_rcnn

  trunk = backbone_utils.resnet_fpn_backbone(
    backbone_name=options['trunk'],
    weights=None,
    norm_layer=torchvision.ops.FrozenBatchNorm2d,
    trainable_layers=_TRAINED_STAGES,
  )
  return faster_rcnn.FasterRCNN(trunk, num_classes=options['classes'] + 1)


def _targets(torch: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns made-up objects, the same for each image."""
  generator = torch.Generator().manual_seed(1)
  size = torch.tensor([options['width'], options['height']])
  begin = torch.rand(_OBJECTS, 2, generator=generator) * 0.5 * size
  end = begin + (0.1 + 0.4 * torch.rand(_OBJECTS, 2, generator=generator)) * size
  labels = torch.randint(1, options['classes'] + 1, (_OBJECTS,), generator=generator)
  boxes = torch.cat([begin, end], 1).to(options['device'])
  of_image = {'boxes': boxes, 'labels': labels.to(options['device'])}
  return [dict(of_image) for _ in range(options['batch'])]


if __name__ == '__main__':
  main(sys.argv[1:])
