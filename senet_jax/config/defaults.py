"""Every field of a configuration: its default, what it does, and the values that it may have.

This is the only declaration of a field. `default()`, the checks, the command line, what a resumed
run may change, and what has a part in the function of a network follow from it.
"""

import functools

from ml_collections import ConfigDict, config_dict

from senet_jax.config.fields import BELOW_1, FREE, INT32, LENGTH, POSITIVE, Field

# Fields that change no number of a run.
_free = functools.partial(Field, resume=FREE)
# Fields with which a network computes something else.
_option = functools.partial(Field, function=True)
# The same of classifiers alone, and of detectors.
_class = functools.partial(Field, task='classification')
_class_option = functools.partial(_class, function=True)
_box = functools.partial(Field, task='detection')
_box_option = functools.partial(_box, function=True)

_METRICS = ('loss', 'top1_error', 'top5_error', 'ap', 'ap50', 'ap75')
# Larger ones are mistakes: an array of them would not fit into any machine.
_MOST_IMAGES, _MOST_CLASSES, _MOST_CHANNELS = 2**20, 10**6, 2**16
MOST_PIXELS = 2**14  # of a side
_MOST_BOXES = 2**12

_RUN = {
  'seed': Field(
    0, 'draws the initial weights, the order of the examples and their augmentation',
    within=(0, INT32)),
  'batch_size': Field(128, 'images a step, over all devices', within=(1, _MOST_IMAGES)),
  'epochs': Field(
    100.0, 'length of the run: passes over the training split', within=(1e-6, INT32),
    resume=LENGTH),
  'steps': Field(
    None, 'length of the run in steps, instead of epochs', int, within=(1, INT32), resume=LENGTH),
  'label_smoothing': _class(
    0.0, 'share of the target that is spread over all classes', within=(0, BELOW_1)),
  'loss': _class(
    'cross_entropy', "or bce: binary cross-entropy of each class, their mean, as timm's",
    choices=('cross_entropy', 'bce')),
  'bce_threshold': _class(
    None, 'with bce: shares of mixed labels above it count as 1, others as 0', float,
    within=(0, BELOW_1)),
  'aux_loss_weight': _class(
    0.4, 'weight of the loss of an auxiliary head, where the network has one', within=(0, None)),
  'steps_per_dispatch': _free(
    None, 'steps of one call of the device; None: 50 on GPU and TPU, else 1', int,
    within=(1, INT32)),
  'init_from': Field(
    None, 'network whose weights to start from: a workdir, a name in the package, hf:OWNER/REPO',
    str),
  'init_checkpoint': Field('best', 'which checkpoint of init_from: best, latest or a step'),
  'new_head': Field(
    False, 'with init_from: leave its last layer out and start with a fresh one'),
  'deterministic': Field(
    False, 'make runs on the same GPUs equal to the bit, slower; on TPU and CPU they are'),
}  # fmt: skip

