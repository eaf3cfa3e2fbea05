r"""A narrow SE-ResNet-18 on Imagenette as a folder of photos: streamed training that a CPU can do.

  python -m senet_jax.main --config=configs/imagenette_se_r18.py --workdir=runs/imagenette_se_r18 \
      --config.data.dir=FOLDER

FOLDER has train/<class>/*.JPEG and val/<class>/*.JPEG.

Hardware: two CPU cores; 600 training and 200 validation photos of 224x224 (a part of Imagenette).
Expected wall time: 4 min.
Published: not in the paper.
Measured: validation error in results/imagenette_se_r18.json; the settings were not tuned.
"""

from senet_jax import config as defaults


def get_config():
  config = defaults.imagenet('se_resnet18')
  config.model.width = 32
  config.data.name = 'image_folder'
  config.data.eval_split = 'val'
  config.data.image_size = 96
  config.data.crop_area = (0.25, 1.0)
  config.batch_size = 32
  config.epochs = 60.0
  config.optimizer.learning_rate = 0.05
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup = 3.0
  config.eval.every_epochs = 5.0
  config.log.every_steps = 1000  # a line of training metrics with each evaluation, no more
  return config
