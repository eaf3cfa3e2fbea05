"""Lists the measurements to make on an accelerator, in the order of their worth.

Each measurement is one or more commands of this project, and what their results come to. Nothing
in here measures by itself, and nothing belongs to one vendor: what a machine cannot do is skipped,
with the reason. Minutes are those of one H100, compilation included; a rehearsal runs the same
commands with tiny networks, images and budgets.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from senet_jax.errors import UserError

DONE = 'done'
# Of a rehearsal: networks of three units, and the images of scikit-learn's digits.
_TINY = ('--config.model.depths=(1,1,1)',)
_DIGITS = (
  *_TINY,
  '--config.data.name=digits',
  '--config.data.image_size=8',
  '--config.data.train_split=train',
  '--config.data.eval_split=test',
  '--config.batch_size=64',
  '--config.steps=4',
  '--config.eval.every_epochs=1',
)
_TINY_BENCH = ('--image_size=8', '--repeats=2', '--seconds=0.02', *_TINY)
_UNLOGGED = '--config.log.tensorboard=False'


@dataclasses.dataclass(frozen=True)
class Context:
  """The circumstances that the commands depend on.

  Attributes:
    output: the directory of all results.
    rehearse: use tiny networks, images and budgets.
    machine: what `measure.machine` tells.
    data: a pack, or the published files of CIFAR; None is the data directory of tfds.
    photos: a folder of photos, as of `config.data.name=image_folder`; None if there is none.
  """

  output: pathlib.Path
  rehearse: bool
  machine: Mapping[str, Any]
  data: pathlib.Path | None = None
  photos: pathlib.Path | None = None

  @property
  def work(self) -> pathlib.Path:
    """The directory of runs, caches and data, which need not be kept."""
    return self.output / 'work'

  def record(self, name: str) -> dict[str, Any] | None:
    """Returns the record of a measurement that was completed, or None.

    Raises:
      UserError: what is there is no record.
    """
    path = self.output / f'{name}.json'
    record = read_record(path) if path.exists() else None
    return record if record and record['measurement']['status'] == DONE else None


def read_record(path: pathlib.Path) -> dict[str, Any]:
  """Returns what a file says of a measurement, completed or not.

  Raises:
    UserError: it is no record.
  """
  try:
    record = json.loads(path.read_bytes())
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'{path} is no record of tools.evidence ({error}); remove it.') from error
  match record:
    case {'measurement': {'name': str(), 'status': str(), 'seconds': int() | float()}}:
      return record
  raise UserError(f'{path} is no record of tools.evidence; remove it.')


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of this project.

  Attributes:
    label: of its results in the record.
    arguments: the module below `senet_jax`, and what it is given.
    result: the JSON file that it writes; None if it only prepares something.
    environment: variables that it has besides.
  """

  label: str
  arguments: tuple[str, ...]
  result: pathlib.Path | None = None
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _alone(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
  """Returns the results of the last command; those before it only prepare something."""
  return list(results.values())[-1]


@dataclasses.dataclass(frozen=True)
class Measurement:
  """A measurement of the list.

  Attributes:
    name: of its record.
    group: of the list, which `--only` takes too.
    what: is measured, in a line.
    minutes: that it takes on one H100.
    commands: the commands, given the context.
    needs: what a machine must have: `torch`, `torchvision`, `tensorflow`, `cifar10`, `cifar100`,
      `photos`, `devices` (more than one).
    after: the name of a measurement whose record the commands are made from.
    resumable: it saves what it has when it is asked to stop, and goes on from there.
    merge: from the results of the commands by label to what the record holds.
  """

  name: str
  group: str
  what: str
  minutes: float
  commands: Callable[[Context], Sequence[Command]]
  needs: tuple[str, ...] = ()
  after: str | None = None
  resumable: bool = False
  merge: Callable[[Mapping[str, dict[str, Any]]], dict[str, Any]] = _alone


def why_not(measurement: Measurement, context: Context) -> str | None:
  """Returns why a machine cannot make a measurement, in a few words; None if it can."""
  machine = context.machine
  for need in measurement.needs:
    match need:
      case 'torch':
        if missing := [name for name in ('torch', 'timm') if name in machine['missing']]:
          return f'{" and ".join(missing)} not installed'
        if not machine['torch_on_device']:
          return 'this PyTorch cannot use the device'
      case 'torchvision':
        if not machine['torchvision_works']:
          return 'torchvision is not installed, or not for this PyTorch'
        if not machine['torch_on_device']:
          return 'this PyTorch cannot use the device'
      case 'tensorflow':
        if 'tensorflow' in machine['missing']:
          return 'TensorFlow, which decodes the images, is not installed'
      case 'photos':
        if not context.rehearse and not context.photos:
          return 'no photos: give --photos=FOLDER'
      case 'devices':
        if machine['devices'] < 2:
          return 'there is one device'
      case 'cifar10' | 'cifar100':
        if not context.rehearse and not _has_data(context, need):
          return f'no {need}: give --data=DIR with a pack or its published files'
  return None


def _data_dir(context: Context, name: str) -> pathlib.Path | None:
  """Returns where a data set lies, or is to be prepared; None is the usual directory."""
  from senet_jax.data import arrays

  if context.data is None or arrays.find_arrays(name, context.data):
    return context.data
  return context.work / 'data'


def _has_data(context: Context, name: str) -> bool:
  from senet_jax.data import arrays, carry

  return carry.holds(context.data or arrays.default_data_dir(), name)


# --- how commands are made -----------------------------------------------------------------------


def _result(context: Context, label: str) -> pathlib.Path:
  return context.work / 'results' / f'{label}.json'


def _tool(context: Context, label: str, tool: str, *arguments: str, **environment: str) -> Command:
  path = _result(context, label)
  return Command(label, (f'tools.{tool}', *arguments, f'--output={path}'), path, environment)


def _main(
  context: Context, label: str, config: str, *overrides: str, **environment: str
) -> Command:
  workdir = context.work / 'runs' / label
  arguments = ('main', f'--config={config}', _UNLOGGED, *overrides, f'--workdir={workdir}')
  return Command(label, arguments, workdir / 'summary.json', environment)


def _benchmark(
  name: str,
  group: str,
  what: str,
  minutes: float,
  models: str,
  *arguments: str,
  tiny: str = 'se_resnet20_cifar,resnet20_cifar',
  tiny_arguments: Sequence[str] = _TINY_BENCH,
  needs: tuple[str, ...] = (),
) -> Measurement:
  """Returns a measurement of networks on images that are on the device."""

  def commands(context: Context) -> list[Command]:
    ours, options = models, arguments
    if context.rehearse:
      kept = [a for a in arguments if not a.startswith(('--batch=', '--repeats=', '--seconds='))]
      batch = f'--batch={2 * context.machine["devices"]}'
      ours, options = tiny, (*kept, batch, *tiny_arguments)
    return [
      _tool(context, name, 'benchmark', f'--models={ours}', '--dtype=bfloat16', '--or_smaller',
            '--ceilings', *options)
    ]  # fmt: skip

  return Measurement(name, group, what, minutes, commands, needs)


def _study(
  name: str,
  group: str,
  what: str,
  minutes: float,
  table: str,
  *,
  rows: str | None = None,
  seeds: str = '0',
  data: str = 'cifar10',
  tiny_rows: str,
) -> Measurement:
  """Returns a measurement that trains networks with the published schedule."""

  def commands(context: Context) -> list[Command]:
    rate = context.record('cifar_rate') or {}
    fastest, together = rate['best'], rate['together']
    runs = max(together, key=lambda r: r['images_per_second'])['runs'] if together else 1
    file, colon, size = table.partition(':')
    options = [
      f'--study=configs/studies/{file}.py{colon}{size}',
      f'--workdir={context.work}/runs/{file}',
      f'--seeds={seeds}',
      f'--together={runs}',
      f'--config.model.dtype={fastest["dtype"]}',
      f'--config.steps_per_dispatch={fastest["steps_per_dispatch"]}',
      _UNLOGGED,
    ]
    wanted = tiny_rows if context.rehearse else rows
    options += [f'--rows={wanted}'] if wanted else []
    if context.rehearse:
      return [_tool(context, name, 'study', *options, *_DIGITS)]
    # Evaluations and checkpoints of every second epoch: of a small network they cost more than it.
    options += ['--config.eval.every_epochs=2']
    return _on_data(context, data, name, 'study', *options)

  return Measurement(
    name, group, what, minutes, commands, (data,), after='cifar_rate', resumable=True
  )


def _on_data(context: Context, data: str, label: str, tool: str, *arguments: str) -> list[Command]:
  """Returns a command on a data set, behind the one that writes its arrays if they are missing."""
  from senet_jax.data import arrays

  directory = _data_dir(context, data)
  if directory is None:
    return [_tool(context, label, tool, *arguments)]
  command = _tool(context, label, tool, *arguments, f'--config.data.dir={directory}')
  if arrays.find_arrays(data, directory):
    return [command]
  prepare = ('tools.prepare_data', f'--dataset={data}', f'--source={context.data}',
             f'--data_dir={directory}', '--arrays_only')  # fmt: skip
  return [Command(f'prepare_{data}', prepare), command]


# --- the list ------------------------------------------------------------------------------------


def _digits(context: Context) -> list[Command]:
  return [
    _main(context, 'digits', 'configs/digits_se_r20.py', *(_DIGITS if context.rehearse else ()))
  ]


_FAMILIES = ('se_resnet50,se_resnext50_32x4d,senet154,se_vgg16_bn,se_bn_inception,se_inception_v3,'
             'se_inception_resnet_v2,se_mobilenet_v1,se_shufflenet_v1_g3,se_resnet110_cifar,'
             'se_wrn16_8,se_shake_shake26_2x96d')  # fmt: skip


def _logits(context: Context) -> list[Command]:
  model = 'se_resnet20_cifar' if context.rehearse else 'se_resnet50'
  arguments = (f'--models={model}', '--logits', '--dtype=float32,bfloat16', '--devices=1')
  return [_tool(context, 'logits', 'benchmark', *arguments)]


def _rate(context: Context) -> list[Command]:
  arguments = ['--feed', '--config=configs/cifar10_se_r110.py', '--dtype=float32,bfloat16',
               _UNLOGGED, '--devices=1']  # fmt: skip
  alone = context.machine['platform'] == 'tpu'  # a TPU serves one process at a time
  if context.rehearse:
    arguments += [*_DIGITS, '--repeats=1', '--seconds=0.1', '--steps_per_dispatch=1']
    return [_tool(context, 'cifar_rate', 'benchmark', *arguments, *_together(alone, '2'))]
  arguments += ['--repeats=2', '--seconds=2', '--steps_per_dispatch=10,50,200']
  arguments += _together(alone, '1,2,4')
  return _on_data(context, 'cifar10', 'cifar_rate', 'benchmark', *arguments)


def _together(alone: bool, counts: str) -> list[str]:
  return [] if alone else [f'--together={counts}']


def _determinism(context: Context) -> list[Command]:
  # Each run finds its kernels anew: what was compiled before would make the second one a copy.
  fresh = {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  options: tuple[str, ...] = ('--config.deterministic=True',)
  options += _DIGITS if context.rehearse else ('--config.epochs=5',)
  config = 'configs/digits_se_r20.py'
  models = 'se_resnet20_cifar' if context.rehearse else 'se_resnet50'
  cost = [f'--models={models},{models}:deterministic=True', '--mode=train', '--dtype=bfloat16',
          '--or_smaller']  # fmt: skip
  cost += [*_TINY_BENCH, f'--batch={2 * context.machine["devices"]}'] if context.rehearse else [
    '--batch=128', '--repeats=3', '--seconds=1']  # fmt: skip
  return [
    *(_main(context, f'deterministic_{run}', config, *options, **fresh) for run in (1, 2)),
    _tool(context, 'deterministic_cost', 'benchmark', *cost),
  ]


def _merge_determinism(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
  first, second = (results[f'deterministic_{run}'] for run in (1, 2))
  digests = [run['params_sha256'] for run in (first, second)]
  cost = results['deterministic_cost']
  return {
    **cost,
    'what': 'two runs with config.deterministic, and what that costs',
    'bitwise_equal': digests[0] == digests[1],
    'params_sha256': digests,
    'runs': [first, second],
  }


def _where(context: Context) -> list[Command]:
  size: tuple[str, ...] = ('--per_device=128', '--steps=20')
  config = 'configs/imagenet_se_r50.py'
  if context.rehearse:
    size = ('--per_device=8', '--steps=2', *_DIGITS)
    config = 'configs/digits_se_r20.py'
  return [
    _tool(context, 'where_time_goes', 'profile', f'--config={config}', '--target=here',
          '--config.model.dtype=bfloat16', f'--trace={context.work}/trace', *size)
  ]  # fmt: skip


def _latency(label: str, models: str, batches: str) -> Callable[[Context], list[Command]]:
  def commands(context: Context) -> list[Command]:
    arguments = [f'--models={models}', f'--batches={batches}', '--devices=1', '--dtype=bfloat16']
    arguments += ['--repeats=3', '--seconds=0.5']
    if context.rehearse:
      arguments = ['--models=resnet20_cifar', '--batches=1,2', '--devices=1', '--image_size=8',
                   '--repeats=1', '--seconds=0.02']  # fmt: skip
    return [_tool(context, label, 'latency', *arguments)]

  return commands


def _devices(context: Context) -> list[Command]:
  count, counts = 1, []
  while count <= context.machine['devices']:
    counts.append(count)
    count *= 2
  found = []
  for count in counts:
    size = [f'--batch={128 * count}', '--repeats=3', '--seconds=1']
    model = 'se_resnet50'
    if context.rehearse:
      model, size = 'se_resnet20_cifar', [*_TINY_BENCH, f'--batch={2 * count}']
    arguments = (f'--models={model}', '--mode=train', '--dtype=bfloat16', '--ceilings')
    label = f'devices_{count}'
    found.append(_tool(context, label, 'benchmark', *arguments, f'--devices={count}', *size))
  return found


def _merge_devices(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
  rows = [row for result in results.values() for row in result['rows']]
  one = rows[0]['images_per_second']['median']
  for row in rows:
    row['efficiency'] = row['images_per_second']['median'] / one / row['devices']
  return {**_alone(results), 'what': 'training on more and more devices', 'rows': rows}


def _photos(context: Context) -> list[Command]:
  arguments = ['--feed', '--in_place', '--config=configs/finetune_image_folder.py', _UNLOGGED]
  folder = context.photos
  if context.rehearse:
    folder = sample_photos(context.work / 'photos')
    arguments += ['--config.model.name=se_resnet20_cifar', *_TINY, '--config.data.image_size=32',
                  f'--config.batch_size={4 * context.machine["devices"]}', '--repeats=1',
                  '--seconds=0.1']  # fmt: skip
  else:
    arguments += ['--config.batch_size=128', '--config.data.crop_area=(0.08,1.0)',
                  '--dtype=bfloat16', '--repeats=3', '--seconds=5']  # fmt: skip
  return [_tool(context, 'photos', 'benchmark', *arguments, f'--config.data.dir={folder}')]


def sample_photos(folder: pathlib.Path) -> pathlib.Path:
  """Writes JPEGs cut from the two photos that come with scikit-learn, as an image folder."""
  from PIL import Image
  from sklearn.datasets import load_sample_images

  found = load_sample_images()
  for path, image in zip(found.filenames, found.images, strict=True):
    name = pathlib.Path(path).stem
    for i in range(24):
      split = 'val' if i % 6 == 0 else 'train'
      target = folder / split / name / f'{i:02}.jpg'
      target.parent.mkdir(parents=True, exist_ok=True)
      top, left = 8 * i, 16 * i
      Image.fromarray(image[top : top + 160, left : left + 200]).save(target, quality=90)
  return folder


_TRAIN, _INFER = '--mode=train', '--mode=inference'
_BRIEF = ('--repeats=3', '--seconds=1')
_R50 = 'se_resnet50,resnet50,se_resnet50:model.se.fused=False,textbook,textbook_se'
_R50_TINY = 'se_resnet20_cifar,resnet20_cifar,se_resnet20_cifar:model.se.fused=False'
_TORCH_TINY = ('--image_size=32', '--repeats=1', '--seconds=0.02')


def _tax(name: str, what: str, minutes: float, models: str, *options: str, tiny: str = _R50_TINY):
  return _benchmark(name, 'se_tax', what, minutes, models, *options, *_BRIEF, tiny=tiny)


def _torch(name: str, what: str, minutes: float, *options: str) -> Measurement:
  arguments = ('--against=torch', '--devices=1', *options, *_BRIEF)
  return _benchmark(
    name, 'torch', what, minutes, 'se_resnet50,resnet50', *arguments,
    tiny='resnet18', tiny_arguments=_TORCH_TINY, needs=('torch',),
  )  # fmt: skip


_DETECTORS = 'faster_rcnn_r50_fpn,se_faster_rcnn_r50_fpn'
_SMALL_PHOTOS = ('--image_size=64', '--config.data.longer_side=64', '--repeats=1', '--seconds=0.02')
_SMALL_DETECTORS = (
  *_SMALL_PHOTOS, '--config.model.trunk=resnet18', '--config.model.width=16',
  '--config.model.settings=small',
)  # fmt: skip


def _fast_input(context: Context) -> list[Command]:
  arguments = ['--feed', '--in_place', '--config=configs/cifar10_se_r20_fast.py', _UNLOGGED,
               '--devices=1']  # fmt: skip
  if context.rehearse:
    arguments += [*_DIGITS, '--repeats=1', '--seconds=0.1']
    return [_tool(context, 'fast_input', 'benchmark', *arguments)]
  arguments += ['--dtype=bfloat16', '--repeats=3', '--seconds=2', '--steps_per_dispatch=50']
  return _on_data(context, 'cifar10', 'fast_input', 'benchmark', *arguments)


MEASUREMENTS: tuple[Measurement, ...] = (
  Measurement('digits', 'smoke', 'the run of make demo', 0.5, _digits),
  Measurement('logits', 'smoke', 'logits of SE-ResNet-50 beside the CPU', 0.5, _logits),
  _benchmark(
    'families', 'smoke', 'a training step of each family', 3, _FAMILIES, _TRAIN, '--batch=16',
    '--repeats=1', '--seconds=0.1', tiny='se_wrn16_8,se_resnet20_cifar',
  ),
  _tax('se_tax_r50_train', 'SE-ResNet-50, training, 128', 2, _R50, _TRAIN, '--batch=128'),
  _tax('se_tax_r50_train_256', 'SE-ResNet-50, training, 256', 2, _R50, _TRAIN, '--batch=256'),
  _tax('se_tax_r50_inference', 'SE-ResNet-50, inference', 1.5, _R50, _INFER, '--batch=128,256'),
  *(
    _tax(f'se_tax_{name}', what, 2, models, '--mode=both', '--batch=128,256', tiny=tiny)
    for name, what, models, tiny in (
      ('resnext50', 'SE-ResNeXt-50', 'se_resnext50_32x4d,resnext50_32x4d', 'resnet20_cifar'),
      ('r101', 'SE-ResNet-101', 'se_resnet101,resnet101', 'resnet20_cifar'),
      ('senet154', 'SENet-154', 'senet154', 'se_resnet20_cifar'),
    )
  ),
  _torch('torch_train', 'training beside PyTorch', 3.5, _TRAIN, '--batch=256'),
  _torch('torch_inference', 'inference beside PyTorch', 2.5, _INFER, '--batch=1,32,256'),
  _benchmark(
    'detection_se_tax', 'detection', 'Faster R-CNN and its SE twin at 800 x 1333', 6, _DETECTORS,
    '--mode=both', '--batch=2,8', *_BRIEF, tiny=_DETECTORS, tiny_arguments=_SMALL_DETECTORS,
  ),
  _benchmark(
    'detection_torch', 'detection', 'Faster R-CNN beside torchvision', 5, _DETECTORS,
    '--mode=both', '--batch=2', '--against=torch', '--devices=1', *_BRIEF, tiny=_DETECTORS,
    tiny_arguments=_SMALL_PHOTOS, needs=('torchvision',),
  ),
  Measurement(
    'cifar_rate', 'cifar', 'the fastest way to train SE-ResNet-110 on CIFAR-10', 7, _rate,
    ('cifar10',),
  ),
  _study(
    'cifar10_r110', 'cifar', 'Table 4: (SE-)ResNet-110 on CIFAR-10', 18, 'table_4',
    rows='cifar10_r110,cifar10_se_r110', tiny_rows='cifar10_r110,cifar10_se_r110',
  ),
  _study(
    'cifar100_r110', 'cifar', 'Table 5: (SE-)ResNet-110 on CIFAR-100', 18, 'table_5',
    rows='cifar100_r110,cifar100_se_r110', data='cifar100',
    tiny_rows='cifar100_se_r110',
  ),
  _benchmark(
    'remat', 'recipes', 'SE-ResNet-50 with stages computed again', 3,
    'se_resnet50,se_resnet50:model.remat=(2,),se_resnet50:model.remat=(2,3,4,5)',
    _TRAIN, '--batch=128', *_BRIEF, tiny='se_resnet20_cifar,se_resnet20_cifar:model.remat=(2,3)',
  ),
  _study(
    'cifar10_r20_fast', 'recipes', '(SE-)ResNet-20 in 15 epochs of a recipe of today', 5,
    'does_se_pay:small', rows='r20_modern_15,se_r20_modern_15', seeds='0,1',
    tiny_rows='se_r20_modern_15',
  ),
  Measurement(
    'fast_input', 'recipes', 'the input of that recipe, with RandAugment on the device', 2,
    _fast_input, ('cifar10',),
  ),
  _study(
    'cifar10_r110_seeds', 'cifar', 'more seeds of (SE-)ResNet-110 on CIFAR-10', 36, 'table_4',
    rows='cifar10_r110,cifar10_se_r110', seeds='0,1,2', tiny_rows='cifar10_r110',
  ),
  _study(
    'cifar10_r164', 'cifar', 'Table 4: ResNet-164 and WRN-16-8', 60, 'table_4',
    rows='cifar10_r164,cifar10_se_r164,cifar10_wrn16_8,cifar10_se_wrn16_8',
    tiny_rows='cifar10_r110',
  ),
  Measurement(
    'determinism', 'determinism', 'two deterministic runs, and what that costs', 2, _determinism,
    merge=_merge_determinism,
  ),
  Measurement('where_time_goes', 'where', 'a step of SE-ResNet-50 by layer', 0.5, _where),
  Measurement(
    'latency_section_4', 'latency', 'the networks of section 4', 1.5,
    _latency('latency_section_4', 'resnet50,resnext50_32x4d,mobilenet_v1', '1,16'),
  ),
  Measurement(
    'latency_figure_36', 'latency', 'the networks of the student report, figure 36', 1.5,
    _latency('latency_figure_36', 'resnet18_tiny,resnet34_tiny,resnet50_tiny', '1,32'),
  ),
  _study(
    'student_stages', 'student', 'student report, figure 33: stages', 60, 'student_stages',
    tiny_rows='original,all',
  ),
  _study(
    'student_integration', 'student', 'student report, figure 32: place', 72,
    'student_integration', tiny_rows='original',
  ),
  _study(
    'student_ratio', 'student', 'student report, figure 31: ratio', 84, 'student_ratio',
    tiny_rows='original',
  ),
  Measurement(
    'devices', 'devices', 'training on 1, 2, 4, 8 … devices', 3, _devices, ('devices',),
    merge=_merge_devices,
  ),
  Measurement(
    'photos', 'photos', 'SE-ResNet-50 fed from JPEGs', 2, _photos, ('photos', 'tensorflow')
  ),
)  # fmt: skip


def chosen(names: Sequence[str]) -> list[Measurement]:
  """Returns the measurements of the given names or groups, in the order of the list; all for none.

  Raises:
    UserError: there is none of that name.
  """
  from senet_jax.errors import one_of

  groups = dict.fromkeys(m.group for m in MEASUREMENTS)
  for name in names:
    one_of('--only', name, [*groups, *(m.name for m in MEASUREMENTS)])
  found = [m for m in MEASUREMENTS if not names or {m.name, m.group} & set(names)]
  if not found:
    raise UserError('--only names nothing.')
  return found
