"""Published training recipes, as configurations that the files under `configs/` start from."""

from ml_collections import ConfigDict

from senet_jax.config.defaults import default


def cifar(model: str, dataset: str = 'cifar10') -> ConfigDict:
  """The recipe of the CIFAR ResNets: He et al. 2015, section 4.2, and 2016, appendix.

  SGD with momentum 0.9 and weight decay 1e-4, batches of 128; learning rate 0.01 for the first 400
  iterations, then 0.1, divided by 10 at 32k and 48k iterations, 64k in all; pad-4 crops and flips.

  Args:
    model: name of the network.
    dataset: `cifar10` or `cifar100`.
  """
  config = default()
  config.model.name = model
  config.data.name = dataset
  epoch = 50_000 / 128  # iterations
  config.batch_size = 128
  config.epochs = 64_000 / epoch
  config.schedule.name = 'multistep'
  config.schedule.boundaries = (32_000 / epoch, 48_000 / epoch)
  config.schedule.warmup = 400 / epoch
  config.schedule.warmup_shape = 'constant'
  config.schedule.warmup_start = 0.1
  config.log.every_steps = 100
  return config


def imagenet(model: str) -> ConfigDict:
  """The recipe of section 5.1: He et al.'s network, Szegedy et al.'s augmentation.

  SGD with momentum 0.9 and weight decay 1e-4, batches of 1024; learning rate 0.6, divided by 10
  every 30 epochs, 100 epochs; crops of 8 to 100 % of the area, aspect 3/4 to 4/3, and flips. The
  paper does not give the weight decay; 1e-4 is that of He et al.

  Args:
    model: name of the network.
  """
  config = default()
  config.model.name = model
  config.data.name = 'imagenet2012'
  config.data.feed = 'stream'
  config.data.eval_split = 'validation'
  config.data.crop_area = (0.08, 1.0)
  config.data.pad = 0
  config.batch_size = 1024
  config.epochs = 100.0
  config.optimizer.learning_rate = 0.6
  config.schedule.name = 'step'
  config.schedule.every = 30.0
  config.log.every_steps = 100
  return config
