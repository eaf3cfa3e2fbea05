"""SE-ResNet-20 on the handwritten digits of scikit-learn: what `make demo` runs.

  python -m senet_jax.main --config=configs/digits_se_r20.py --workdir=runs/digits

Hardware: two CPU cores.
Expected wall time: 45 s, compilation included.
Published: not in the paper.
Measured: test error in results/digits_se_r20.json. The settings were chosen on a fifth of the
training split, never on the test split.
"""

from senet_jax import config as defaults


def get_config():
  config = defaults.default()
  config.model.name = 'se_resnet20_cifar'
  config.data.name = 'digits'
  config.data.image_size = 16
  config.data.pad = 1
  config.data.flip = False
  config.batch_size = 64
  config.epochs = 30.0
  config.optimizer.nesterov = True
  config.schedule.name = 'cosine'
  config.schedule.warmup = 1.0
  config.eval.every_epochs = 2.0
  config.log.every_steps = 1000  # a line of training metrics with each evaluation, no more
  return config