_MODEL = {
  'model.name': _option('se_resnet50', 'the network, one of senet_jax.models.list_models()'),
  'model.num_classes': _option(
    None, 'classes; None: those of the data set', int, within=(1, _MOST_CLASSES)),
  'model.dtype': Field(
    'float32', 'type that the network computes in; weights are float32',
    choices=('float32', 'bfloat16')),
  'model.attention': _option(
    'se', 'what gates the units of residual networks named se_…: se, eca, ese, ge'),
  # Options of a family; None: the network's own.
  'model.stride_in': _option(None, 'the convolution of a bottleneck that strides: 1x1, 3x3', str),
  'model.trunk': _box_option(
    None, "detectors: the residual network that they see with, without `se_`", str),
  'model.settings': _box_option(
    None, 'detectors: conventions: detectron, torchvision, detectron2, small', str),
  'model.freeze_at': _box(
    None, 'detectors: stages of the trunk that are not trained, from the stem on; None: 2', int,
    within=(0, 5)),
  'model.pool_align': _option(
    None, "alignment of the stem's max pooling: caffe, torch", str),
  'model.shortcut': _option(
    None, 'what a shortcut does where shapes differ: projection, pad, pad_both, …', str),
  'model.preact': _option(None, 'put BN and ReLU in front of the convolutions', bool),
  'model.zero_init_last_bn': Field(None, 'start residual units as identities', bool),
  'model.branch_relu': _option(None, 'a ReLU behind the last BN of a residual unit too', bool),
  'model.depths': _option(
    None, 'residual units of each stage', int, within=(1, 500), lengths=range(1, 11)),
  'model.width': _option(None, 'channels of the stem', int, within=(1, _MOST_CHANNELS)),
  'model.kept_channels': _option(
    None, 'channels that the branches of a pruned network keep; tools.prune sets it', str,
    lengths=range(5001)),
  'model.activation': _option(None, 'nonlinearity of MobileNet: relu, relu6', str),
  'model.padding': _option(
    None, "padding of MobileNet's 3x3 convolutions: symmetric, SAME (TensorFlow's)", str),
  'model.aux': _option(None, 'train with an auxiliary head', bool),
  'model.dropout': Field(
    None, 'share of units dropped in front of the last layer', float, within=(0, BELOW_1)),
  'model.drop_path': Field(
    None, 'residual networks: share of images whose last unit is skipped in training, fewer in '
    'front of it (stochastic depth)', float, within=(0, BELOW_1)),
  'model.remat': Field(
    None, 'residual networks: stages that are computed again in the backward pass, to save memory '
    'on GPU and TPU: (2, 3)', int, within=(2, 5), lengths=range(1, 5)),
  'model.conv_bias': _option(None, 'VGG, Inception: biases beside BN', bool),
  'model.head': _option(None, 'VGG, on maps other than 7x7: adaptive, sliding', str),
  'model.count_padding': _option(None, 'Inception: average pooling counts the padding', bool),
  'model.se_mixed': _option(
    None, 'Inception-ResNet: SE in its mixed modules too', bool),
  'model.bottleneck_of': _option(
    None, 'ShuffleNet: what the bottleneck is a quarter of: unit, branch', str),
  'model.backward': Field(
    None, 'shake networks: coefficients of the gradients: shake, even', str),
  'model.se_at': _option(
    None, 'shake networks: SE on each branch, or on their sum: branch, mix', str),
  # These are of networks named se_…: `position`, `stages`, `without` and `fused` of any attention,
  # the others of SE.
  'model.se.ratio': _option(
    16, 'reduction ratio: channels over hidden units', within=(1, _MOST_CHANNELS)),
  'model.se.use_bias': _option(True, 'biases in the two fully connected layers'),
  'model.se.squeeze': _option(
    'avg', 'what the gate is computed from: the mean or maximum of a channel, or each place',
    choices=('avg', 'max', 'none')),
  'model.se.excitation': _option(
    'sigmoid', 'nonlinearity of the gate', choices=('sigmoid', 'tanh', 'relu')),
  'model.se.position': _option(
    'standard', 'where in a residual unit the gate is',
    choices=('standard', 'pre', 'post', 'identity', 'conv3x3')),
  'model.se.stages': _option(
    'all', 'stages with SE: all, or some such as (2, 3)', int, within=(2, 5), lengths=range(5),
    word='all'),
  'model.se.without': _option(
    (), "blocks that are left out, such as ('SE_5_2', 'SE_5_3'); tools.prune sets it", str,
    lengths=range(5001)),
  'model.se.fused': _free(
    True, 'take the squeeze from the statistics of BN', former=('auto', True)),
  'model.se.hidden_divisor': _option(
    1, 'hidden units are rounded to a multiple of it', within=(1, _MOST_CHANNELS)),
}  # fmt: skip

_BN = {
  'bn.scope': _class(
    'local', 'images that share statistics: of a device (local), all (global), or groups (ghost)',
    choices=('local', 'global', 'ghost')),
  'bn.ghost_size': _class(32, 'images of a group under ghost', within=(1, _MOST_IMAGES)),
  'bn.momentum': _class(0.9, 'momentum of the running statistics', within=(0, BELOW_1)),
  'bn.epsilon': _option(
    None, "what is added to the variance; None: the network's own", float, within=(0, 1)),
  'bn.freeze_last_epochs': _class(
    0.0, 'at the end, train on the running statistics and keep them', within=(0, INT32)),
}  # fmt: skip

