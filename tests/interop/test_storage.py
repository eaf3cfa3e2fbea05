"""Files of weights that are written."""

import json

import numpy as np

from senet_jax.interop import storage

ARRAYS = {'b': np.arange(6, dtype=np.float32).reshape(2, 3), 'a': np.ones((), np.int32)}


def test_equal_weights_are_equal_files(tmp_path):
  # Eight names in the order in which a hash table has them: one chance in 40,320 each time.
  metadata = {f'{i}ü"': str(i) for i in range(8)}
  written = []
  for i in range(3):
    path = tmp_path / f'{i}.safetensors'
    storage.write_safetensors(path, ARRAYS, metadata)
    written.append(path.read_bytes())
    arrays, found = storage.read(path)
    assert found == metadata and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
      np.testing.assert_array_equal(arrays[name], array, strict=True)
  assert len(set(written)) == 1
  length = int.from_bytes(written[0][:8], 'little')
  assert length % 8 == 0 and list(json.loads(written[0][8 : 8 + length])['__metadata__']) == sorted(
    metadata
  )


def test_without_metadata(tmp_path):
  storage.write_safetensors(tmp_path / 'a.safetensors', ARRAYS, {})
  assert storage.read(tmp_path / 'a.safetensors')[1] == {}
