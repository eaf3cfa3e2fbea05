"""Hands damaged and hostile inputs to everything that reads what somebody else has made.

  python -m tests.campaigns.fuzz --inputs=10000 --output=fuzz.json
  python -m tests.campaigns.fuzz --only=weights:137    # one input again, with its traceback

Overrides in the command line, configurations, workdirs, photos, requests, weight files, archives,
prepared data sets, photos with boxes, packs and records of measurements are made wrong at random,
from a seed, and read in this process. Two outcomes are right: it works, or a `UserError` says in
one line what is wrong. Any other exception is a finding, and so are more than `--seconds`, more
than `--gigabytes` of memory, and a file that is written, changed or removed where the input has no
business. Exit status 1 if there is any.
"""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import faulthandler
import functools
import hashlib
import io
import itertools
import json
import math
import os
import pathlib
import pickle
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import types
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import google_crc32c
import httpx2
import jax
import numpy as np
import onnx
import torch
from ml_collections import ConfigDict
from PIL import Image

import senet_jax
from senet_jax import cli, config as config_lib, flags, runtime
from senet_jax.config import FIELDS, reading
from senet_jax.config.fields import Field
from senet_jax.config.study import Row, Study
from senet_jax.data import (
  carry,
  coco_files,
  datasets,
  feeds,
  photos as photo_lib,
  prepare,
  preprocessing,
)  # fmt: skip
from senet_jax.data.builders import cifar, imagenet, packed
from senet_jax.data.sizes import Sizes
from senet_jax.detection import average_precision, detections
from senet_jax.detection.feeds import DetectionEvalFeed, DetectionFeed
from senet_jax.errors import UserError
from senet_jax.export import file_predictor, formats
from senet_jax.interop import mapping
from senet_jax.measure import evidence, evidence_tables, plan
from senet_jax.prediction import showing
from senet_jax.reporting import study_table
from senet_jax.serving.app import create_app
from senet_jax.serving.classifier import Classifier
from senet_jax.serving.guard import Guard
from senet_jax.serving.limits import Limits
from senet_jax.storage import files
from senet_jax.tools import convert
from senet_jax.training import optimizer, sanity, setup, step_rates, studies, tasks
from senet_jax.training.plan import Plan
from senet_jax.training.progress import Reporter
from senet_jax.training.task import Feeds
from senet_jax.workdir import damage, results, saved, summary
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.network import build_model, check_model
from senet_jax.workdir.records import read_records
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import abstract_state
from tests.helpers import random_detector
from tests.helpers.encoded import encoded
from tests.helpers.paths import ROOT

# What lies beside the weights of timm on the hub.
_OF_TIMM = {
  'architecture': 'resnet18', 'num_classes': 2, 'label_names': ['ant', 'bee'],
  'pretrained_cfg': {'input_size': [3, 224, 224], 'crop_pct': 0.95, 'interpolation': 'bicubic',
                     'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5]},
}  # fmt: skip
# Of the smallest network that has all there is: SE, several stages, and a head.
_MODEL = (
  '--config.model.name=se_resnet20_cifar',
  '--config.model.depths=(1,1,1)',
  '--config.model.width=8',
  '--config.model.se.ratio=4',
)
_SIDE = 32
# What was measured of that network.
_RATES = {
  'rows': [
    {
      'model': 'se_resnet20_cifar',
      'options': {'model.depths': [1, 1, 1], 'model.width': 8, 'model.se.ratio': 4},
      'framework': 'senet_jax',
      'mode': 'train',
      'dtype': 'float32',
      'batch_size': 64,
      'images_per_second': {'median': 9.5},
    }
  ]
}


class TooSlow(BaseException):
  """An input took longer than it may; no code catches it by accident."""


# --- mutations ------------------------------------------------------------------------------------

_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
            2**63 - 1, -(2**63), 10**30)  # fmt: skip
_TEXTS = ('', ' ', 'None', 'nan', '-inf', 'true', '../../outside', '/etc/passwd', 'a/b', '\0', '\n',
          '\x1b[2J', 'ü', '\ud800', '٣', '%s%n', '{}', 'x' * 5000)  # fmt: skip


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
  """`data` with one to four changes."""
  for _ in range(rng.integers(1, 5)):
    data = _change(rng, bytearray(data))
  return data


def _change(rng: np.random.Generator, data: bytearray) -> bytes:
  at, end = sorted(rng.integers(0, len(data) + 1, 2))
  # Headers are at the beginning, and are what is to be got wrong.
  if rng.random() < 0.5:
    at = int(rng.integers(0, min(len(data), 512) + 1))
    end = int(min(at + rng.integers(1, 64), len(data)))
  kind = rng.integers(8)
  if kind == 0 and data:
    data[min(at, len(data) - 1)] ^= 1 << rng.integers(8)
  elif kind == 1:
    del data[at:]
  elif kind == 2:
    del data[at:end]
  elif kind == 3:
    data[at:at] = data[at:end]
  elif kind == 4:
    data[at:at] = rng.bytes(rng.integers(1, 64))
  elif kind == 5:
    width = int(rng.choice([1, 2, 4, 8]))
    number = int(rng.choice(_NUMBERS[:15])) % (1 << 8 * width)
    data[at : at + width] = number.to_bytes(width, rng.choice(['little', 'big']))
  elif kind == 6:
    data[at:end] = bytes(end - at)
  else:
    data[at:end] = rng.bytes(end - at)
  return bytes(data)


def strange(rng: np.random.Generator, depth: int = 0) -> Any:
  """A value that JSON can say."""
  kind = rng.integers(7 if depth < 2 else 5)
  if kind == 0:
    return _NUMBERS[rng.integers(len(_NUMBERS))]
  if kind == 1:
    return float(rng.choice([0.5, -0.0, 1e308, -1e-308, np.nan, np.inf, rng.normal()]))
  if kind == 2:
    return _TEXTS[rng.integers(len(_TEXTS))]
  if kind == 3:
    return None
  if kind == 4:
    return bool(rng.integers(2))
  if kind == 5:
    return [strange(rng, depth + 1) for _ in range(rng.integers(4))]
  return {
    _TEXTS[rng.integers(len(_TEXTS))]: strange(rng, depth + 1) for _ in range(rng.integers(4))
  }


def mutated_json(rng: np.random.Generator, value: Any) -> Any:
  """Nested `value` with one node replaced, removed or added."""
  if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
    return strange(rng)
  keys = list(value) if isinstance(value, dict) else range(len(value))
  key = keys[rng.integers(len(keys))]
  value = value.copy()
  what = rng.random()
  if what < 0.1:
    del value[key]
  elif what < 0.2 and isinstance(value, dict):
    value[_TEXTS[rng.integers(len(_TEXTS))]] = strange(rng)
  elif what < 0.3 and isinstance(value, dict):
    value[misspelt(rng, key)] = value.pop(key)
  elif what < 0.4:
    value[key] = near(rng, value[key])
  else:
    value[key] = mutated_json(rng, value[key])
  return value


def misspelt(rng: np.random.Generator, text: str) -> str:
  """`text` with a letter that is missing or another."""
  at = int(rng.integers(len(text) + 1))
  return text[:at] + str(rng.choice(['', '', 'x', '/', '-'])) + text[at + 1 :]


def near(rng: np.random.Generator, value: Any) -> Any:
  """What somebody may have made of `value`: another type, another sign, a letter more or less."""
  if isinstance(value, str) and rng.random() < 0.8:
    return misspelt(rng, value)
  nearly = [[value], {'0': value}, str(value), None, value]
  if isinstance(value, int | float):
    nearly += [-value, value + 1, value / 2, value * 1000, float(value), [value] * 3, value > 0]
  if isinstance(value, list | dict):
    nearly += [[], {}, list(value), list(value)[:1], dict(enumerate(value)), 1, 'x']
  return nearly[rng.integers(len(nearly))]


def _json(value: Any) -> bytes:
  return json.dumps(value).encode()


# --- what is there to be damaged ------------------------------------------------------------------