_DATA = {
  'data.name': Field(
    'cifar10',
    'the data set: digits, cifar10, cifar100, tiny_imagenet; streamed: imagenet2012, '
    'places365_challenge, image_folder, any of tfds; of detectors: coco (its files), coco/2017 (of '
    'tfds)'),
  'data.dir': _free(
    None, 'directory of tfds (None: $TFDS_DATA_DIR or ~/tensorflow_datasets), or the folder of '
    'photos', str),
  'data.fake': Field(False, "random images of the data set's shape instead of the data set"),
  'data.feed': Field(
    'device', 'keep the whole split in device memory, or stream: read and decode on the way',
    choices=('device', 'stream')),
  'data.train_split': Field('train', 'the split to train on, or a part of one: train[:90%]'),
  'data.eval_split': Field('test', 'the split to evaluate on, or a part of one'),
  'data.val_fraction': _class(
    0.0, 'image folders without val/: share of each class held out as `val`',
    within=(0, BELOW_1)),
  'data.sampling': _class(
    'uniform', 'each example once an epoch; class_aware: each class equally often',
    choices=('uniform', 'class_aware')),
  'data.max_damaged': _free(
    10, 'unreadable images that a stream tolerates; they are named and counted', within=(0, INT32)),
  'data.read_timeout': _free(
    300.0, 'seconds that a stream waits for an image before the run ends',
    within=(POSITIVE, 10**8)),
  'data.workers': _class(
    0, 'streams: processes that decode; 0: threads of this one, which keep about five cores busy',
    within=(0, 1024), resume=FREE),
  'data.image_size': _class_option(
    None, "side of the network's input; None: the usual one", int, within=(1, MOST_PIXELS)),
  'data.train_size': _class(
    None, 'side of the images in training, or several one after the other: (128, 160, 192); None: '
    'image_size, that of evaluations', int, within=(1, MOST_PIXELS), lengths=range(1, 9)),
  'data.train_size_boundaries': _class(
    (), 'places where the next of several train_size begins, in schedule.unit; empty: equal parts '
    'of the run', float, within=(POSITIVE, INT32), lengths=range(8)),
  'data.resize': _class_option(
    None, "shorter side before an evaluation's centre crop", int, within=(1, 2 * MOST_PIXELS)),
  'data.interpolation': _class_option(
    'bilinear', 'filter of that resizing', choices=('bilinear', 'bicubic')),
  'data.resize_keep_aspect': _class_option(
    True, 'streams: resize the shorter side to that; False: both sides, as for Places365'),
  'data.mean': _option(
    (), "mean of red, green and blue, 0 to 255, to subtract; empty: the network's own", float,
    within=(-255, 510), lengths=(0, 3)),
  'data.std': _option(
    (), 'deviation of red, green and blue, 0 to 255, to divide by', float,
    within=(POSITIVE, None), lengths=(0, 3)),
  'data.shorter_side': _box_option(
    800, 'detectors: shorter side of a resized image, in pixels', within=(1, MOST_PIXELS)),
  'data.longer_side': _box_option(
    1333, 'detectors: longer side that it has at most; longer images are made smaller',
    within=(1, MOST_PIXELS)),
  'data.max_boxes': _box(
    100, 'detectors: boxes of an image in training, at most; the batch is padded to it',
    within=(1, _MOST_BOXES)),
  'data.max_faulty': _free(
    10, 'detectors: faulty annotations that are left out or mended; they are counted and listed',
    within=(0, INT32), task='detection'),
  'data.crop_area': _class(
    (), 'streams: smallest and largest share of the image that a random crop keeps', float,
    within=(POSITIVE, 1), lengths=(0, 2)),
  'data.crop_interpolation': _class(
    'bilinear', 'of what RandAugment moves, and in streams of the resizing of that crop',
    choices=('bilinear', 'bicubic')),
  'data.crop_aspect': _class(
    (3 / 4, 4 / 3), 'streams: smallest and largest width over height of that crop', float,
    within=(POSITIVE, None), lengths=(2,)),
  'data.rotation': _class(0.0, 'largest angle of a random rotation, degrees', within=(0, 180)),
  'data.pad': _class(
    4, 'pixels around an image before a random crop of its size', within=(0, MOST_PIXELS)),
  'data.pad_fill': _class(
    'zeros', 'what that border and the corners of a rotation show (streams: reflections)',
    choices=('zeros', 'nearest')),
  'data.flip': Field(True, 'mirror half of the images'),
  'data.pixel_jitter': _class(
    0.0, 'largest random shift of each colour channel, on the 0-255 scale', within=(0, 255)),
  'data.brightness_jitter': _class(
    0.0, 'largest random change of brightness alone, as a share', within=(0, 1)),
  'data.color_jitter': _class(
    0.0, 'largest random change of brightness, contrast and saturation, as a share', within=(0, 1)),
  'data.lighting': _class(
    0.0, "standard deviation of AlexNet's random shift along the colours' main axes",
    within=(0, None)),
  'data.cutout': _class(
    0, 'side of a square of zeros at a random place; 0: none', within=(0, 2 * MOST_PIXELS)),
  'data.randaugment': _class(
    None, "RandAugment as timm writes it, 'rand-m7-mstd0.5-inc1'; None: none", str),
  'data.erasing': _class(
    0.0, 'share of images with a random rectangle of zeros (random erasing)', within=(0, 1)),
  'data.repeats': _class(
    1, 'how often a batch has each of its images, augmented differently (repeated augmentation)',
    within=(1, 100)),
  'data.mixup': _class(
    0.0, 'alpha of mixup: pairs of images are averaged, with a share of Beta(alpha, alpha); 0: '
    'none', within=(0, 1000)),
  'data.cutmix': _class(
    0.0, 'alpha of CutMix: an image has a box of another; 0: none. With mixup it is one of the two',
    within=(0, 1000)),
  'data.cutmix_share': _class(0.5, 'how often CutMix, if mixup too', within=(0, 1)),
  'data.mix_share': _class(1.0, 'how often images are mixed at all', within=(0, 1)),
  'data.mix_each': _class(
    False, 'draw a share and a box for each image instead of one for a batch'),
}  # fmt: skip

