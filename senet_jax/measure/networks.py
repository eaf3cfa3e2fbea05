"""Networks as command lines name them, and what they are measured on; imports nothing heavy."""

import argparse
import dataclasses
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError

# ResNet-50 of Flax's ImageNet example, without and with SE written out behind BN.
TEXTBOOK, TEXTBOOK_SE = 'textbook', 'textbook_se'
SE_FIELD = 'model.se.'


@dataclasses.dataclass(frozen=True)
class Network:
  """A network with changes to its configuration.

  Attributes:
    name: of the registry, or `textbook` or `textbook_se`.
    changes: `field=value` of its configuration.
  """

  name: str
  changes: tuple[str, ...] = ()

  @property
  def label(self) -> str:
    """The network as it is given on the command line."""
    return ':'.join((self.name, *self.changes))

  @property
  def textbook(self) -> bool:
    """True for the textbook networks, which are not in the registry."""
    return self.name in (TEXTBOOK, TEXTBOOK_SE)

  @property
  def registered(self) -> str:
    """The network of the registry whose images, classes and recipe it takes."""
    return 'resnet50' if self.textbook else self.name

  @property
  def without_se(self) -> 'Network':
    """The twin without SE, were there one."""
    if self.name == TEXTBOOK_SE:
      return Network(TEXTBOOK, self.changes)
    kept = tuple(change for change in self.changes if not change.startswith(SE_FIELD))
    return Network(self.name.removeprefix('se_'), kept)


def add_arguments(parser: cli.Parser) -> None:
  """Adds the arguments that say where networks are measured, those of `cases.Bench.create`."""
  add = parser.add_argument
  add('--image_size', type=cli.number, help='side of the images, in pixels (default: as published)')
  add('--devices', type=cli.number, help='how many to use (default: all)')
  add(
    '--against',
    help='torch: the same network in PyTorch, in the same turns; exported: '
    'and files of tools.export and of PyTorch in onnxruntime and OpenVINO (tools.latency)',
  )
  add('--torch_compile', help='off, default, reduce-overhead or max-autotune (on a CPU: off)')
  add('--torch_python', help='of detectors: the Python that has torchvision (default: this one)')
  parser.add_output()


def bench_arguments(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the arguments of `cases.Bench.create` that parsed ones of `add_arguments` stand for.

  Raises:
    UserError: the networks are for different tasks.
  """
  from senet_jax.models import model_info  # late, for a fast --help

  tasks = {model_info(network.registered).task for network in args.models}
  if len(tasks) > 1:
    raise UserError(
      f'--models has networks for {" and ".join(sorted(tasks))}, whose images are not the same; '
      'measure them one after the other.'
    )
  names = ('devices', 'image_size', 'against', 'torch_compile', 'torch_python')
  return {**{name: getattr(args, name) for name in names}, 'task': tasks.pop()}


def networks(text: str) -> tuple[Network, ...]:
  """Parses names separated by commas, each with or without changes: `name:field=value`."""
  parsed = (word.split(':') for word in cli.words(text))
  return tuple(Network(name, tuple(changes)) for name, *changes in parsed)