class Material:
  """Whole files of each kind, made once; and what reads them that is slow to make.

  Attributes:
    folder: has all of it.
    outside: what hostile names and links point to.
  """

  def __init__(self, base: pathlib.Path):
    """Makes it in `base`, which is to be empty."""
    self.folder, self.outside = base / 'material', base / 'outside'
    self.folder.mkdir()
    self.outside.mkdir()
    (self.outside / 'secret').write_text('not to be read, not to be changed')
    self.mesh = runtime.data_mesh(1)

  @functools.cached_property
  def configs(self) -> list[pathlib.Path]:
    return sorted((ROOT / 'configs').glob('*.py'))

  @functools.cached_property
  def config(self):
    config = reading.load(str(ROOT / 'configs/digits_se_r20.py'), list(_MODEL))
    config.data.name, config.data.feed = 'image_folder', 'stream'
    config.data.image_size, config.batch_size = _SIDE, 8
    return config

  @functools.cached_property
  def workdir(self) -> pathlib.Path:
    """As a run of two checkpoints leaves it."""
    config, workdir = self.config, self.folder / 'run'
    state = self.fresh_state()
    identity = {**json.loads(json.dumps(config.to_dict())), 'dataset': {}}
    workdir.mkdir()
    files.write_json(workdir / 'config.json', config.to_dict())
    saved.write_classes(workdir, 2, ('cat', 'dog'))
    with Checkpoints(workdir) as checkpoints:
      for step in (1, 2):
        stepped = dataclasses.replace(state, step=np.int32(step))
        checkpoints.save(stepped, RunProgress(identity), {'top1_error': 50.0 / step})
    return workdir

  @functools.cached_property
  def finished(self) -> pathlib.Path:
    """What runs of two seeds leave of themselves, but for checkpoints."""
    root = self.folder / 'finished'
    for seed in range(2):
      workdir = root / 'row' / f'seed{seed}'
      record = {'step': 2, 'epoch': 2.0, 'loss': 1.0, 'top1_error': 50.0, 'top5_error': 5.0}
      progress = RunProgress(
        {}, None, examples_seen=16, train_time_s=1.0, final=record, best=record
      )
      made = summary.summarize(self.fresh_state(), progress)
      files.write_json(workdir / 'config.json', {**self.config.to_dict(), 'seed': seed})
      files.write_json(workdir / 'summary.json', made)
      timed = {'learning_rate': 0.1, 'images_per_second': 9.0, 'eta_s': 1.0}
      lines = [
        {'kind': kind, **record, 'step': step, 'epoch': float(step), **more}
        for step in (1, 2)
        for kind, more in (('train', timed), ('eval', {}))
      ]
      files.write_text(workdir / 'metrics.jsonl', ''.join(json.dumps(x) + '\n' for x in lines))
    return root

  def fresh_state(self):
    config = self.config
    return setup.init_state(
      config,
      build_model(config, 2),
      optimizer.make_optimizer(config, lambda step: 0.0),
      optimizer.make_plateau(config),
      self.mesh,
    )

  @functools.cached_property
  def abstract(self):
    return abstract_state(jax.eval_shape(self.fresh_state), runtime.replicated(self.mesh))

  @functools.cached_property
  def predictor(self):
    predictor = senet_jax.load(self.workdir, batch_size=1)
    predictor.probabilities(np.zeros((1, _SIDE, _SIDE, 3), np.uint8))  # compiles
    return predictor

  @functools.cached_property
  def detector(self):
    random_detector.write(self.folder / 'detector')
    detector = senet_jax.load(self.folder / 'detector', task='detection')
    detector.detect([np.zeros((*size, 3), np.uint8) for size in ((48, 64), (64, 48))])  # compiles
    return detector

  @functools.cached_property
  def page(self):
    """The application that `senet serve` serves, with photos of a megabyte at most."""
    limits = Limits(bytes=2**20)
    classifier = Classifier(self.predictor, 1).__enter__()
    return Guard(create_app(classifier, 'fuzzed', limits), limits)

  @functools.cached_property
  def images(self) -> list[bytes]:
    """One of each format, small and as large as what they are resized to."""
    rng = np.random.default_rng(0)
    found = []
    for side in (9, 64):
      smooth = np.linspace(0, 200, side)[:, None, None] + rng.integers(0, 50, (side, side, 3))
      image = Image.fromarray(smooth.astype(np.uint8))
      exif = Image.Exif()
      exif[0x0112] = 6
      saves = [
        ('JPEG', {}), ('JPEG', {'progressive': True, 'exif': exif}), ('PNG', {}), ('BMP', {}),
        ('PNG', {'exif': exif}), ('GIF', {'save_all': True, 'append_images': [image.rotate(90)]}),
        ('TIFF', {}), ('AVIF', {}), ('WEBP', {}),
        ('WEBP', {'lossless': True, 'save_all': True, 'append_images': [image]}),
      ]  # fmt: skip
      modes = {
        'JPEG': ('L', 'CMYK'), 'PNG': ('P', 'RGBA', 'LA', '1', 'I;16'), 'TIFF': ('F', 'I', 'LA'),
      }  # fmt: skip
      for kind, options in saves:
        found.append(encoded(image, kind, **options))
      for kind, names in modes.items():
        found += [encoded(image.convert(name), kind) for name in names]
    return found

  @functools.cached_property
  def exported(self) -> tuple[bytes, dict[str, Any]]:
    """A small exported file, and its card."""
    path = self.folder / 'net.onnx'
    senet_jax.export(self.workdir, path)
    return path.read_bytes(), formats.load('onnx').read_card(path).to_dict()

  @functools.cached_property
  def weights(self) -> dict[str, bytes]:
    """Small weight files by suffix: ours, and the first layers of a network of timm."""
    ours = self.folder / 'ours.safetensors'
    with contextlib.redirect_stdout(io.StringIO()):
      convert.main([f'--from={self.workdir}', f'--to={ours}'])
    rng = np.random.default_rng(0)
    entries = mapping.entries('timm:resnet18', 2)
    arrays = {e.name: rng.normal(size=e.shape).astype(np.float32) for e in entries if
              np.prod(e.shape) < 5000}  # fmt: skip
    npz, pth, old, script = (io.BytesIO() for _ in range(4))
    np.savez(npz, **arrays)
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    options = argparse.Namespace(model='resnet18', lr=0.1)
    torch.save({'state_dict': tensors}, pth)
    torch.save({'args': options, 'metric': np.float64(1), 'state_dict': tensors}, script)
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    import safetensors.numpy

    return {
      'ours.safetensors': ours.read_bytes(),
      'theirs.safetensors': safetensors.numpy.save(arrays),
      'a.npz': npz.getvalue(),
      'a.pth': pth.getvalue(),
      'old.pth': old.getvalue(),
      'a.caffemodel': _caffemodel(arrays),
      'a.h5': _keras(arrays),
      'script.ckpt': script.getvalue(),
      'beside.safetensors': safetensors.numpy.save(arrays),
    }

  @functools.cached_property
  def pack(self) -> pathlib.Path:
    """A pack with a few images of CIFAR-10."""
    return carry.pack(self.folder / 'pack', sources={'cifar10': self.prepared}, wheels=())[0].parent

  @functools.cached_property
  def records(self) -> pathlib.Path:
    """A directory of results with records of three kinds of measurements."""
    output = self.folder / 'results' / 'evidence' / 'gpu'
    evidence.open_directory(output, {'device': '1 x GPU'}, rehearse=False)
    spread = {'mean': 1.0, 'std': 0.1, 'median': 1.0, 'n': 2, 'values': [0.9, 1.1]}
    of = {'network': 'se_resnet50', 'mode': 'train', 'batch_size': 128}
    speed = {**of, 'framework': 'senet_jax', 'images_per_second': spread, 'ms_per_step': 1.0,
             'mfu': 0.5, 'gb_per_second': 1.0, 'of_copy_rate': 0.5, 'bytes_per_step': 10**9,
             'batch_per_device': 128}  # fmt: skip
    trained = {'row': 'cifar10_r110', 'mean': 6.0, 'std': None, 'published': 6.37,
               'difference': -0.37, 'errors': {'0': 6.0}, 'best': {'0': 5.9},
               'images_per_second': {'0': 1000.0}}  # fmt: skip
    for name, body in {
      'se_tax_r50_train': {'rows': [speed], 'se_tax': [{**of, 'percent': spread}]},
      'torch_train': {'rows': [speed, {**speed, 'framework': 'torch'}],
                      'against_torch': [{**of, 'ratio': spread}]},
      'cifar10_r110': {'rows': [trained]},
      'cifar_rate': {'rows': [], 'best': {'images_per_second': spread, 'dtype': 'bfloat16',
                                          'steps_per_dispatch': 50}, 'together': []},
    }.items():  # fmt: skip
      how = {'name': name, 'status': 'done', 'seconds': 60.0}
      files.write_json(output / f'{name}.json', {'device': '1 x GPU', 'measurement': how, **body})
    return self.folder / 'results'

  @functools.cached_property
  def prepared(self) -> pathlib.Path:
    """A packed data set of tfds, and arrays of CIFAR-10 with a few images."""
    photos = self.folder / 'photos'
    for split in ('train', 'val'):
      for name in ('cat', 'dog'):
        folder = photos / split / name
        folder.mkdir(parents=True)
        for i, data in enumerate(self.images[:3]):
          (folder / f'{i}.jpg').write_bytes(data)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      prepare.prepare('fuzzed', self.folder / 'data', image_folder=photos)
    rng = np.random.default_rng(0)
    splits = {
      split: (rng.integers(0, 256, (6, 32, 32, 3), np.uint8), np.arange(6))
      for split in ('train', 'test')
    }
    from senet_jax.data import arrays

    arrays.write_arrays(
      self.folder / 'data' / 'cifar10' / '3.0.2', 'cifar10', '3.0.2', splits, list('0123456789')
    )
    return self.folder / 'data'

  @functools.cached_property
  def coco(self) -> pathlib.Path:
    """Six photos with boxes, as both splits of COCO."""
    root = self.folder / 'coco'
    (root / 'annotations').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ('train2017', 'val2017'):
      (root / split).mkdir()
      images, annotations = [], []
      for i in range(6):
        data = self.images[i % 3]
        height, width = photo_lib.size_of(data)
        (root / split / f'{i}.jpg').write_bytes(data)
        images.append({'id': i, 'file_name': f'{i}.jpg', 'height': height, 'width': width})
        for _ in range(2):
          box = (rng.uniform(0.1, 0.4, 4) * (width, height, width, height)).tolist()
          annotations.append({
            'id': len(annotations), 'image_id': i, 'category_id': 1 + i % 2, 'bbox': box,
            'area': box[2] * box[3], 'iscrowd': i % 3 // 2,
          })  # fmt: skip
      categories = [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}]
      parts = {'images': images, 'annotations': annotations, 'categories': categories}
      files.write_json(root / 'annotations' / f'instances_{split}.json', parts)
    return root


