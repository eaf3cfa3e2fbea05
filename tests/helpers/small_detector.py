"""A small run of a detector for the tests, on made-up photos."""

from tests.helpers.small_run import configured

# One shape of 64x64 pixels; 4 steps an epoch, 6 steps in all.
SMALL = {
  'model.name': 'se_faster_rcnn_r50_fpn',
  'model.trunk': 'resnet18',
  'model.width': 8,
  'model.settings': 'small',
  'model.se.ratio': 4,
  'model.num_classes': 3,
  'data.name': 'coco',
  'data.fake': True,
  'data.train_split': 'train[:32]',
  'data.eval_split': 'validation[:12]',
  'data.shorter_side': 64,
  'data.longer_side': 64,
  'batch_size': 8,
  'steps': 6,
  'schedule.name': 'constant',
  'data.std': (60.0, 60.0, 60.0),
  'optimizer.learning_rate': 0.01,
  'optimizer.clip_norm': 1.0,
  'optimizer.weight_decay': 0.1,
  'checkpoint.every_steps': 2,
  'checkpoint.keep': 10,
  'log.every_steps': 2,
  'log.tensorboard': False,
}


def small_detector(**fields):
  return configured(SMALL, **fields)
