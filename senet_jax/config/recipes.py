"""Published training recipes, as configurations that the files under `configs/` start from."""

from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from senet_jax.config.defaults import default
from senet_jax.errors import one_of

_T = TypeVar('_T')


def variant(given: str, variants: Mapping[str, _T]) -> _T:
  """Returns what a configuration file with variants has under the argument of `get_config`.

  Args:
    given: the argument, `r8` of `--config=configs/ablation_ratio.py:r8`; empty if there is none.
    variants: of the file, by their names.

  Raises:
    UserError: there is none of that name; the message lists those that there are.
  """
  one_of('variant', given, variants, 'Name one behind the file: --config=FILE.py:VARIANT')
  return variants[given]


def cifar(model: str, dataset: str = 'cifar10') -> ConfigDict:
  """Returns the recipe of the CIFAR ResNets (He et al. 2015, section 4.2, and 2016, appendix).

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
  """Returns the recipe of section 5.1: He et al.'s network, Szegedy et al.'s augmentation.

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


def senet154() -> ConfigDict:
  """Returns the recipe of the paper's appendix for SENet-154 (Tables 8, 9), made for 64 devices.

  As section 5.1, but batches of 2048, learning rate 1.0, label smoothing, and BN frozen in the last
  few epochs. The paper gives neither the smoothing, 0.1 in the work that it cites for it, nor the
  number of epochs, here 5. It froze the parameters of BN; here its running statistics stay as they
  are, and scales and biases are trained on.
  """
  config = imagenet('senet154')
  config.batch_size = 2048
  config.label_smoothing = 0.1
  config.bn.freeze_last_epochs = 5.0
  config.optimizer.learning_rate = 1.0
  return config


def places365(model: str, *, small: bool = False) -> ConfigDict:
  """Returns the recipe of section 5.1 on Places365, as the paper gives none for Table 6.

  As the protocols that the paper follows: class-aware sampling of the 8 million images of
  Places365-Challenge (Shen et al. 2016), and an evaluation on the middle of images resized to
  256x256, with their mean. Which size the training images had is not known; here it is 256x256.

  Args:
    model: name of the network.
    small: take Places365-Standard of tfds, 1,803,460 images of 256x256, each once an epoch. The
      36,500 validation images are the same.
  """
  config = imagenet(model)
  config.model.num_classes = 365
  config.data.name = 'places365_small' if small else 'places365_challenge'
  config.data.sampling = 'uniform' if small else 'class_aware'
  config.data.resize_keep_aspect = False
  config.data.mean = (116.052, 113.768, 105.448)
  return config


def mobile(model: str) -> ConfigDict:
  """Returns the recipe of section 5.1 for mobile networks (Table 3).

  SGD with momentum 0.9, batches of 256; learning rate 0.1, divided by 10 whenever the loss on the
  validation images stays up, 400 epochs. "Slightly less aggressive augmentation and
  regularisation" than elsewhere comes without figures: weight decay 4e-5 of kernels alone is that
  of ShuffleNet's authors, whom the paper follows in it; crops of at least 25 % of the area are
  ours, and so is that the third drop is the last.

  Args:
    model: name of the network.
  """
  config = _until_plateau(model, 400.0)
  config.data.crop_area = (0.25, 1.0)
  config.optimizer.weight_decay = 4e-5
  config.optimizer.decay_mask = 'kernels'
  return config


def ablation(se: Mapping[str, Any] | None) -> ConfigDict:
  """Returns the recipe of section 6: ResNet-50 on ImageNet, whose SE blocks have no biases.

  Augmentation of section 5.1, label smoothing; learning rate 0.1, divided by 10 when the loss on
  the validation images stays up, three times, about 300 epochs. The paper gives neither the size of
  a batch, here that of its timings (256), nor the smoothing, here 0.1, nor the weight decay, here
  1e-4.

  Args:
    se: options of the SE blocks that differ from those of the paper's baseline; None: no SE.
  """
  config = _until_plateau('resnet50' if se is None else 'se_resnet50', 300.0)
  config.label_smoothing = 0.1
  if se is not None:
    config.model.se.update({'use_bias': False, **se})
  return config


def _until_plateau(model: str, epochs: float) -> ConfigDict:
  """Returns a recipe for ImageNet with three drops, each after 10 epochs without a lower loss."""
  config = imagenet(model)
  config.batch_size = 256
  config.epochs = epochs
  config.optimizer.learning_rate = 0.1
  config.schedule.name = 'plateau'
  config.schedule.patience = 10
  config.schedule.min_scale = 1e-3
  return config


