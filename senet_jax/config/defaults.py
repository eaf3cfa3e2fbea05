"""Every field of a configuration with its default."""

from ml_collections import ConfigDict, config_dict


def default() -> ConfigDict:
  """All fields of a configuration, with their defaults."""
  c = ConfigDict()
  c.seed = 0  # of the initial weights, the order of the examples and their augmentation
  c.batch_size = 128  # images a step, over all devices
  c.epochs = 100.0  # length of the run, passes over the training split
  c.steps = config_dict.placeholder(int)  # length in steps instead
  c.label_smoothing = 0.0  # share of the target spread over all classes
  c.aux_loss_weight = 0.4  # of the loss of an auxiliary head, where the network has one
  c.steps_per_dispatch = config_dict.placeholder(int)  # None: 50 on GPU and TPU, else 1
  c.init_from = config_dict.placeholder(str)  # workdir of another run whose weights to start from
  c.init_checkpoint = 'best'  # of init_from: best, latest or a step
  c.new_head = False  # with init_from: keep its last layer out and start with a fresh one
  c.deterministic = False  # bitwise equal runs on the same GPUs, slower; on TPU and CPU they are
  c.model = _model()
  c.bn = ConfigDict()
  c.bn.scope = 'local'  # statistics over one device, the whole batch (global), or groups (ghost)
  c.bn.ghost_size = 32  # images of a group under ghost
  c.bn.momentum = 0.9  # of the running statistics
  c.bn.epsilon = config_dict.placeholder(float)  # added to the variance; None: the network's own
  c.bn.freeze_last_epochs = 0.0  # at the end, train on the running statistics and keep them
  c.data = _data()
  c.optimizer = ConfigDict()
  c.optimizer.name = 'sgd'  # or adam; lars, lamb: for large batches
  c.optimizer.learning_rate = 0.1  # at the peak of the schedule
  c.optimizer.base_batch = config_dict.placeholder(int)  # images that it is for; it grows with more
  c.optimizer.momentum = 0.9  # of adam and lamb, beta_1
  c.optimizer.beta2 = 0.999  # of adam and lamb
  c.optimizer.nesterov = False
  c.optimizer.weight_decay = (
    1e-4  # L2: added to the gradient in front of the momentum; lamb: behind
  )
  c.optimizer.decay_mask = 'all'  # or `kernels`: no decay of BN scales and biases
  c.optimizer.trust_mask = (
    'kernels'  # of lars and lamb: which updates are scaled by their layer's norms
  )
  c.optimizer.trust = 0.001  # of lars: a layer's update over its weights
  c.optimizer.clip_norm = 0.0  # largest norm of the gradient; 0: no clipping
  c.optimizer.accumulate = 1  # micro-batches a step; BN takes its statistics in each of them
  c.optimizer.frozen = ()  # beginnings of module names that are not trained: ('stem_', 'stage2_')
  c.optimizer.ema_decay = 0.0  # of averaged weights and statistics, used to evaluate; 0: none
  c.schedule = _schedule()
  c.early_stopping = ConfigDict()
  c.early_stopping.patience = 0  # evaluations without improvement that end the run; 0: never
  c.early_stopping.metric = 'loss'  # loss, top1_error or top5_error of the evaluation split
  c.early_stopping.min_delta = 0.0  # smallest improvement that counts
  c.eval = ConfigDict()
  c.eval.every_epochs = 1.0
  c.eval.batch_size = config_dict.placeholder(int)  # None: as in training
  c.checkpoint = ConfigDict()
  c.checkpoint.every_steps = 0  # besides the one after each evaluation; 0: only those
  c.checkpoint.keep = 2  # newest checkpoints kept, besides the best one
  c.log = ConfigDict()
  c.log.every_steps = 50  # a line of metrics
  c.log.tensorboard = True  # write event files too (needs TensorFlow)
  c.profile = ConfigDict()
  c.profile.start = config_dict.placeholder(int)  # first step of an XLA trace in workdir/profile
  c.profile.steps = 5  # steps in the trace
  return c.lock()