_OPTIMIZER = {
  'optimizer.name': Field(
    'sgd', 'sgd, adam or adamw; lars and lamb are for large batches',
    choices=('sgd', 'adam', 'adamw', 'lars', 'lamb')),
  'optimizer.learning_rate': Field(
    0.1, 'learning rate at the peak of the schedule', within=(POSITIVE, None)),
  'optimizer.base_batch': Field(
    None, 'images that the learning rate is for; with more it grows in proportion', int,
    within=(1, INT32)),
  'optimizer.momentum': Field(0.9, 'momentum; beta_1 of adam, adamw and lamb', within=(0, BELOW_1)),
  'optimizer.beta2': Field(0.999, 'beta_2 of adam, adamw and lamb', within=(0, BELOW_1)),
  'optimizer.nesterov': Field(False, 'let the momentum look ahead; not with lamb'),
  'optimizer.weight_decay': Field(
    1e-4, 'L2: added to the gradient in front of the momentum, with adamw and lamb behind',
    within=(0, None)),
  'optimizer.decay_mask': Field(
    'all', 'what decays: all, or kernels, without the scales and biases of BN',
    choices=('all', 'kernels')),
  'optimizer.bias_rate': Field(
    1.0, 'what the learning rate of biases is multiplied by', within=(0, None)),
  'optimizer.trust_mask': Field(
    'kernels', "lars and lamb: which updates are scaled by their layer's norms",
    choices=('all', 'kernels')),
  'optimizer.trust': Field(
    0.001, "lars: size of a layer's update over that of its weights", within=(POSITIVE, None)),
  'optimizer.clip_norm': Field(
    0.0, 'largest norm of the gradient; 0: no clipping', within=(0, None)),
  'optimizer.accumulate': Field(
    1, 'micro-batches a step; BN takes its statistics in each of them', within=(1, _MOST_IMAGES)),
  'optimizer.frozen': Field(
    (), "beginnings of module names that are not trained: ('stem_', 'stage2_')", str,
    lengths=range(5001)),
  'optimizer.ema_decay': Field(
    0.0,
    'decay of averaged weights and statistics, used to evaluate; 0: none. It rises to this as '
    '(1 + step) / (10 + step) does', within=(0, BELOW_1)),
}  # fmt: skip

