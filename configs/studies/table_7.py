r"""Table 7: Faster R-CNN on COCO, with and without SE in the trunk.

  python -m senet_jax.tools.study --study=configs/studies/table_7.py --workdir=runs/study_table_7

Each trunk is the workdir that the header of its configuration for ImageNet names: runs/r50,
runs/se_r50, runs/r101 and runs/se_r101. With `:small`, a narrow ResNet-18 of random weights with SE
and without it, for a rehearsal, on the files of COCO in --config.data.dir=FOLDER.
"""

from senet_jax.config import study
from senet_jax.errors import one_of

TITLE = 'Table 7: Faster R-CNN on COCO'
NETWORKS = ('r50', 'se_r50', 'r101', 'se_r101')


def get_study(size=''):
  one_of('the size', size or 'full', ('full', 'small'))
  small = size == 'small'
  rows = [
    study.Row(
      f'coco_faster_rcnn_{name}',
      f'configs/coco_faster_rcnn_{name}.py' + ':small' * small,
      () if small else (f'--config.init_from=runs/{name}',),
      f'coco_faster_rcnn_{name.removeprefix("se_")}' if name.startswith('se_') else None,
      f'configs/coco_faster_rcnn_{name}.py' if small else None,
    )
    for name in NETWORKS[: 2 if small else None]
  ]
  if small:
    note = 'Small: a narrow ResNet-18 of random weights, images of 224 pixels; a rehearsal.'
    return study.Study(f'{TITLE} (small)', tuple(rows), (0, 1), note)
  note = 'AP over IoU 0.5 to 0.95; the published one is of minival, which is COCO 2017 validation.'
  return study.Study(TITLE, tuple(rows), (0, 1, 2), note)
