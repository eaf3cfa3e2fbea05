r"""Faster R-CNN on COCO with a ResNet-101 trunk and a feature pyramid: a row of Table 7.

  python -m senet_jax.main --config=configs/coco_faster_rcnn_r101.py --workdir=runs/det_r101 \
      --config.init_from=TRUNK

TRUNK is a trained ResNet-101: a workdir, such as that of configs/imagenet_r101.py or one that
tools.convert writes, or hf:OWNER/REPO. The data is the files of COCO, as
tools.prepare_data leaves them, in --config.data.dir=FOLDER; or, with --config.data.name=coco/2017,
what tfds makes of them.

`:small` behind the file is a narrow ResNet-18 with images of 224 pixels, for tests and CPUs.

Hardware: made for 8 GPUs or a TPU slice; 180,000 steps of 16 images.
Expected wall time: not known before it is run on such hardware.
Published: AP 39.9 % (Table 7, COCO minival; AP50 60.1 %).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config(variant=''):
  return defaults.coco('faster_rcnn_r101_fpn', variant)
