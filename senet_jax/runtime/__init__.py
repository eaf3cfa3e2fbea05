"""The devices of a run, this process, and the other processes of the run."""

from senet_jax.runtime.devices import (
  DATA_AXIS,
  all_devices,
  checksum,
  data_mesh,
  data_parallel,
  describe_devices,
  fill_devices,
  local_places,
  per_device,
  put_everywhere,
  replicated,
  sum_over_devices,
)
from senet_jax.runtime.hosts import (
  Preemption,
  agree,
  barrier,
  connect,
  describe_process,
  gather,
  is_first,
  together,
)
from senet_jax.runtime.process import (
  allow_many_files,
  import_tensorflow,
  usable_cores,
  use_compilation_cache,
)

__all__ = [
  'DATA_AXIS',
  'Preemption',
  'agree',
  'all_devices',
  'allow_many_files',
  'barrier',
  'checksum',
  'connect',
  'data_mesh',
  'data_parallel',
  'describe_devices',
  'describe_process',
  'fill_devices',
  'gather',
  'import_tensorflow',
  'is_first',
  'local_places',
  'per_device',
  'put_everywhere',
  'replicated',
  'sum_over_devices',
  'together',
  'usable_cores',
  'use_compilation_cache',
]