def wide_resnet(model: str, dataset: str) -> ConfigDict:
  """Returns the recipe of wide residual networks (Zagoruyko and Komodakis 2016).

  SGD with Nesterov momentum 0.9 and weight decay 5e-4, batches of 128; learning rate 0.1,
  multiplied by 0.2 after 60, 120 and 160 of 200 epochs; pad-4 crops and flips. They pad with a
  reflection; zeros are what the SENet paper says.

  Args:
    model: name of the network.
    dataset: `cifar10` or `cifar100`.
  """
  config = cifar(model, dataset)
  config.epochs = 200.0
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.schedule.boundaries = (60.0, 120.0, 160.0)
  config.schedule.factor = 0.2
  config.schedule.warmup = 0.0
  return config


def shake(model: str, dataset: str) -> ConfigDict:
  """Returns the recipe of Shake-Shake networks (Gastaldi 2017) with cutout (DeVries, Taylor 2017).

  SGD with Nesterov momentum 0.9, 1800 epochs, a cosine to 0; pad-4 crops, flips, and a square of
  zeros. CIFAR-10: learning rate 0.2, batches of 128, weight decay 1e-4, squares of 16 pixels.
  CIFAR-100: 0.025, 32, 5e-4, 8 pixels. The batches were halved over two GPUs, and with them the
  images that BN normalised together. The squares are as published; the Torch code made them 17 and
  9 pixels wide.

  Args:
    model: name of the network.
    dataset: `cifar10` or `cifar100`.
  """
  rate, batch, decay, square = {
    'cifar10': (0.2, 128, 1e-4, 16),
    'cifar100': (0.025, 32, 5e-4, 8),
  }[dataset]
  config = cifar(model, dataset)
  config.batch_size = batch
  config.epochs = 1800.0
  config.data.cutout = square
  config.optimizer.learning_rate = rate
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = decay
  config.schedule.name = 'cosine'
  config.schedule.warmup = 0.0
  return config


def student_cifar(model: str, dataset: str = 'cifar10') -> ConfigDict:
  """Returns the student report's recipe for ResNet-46 and ResNeXt-29 on CIFAR, as in its code.

  SGD with momentum 0.9, without weight decay, batches of 128 raw images; learning rate 0.01,
  divided by 10 once if five evaluations bring no lower validation error; at most 200 epochs, ended
  after 15 such evaluations (10 for ResNet-46 on CIFAR-10). 2,000 training images are held out and
  choose the checkpoint. Flips, and crops that move the image by up to 3 pixels, edges filled with
  the nearest ones: the report says 4, its generator draws below that. That of Keras draws 0 to 3
  and then a sign, so that 0 has the probability 1/4 and each other shift 1/8; here all seven have
  1/7. The report's text has the steps of Tiny ImageNet instead of a plateau.

  Args:
    model: name of the network.
    dataset: `cifar10` or `cifar100`.
  """
  config = _student(model, dataset, held_out='4%')
  config.epochs = 200.0
  config.data.pad = 3
  config.data.pad_fill = 'nearest'
  config.optimizer.learning_rate = 0.01
  config.schedule.name = 'plateau'
  config.schedule.metric = 'top1_error'
  config.schedule.patience = 5
  config.schedule.min_scale = 0.1
  short = model.endswith('resnet46') and dataset == 'cifar10'
  config.early_stopping.patience = 10 if short else 15
  return config


def student_ablation(se: Mapping[str, Any] | None) -> ConfigDict:
  """Returns the student report's recipe for its studies: `student_cifar` with ResNet-46.

  The run ends after 10 evaluations without a lower error, as the code for the ratios has it; what
  it was for integration and stages, 10 or 15, is not clear.

  Args:
    se: options of the SE blocks that differ from the usual ones; None: no SE.
  """
  config = student_cifar('resnet46' if se is None else 'se_resnet46')
  config.model.se.update(se or {})
  return config


def student_inception(model: str) -> ConfigDict:
  """Returns the student report's recipe for Inception-v3 on CIFAR-10.

  Images enlarged to 200x200 pixels (its text: at least 100x100), without augmentation; batches of
  32, 20 epochs, two equally weighted losses, 10,000 training images held out (its text: 2,000), the
  weights of the end. Adam with 3e-4, as its code; its text has SGD with 0.01 for all networks.

  Args:
    model: name of the network.
  """
  config = _student(model, 'cifar10', held_out='20%')
  config.batch_size = 32
  config.epochs = 20.0
  config.aux_loss_weight = 1.0
  config.data.image_size = 200
  config.data.pad = 0
  config.data.flip = False
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 3e-4
  config.schedule.name = 'constant'
  return config


