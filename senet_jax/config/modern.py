"""Recipes of today, which the paper did not have: of timm, of NVIDIA, and a fast one for CIFAR."""

from ml_collections import ConfigDict

from senet_jax.config.recipes import cifar, imagenet

# Of ImageNet on the 0-255 scale, with which torchvision and timm normalise.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Epochs, size in training, learning rate, weight decay, label smoothing, alpha of mixup, magnitude
# of RandAugment, repeats, drop path.
_STRIKES_BACK = {
  'a1': (600.0, 224, 5e-3, 0.01, 0.1, 0.2, 7, 3, 0.05),
  'a2': (300.0, 224, 5e-3, 0.02, 0.0, 0.1, 7, 3, 0.05),
  'a3': (100.0, 160, 8e-3, 0.02, 0.0, 0.1, 6, 1, None),
}


# The epoch from which on images have 192 pixels, by the length of the run: halfway up the ramp of
# FFCV's configurations, whose sizes are multiples of 32.
FFCV_GROWS_AT = {16: 12, 40: 32, 88: 71}


def strikes_back(model: str, procedure: str) -> ConfigDict:
  """Returns a training procedure of "ResNet strikes back" (Wightman, Touvron and Jégou 2021).

  LAMB, batches of 2048, a cosine down to 1e-6 after 5 epochs of warm-up from 1e-4 of the peak,
  binary cross-entropy of mixed labels, mixup or CutMix in every batch, RandAugment, and in A1 and
  A2 repeated augmentation and stochastic depth; bicubic crops; evaluation on 224x224 pixels in the
  middle of images of 236. Not in the table of the paper, but in the code that its weights are from:
  the gradient is clipped at norm 1, as LAMB of timm does by itself; the network is torchvision's
  form of ResNet-50, which strides in the 3x3 convolution, and starts its units as identities.
  Commands for timm make a mixed target above 0.2 a 1; here, as in mmpretrain, they stay shares.

  Args:
    model: name of the network, a ResNet with bottlenecks.
    procedure: `a1`, `a2` or `a3`.
  """
  epochs, size, rate, decay, smoothing, mixup, magnitude, repeats, drop = _STRIKES_BACK[procedure]
  config = imagenet(model)
  config.batch_size = 2048
  config.epochs = epochs
  config.loss = 'bce'
  config.label_smoothing = smoothing
  config.model.update(
    {'stride_in': '3x3', 'pool_align': 'torch', 'zero_init_last_bn': True, 'drop_path': drop}
  )
  config.data.update({
    'mean': _MEAN, 'std': _STD, 'image_size': 224, 'resize': 236, 'interpolation': 'bicubic',
    'train_size': None if size == 224 else (size,), 'crop_interpolation': 'bicubic', 'mixup': mixup,
    'cutmix': 1.0, 'randaugment': f'rand-m{magnitude}-mstd0.5-inc1', 'repeats': repeats,
  })  # fmt: skip
  config.optimizer.update({
    'name': 'lamb', 'learning_rate': rate, 'weight_decay': decay, 'decay_mask': 'kernels',
    'clip_norm': 1.0,
  })  # fmt: skip
  config.schedule.update(
    {'name': 'cosine', 'warmup': 5.0, 'warmup_start': 1e-4, 'final': 1e-6 / rate}
  )
  config.eval.every_epochs = 5.0
  return config


def nvidia(model: str, epochs: float) -> ConfigDict:
  """Returns the recipe of NVIDIA's SE-ResNeXt-101 (DeepLearningExamples).

  SGD with momentum 0.875, a learning rate of 0.256 for 256 images in proportion, a cosine after 8
  epochs of warm-up, weight decay 1/16384 without BN, label smoothing 0.1; 250 epochs have mixup
  with alpha 0.2, too. Batches of 1024 are those of 8 GPUs.

  Args:
    model: name of the network.
    epochs: 90 or 250.
  """
  config = imagenet(model)
  config.epochs = epochs
  config.label_smoothing = 0.1
  config.data.update({'mean': _MEAN, 'std': _STD, 'mixup': 0.2 if epochs > 90 else 0.0})
  config.model.update({'stride_in': '3x3', 'pool_align': 'torch'})
  config.optimizer.update({
    'momentum': 0.875, 'learning_rate': 0.256, 'base_batch': 256, 'weight_decay': 1 / 16384,
    'decay_mask': 'kernels',
  })  # fmt: skip
  config.schedule.update({'name': 'cosine', 'warmup': 8.0})
  return config


def ffcv(model: str, epochs: int) -> ConfigDict:
  """Returns the recipe of FFCV's ResNet-50 (Leclerc et al. 2023, libffcv/ffcv-imagenet).

  Images grow in training: 160 pixels for three quarters of the epochs, 192 for the rest; they are
  evaluated at 256. SGD with momentum 0.9, batches of 512 on each of 8 GPUs, a learning rate that
  rises to 1.7 in 2 epochs and falls in a line to 0, weight decay 1e-4 without BN, label smoothing
  0.1. Their blurring in front of strides, and the mean over mirror images in their evaluations, are
  left out.

  Args:
    model: name of the network.
    epochs: one of `FFCV_GROWS_AT`.
  """
  config = imagenet(model)
  config.batch_size = 4096
  config.epochs = float(epochs)
  config.label_smoothing = 0.1
  config.model.update({'stride_in': '3x3', 'pool_align': 'torch'})
  config.data.update({
    'mean': _MEAN, 'std': _STD, 'train_size': (160, 192),
    'train_size_boundaries': (float(FFCV_GROWS_AT[epochs]),), 'image_size': 256, 'resize': 293,
  })  # fmt: skip
  config.optimizer.update({
    'learning_rate': 1.7, 'weight_decay': 1e-4, 'decay_mask': 'kernels',
  })  # fmt: skip
  config.schedule.update({'name': 'linear', 'warmup': 2.0, 'warmup_start': 1e-4})
  return config


def fast_cifar(model: str, dataset: str = 'cifar10') -> ConfigDict:
  """Returns a recipe of few epochs for CIFAR ResNets, with what the public speed records share.

  Of Page ("How to train your ResNet", 2018) and Jordan ("94 % on CIFAR-10 in 3.29 seconds", 2024):
  SGD with Nesterov momentum at a high learning rate with a fifth of the run to warm up, down to 0
  at its end, weight decay 5e-4 of kernels alone, label smoothing 0.1, crops of images padded by
  what is at their border, averaged weights. The network stays a residual one with its own first
  layer; their whitening, larger batches and averaging over mirror images are left out. Settings
  were chosen beforehand, not tuned.

  Args:
    model: name of the network.
    dataset: `cifar10` or `cifar100`.
  """
  config = cifar(model, dataset)
  config.epochs = 15.0
  config.label_smoothing = 0.1
  config.data.pad_fill = 'nearest'
  config.optimizer.update({
    'learning_rate': 0.2, 'nesterov': True, 'weight_decay': 5e-4, 'decay_mask': 'kernels',
    'ema_decay': 0.99,
  })  # fmt: skip
  config.schedule.update(
    {'name': 'cosine', 'warmup': 3.0, 'warmup_shape': 'linear', 'warmup_start': 0.0}
  )
  return config
