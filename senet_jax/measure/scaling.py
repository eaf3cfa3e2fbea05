"""Predicts how fast many chips train, from a profile of one and public figures.

A model on paper, not a measurement. A step is the roofline time of the compiled program and then
its all-reduce, which cannot begin before the last gradient is known. Chips of an island (a TPU pod,
the GPUs of a host) are joined by links and reduce in a ring; islands exchange the share of each
chip through the network of their hosts.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from senet_jax.errors import UserError, one_of
from senet_jax.measure.targets import CHIPS
from senet_jax.reporting import tables

_COLUMNS = (
  'network', 'chip', 'chips', 'images/s', 'efficiency', 'step, ms', 'all-reduce, ms', 'hosts',
  'images/s a host: needed', 'at hand', 'limit',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Public figures of many chips of a kind.

  Attributes:
    island: chips that links join.
    per_host: chips that one host feeds.
    cores: virtual CPU cores of a host.
    processes: that train on one host: one in all on TPU, one for each GPU.
    network: bytes a second that a chip's share of the network can send to another island.
    source: where the figures are from.
  """

  island: int
  per_host: int
  cores: int
  processes: int
  network: float
  source: str


CLUSTERS = {
  'v5e': Cluster(256, 8, 224, 1, 6.4e12 / 8 / 256, 'cloud.google.com/tpu/docs/v5e'),
  'v6e': Cluster(256, 8, 180, 1, 25.6e12 / 8 / 256, 'cloud.google.com/tpu/docs/v6e'),
  'h100': Cluster(8, 8, 208, 8, 50e9, 'cloud.google.com/compute/docs/gpus (a3-megagpu-8g)'),
  'h200': Cluster(8, 8, 224, 8, 50e9, 'cloud.google.com/compute/docs/gpus (a3-ultragpu-8g)'),
}


@dataclasses.dataclass(frozen=True)
class Input:
  """How fast images come.

  Attributes:
    images_per_core: images a second that one CPU core decodes and augments.
    cores_per_process: cores that the threads of a process keep busy, as they share an interpreter;
      None: all.
  """

  images_per_core: float
  cores_per_process: float | None = None

  def of_host(self, cluster: Cluster) -> float:
    """Returns the images a second that a host can make."""
    cores: float = cluster.cores
    if self.cores_per_process is not None:
      cores = min(cores, cluster.processes * self.cores_per_process)
    return self.images_per_core * cores


def predict(profile: dict[str, Any], devices: int, images: Input) -> dict[str, float]:
  """Returns the predicted speed of `devices` chips.

  Args:
    profile: of one chip, as `tools.profile` writes it: with a roofline and collectives.
    devices: how many chips.
    images: what a host makes of its cores.

  Returns:
    Seconds of a step and of its all-reduce, `efficiency` (the speed of a chip beside that of one
    that is alone), `images_per_second` of all chips if the data come fast enough, `hosts`, the
    images a second that each must make (`fed_by_host`) and can make (`host_can_feed`), and what
    the `limit` is.

  Raises:
    UserError: there are no figures for such a chip.
  """
  chip = profile['roofline']['chip']['name']
  one_of('chip', chip, CLUSTERS)
  cluster, step = CLUSTERS[chip], profile['roofline']['step_s']
  reduced = sum(c['bytes'] for c in profile['collectives'].values())
  reduce_s = all_reduce_time(reduced, devices, CHIPS[chip].link, cluster)
  speed = profile['batch_per_device'] / (step + reduce_s)
  fed, can = speed * min(devices, cluster.per_host), images.of_host(cluster)
  limit = 'all-reduce' if reduce_s > step else profile['roofline']['bound']
  return {
    'devices': devices,
    'step_s': step,
    'all_reduce_s': reduce_s,
    'efficiency': step / (step + reduce_s),
    'images_per_second': speed * devices,
    'hosts': -(-devices // cluster.per_host),
    'fed_by_host': fed,
    'host_can_feed': can,
    'limit': 'input' if fed > can else limit,
  }


def all_reduce_time(size: float, devices: int, link: float, cluster: Cluster) -> float:
  """Returns the seconds that an all-reduce of `size` bytes over `devices` chips takes.

  Reduced and scattered over each island, summed over the islands by shares, gathered: a ring of n
  sends 2 (n - 1) / n of the bytes from each of its members. Latencies are left out.

  Args:
    size: of the arrays of one chip, in bytes.
    devices: how many chips.
    link: bytes a second that a chip can send to others of its island.
    cluster: what they are a part of.
  """
  island = min(devices, cluster.island)
  islands = -(-devices // cluster.island)
  within = 2 * (island - 1) / island * size / link
  across = 2 * (islands - 1) / islands * size / island / cluster.network
  return within + across


def predictions(path: pathlib.Path, chips: Sequence[int], images: Input) -> list[dict[str, Any]]:
  """Predicts from the first network of a profile.

  Args:
    path: of a file of `tools.profile`.
    chips: how many, for each row.
    images: as of `predict`.

  Raises:
    UserError: the file is no profile of a training step on a known chip.
  """
  try:
    profile = json.loads(path.read_text())['profiles'][0]
    name, chip = profile['name'], profile['roofline']['chip']['name']
  except (ValueError, KeyError, TypeError, IndexError) as error:
    raise UserError(
      f'{path} is no profile with a roofline; make one with senet_jax.tools.profile --target=… '
      '--output=….'
    ) from error
  return [{'network': name, 'chip': chip, **predict(profile, n, images)} for n in chips]


def table(rows: Sequence[dict[str, Any]]) -> str:
  """Returns predictions as a table in Markdown."""
  cells = [
    (
      f'`{row["network"]}`',
      row['chip'],
      row['devices'],
      f'{row["images_per_second"]:,.0f}',
      f'{row["efficiency"]:.1%}',
      f'{1e3 * row["step_s"]:.1f}',
      f'{1e3 * row["all_reduce_s"]:.2f}',
      row['hosts'],
      f'{row["fed_by_host"]:,.0f}',
      f'{row["host_can_feed"]:,.0f}',
      row['limit'],
    )
    for row in rows
  ]
  return tables.markdown(_COLUMNS, cells)
