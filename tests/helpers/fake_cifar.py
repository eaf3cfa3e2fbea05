"""CIFAR in the published formats, with few records."""

import dataclasses
import hashlib
import pickle

import numpy as np

from senet_jax.data.builders import cifar

FAKE_BATCH_SIZE = 6


def md5(data):
  return hashlib.md5(data).hexdigest()


def python_batch(content):
  """Pickles as Python 2 and the NumPy of 2009 did."""
  data = pickle.dumps(content, protocol=3)
  return data.replace(b'numpy._core.multiarray', b'numpy.core.multiarray')


class FakeCifar:
  """Files with the layout of CIFAR but few records, and the checksums that make them official."""

  def __init__(self, name):
    self.name = name
    self.layout = cifar.LAYOUTS[name]
    self.python, self.binary = {}, {}
    rng = np.random.default_rng(0)
    for stem in self.layout.files:
      data = rng.integers(0, 256, (FAKE_BATCH_SIZE, 3072), np.uint8)
      labels = {k: rng.integers(0, 10, FAKE_BATCH_SIZE).tolist() for k in self.layout.label_keys}
      self.python[stem] = python_batch({b'data': data, **labels})
      columns = [np.array(labels[key], np.uint8) for key in self.layout.label_keys]
      self.binary[f'{stem}.bin'] = np.column_stack([*columns, data]).tobytes()

  def patch(self, monkeypatch, **changes):
    files = {s: (md5(d), md5(self.binary[f'{s}.bin'])) for s, d in self.python.items()}
    layout = dataclasses.replace(self.layout, **{'files': files, **changes})
    monkeypatch.setitem(cifar.LAYOUTS, self.name, layout)

  def write(self, folder, version):
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in getattr(self, version).items():
      (folder / file).write_bytes(data)
    return folder

  def records(self, split):
    """Image bytes (HWC) and fine labels of `train` or `test`."""
    width = 3072 + len(self.layout.label_keys)
    data = b''.join(d for file, d in self.binary.items() if ('test' in file) == (split == 'test'))
    rows = np.frombuffer(data, np.uint8).reshape(-1, width)
    images = rows[:, -3072:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, rows[:, -3073]
