r"""Does SE still pay? With the paper's recipe and with one of today, short runs and long ones.

  python -m senet_jax.tools.study --study=configs/studies/does_se_pay.py:small \
      --workdir=runs/does_se_pay --output=results/studies/does_se_pay_small.json \
      --figure=results/studies/does_se_pay_small.png

`:small` is ResNet-20 on the whole of CIFAR-10, 5 and 15 epochs, about seven hours on two CPU
cores; `:gpu` has ResNet-110 too, 30 and 164 epochs, for one GPU; without a size it is ResNet-50 on
ImageNet with the paper's recipe and with A3 and A2 of "ResNet strikes back", for a pod. Each has
the siblings of SE with the modern recipe: ECA, effective SE (`ese`) and gather-excite (`ge`). The
figure shows the error against the seconds of training, as equal epochs are not equal times.
"""

from senet_jax.config.study import Row, Study
from senet_jax.errors import one_of

TITLE = 'Does SE still pay?'
SMALL = ('r20', 5, 15)
SIBLINGS = ('eca', 'ese', 'ge')
_QUIET = ('--config.log.tensorboard=False',)
# The epochs, drops and warm-up of the paper's recipe for CIFAR.
_EPOCHS, _DROPS, _WARMUP = 163.84, (81.92, 122.88), 1.024


def get_study(size=''):
  one_of('the size', size or 'full', ('full', 'gpu', 'small'))
  if size == 'small':
    note = 'Small: ResNet-20 on the whole of CIFAR-10, few epochs; nothing was tuned.'
    return Study(f'{TITLE} (small)', tuple(_cifar(*SMALL)), (0, 1), note)
  if size == 'gpu':
    rows = (*_cifar('r20', 30, 164), *_cifar('r110', 30, 164))
    return Study(f'{TITLE} (CIFAR-10)', rows)
  return Study(TITLE, tuple(_imagenet()))


def _cifar(network, short, long):
  """Yields the rows of a CIFAR ResNet, those of the short runs first."""
  for epochs in (short, long):
    for recipe in ('paper', 'modern'):
      plain = f'{network}_{recipe}_{epochs}'
      yield _cifar_row(plain, network, recipe, epochs, None, ())
      yield _cifar_row(f'se_{plain}', f'se_{network}', recipe, epochs, plain, ())
  for kind in SIBLINGS:
    name, attention = f'{kind}_{network}_modern_{short}', (f'--config.model.attention={kind}',)
    baseline = f'{network}_modern_{short}'
    yield _cifar_row(name, f'se_{network}', 'modern', short, baseline, attention)


def _cifar_row(name, network, recipe, epochs, baseline, more):
  at_end = f'--config.eval.every_epochs={epochs}'
  fields = (f'--config.epochs={epochs}', at_end, *_QUIET, *more)
  if recipe == 'modern':
    depth = network.removeprefix('se_').removeprefix('r')
    model = f'{"se_" if network.startswith("se_") else ""}resnet{depth}_cifar'
    config = f'configs/cifar10_{"se_" if network.startswith("se_") else ""}r20_fast.py'
    fields += (f'--config.schedule.warmup={epochs / 5}', f'--config.model.name={model}')
  else:
    config, share = f'configs/cifar10_{network}.py', epochs / _EPOCHS
    drops = tuple(round(share * drop, 2) for drop in _DROPS)
    fields += (
      f'--config.schedule.boundaries={drops}',
      f'--config.schedule.warmup={_WARMUP * share:.3f}',
    )
  return Row(name, config, fields, baseline, published=config)


def _imagenet():
  short = ('--config.epochs=50', '--config.schedule.every=15')
  for name, config, fields in (
    ('paper_50', 'imagenet_{}r50', short),
    ('modern_100', 'imagenet_{}r50_a3', ()),
    ('paper_100', 'imagenet_{}r50', ()),
    ('modern_300', 'imagenet_{}r50_a2', ()),
  ):
    plain, se = (f'configs/{config.format(prefix)}.py' for prefix in ('', 'se_'))
    published = (plain, se) if fields else (None, None)
    yield Row(f'r50_{name}', plain, fields, published=published[0])
    yield Row(f'se_r50_{name}', se, fields, f'r50_{name}', published[1])
  for kind in SIBLINGS:
    config = 'configs/imagenet_se_r50_a3.py'
    attention = (f'--config.model.attention={kind}',)
    yield Row(f'{kind}_r50_modern_100', config, attention, 'r50_modern_100', config)