def _keras(arrays: dict[str, np.ndarray]) -> bytes:
  import h5py

  buffer = io.BytesIO()
  with h5py.File(buffer, 'w') as file:
    file.attrs['model_config'] = json.dumps({'config': {'layers': [{'class_name': 'Conv2D'}]}})
    for i, array in enumerate(list(arrays.values())[:8]):
      file[f'model_weights/conv2d_{i}/conv2d_{i}/kernel:0'] = array
  return buffer.getvalue()


def _caffemodel(arrays: dict[str, np.ndarray]) -> bytes:
  from senet_jax.interop import caffe

  network = caffe._message_class('NetParameter')(name='net')
  for name, array in list(arrays.items())[:8]:
    layer = network.layer.add(name=name, type='BatchNorm' if array.ndim == 1 else 'Convolution')
    for _ in range(3 if array.ndim == 1 else 1):
      blob = layer.blobs.add(data=array.ravel()[:100])
      blob.shape.dim.extend([min(array.size, 100)])
  return network.SerializeToString()


# --- targets --------------------------------------------------------------------------------------


def overrides(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A command line of `senet_jax.main`: of some, the network is built too."""
  fields = dict(config_lib.flatten(config_lib.default()))
  build = rng.random() < 0.03
  given = [*_MODEL] if build else []
  names = [name for name in fields if not build or name.split('.')[0] in ('model', 'bn', 'data')]
  for _ in range(rng.integers(1, 5)):
    field = names[rng.integers(len(names))]
    value = fields[field]
    if rng.random() < 0.3:
      text = str(value)
    elif rng.random() < 0.2:
      text = mutated(rng, repr(value).encode()).decode('latin-1')
    else:
      text = _text(rng)
    if rng.random() < 0.05:
      field = mutated(rng, field.encode()).decode('latin-1')
    flag = f'--config.{field}={text}'
    if rng.random() < 0.05:
      flag = str(rng.choice([f'--config.{field}', f'--noconfig.{field}', f'--noconfig.{field}=1']))
    given.append(flag)
  if rng.random() < 0.05:
    policy = mutated(rng, b'rand-m7-mstd0.5-inc1').decode('latin-1')
    feed = rng.choice(['stream', 'device'])
    given += [f'--config.data.randaugment={policy}', f'--config.data.feed={feed}']
  if rng.random() < 0.05:
    sides = tuple(int(side) for side in rng.integers(-1, 300, rng.integers(0, 10)))
    places = tuple(round(float(x), 2) for x in rng.uniform(-1, 99, rng.integers(0, 10)))
    given += [f'--config.data.train_size={sides}', f'--config.data.train_size_boundaries={places}']
  path = str(material.configs[rng.integers(len(material.configs))])
  if rng.random() < 0.03:
    path = str(rng.choice([path + ':x', path + ':' + _text(rng), str(folder), 'x' * 5000, '\0']))
  argv = [f'--config={path}', '--workdir=x', *given]
  _begin(flags.parse(argv).config, build=build)


def _begin(config: ConfigDict, *, build: bool) -> None:
  """Makes of a configuration what a run makes of it before its first step, but for the data."""
  config_lib.check(config)
  task = tasks.task_of(config)
  tasks.check_fields(task)
  setup.check_batch(config, 1)
  if task.normalizes:
    preprocessing.TrainingTransform.create(config)
    Sizes.create(config, 50_000)
  examples = 50_000
  planned = Plan.create(config, examples)
  train = types.SimpleNamespace(split=types.SimpleNamespace(num_examples=50_000))
  feeds = Feeds(types.SimpleNamespace(size=1), train, None)
  for line in sanity.warnings(task, planned, feeds):
    assert line and '\n' not in line
  schedule = optimizer.make_schedule(config, planned.total, planned.steps_per_epoch)
  jax.eval_shape(schedule, jax.ShapeDtypeStruct((), np.int32))
  optimizer.make_optimizer(config, schedule)
  optimizer.make_plateau(config)
  planned.next_event(0)
  if build:
    check_model(config)


def configurations(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A `config.json` that somebody has edited, or a file of Python that returns strange values."""
  build = rng.random() < 0.02
  fields = config_lib.default().to_dict()
  if build:
    fields['model'] |= {'name': 'se_resnet20_cifar', 'depths': (1, 1, 1), 'width': 8}
    fields['model']['se']['ratio'] = 4
  elif rng.random() < 0.1:
    fields['model']['name'] = 'se_faster_rcnn_r50_fpn'
  changes = {}
  for _ in range(rng.integers(1, 4)):
    names = [n for n in FIELDS if not build or n.startswith(('model.', 'bn.'))]
    name = names[rng.integers(len(names))]
    changes[name] = _typed(rng, FIELDS[name])
  if rng.random() < 0.5:
    for name, value in changes.items():
      owner = fields
      *sections, leaf = name.split('.')
      for section in sections:
        owner = owner[section]
      owner[leaf] = value
    if rng.random() < 0.2:
      fields = mutated_json(rng, fields)
    (folder / 'config.json').write_bytes(_json(fields))
    config = saved.read_config(folder)
  else:
    lines = ['from senet_jax.config import default', 'nan, inf = float("nan"), float("inf")', '',
             'def get_config():', '  c = default()',
             '  with c.unlocked(), c.ignore_type():']  # fmt: skip
    lines += [f'    c.{name} = {value!r}' for name, value in changes.items()]
    if rng.random() < 0.1:
      wrong = ('del c.seed', 'c.model = 3', 'c.x = 3', 'c.model[3] = 4', 'raise SystemExit',
               'exit(0)', 'raise KeyError', 'c.se = c.model.se', 'c.seed = c', 'return [c]',
               'c.steps = 9 ** 9999', 'c.epochs = c.get_ref("seed") / 0')  # fmt: skip
      lines.append(f'    {wrong[rng.integers(len(wrong))]}')
    (folder / 'mine.py').write_text('\n'.join([*lines, '  return c']), errors='surrogatepass')
    config = reading.load(str(folder / 'mine.py'), [])
  _begin(config, build=build)


def _typed(rng: np.random.Generator, field: Field) -> Any:
  """Returns a value at the edge of what a field may have, or of another type."""
  edges = [
    value + change
    for value in field.within
    if value is not None
    for change in (0, 1, -1, 0.5, -0.5)
  ]
  values = [
    field.default, *field.choices, *edges, str(field.default), True, None, 1.5, 16.5, math.nan,
    math.inf, -math.inf, 1e20, 1e308, 5e-324, 10**12, 10**29, '9' * 5000,
    'train[:' + '9' * 5000 + ']', 'train[5:3]',
  ]  # fmt: skip
  if rng.random() < 0.5:  # else nearly all are refused for one of their values
    values = [field.default, *field.choices, *(v for v in edges if isinstance(v, field.kind))]
  value = values[rng.integers(len(values))] if rng.random() < 0.8 else strange(rng)
  if field.lengths is not None and rng.random() < 0.7:
    value = [value] * int(rng.choice([0, 1, 2, 3, field.lengths[-1], field.lengths[-1] + 1]))
    return tuple(value) if rng.random() < 0.5 else value
  return value


def _text(rng: np.random.Generator) -> str:
  """What somebody may write behind the `=`."""
  special = (
    '()', '(', '(1,', '[1,2', '{}', "('a',)", '(1,2,3)', '(-1,)', '((),)', '1_000', '9' * 5000,
    '(' * 300, '-' * 20_000 + '1', '[' * 5000, '1e400', '-1e-400', '0x10', '1' + 'j', 'b"a"', 'f""',
    '__import__("os")', 'open("x","w")', '1 if 1 else 2', '(1e9,)', '(10**9,)', '(1000000000,)',
    '(99999,99999,99999)', 'se_resnet50', 'resnet20_cifar', 'global', 'ghost', 'stream', 'cosine',
    'train[:0%]', 'train[5:3]', 'train[:' + '9' * 5000 + ']',
  )  # fmt: skip
  kind = rng.integers(4)
  if kind == 0:
    return special[rng.integers(len(special))]
  if kind == 1:
    return _TEXTS[rng.integers(len(_TEXTS))]
  if kind == 2:
    return str(_NUMBERS[rng.integers(len(_NUMBERS))])
  return str(float(rng.choice([0.1, 0.5, 2.0, -0.1, 1e-300, 1e300, np.nan, np.inf])))


def workdirs(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A workdir, to predict from, or to be resumed."""
  workdir = folder / 'run'
  shutil.copytree(material.workdir, workdir)
  if rng.random() < 0.4:
    _other_host(rng, workdir)
  else:
    for _ in range(rng.integers(1, 3)):
      _damage_tree(rng, workdir, material.outside)
  checkpoint = str(rng.choice(['best', 'latest', '1', '2']))
  if rng.random() < 0.05:
    checkpoint = str(rng.choice(['3', '-1', '0x1', '²', '', '9' * 5000]))
  if rng.random() < 0.7:
    saved.load(workdir, checkpoint, material.mesh)
    return
  with Checkpoints(workdir) as checkpoints:
    if checkpoints.steps():
      checkpoints.restore_latest(material.abstract, lambda line: None)


def _other_host(rng: np.random.Generator, workdir: pathlib.Path) -> None:
  """Makes another `host` item of a checkpoint: with a checksum that fits, or without one."""
  steps = sorted(workdir.glob('checkpoints/*/host'))
  path = steps[rng.integers(len(steps))] / damage.HOST_FILE
  host = json.loads(path.read_bytes())
  del host[damage._SEAL]
  for _ in range(rng.integers(1, 4)):
    host = mutated_json(rng, host)
  if isinstance(host, dict) and rng.random() < 0.8:
    host[damage._SEAL] = damage._checksum(host)
    if rng.random() < 0.3:  # those that are kept beside it are the same
      (path.parents[1] / 'metrics' / 'metrics').write_bytes(_json(host.get(damage._METRICS)))
  path.write_bytes(_json(host))


def _damage_tree(rng: np.random.Generator, root: pathlib.Path, outside: pathlib.Path) -> None:
  """Damages, removes, replaces or adds one thing in a tree of files."""
  paths = sorted(path for path in root.rglob('*') if not path.is_symlink())
  if not paths:
    return
  path = paths[rng.integers(len(paths))]
  texts = [p for p in paths if p.is_file() and p.suffix in ('.json', '.jsonl')]
  if texts and rng.random() < 0.4:
    path = texts[rng.integers(len(texts))]
  kind = rng.integers(8)
  if kind <= 2 and path.is_file():
    data = path.read_bytes()
    try:
      if path.suffix == '.jsonl':
        lines = data.splitlines(keepends=True)
        at = int(rng.integers(len(lines)))
        lines[at] = _json(mutated_json(rng, json.loads(lines[at]))) + b'\n'
        path.write_bytes(b''.join(lines))
      else:
        path.write_bytes(_json(mutated_json(rng, json.loads(data))))
    except ValueError:
      path.write_bytes(mutated(rng, data))
  elif kind == 3 and path.is_file():
    path.write_bytes(mutated(rng, path.read_bytes()))
  elif kind == 4:
    _remove(path)
  elif kind == 5:
    was_file = path.is_file()
    _remove(path)
    if was_file and rng.random() < 0.5:
      path.mkdir()
    else:
      to = [outside, outside / 'secret', outside / 'nothing', path.parent, path]
      path.symlink_to(to[rng.integers(len(to))])
  elif kind == 6:
    other = paths[rng.integers(len(paths))]
    if path.is_file() and other.is_file() and path != other:
      shutil.copy(other, path)
  else:
    names = ('3', '-1', '007', 'x', '9.orbax-checkpoint-tmp', '9.orbax-checkpoint-tmp-1', '1' * 30,
             'metrics', 'default')  # fmt: skip
    new = (path if path.is_dir() else path.parent) / str(rng.choice(names))
    if not new.exists() and not new.is_symlink():
      if rng.random() < 0.5:
        new.symlink_to(outside)
      elif rng.random() < 0.5:
        new.mkdir()
      else:
        new.write_bytes(rng.bytes(10))


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def finished_runs(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """What runs say of themselves, for the table of a study, a file of results, or to go on."""
  root = folder / 'finished'
  shutil.copytree(material.finished, root)
  for _ in range(rng.integers(1, 4)):
    _damage_tree(rng, root / 'row', material.outside)
  workdirs = [root / 'row' / f'seed{seed}' for seed in range(2)]
  kind = rng.integers(4)
  if kind == 0:
    row = Row('row', str(ROOT / 'configs/digits_se_r20.py'), _MODEL)
    study = Study('Fuzzed', (row,), (0, 1))
    (folder / 'rates.json').write_bytes(_json(mutated_json(rng, _RATES)))
    rate = step_rates.read(folder / 'rates.json') if rng.random() < 0.5 else None
    rows = [studies.results(row, studies.runs_of(study, root), rate)]
    study_table.compare(rows, {'row': None})
    assert study_table.markdown(study, rows) and study_table.csv(rows)
  elif kind == 1:
    results.record(folder / 'results' / 'made.json', workdirs, '--config=x', '')
  elif kind == 2:
    results.draw(folder / 'made.png', workdirs, 'x', '')
  else:
    with Reporter(workdirs[0], str, tensorboard=False) as reporter:
      reporter.resume(lambda record: record['step'] <= 1)
    assert all(record['step'] <= 1 for record in read_records(reporter.path))


def photos(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A photo, to be named, searched for objects, packed, or trained on."""
  data = material.images[rng.integers(len(material.images))]
  data = _other_image(rng, data) if rng.random() < 0.3 else mutated(rng, data)
  path = folder / 'photo.jpg'
  path.write_bytes(data)
  how = rng.random()
  if how < 0.4:
    material.predictor.top_k([path])
  elif how < 0.5:
    (found,) = material.detector.detect(path)
    showing.Pictures(folder / 'found', [str(path)]).write(str(path), found)
  elif how < 0.97:
    packed._read(path)
  else:
    for split in ('train', 'val'):
      for i, name in enumerate(('cat', 'dog')):
        (folder / split / name).mkdir(parents=True)
        for j in range(2):
          shutil.copy(path, folder / split / name / f'{j}.png')
        (folder / split / name / 'good.jpg').write_bytes(material.images[i])
    if rng.random() < 0.5:
      _damage_tree(rng, folder, material.outside)
    _stream(material, folder, 'image_folder')


def requests(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A request to the page or its API; a refusal is JSON of one line."""
  data = material.images[rng.integers(len(material.images))]
  if rng.random() < 0.7:
    data = _other_image(rng, data) if rng.random() < 0.3 else mutated(rng, data)
  form = 'multipart/form-data; boundary='
  kinds = ('application/octet-stream', 'text/html', '', form + 'b', form, f'{form}b; charset=x')
  kind = str(rng.choice(kinds, p=[0.3, 0.05, 0.05, 0.5, 0.05, 0.05]))
  if kind.startswith('multipart') and rng.random() < 0.9:
    part = b'Content-Disposition: form-data; name="photo"; filename="../../outside"\r\n\r\n'
    data = b'--b\r\n' + part + data + b'\r\n--b--\r\n'
    if rng.random() < 0.5:
      data = mutated(rng, data)
  if rng.random() < 0.02:
    data = bytes(2 * 2**20)
  headers = {'content-type': kind, 'host': str(rng.choice(['localhost', '127.0.0.1:1', '[::1]']))}
  if rng.random() < 0.1:
    hosts = (
      '',
      'x',
      '[',
      ':',
      '@',
      'localhost@x',
      'x' * 5000,
      '127.0.0.1.x',
      'http://x',
      '1.2.3.4',
    )
    headers[str(rng.choice(['host', 'origin']))] = str(rng.choice(hosts))
  if rng.random() < 0.1:
    headers['content-length'] = str(rng.choice(['-1', 'x', '1e9', '9' * 30, '0', '²']))
  path = '/api/predict'
  if rng.random() < 0.2:
    path = str(
      rng.choice(['/', '/docs', '/static/' + '../' * 3 + 'setup.cfg', '/static/%00', '/api/model'])
    )
  query = {}
  if rng.random() < 0.3:
    query[str(rng.choice(['top_k', 'gates', 'x']))] = _text(rng).encode(errors='replace')
  method = str(rng.choice(['POST', 'GET', 'HEAD', 'PUT'], p=[0.85, 0.05, 0.05, 0.05]))
  answer = asyncio.run(_asked(material.page, method, path, query, headers, data))
  if answer.status_code >= 400 and method != 'HEAD':
    (error,) = answer.json().values()
    assert answer.status_code < 500 and '\n' not in error
    raise UserError(error)


async def _asked(page, method: str, path: str, query: dict, headers: dict, data: bytes):
  transport = httpx2.ASGITransport(page)  # which raises what the application raises
  headers = [(name.encode(), value.encode()) for name, value in headers.items()]
  async with httpx2.AsyncClient(transport=transport, base_url='http://x') as client:
    return await client.request(method, path, params=query, headers=headers, content=data)


def _other_image(rng: np.random.Generator, data: bytes) -> bytes:
  """An image whose header says another size than it has: of few rows, or of a billion pixels."""
  sides = (0, 1, 8, 9, 65, 3000, 16_000, 2**15, 2**16 - 1, 2**31 - 1)
  height, width = (int(rng.choice(sides)) for _ in range(2))
  if data[:2] == b'\xff\xd8' and rng.random() < 0.8:
    at = max(data.find(b'\xff\xc0'), data.find(b'\xff\xc2'))  # the frame header of a JPEG
    sizes = struct.pack('>HH', height % 2**16, width % 2**16)
    return data[: at + 5] + sizes + data[at + 9 :]
  if rng.random() < 0.2:
    return b'GIF89a' + struct.pack('<HH', height % 2**16, width % 2**16) + data[10:]
  kinds = ((0, 1), (2, 3), (3, 1), (4, 2), (6, 4), (7, 9))
  kind, channels = kinds[rng.integers(len(kinds))]
  depth, interlaced = int(rng.choice([1, 8, 16, 7])), int(rng.choice([0, 1], p=[0.8, 0.2]))
  header = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, interlaced)
  rows = bytes(min((1 + width * channels) * int(rng.choice([0, 1, 3, height])), 10**7))
  chunks = [(b'IHDR', header), (b'IDAT', zlib.compress(rows, 1)), (b'IEND', b'')]
  if rng.random() < 0.3:
    text = zlib.compress(bytes(10**7), 9)
    named = ((b'zTXt', b'x\0\0' + text), (b'iCCP', b'x\0\0' + text), (b'PLTE', bytes(7)),
             (b'tRNS', bytes(300)), (b'eXIf', bytes(9)), (b'acTL', b'\x80' + bytes(7)))  # fmt: skip
    chunks.insert(int(rng.integers(1, 3)), named[rng.integers(len(named))])
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
    for name, body in chunks
  )


def _stream(material: Material, folder: pathlib.Path, name: str) -> None:
  """A batch of each split, as a run takes it."""
  config = material.config.copy_and_resolve_references()
  with config.unlocked():
    config.data.name, config.data.dir, config.data.eval_split = name, str(folder), 'val'
  config.model.num_classes = 2
  feeds.training_feed(config, material.mesh).inputs(0, 1)
  feeds.evaluation_feed(config, 'val', material.mesh).inputs(0)


def weights(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A file with weights, for tools.convert."""
  names = list(material.weights)
  name = names[rng.integers(len(names))]
  data = material.weights[name]
  if rng.random() < 0.5:
    data = mutated(rng, data)
  else:
    kind = name.rpartition('.')[2]
    data = {
      'safetensors': _other_safetensors,
      'npz': _other_npz,
      'pth': lambda *given: (_other_pickle, _other_archive)[rng.integers(2)](*given),
      'caffemodel': _other_caffemodel,
      'h5': mutated,
      'ckpt': _other_archive,
    }[kind](rng, data)
  if rng.random() < 0.03:
    name = str(rng.choice(['a.bin', 'a.pt', 'a.npz', 'a.pth', 'a.caffemodel', 'a.txt']))
  path = folder / name
  path.write_bytes(data)
  if name.startswith('beside'):
    path.write_bytes(material.weights[name])
    (folder / 'config.json').write_bytes(_json(mutated_json(rng, _OF_TIMM)))
  arguments = [f'--from={path}', f'--to={folder / "out.safetensors"}']
  if not name.startswith('ours'):
    arguments.append('--model=resnet18')
  with contextlib.redirect_stdout(io.StringIO()):
    convert.main(arguments)


def exported_files(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A file of tools.export with its card, inside or beside it; one with another card runs."""
  data, card = material.exported
  kind = rng.integers(3)
  path = folder / ('net.tflite' if kind == 2 else 'net.onnx')
  if kind == 0:
    path.write_bytes(mutated(rng, data))
  elif kind == 1:
    model = onnx.load_from_string(data)
    key = str(rng.choice([*card]))
    value = mutated_json(rng, card[key])
    text = value if isinstance(value, str) else json.dumps(value)
    props = {entry.key: entry.value for entry in model.metadata_props}
    props[key] = text.encode(errors='replace').decode()
    onnx.helper.set_model_props(model, props)
    path.write_bytes(model.SerializeToString())
    file_predictor.load(path, 'onnxruntime').probabilities(np.zeros((1, 8, 8, 3), np.uint8))
  else:
    path.write_bytes(b'\x1c\x00\x00\x00TFL3')
    beside = mutated(rng, _json(card)) if rng.random() < 0.5 else _json(mutated_json(rng, card))
    (folder / 'net.tflite.json').write_bytes(beside)
  formats.load(formats.of(path)).read_card(path)


def _other_safetensors(rng: np.random.Generator, data: bytes) -> bytes:
  """With another header, whose length is right."""
  length = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + length])
  metadata = header.get('__metadata__', {})
  if metadata and rng.random() < 0.7:
    key = ('config', 'class_names', 'num_classes')[rng.choice(3, p=[0.8, 0.1, 0.1])]
    metadata[key] = json.dumps(mutated_json(rng, json.loads(metadata[key])))
  else:
    header = mutated_json(rng, header)
  new = _json(header)
  return len(new).to_bytes(8, 'little') + new + data[8 + length :]


def _other_npz(rng: np.random.Generator, data: bytes) -> bytes:
  """With one array whose header lies, or that is no array of numbers."""
  out = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w') as new:
    names = old.namelist()
    wrong = names[rng.integers(len(names))]
    for name in names:
      content = old.read(name)
      if name == wrong:
        shape = tuple(_NUMBERS[i] for i in rng.integers(len(_NUMBERS), size=rng.integers(4)))
        kind = str(rng.choice(['<f4', '<f8', '>f4', '|O', '<U9', '<i4', '|b1', '<c8', '<M8', 'x']))
        header = {'descr': kind, 'fortran_order': bool(rng.integers(2)), 'shape': shape}
        text = repr(header if rng.random() < 0.9 else strange(rng)).encode() + b'\n'
        content = b'\x93NUMPY\1\0' + len(text).to_bytes(2, 'little') + text + content[128:]
        name = str(rng.choice([name, '../outside.npy', '/etc/x.npy', 'x']))
      new.writestr(name, content, zipfile.ZIP_DEFLATED if rng.random() < 0.5 else None)
  return out.getvalue()


class _Runs:
  """What would write a file if it were unpickled."""

  def __reduce__(self):
    return os.mkdir, ('unpickled',)


def _other_pickle(rng: np.random.Generator, data: bytes) -> bytes:
  """Other things that torch can save, or Python."""
  tensors = torch.load(io.BytesIO(data), weights_only=True)
  tensors = dict(tensors.get('state_dict', tensors))
  name = list(tensors)[rng.integers(len(tensors))]
  kinds = (torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.complex64, torch.float16)
  dtype = kinds[rng.integers(len(kinds))]
  choices: Sequence[Callable[[], Any]] = (
    lambda: torch.zeros(1, dtype=dtype).expand(10**12),
    lambda: torch.zeros(3, dtype=dtype),
    lambda: torch.zeros((0, 2**40)),
    lambda: torch.sparse_coo_tensor(
      torch.zeros((1, 1), dtype=torch.int64), torch.ones(1), (10**12,)
    ),
    lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    lambda: torch.zeros(3, requires_grad=True),
    lambda: torch.nn.Parameter(torch.zeros(3)),
    lambda: torch.zeros(3, device='meta'),
    lambda: strange(rng),
    lambda: np.zeros(3),
    _Runs,
  )
  value = choices[rng.integers(len(choices))]()
  key = name if rng.random() < 0.8 else [1, None, ('a',), 'module.x', b'x'][rng.integers(5)]
  tensors[key] = value
  whole = tensors
  if rng.random() < 0.3:
    wrapped = [{'state_dict': tensors}, {'model': {}}, [tensors], tensors[name], {'model': value}]
    whole = wrapped[rng.integers(len(wrapped))]
  out = io.BytesIO()
  with warnings.catch_warnings(action='ignore'):
    if rng.random() < 0.1:
      pickle.dump(_Runs(), out)
    else:
      torch.save(whole, out, _use_new_zipfile_serialization=bool(rng.integers(2)))
  return out.getvalue()


def _other_archive(rng: np.random.Generator, data: bytes) -> bytes:
  """With one member that is another, in an archive whose checksums are right."""
  if not zipfile.is_zipfile(io.BytesIO(data)):
    return mutated(rng, data)
  out = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w') as new:
    names = old.namelist()
    pickles = [name for name in names if name.endswith('.pkl')]
    wrong = str(rng.choice(pickles if rng.random() < 0.6 else names))
    for name in names:
      content = old.read(name)
      if name == wrong:
        if rng.random() < 0.1:
          continue
        content = mutated(rng, content)
        if rng.random() < 0.2:
          name = str(rng.choice(['../outside', 'archive/version', 'x/data.pkl', name + '0']))
      new.writestr(name, content, zipfile.ZIP_DEFLATED if rng.random() < 0.1 else None)
  return out.getvalue()


def _other_caffemodel(rng: np.random.Generator, data: bytes) -> bytes:
  """With another blob."""
  from senet_jax.interop import caffe

  network = caffe._message_class('NetParameter').FromString(data)
  blob = network.layer[rng.integers(len(network.layer))].blobs[0]
  blob.shape.dim[:] = [
    _NUMBERS[i] for i in rng.integers(14, size=rng.choice([0, 1, 2, 3, 4, 5, 65]))
  ]
  if rng.random() < 0.5:
    del blob.data[int(rng.integers(3)) :]
  if rng.random() < 0.2:
    blob.ClearField('shape')
    blob.num = blob.channels = blob.height = blob.width = _NUMBERS[rng.integers(10)]
  if rng.random() < 0.2:
    network.layers.add()
  return network.SerializeToString()


def archives(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """An archive of ImageNet, or one in place of CIFAR's, which here has its MD5."""
  if rng.random() < 0.5:
    _imagenet(rng, material, folder)
    return
  name = 'cifar-10-python.tar.gz'
  data = _tar(rng, material, ['cifar-10-batches-py/data_batch_1', 'x/test_batch', 'test_batch'])
  packer = zlib.compressobj(wbits=31)
  data = packer.compress(data) + packer.flush()
  (folder / name).write_bytes(mutated(rng, data) if rng.random() < 0.3 else data)
  whole = cifar.LAYOUTS['cifar10']
  if rng.random() < 0.9:
    md5 = hashlib.md5((folder / name).read_bytes()).hexdigest()
    cifar.LAYOUTS['cifar10'] = dataclasses.replace(whole, archives={name: md5})
  (folder / 'out').mkdir()
  try:
    cifar.unpack('cifar10', folder, folder / 'out')
  except (tarfile.TarError, EOFError, OSError, zlib.error, KeyError, RecursionError) as error:
    raise UserError(f'what tarfile says is right here, too: {error}') from error
  finally:
    cifar.LAYOUTS['cifar10'] = whole


def _imagenet(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  images = ('n01440764_1.JPEG', 'n01440764_2.JPEG', '../n01440764_3.JPEG')
  train = _tar(rng, material, images)
  train = _tar(rng, material, ['n01440764.tar', 'n01443537.tar', '/n01484850.tar'], train)
  val = _tar(rng, material, [f'ILSVRC2012_val_0000000{i}.JPEG' for i in range(1, 5)])
  for file, data in zip(imagenet.SIZES, (train, val), strict=True):
    (folder / file).write_bytes(mutated(rng, data) if rng.random() < 0.3 else data)
  if rng.random() < 0.05:
    (folder / list(imagenet.SIZES)[rng.integers(2)]).unlink()
  builder = imagenet.local_builder(folder, folder / 'data', partial=rng.random() < 0.95)
  for examples in builder._split_generators(None).values():
    collections.deque(examples, maxlen=0)


def _tar(
  rng: np.random.Generator, material: Material, names: Sequence[str], content: bytes | None = None
) -> bytes:
  """An archive with these files, and mostly something that should not be in it."""
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode='w') as tar:
    for name in names:
      data = content or material.images[rng.integers(4)]
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
    if rng.random() < 0.4:
      places = ('../escaped', str(material.outside / 'escaped'), 'a/../../../escaped', '', '.', '/',
                names[0], 'x' * 300, 'n01440764.tar')  # fmt: skip
      kinds = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
               tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE)  # fmt: skip
      info = tarfile.TarInfo(places[rng.integers(len(places))])
      info.type = kinds[rng.integers(len(kinds))]
      info.linkname = places[rng.integers(len(places))]
      info.mode = int(rng.choice([0, 0o644, 0o4777]))
      tar.addfile(info, io.BytesIO(b''))
      inside = tarfile.TarInfo(f'{info.name}/inside')  # through a link, if it is one
      inside.size = 1
      tar.addfile(inside, io.BytesIO(b'x'))
  return out.getvalue()


def data_sets(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A prepared data set: arrays, or records of tfds."""
  name = 'cifar10' if rng.random() < 0.5 else 'fuzzed'
  shutil.copytree(material.prepared / name, folder / name)
  if name == 'fuzzed' and rng.random() < 0.7:
    (_other_description, _other_record)[rng.integers(2)](rng, folder / name)
  else:
    _damage_tree(rng, folder / name, material.outside)
  if name == 'cifar10':
    datasets.load(name, str(rng.choice(['train', 'test', 'train[:50%]', 'test[2:4]'])), str(folder))
    datasets.class_names(name, str(folder))
  else:
    if rng.random() < 0.2:
      _hostile_index(rng, folder / name)
    _stream(material, folder, name)


def _other_description(rng: np.random.Generator, root: pathlib.Path) -> None:
  """Lets tfds read something else of the records: other lengths of shards, types, or classes."""
  [path] = root.rglob(str(rng.choice(['features.json', 'dataset_info.json'])))
  found = json.loads(path.read_bytes())
  own = 'tensorflow_datasets.core.features.'
  kinds = ('text_feature.Text', 'tensor_feature.Tensor', 'scalar.Scalar', 'image_feature.Image',
           'dataset_feature.Dataset', 'features_dict.FeaturesDict', 'os.system', '')  # fmt: skip
  owners = [value for value in _dicts(found) if value.keys() & {'pythonClassName', 'shardLengths'}]
  owner = owners[rng.integers(len(owners))]
  if rng.random() < 0.4:
    found = mutated_json(rng, found)
  elif 'shardLengths' in owner:
    numbers = [str(number) for number in _NUMBERS]
    owner['shardLengths'] = [str(rng.choice(numbers)) for _ in range(rng.integers(4))]
    if rng.random() < 0.5:
      owner['shardLengths'] = near(rng, owner['shardLengths'])
  else:
    name = str(rng.choice(kinds))
    owner['pythonClassName'] = rng.choice([own, '']) + name if rng.random() < 0.8 else strange(rng)
  path.write_bytes(_json(found))


def _dicts(value: Any) -> Iterator[dict]:
  if isinstance(value, dict):
    yield value
    value = list(value.values())
  if isinstance(value, list):
    for part in value:
      yield from _dicts(part)


def _other_record(rng: np.random.Generator, root: pathlib.Path) -> None:
  """Turns bits of a file of records, or writes another record whose checksums are right."""
  paths = sorted(root.rglob('*.tfrecord*'))
  path = paths[rng.integers(len(paths))]
  data = bytearray(path.read_bytes())
  length = int.from_bytes(data[:8], 'little')
  if rng.random() < 0.5:
    for _ in range(rng.integers(1, 4)):
      end = len(data) if rng.random() < 0.3 else int(rng.choice([12, 12 + length, 16 + length]))
      data[end - 1 - int(rng.integers(min(end, 40)))] ^= 1 << rng.integers(8)
  else:
    record = mutated(rng, bytes(data[12 : 12 + length]))
    head = struct.pack('<Q', len(record))
    data[: 16 + length] = head + _masked(head) + record + _masked(record)
  path.write_bytes(data)


def _masked(data: bytes) -> bytes:
  """The CRC that TFRecord puts behind data."""
  crc = google_crc32c.value(data)
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def _hostile_index(rng: np.random.Generator, root: pathlib.Path) -> None:
  """Puts one beside the records that says other things of them."""
  for records in root.rglob('*.tfrecord*'):
    index = {name: np.zeros(6, np.int64) for name in ('shard', 'offset', 'length')}
    name = str(rng.choice(list(index)))
    number = _NUMBERS[rng.integers(14)]
    index[name] = [
      np.full(6, number), np.zeros(6), np.zeros((6, 2), np.int64), np.array('x'), np.zeros(0)
    ][rng.integers(5)]  # fmt: skip
    split = 'train' if 'train' in records.name else 'val'
    np.savez(records.parent / f'{split}.index.npz', sizes=[records.stat().st_size], **index)


def boxes(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A folder of COCO, its archives, or detections that another program has found."""
  root, kind = folder / 'coco', rng.random()
  shutil.copytree(material.coco, root)
  config = _of_detector(root)
  path = root / 'annotations' / 'instances_train2017.json'
  if kind < 0.6:
    instances = json.loads(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
      instances = json.loads(_json(mutated_json(rng, instances)))
    path.write_bytes(_json(instances))
  elif kind < 0.7:
    path.write_bytes(mutated(rng, path.read_bytes()))
  elif kind < 0.85:
    _damage_tree(rng, root, material.outside)
  elif kind < 0.93:
    _coco_archives(rng, root, folder)
  config.data.max_faulty = int(rng.choice([0, 10, 1000]))
  feed = DetectionFeed.create(config, material.mesh)
  collections.deque(itertools.islice(feed.stream.batches(0), 3), 0)
  evaluated = DetectionEvalFeed.create(config, 'train[:80%]', material.mesh)
  collections.deque(evaluated.stream.batches(0, len(evaluated)), 0)
  known, found = feed.split.annotations, []
  for i in range(len(known)):
    for x1, y1, x2, y2 in known.boxes[known.of(i)].tolist():
      found.append({
        'image_id': int(known.image_ids[i]), 'category_id': known.category_ids[0],
        'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': float(rng.random()),
      })  # fmt: skip
  text = _json(mutated_json(rng, found) if rng.random() < 0.4 else found)
  (folder / 'found.json').write_bytes(mutated(rng, text) if rng.random() < 0.2 else text)
  average_precision.judge(known, detections.read(folder / 'found.json', known))


def _of_detector(folder: pathlib.Path) -> ConfigDict:
  config = config_lib.default()
  config.model.name, config.batch_size = 'faster_rcnn_r50_fpn', 2
  config.data.name, config.data.dir = 'coco', str(folder)
  config.data.shorter_side, config.data.longer_side = 32, 64
  return config


def _coco_archives(rng: np.random.Generator, root: pathlib.Path, folder: pathlib.Path) -> None:
  """Unpacks archives of what is in `root`, and of what should not be, in its place."""
  (folder / 'zips').mkdir()
  for archive in coco_files.ARCHIVES:
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w', int(rng.choice([0, 8, 12, 14]))) as zipped:
      for path in sorted((root / archive.folder).glob('*')):
        zipped.write(path, f'{archive.folder}/{path.name}')
      for name in ('../escaped', '/escaped', 'val2017/../../escaped', 'train2017/7.jpg'):
        if rng.random() < 0.2:
          zipped.writestr(name, b'x')
    data = content.getvalue()
    (folder / 'zips' / archive.file).write_bytes(mutated(rng, data) if rng.random() < 0.5 else data)
  shutil.rmtree(root)
  with contextlib.redirect_stdout(io.StringIO()):
    prepare.prepare('coco', folder, folder / 'zips', partial=True)


def packs(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """A pack for a machine without network, damaged on the way or made by a stranger."""
  shutil.copytree(material.pack, folder / 'pack')
  _damage_tree(rng, folder / 'pack', material.outside)
  index = folder / 'pack' / 'part1' / 'pack.json'
  with contextlib.suppress(Exception):  # whatever is left of it
    if rng.random() < 0.7:  # a stranger's digests are right
      found = json.loads(index.read_text())
      for name, entry in found['files'].items():
        data = (folder / 'pack' / entry['part'] / name).read_bytes()
        entry['sha256'] = hashlib.sha256(data).hexdigest()
      index.write_text(json.dumps(found))
  if carry.holds(folder / 'pack', 'cifar10'):
    carry.read_pack(folder / 'pack', 'cifar10')


def evidence_records(rng: np.random.Generator, material: Material, folder: pathlib.Path) -> None:
  """Records of measurements, to go on with or to make tables of."""
  shutil.copytree(material.records, folder / 'results')
  output = folder / 'results' / 'evidence' / 'gpu'
  _damage_tree(rng, output, material.outside)
  machine = {'device': '1 x GPU'}
  if output.is_dir() and rng.random() < 0.5:
    evidence.open_directory(output, machine, rehearse=False)
    context = plan.Context(output, False, machine)
    for measurement in plan.MEASUREMENTS:
      context.record(measurement.name)
    return
  evidence_tables.details(folder / 'results')
  evidence_tables.overview(folder / 'results')


# Inputs of each in a hundred, many where one takes a millisecond; and the material that it takes,
# which is made before, so that a mistake in here is not taken for a refusal.
TARGETS = {
  overrides: (12, ('configs',)),
  configurations: (10, ()),
  workdirs: (10, ('workdir', 'abstract')),
  finished_runs: (4, ('finished', 'config')),
  photos: (12, ('images', 'predictor', 'detector', 'config')),
  requests: (4, ('images', 'page')),
  weights: (10, ('weights',)),
  exported_files: (4, ('exported',)),
  archives: (8, ('images',)),
  data_sets: (8, ('prepared', 'config')),
  boxes: (8, ('coco',)),
  packs: (5, ('pack',)),
  evidence_records: (5, ('records',)),
}


# --- the campaign ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Count:
  """What came of the inputs of a target."""

  inputs: int = 0
  refused: int = 0
  accepted: int = 0
  findings: int = 0
  slowest_s: float = 0.0


class Campaign:
  """Hands inputs over, each in a folder of its own, and watches what happens around it.

  Attributes:
    counts: by target.
    found: descriptions of the first finding of each kind.
  """

  def __init__(self, seed: int = 0, seconds: float = 20.0, gigabytes: float = 2.0):
    """Inputs depend on `seed`; each may take so many `seconds` and `gigabytes`."""
    self.seed, self.seconds, self.most = seed, seconds, int(gigabytes * 2**30)
    self.counts = {target.__name__: Count() for target in TARGETS}
    self.found: dict[str, str] = {}

  @contextlib.contextmanager
  def opened(self) -> Iterator['Campaign']:
    """Within it inputs can be handed over; works in a temporary directory, which is removed."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix='fuzz_') as base:
      self._base = pathlib.Path(base).resolve()
      (self._base / 'cwd').mkdir()
      self._material = Material(self._base)
      os.chdir(self._base / 'cwd')
      handler = signal.signal(signal.SIGALRM, self._too_slow)
      try:
        yield self
      finally:
        signal.signal(signal.SIGALRM, handler)
        os.chdir(before)

  def run(self, inputs: int, say: Callable[[str], None] = lambda line: None) -> None:
    """Hands over `inputs` of all targets, by their shares."""
    for target, (share, needs) in TARGETS.items():
      count = max(inputs * share // 100, 1)
      self.make(needs)
      for start in range(0, count, 100):
        before = self._around()
        for i in range(start, min(start + 100, count)):
          self.hand_over(target, i)
        after = self._around()
        for path in sorted(before.keys() ^ after.keys() | {
          path for path in before if path in after and before[path] != after[path]
        }):  # fmt: skip
          self._note(target, f'inputs {start} and up', f'changed {path}', '')
      counted = self.counts[target.__name__]
      say(f'{target.__name__}: {dataclasses.asdict(counted)}')

  def make(self, needs: Sequence[str]) -> None:
    """Makes material, so that it takes no time of the first input that needs it."""
    for name in needs:
      getattr(self._material, name)

  def hand_over(self, target: Callable, i: int, *, show: bool = False) -> None:
    """Hands over input `i` of a target.

    Args:
      target: one of `TARGETS`.
      i: its number, which with the seed says what it is.
      show: raise what it raises.
    """
    name = target.__name__
    rng = np.random.default_rng([self.seed, zlib.crc32(name.encode()), i])
    counted = self.counts[name]
    counted.inputs += 1
    folder = self._base / 'input'
    folder.mkdir()
    _reset_peak()
    start, memory = time.monotonic(), _memory()
    # Where Python code is not reached any more, the process ends, and says where it was.
    faulthandler.dump_traceback_later(60 + 3 * self.seconds, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_REAL, self.seconds)
    try:
      try:
        target(rng, self._material, folder)
      finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
      counted.accepted += 1
    except (Exception, TooSlow) as error:
      if show:
        raise
      if _is_one_line(error) and str(error).strip():
        counted.refused += 1
      else:
        self._note(target, f'input {i}', _where(error), traceback.format_exc())
    counted.slowest_s = max(counted.slowest_s, round(time.monotonic() - start, 3))
    if _memory() - memory > self.most:
      self._note(target, f'input {i}', f'{(_memory() - memory) / 2**30:.1f} GiB of memory', '')
    # A folder that may not be entered is the input's doing, too.
    shutil.rmtree(folder, onerror=lambda remove, path, _: (os.chmod(folder, 0o700), remove(path)))

  def _note(self, target: Callable, which: str, what: str, details: str) -> None:
    self.counts[target.__name__].findings += 1
    if f'{target.__name__}: {what}' not in self.found:
      self.found[f'{target.__name__}: {what}'] = which
      print(f'FINDING {target.__name__}, {which}: {what}\n{details}', file=sys.stderr, flush=True)

  def _around(self) -> dict[str, Any]:
    """All that no input may change: path -> what it holds."""
    found = {}
    for path in self._base.rglob('*'):
      found[str(path)] = path.read_bytes() if path.is_file() else path.lstat().st_mode
    # Beside the base others write, too: only what our inputs would call theirs.
    found |= {str(path): True for path in self._base.parent.glob('*escaped*')}
    return found

  def _too_slow(self, *_) -> None:
    raise TooSlow(f'more than {self.seconds} s')


def _is_one_line(error: BaseException) -> bool:
  """Whether the commands print this as one line, and exit with status 2."""
  if isinstance(error, OSError):
    return error.errno in cli._USER_OS_ERRORS
  return isinstance(error, UserError)


def _where(error: BaseException) -> str:
  """The kind of an error and the place in this project where it came from."""
  frames = traceback.extract_tb(error.__traceback__)
  own = [f for f in frames if 'senet_jax/' in f.filename and 'tests/' not in f.filename]
  place = own[-1] if own else frames[-1]
  return f'{type(error).__name__} in {pathlib.Path(place.filename).name}:{place.name}'


def _reset_peak() -> None:
  with contextlib.suppress(OSError):
    pathlib.Path('/proc/self/clear_refs').write_text('5')


def _memory() -> int:
  """Bytes: the most that this process had in memory since `_reset_peak`."""
  try:
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) * 1024
  except (OSError, StopIteration):
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argv: list[str]) -> int:
  """Runs the campaign; returns 1 if there is a finding."""
  parser = cli.Parser('tests.campaigns.fuzz', __doc__)
  parser.add_argument('--inputs', type=int, default=10_000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--seconds', type=float, default=20.0, help='an input may take')
  parser.add_argument('--gigabytes', type=float, default=2.0, help='an input may take')
  parser.add_argument('--only', metavar='TARGET:NUMBER', help='one input, with its traceback')
  parser.add_output()
  args = parser.parse_args(argv)
  campaign = Campaign(args.seed, args.seconds, args.gigabytes)
  start = time.monotonic()
  with campaign.opened():
    if args.only:
      return _again(campaign, args)
    campaign.run(args.inputs, lambda line: print(line, flush=True))
  counts = {name: dataclasses.asdict(count) for name, count in campaign.counts.items()}
  total = {key: sum(c[key] for c in counts.values()) for key in ('inputs', 'refused', 'accepted')}
  found = {
    **total,
    'findings': campaign.found,
    'targets': counts,
    'wall_time_s': round(time.monotonic() - start, 1),
  }
  print(json.dumps(found, indent=2))
  if args.output:
    head = summary.record_head('Damaged and hostile inputs, in one process', 'x', argv)
    head['command'] = 'python -m tests.campaigns.fuzz ' + ' '.join(argv)
    limits = {'seconds_an_input': args.seconds, 'gigabytes_an_input': args.gigabytes}
    files.write_json(args.output, {**head, **limits, **found})
  return 1 if campaign.found else 0


def _again(campaign: Campaign, args: argparse.Namespace) -> int:
  name, _, number = args.only.partition(':')
  [target] = [target for target in TARGETS if target.__name__ == name]
  campaign.make(TARGETS[target][1])
  campaign.hand_over(target, int(number), show=True)
  print('accepted')
  return 0


if __name__ == '__main__':
  cli.run(main)