def _model() -> ConfigDict:
  c = ConfigDict()
  c.name = 'se_resnet50'  # one of senet_jax.models.list_models()
  c.num_classes = config_dict.placeholder(int)  # None: those of the data set
  c.dtype = 'float32'  # of the computation; or bfloat16
  c.attention = 'se'  # what gates the units of residual networks named se_…: se, eca
  # Options of a family; None: the network's own.
  c.stride_in = config_dict.placeholder(str)  # convolution of a bottleneck that strides: 1x1, 3x3
  c.pool_align = config_dict.placeholder(str)  # alignment of the stem's max pooling: caffe, torch
  c.shortcut = config_dict.placeholder(str)  # where shapes differ: projection, pad, pad_both, …
  c.preact = config_dict.placeholder(bool)  # BN and ReLU in front of the convolutions
  c.zero_init_last_bn = config_dict.placeholder(bool)  # start residual units as identities
  c.branch_relu = config_dict.placeholder(bool)  # a ReLU behind the last BN of a residual unit too
  c.depths = config_dict.placeholder(tuple)  # units of each stage
  c.width = config_dict.placeholder(int)  # channels of the stem
  c.kept_channels = config_dict.placeholder(tuple)  # of branches in a pruned network; tools.prune
  c.activation = config_dict.placeholder(str)  # of MobileNet: relu, relu6
  c.padding = config_dict.placeholder(str)  # of MobileNet's 3x3: symmetric, SAME (TensorFlow's)
  c.aux = config_dict.placeholder(bool)  # an auxiliary head in training
  c.dropout = config_dict.placeholder(float)  # share of units dropped in front of the last layer
  c.conv_bias = config_dict.placeholder(bool)  # of VGG, Inception: biases beside BN
  c.head = config_dict.placeholder(str)  # of VGG, on maps other than 7x7: adaptive, sliding
  c.count_padding = config_dict.placeholder(bool)  # of Inception: average pooling counts padding
  c.se_mixed = config_dict.placeholder(bool)  # of Inception-ResNet: SE in its mixed modules too
  c.bottleneck_of = config_dict.placeholder(str)  # of ShuffleNet, a quarter of: unit, branch
  c.backward = config_dict.placeholder(str)  # of shake nets, coefficients of gradients: shake, even
  c.se_at = config_dict.placeholder(str)  # of shake nets, SE on each: branch, or on their mix
  # Of networks named se_…: `position`, `stages`, `without` and `fused` of any attention, the others
  # of SE; not type-safe, as `stages` takes values of several types.
  c.se = ConfigDict(type_safe=False)
  c.se.ratio = 16  # channels over hidden units
  c.se.use_bias = True  # in the two fully connected layers
  c.se.squeeze = 'avg'  # avg, max, none
  c.se.excitation = 'sigmoid'  # sigmoid, tanh, relu
  c.se.position = 'standard'  # standard, pre, post, identity, conv3x3
  c.se.stages = 'all'  # or a list of stages: (2, 3)
  c.se.without = ()  # blocks left out: ('SE_5_2', 'SE_5_3'); tools.prune sets it
  c.se.fused = True  # take the squeeze from the statistics of BN
  c.se.hidden_divisor = 1  # hidden units are rounded to a multiple of it
  return c


def _data() -> ConfigDict:
  c = ConfigDict()
  c.name = 'cifar10'  # digits, cifar10, cifar100, tiny_imagenet; streamed: imagenet2012,
  # places365_challenge, image_folder, any of tfds
  c.dir = config_dict.placeholder(str)  # of tfds (None: $TFDS_DATA_DIR or ~/tensorflow_datasets)
  # or the root of the image folder
  c.fake = False  # random images of the data set's shape instead of the data set
  c.feed = 'device'  # the whole split in device memory, or stream: read and decoded on the way
  c.train_split = 'train'  # a split or a part of one: train[:90%]
  c.eval_split = 'test'
  c.val_fraction = 0.0  # of an image folder without val/: share of each class held out as `val`
  c.sampling = 'uniform'  # each example once an epoch; class_aware: each class equally often
  c.max_damaged = 10  # unreadable images that a stream tolerates; they are named and counted
  c.read_timeout = 300.0  # seconds that a stream waits for an image before the run ends
  c.image_size = config_dict.placeholder(int)  # side of the network's input; None: the usual one
  c.resize = config_dict.placeholder(int)  # shorter side before an evaluation's centre crop
  c.interpolation = 'bilinear'  # of that resizing: bilinear, bicubic
  c.resize_keep_aspect = True  # streams; or resize both sides to that, as for Places365
  c.mean = ()  # of RGB, 0-255, subtracted; empty: as the network or the data set has it
  c.std = ()  # of RGB, 0-255, divided by
  c.crop_area = ()  # streams: smallest and largest share of the image that a random crop keeps
  c.crop_aspect = (3 / 4, 4 / 3)  # streams: smallest and largest width over height of that crop
  c.rotation = 0.0  # largest angle of a random rotation, degrees
  c.pad = 4  # pixels around an image before a random crop of its size
  c.pad_fill = 'zeros'  # those, and the corners of a rotation (streams: reflections); or nearest
  c.flip = True  # mirror half of the images
  c.pixel_jitter = 0.0  # largest random shift of each colour channel, on the 0-255 scale
  c.brightness_jitter = 0.0  # largest random change of brightness alone, as a share
  c.color_jitter = 0.0  # largest random change of brightness, contrast and saturation, as a share
  c.lighting = 0.0  # standard deviation of AlexNet's random shift along the colours' main axes
  c.cutout = 0  # side of a square of zeros at a random place; 0: none
  return c


def _schedule() -> ConfigDict:
  c = ConfigDict()
  c.name = 'step'  # constant, step, multistep, cosine, plateau
  c.unit = 'epochs'  # of warmup, every and boundaries: epochs or steps
  c.warmup = 0.0  # length of the warm-up in front of any schedule
  c.warmup_shape = 'linear'  # linear rise, or constant at the start value
  c.warmup_start = 0.0  # learning rate at its start, as a share of the peak
  c.factor = 0.1  # of each drop (step, multistep, plateau)
  c.every = 30.0  # between drops (step)
  c.boundaries = (30.0, 60.0, 90.0)  # of the drops (multistep)
  c.final = 0.0  # end of the cosine, as a share of the peak
  c.patience = 5  # evaluations without a lower value of the metric before a drop (plateau)
  c.metric = 'loss'  # loss, top1_error or top5_error of the evaluation split (plateau)
  c.min_scale = 1e-4  # lowest share of the peak (plateau)
  return c
