"""SE-ResNet-20 on the handwritten digits of scikit-learn: what `make demo` runs."""

from senet_jax import config as defaults


def get_config():
  config = defaults.default()
  config.model.name = 'se_resnet20_cifar'
  config.data.name = 'digits'
  config.data.image_size = 16
  config.data.pad = 1
  config.data.flip = False
  config.batch_size = 64
  config.epochs = 10.0
  config.optimizer.learning_rate = 0.1
  config.optimizer.nesterov = True
  config.schedule.name = 'cosine'
  config.schedule.warmup = 1.0
  return config
