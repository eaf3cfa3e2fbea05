"""The devices of a run: mesh, what they hold, and data-parallel functions."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from senet_jax.errors import UserError

DATA_AXIS = 'data'
# Elements of an array that is packed with others: 256 KiB.
_SMALL = 1 << 16


def all_devices() -> list[jax.Device]:
  """Returns the devices of all processes.

  Raises:
    UserError: what JAX_PLATFORMS names is not here.
  """
  try:
    return jax.devices()
  except (RuntimeError, AssertionError) as error:  # the latter from a plugin that is not installed
    options: Any = jax.config  # older versions of JAX do not declare its attributes
    platforms = options.jax_platforms
    if not platforms:
      raise
    why = str(error).partition(' (set JAX_PLATFORMS')[0].rstrip('. ')
    why = why or 'no plugin for it is installed'
    raise UserError(
      f'JAX_PLATFORMS={platforms} cannot be used: {why}. Install the extra for it, such as '
      "pip install 'senet_jax[cuda]', or unset JAX_PLATFORMS."
    ) from error


def data_mesh(count: int | None = None, devices: list[jax.Device] | None = None) -> Mesh:
  """Returns one axis of the first `count` of `devices`, by default of all that are here."""
  devices = (all_devices() if devices is None else devices)[:count]
  return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def put_everywhere(tree, mesh: Mesh):
  """Puts arrays that every process has on every device, whole."""
  sharding = replicated(mesh)

  def put(array) -> jax.Array:
    array = np.asarray(array)
    return jax.make_array_from_process_local_data(sharding, array, array.shape)

  return jax.tree.map(put, tree)


def data_parallel(
  function: Callable,
  mesh: Mesh,
  in_specs,
  out_specs,
  *,
  donate: tuple = (),
  deterministic: bool = False,
) -> jax.stages.Wrapped:
  """Compiles a function that each device runs on its share of the data.

  `check_vma=False`: gradients are those of the device's own images until the function averages
  them itself, in one collective.

  Args:
    function: runs on one device; collectives go over `DATA_AXIS`.
    mesh: from `data_mesh`.
    in_specs: which arguments are sharded, as of `jax.shard_map`.
    out_specs: which results are.
    donate: positions of the arguments whose memory the results may take.
    deterministic: equal bits every time on the same GPUs; TPU and CPU programs have no choice.
  """
  sharded = jax.shard_map(
    function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
  )
  # Kernels are not chosen by timing them, which comes out differently each time, and none adds in
  # the order in which threads happen to arrive.
  gpu = mesh.devices.flat[0].platform == 'gpu'
  options = {'xla_gpu_deterministic_ops': True} if deterministic and gpu else None
  return jax.jit(sharded, donate_argnums=donate, compiler_options=options)


def sum_over_devices(tree):
  """Sums float32 arrays over `DATA_AXIS` in one collective, inside `data_parallel`.

  XLA merges at most 256 arrays into one all-reduce, and the deep networks have more. So the small
  ones, nearly all of them but a small part of the bytes, travel as one.
  """
  leaves, structure = jax.tree.flatten(tree)
  packed, unpack = ravel_pytree([leaf for leaf in leaves if leaf.size <= _SMALL])
  large = [leaf for leaf in leaves if leaf.size > _SMALL]
  packed, large = jax.lax.psum((packed, large), DATA_AXIS)
  small, large = iter(unpack(packed)), iter(large)
  summed = [next(small if leaf.size <= _SMALL else large) for leaf in leaves]
  return jax.tree.unflatten(structure, summed)


def local_places(batch_size: int) -> jax.Array:
  """Returns the places `[n]` int32 of this device's examples in a batch, inside `data_parallel`."""
  n = batch_size // jax.lax.axis_size(DATA_AXIS)
  return jax.lax.axis_index(DATA_AXIS) * n + jnp.arange(n)


def places_of(count: int) -> tuple[jax.Array, int]:
  """Returns the places of this device's `count` images in those of all devices, and how many.

  Outside `data_parallel` there is one device.
  """
  try:
    total = count * jax.lax.axis_size(DATA_AXIS)
  except NameError:
    return jnp.arange(count), count
  return local_places(total), total


def per_device(batch_size: int, devices: int) -> int:
  """Returns the images that a device has of each batch.

  Raises:
    UserError: the devices do not divide the batch.
  """
  if batch_size % devices:
    near = max(batch_size // devices, 1) * devices
    raise UserError(
      f'config.batch_size={batch_size} is not divisible by the {devices} devices; '
      f'use {near} or {near + devices}.'
    )
  return batch_size // devices


def fill_devices(batch_size: int, devices: int) -> int:
  """Returns the batch rounded up to a multiple of the devices."""
  return -(-batch_size // devices) * devices


def checksum(tree) -> int:
  """Returns the CRC-32 of all arrays of `tree`, against damaged files; brings them to the host."""
  value = 0
  for leaf in jax.tree.leaves(tree):
    value = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data, value)
  return value


def describe_devices() -> str:
  """Returns the devices in words: `8 x cpu`, `1 x NVIDIA H200`."""
  devices = all_devices()
  return f'{len(devices)} x {devices[0].device_kind}'