_SCHEDULE = {
  'schedule.name': Field(
    'step', 'how the learning rate falls',
    choices=('constant', 'step', 'multistep', 'cosine', 'linear', 'plateau')),
  'schedule.unit': Field(
    'epochs', 'unit of warmup, every and all boundaries', choices=('epochs', 'steps')),
  'schedule.warmup': Field(
    0.0, 'length of the warm-up in front of any schedule', within=(0, INT32)),
  'schedule.warmup_shape': Field(
    'linear', 'how the warm-up rises: linear, or constant at its start value',
    choices=('linear', 'constant')),
  'schedule.warmup_start': Field(
    0.0, 'learning rate at the start of the warm-up, as a share of the peak', within=(0, 1)),
  'schedule.factor': Field(
    0.1, 'what each drop multiplies by (step, multistep, plateau)', within=(POSITIVE, BELOW_1)),
  'schedule.every': Field(30.0, 'distance of the drops (step)', within=(POSITIVE, None)),
  'schedule.boundaries': Field(
    (30.0, 60.0, 90.0), 'places of the drops (multistep)', float, within=(0, INT32),
    lengths=range(1001)),
  'schedule.final': Field(
    0.0, 'learning rate at the end of cosine and linear, as a share of the peak', within=(0, 1)),
  'schedule.patience': Field(
    5, 'evaluations in a row whose metric is no better by 0.01 %, before a drop (plateau)',
    within=(1, INT32)),
  'schedule.metric': Field(
    'loss', 'what must improve on the evaluation split (plateau)', choices=_METRICS),
  'schedule.min_scale': Field(1e-4, 'lowest share of the peak (plateau)', within=(0, 1)),
}  # fmt: skip

_OTHERS = {
  'early_stopping.patience': Field(
    0, 'evaluations without improvement that end the run; 0: never', within=(0, INT32)),
  'early_stopping.metric': Field(
    'loss', 'what must improve on the evaluation split', choices=_METRICS),
  'early_stopping.min_delta': Field(0.0, 'smallest improvement that counts', within=(0, None)),
  'eval.every_epochs': Field(1.0, 'epochs between evaluations', within=(1e-3, INT32)),
  'eval.batch_size': _free(
    None, 'images at once in evaluations; None: as in training', int, within=(1, _MOST_IMAGES)),
  'checkpoint.every_steps': _free(
    0, 'steps between checkpoints, besides the one after each evaluation; 0: only those',
    within=(0, INT32)),
  'checkpoint.keep': _free(2, 'newest checkpoints kept, besides the best one', within=(1, INT32)),
  'log.every_steps': _free(50, 'steps between lines of metrics', within=(1, INT32)),
  'log.tensorboard': _free(True, 'write event files too (needs TensorFlow)'),
  'profile.start': _free(
    None, 'first step of an XLA trace in workdir/profile', int, within=(0, INT32)),
  'profile.steps': _free(5, 'steps in the trace', within=(1, INT32)),
}  # fmt: skip

FIELDS: dict[str, Field] = {
  **_RUN, **_MODEL, **_BN, **_DATA, **_OPTIMIZER, **_SCHEDULE, **_OTHERS
}  # fmt: skip


def default() -> ConfigDict:
  """Returns a configuration with the default of every field."""
  config = ConfigDict()
  for name, field in FIELDS.items():
    *sections, leaf = name.split('.')
    owner = config
    for section in sections:
      if section not in owner:
        # `model.se.stages` is a word or a tuple.
        owner[section] = ConfigDict(type_safe=section != 'se')
      owner = owner[section]
    optional = field.default is None
    owner[leaf] = config_dict.placeholder(field.value_type) if optional else field.default
  return config.lock()
