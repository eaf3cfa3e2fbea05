r"""SE-ResNet-50, trained on one data set, fine-tuned on a folder of photos of other classes.

  python -m senet_jax.main --config=configs/finetune_image_folder.py --workdir=runs/flowers \
      --config.data.dir=FOLDER --config.init_from=runs/se_r50 --config.new_head=True

FOLDER has train/<class>/*.jpg and val/<class>/*.jpg. If it has only <class>/*.jpg, hold a fifth of
each class out with --config.data.val_fraction=0.2. runs/se_r50 is the workdir of a run of the same
network; for another network add --config.model.name=se_resnet18. Without --config.init_from (and
--config.new_head) the weights are random: then give --config.optimizer.learning_rate=0.04 and more
--config.epochs. What new photos show:

  python -m senet_jax.tools.predict --workdir=runs/flowers rose.jpg garden/

Hardware: one GPU; on two CPU cores a narrower or shallower network and --config.data.image_size=96.
Expected wall time: not run.
Published: not in the paper.
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  config = defaults.imagenet('se_resnet50')
  config.data.name = 'image_folder'
  config.data.eval_split = 'val'
  config.data.crop_area = (0.25, 1.0)  # few epochs: milder crops than from scratch
  config.batch_size = 64
  config.epochs = 20.0
  config.label_smoothing = 0.1
  # Everything is trained. With a few hundred photos, or little time, keep the first layers as they
  # are: --config.optimizer.frozen="('stem_', 'stage2_', 'stage3_')". Random ones are not worth it.
  config.optimizer.frozen = ()
  config.optimizer.learning_rate = 0.01  # from scratch it would be 0.04, for batches of 64
  config.schedule.name = 'cosine'
  config.schedule.warmup = 1.0
  config.log.every_steps = 50
  return config
