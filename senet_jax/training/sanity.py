"""Settings that make the result of a run worthless, and yet are no errors.

A trial of three steps has many of them, so they are said when a run starts, and never refused.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from senet_jax.config.length import steps_of_unit
from senet_jax.data import datasets
from senet_jax.errors import UserError
from senet_jax.training import setup
from senet_jax.training.plan import Plan
from senet_jax.training.task import Feeds, Task

# SGD's learning rates begin here; those of Adam and LAMB are seldom a tenth of it.
_RATE_OF_SGD = 0.1
# Share of the initial values in the running statistics of BN that an evaluation bears.
_INITIAL_SHARE = 0.1


def warnings(task: Task, plan: Plan, feeds: Feeds) -> list[str]:
  """Returns a line on each setting under which the run is likely to have trained for nothing."""
  config = task.config
  return [
    *_of_rate(config, plan),
    *(_of_normalization(config, plan, feeds.mesh.size) if task.normalizes else _of_trunk(config)),
    *_of_images(config),
    *_of_examples(config, feeds),
  ]


def _of_rate(config: ConfigDict, plan: Plan) -> Iterator[str]:
  schedule, optimizer = config.schedule, config.optimizer
  peak = setup.peak_rate(config)
  if optimizer.name in ('adam', 'lamb') and peak >= _RATE_OF_SGD:
    yield (
      f'config.optimizer.learning_rate={optimizer.learning_rate:g} makes a peak of {peak:g}, as '
      f'for sgd; {optimizer.name} seldom learns with more than 0.01.'
    )
  unit = steps_of_unit(config, plan.steps_per_epoch)
  length = f'{plan.total} steps ({plan.epoch(plan.total):g} epochs)'
  if schedule.warmup * unit >= plan.total:
    yield (
      f'config.schedule.warmup={schedule.warmup:g} {schedule.unit} is not shorter than the run of '
      f'{length}: its learning rate never reaches the peak.'
    )
  drops = [step for step in plan.drop_steps if step < plan.total]
  if schedule.name in ('step', 'multistep') and not drops:
    yield (
      f'config.schedule.name={schedule.name} lowers the learning rate nowhere in the run of '
      f'{length}.'
    )
  boundaries = config.data.train_size_boundaries
  if any(boundary * unit >= plan.total for boundary in boundaries):
    yield (
      f'config.data.train_size_boundaries={boundaries} {schedule.unit} are not all within the run '
      f'of {length}: not all of config.data.train_size={config.data.train_size} are used.'
    )
  evaluations = len(plan.eval_steps)
  # The first evaluation is an improvement, and after the last one nothing is trained.
  if schedule.name == 'plateau' and evaluations < schedule.patience + 2:
    yield (
      f'config.schedule.patience={schedule.patience} cannot lower the learning rate in the run of '
      f'{evaluations} evaluations; it takes {schedule.patience + 2}, and a metric that is '
      'better by 0.01 % counts as better (rtol=1e-4).'
    )


def _of_normalization(config: ConfigDict, plan: Plan, devices: int) -> Iterator[str]:
  bn = config.bn
  if bn.freeze_last_epochs and plan.freeze_step == 0:
    yield (
      f'config.bn.freeze_last_epochs={bn.freeze_last_epochs:g} is the whole run of {plan.total} '
      'steps: its statistics stay those of the start.'
    )
  elif (share := bn.momentum**plan.freeze_step) > _INITIAL_SHARE and not config.init_from:
    yield (
      f'config.bn.momentum={bn.momentum:g} leaves {share:.0%} of the initial values in the running '
      f'statistics after {plan.freeze_step} steps: the evaluations are too bad.'
    )
  images = config.batch_size // config.optimizer.accumulate
  images = {'global': images, 'local': images // devices, 'ghost': bn.ghost_size}[bn.scope]
  if images == 1:
    yield 'batch normalisation is over 1 image; use a larger config.batch_size, or bn.scope=global.'


def _of_trunk(config: ConfigDict) -> Iterator[str]:
  if not config.init_from:
    first = '' if config.model.freeze_at == 0 else 'its first stages and '
    yield (
      'config.init_from is not set: the trunk has random weights, and training leaves '
      f'{first}its normalisation unchanged.'
    )


def _of_images(config: ConfigDict) -> Iterator[str]:
  for name, values in (('mean', config.data.mean), ('std', config.data.std)):
    if values and 0 < max(values) < 1:
      yield (
        f'config.data.{name}={values} is on the 0-1 scale; the images are on that of 0 to 255, '
        f'for which it is {tuple(round(255 * value, 2) for value in values)}.'
      )


def _of_examples(config: ConfigDict, feeds: Feeds) -> Iterator[str]:
  data = config.data
  shared = _shared_examples(data)
  if shared:
    yield (
      f'config.data.train_split={data.train_split} and config.data.eval_split={data.eval_split} '
      f'have {shared} examples in common: their errors say nothing of other images.'
    )
  examples = feeds.train.split.num_examples
  if config.batch_size > examples * data.repeats:
    yield (
      f'config.batch_size={config.batch_size} is more than the {examples} training images: a step '
      'has some of them several times.'
    )
  by_class = getattr(feeds.train, 'by_class', None)
  if by_class is not None and by_class.sizes.min() == 1 < by_class.sizes.max():
    yield (
      'config.data.sampling=class_aware shows the only example of a class as often as all '
      f'{by_class.sizes.max()} of the largest one.'
    )


def _shared_examples(data: Any) -> int:
  """Returns how many examples are in both splits, 0 where the sizes of splits are not known."""
  splits = datasets.streamed_info(data.name).splits
  ranges = []
  try:
    for split in (data.train_split, data.eval_split):
      base, part = datasets.parse_split(split, splits, data.name)
      ranges.append((base, range(splits[base])[part(splits[base])]))
  except UserError:  # a task of its own reads them
    return 0
  (base, train), (other, evaluated) = ranges
  shared = min(train.stop, evaluated.stop) - max(train.start, evaluated.start)
  return max(shared, 0) if base == other else 0