def student_tiny(model: str, *, augmented: bool) -> ConfigDict:
  """Returns the student report's recipe for Tiny ImageNet.

  SGD with momentum 0.9, without weight decay, batches of 128 raw images; learning rate 0.6, divided
  by 10 every 20 of 60 epochs, ended after 15 epochs without a lower validation error (some of its
  notebooks: 20). Grey images are left out. 5,000 training images are held out and choose the
  checkpoint; the official validation images are the test, which one table of the report calls the
  other way round.

  Augmentation: moved by up to 7 pixels (the report says 8, its generator draws below that; 0 has
  1/8 of the draws there and 1/15 here, see `student_cifar`),
  flipped, turned by up to 2 degrees, edges filled with the nearest pixels, brightness changed by up
  to 20 %. Its generator may have stretched the contrast of each image on the way, by its version of
  Keras; that is not done here.

  Args:
    model: name of the network.
    augmented: whether images are changed at random.
  """
  config = _student(model, 'tiny_imagenet', held_out='5000', until='98179')  # those in colour
  config.epochs = 60.0
  config.data.pad = 7 if augmented else 0
  config.data.pad_fill = 'nearest'
  config.data.flip = augmented
  config.data.rotation = 2.0 if augmented else 0.0
  config.data.brightness_jitter = 0.2 if augmented else 0.0
  config.optimizer.learning_rate = 0.6
  config.schedule.every = 20.0
  config.early_stopping.patience = 15
  return config


def _student(model: str, dataset: str, held_out: str, until: str = '') -> ConfigDict:
  """Returns what the report's runs share: Keras' defaults, and a validation split of their own.

  The part `held_out` is drawn at random there; here it comes first in the order of tfds, in which
  images are shuffled, too. Images from `until` on are left out.
  """
  config = default()
  config.model.name = model
  config.bn.momentum = 0.99
  config.data.name = dataset
  config.data.train_split = f'train[{held_out}:{until}]'
  config.data.eval_split = f'train[:{held_out}]'
  config.optimizer.weight_decay = 0.0
  config.early_stopping.metric = 'top1_error'
  config.log.every_steps = 100
  return config


def coco(model: str, variant: str = '') -> ConfigDict:
  """Returns the recipe of Detectron's `e2e_faster_rcnn_R-50-FPN_2x`, of which table 7 is.

  SGD with momentum 0.9, batches of 16; learning rate 0.02, divided by 10 at 120k and 160k
  iterations, 180k in all, that of biases twice as much; weight decay 1e-4, none of biases.

  Args:
    model: name of the detector.
    variant: empty, or `small`: for tests and CPUs, with a narrow ResNet-18 and small images.

  Raises:
    UserError: there is no such variant.
  """
  one_of('the variant', variant or 'full', ('full', 'small'))
  config = default()
  config.model.name = model
  config.data.name = 'coco'
  config.data.eval_split = 'validation'
  config.batch_size = 16
  config.steps = 180_000
  config.optimizer.learning_rate = 0.02
  config.optimizer.base_batch = 16
  config.optimizer.decay_mask = 'kernels'
  config.optimizer.bias_rate = 2.0
  config.schedule.name = 'multistep'
  config.schedule.unit = 'steps'
  config.schedule.boundaries = (120_000.0, 160_000.0)
  config.schedule.warmup = 500.0
  config.schedule.warmup_start = 1 / 3
  config.eval.every_epochs = 4.0
  config.checkpoint.every_steps = 2500
  if variant == 'small':
    _small_detector(config)
  return config


def _small_detector(config: ConfigDict) -> None:
  config.model.trunk = 'resnet18'
  config.model.width = 32
  config.model.settings = 'small'
  config.model.freeze_at = 0
  config.data.shorter_side = 224
  config.data.longer_side = 300
  config.batch_size = 4
  config.steps = None
  config.epochs = 60.0
  config.optimizer.learning_rate = 0.01
  config.optimizer.base_batch = 4
  config.optimizer.clip_norm = 10.0
  config.schedule.name = 'cosine'
  config.schedule.warmup = 100.0
  config.eval.every_epochs = 10.0
  config.checkpoint.every_steps = 100
