"""timm and torchvision as references: their networks, without their data or weights."""

import pytest


def import_timm():
  """`timm` and `torchvision`; skips where they are not installed.

  torchvision's compiled operators need the very build of torch that it was made with. No network
  here uses them, but its import asks for two of them by name; where they are missing, as beside
  torch's CPU wheels, they are declared without an implementation.
  """
  torch = pytest.importorskip('torch')
  try:
    import torchvision
  except RuntimeError:
    library = torch.library.Library('torchvision', 'DEF')
    for operator in ('nms', 'qnms'):
      library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    import_timm.library = library  # its operators go with it
    import torchvision
  return pytest.importorskip('timm'), torchvision
