# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Squeeze-and-excitation in five minutes
#
# [Open in Colab](https://colab.research.google.com/)
#
# This notebook trains an SE-ResNet-20, looks at what it predicts, and then teaches a trained
# network to tell **your own photos** apart. It runs on whatever there is: a TPU, a GPU or a CPU.
# On Colab, choose one with *Runtime → Change runtime type*, then *Runtime → Run all*. On a CPU
# everything is small, and takes about a minute.

# %% tags=["hide-input"]
# @title Install { display-mode: "form" }
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys

PROJECT = ''  # the address of the repository, once it has one


def install():
  """Installs senet_jax if it is missing, and leaves the jax of this runtime as it is."""
  if importlib.util.find_spec('senet_jax'):
    return
  wheels = sorted(map(str, pathlib.Path().glob('senet_jax-*.whl')))
  if PROJECT:
    source = f'senet_jax @ git+{PROJECT}'
  elif pathlib.Path('../setup.cfg').is_file():  # in a checkout
    source = '..'
  elif wheels:
    source = wheels[-1]
  else:
    raise SystemExit(
      'Upload the wheel senet_jax-*.whl (the folder on the left), and run this again.'
    )
  kept = [
    f'{package.name}=={package.version}'
    for package in importlib.metadata.distributions()
    if (package.name or '').startswith(('jax', 'libtpu', 'numpy'))
  ]
  pathlib.Path('runtime.txt').write_text('\n'.join(kept))
  command = [sys.executable, '-m', 'pip', 'install', '--quiet', '-c', 'runtime.txt', source]
  if subprocess.run(command).returncode:
    raise SystemExit(f'senet_jax does not go with {", ".join(kept)}; choose a newer runtime.')


install()

# %% [markdown]
# ## What there is
#
# JAX finds the device; the same code runs on each.

# %%
from senet_jax.reporting import notebook

# Small sizes, for a CPU: SENET_JAX_SMALL=1 or 0 in the environment decides otherwise.
SMALL = notebook.begin()

# %% [markdown]
# ## Where runs are kept
#
# Colab takes its machine back after a while, with all files on it. A run that is to outlive that
# lies in your Drive, which asks for leave here. Elsewhere it is the directory `runs/quickstart`.

# %%
from senet_jax.storage import colab

runs = colab.lasting('quickstart')

# %% [markdown]
# ## Train
#
# CIFAR-10 has 50,000 small photos of ten classes. Where it cannot be downloaded, and on a CPU,
# the 1,437 handwritten digits of scikit-learn take its place.
#
# A configuration is a file of the package, and any field can be changed: `senet train --fields`
# lists them. Here the paper's step schedule becomes a cosine, which needs fewer epochs.

# %%
from senet_jax.config import reading
from senet_jax.data import download

data = 'digits' if SMALL else download.cifar10_or_digits()
if data == 'digits':
  changes = ['--config.epochs=6', '--config.eval.every_epochs=1']
else:
  changes = ['--config.epochs=30', '--config.schedule.name=cosine', '--config.eval.every_epochs=2']
config = reading.load(f'{data}_se_r20', [*changes, '--config.log.tensorboard=False'])

# %% [markdown]
# The curve grows while it trains. To interrupt the kernel (■) is safe: the run saves and stops.
# **To resume, run this cell again**, after a lost connection on a new machine, too: the run goes
# on from its last checkpoint in Drive, exactly as if nothing had been.

# %%
from senet_jax import runtime
from senet_jax.reporting.notebook import LiveCurves
from senet_jax.training.loop import train
from senet_jax.workdir.records import read_records

workdir = runs / data
runtime.use_compilation_cache()
curve = LiveCurves(f'SE-ResNet-20 on {data}', read_records(workdir / 'metrics.jsonl'))
finished = train(config, workdir, watch=curve)

# %% [markdown]
# ## Evaluate and predict
#
# Each command of `senet` can be called from Python as well as from a shell (`senet evaluate
# --workdir=…`).

# %%
from senet_jax.tools import evaluate

evaluate.main([f'--workdir={workdir}'])

# %% [markdown]
# `senet_jax.load` gives a network that takes images of any size, in memory or as files. These are
# the twelve images of the test split that it is least sure of.

# %%
import numpy as np
from PIL import Image

import senet_jax
from senet_jax.data import datasets
from senet_jax.reporting import pictures

network = senet_jax.load(workdir)
images, labels = datasets.load(data, 'test[:1000]')
unsure = np.argsort(network.probabilities(images).max(1))[:12]
titles = [
  f'{best.name}, {best.probability:.0%}\n(is {network.class_names[label]})'
  for (best,), label in zip(network.top_k(images[unsure], k=1), labels[unsure])
]
notebook.show(pictures.grid(images[unsure], titles))

# %% [markdown]
# ## Your own photos
#
# On Colab this cell asks for files: a zip with a folder for each class, or photos that are called
# `cat 1.jpg`, `cat 2.jpg`, `dog 1.jpg` and so on, which is how Windows and macOS number photos
# that you rename together. Elsewhere put them into `photos/CLASS/`. Ten of a class are enough to
# begin with; a fifth of them is held out. Without any, parts of two photos stand in.

# %%
from senet_jax.data import image_folder, uploads

photos = uploads.own_photos('photos')
held_out = 0.0 if (photos / 'val').is_dir() else 0.2
found = image_folder.scan(photos, held_out)
print(found.describe())

# %% [markdown]
# Fine-tuning starts from a network that has learnt from more images than you have. One is in the
# package, trained on CIFAR-10; it sees 32 x 32 pixels and trains in seconds on a CPU. For a GPU
# or TPU there is the Hugging Face hub: set `start = 'hf:timm/seresnet50.a1_in1k'`, `name =
# 'se_resnet50'` and `size = 224` (and `pip install huggingface_hub`).

# %%
start, name, size = 'se_resnet20_cifar10', 'se_resnet20_cifar', 32
epochs = max(5, 1000 // len(found.splits['train'].paths))
finetuned = runs / f'photos_from_{start.split("/")[-1]}'
config = reading.load(
  'finetune_image_folder',
  [
    f'--config.init_from={start}',
    '--config.new_head=True',
    f'--config.model.name={name}',
    f'--config.data.dir={photos}',
    f'--config.data.val_fraction={held_out}',
    f'--config.data.image_size={size}',
    '--config.batch_size=16',
    f'--config.epochs={epochs}',
    f'--config.eval.every_epochs={epochs / 5}',
    '--config.log.tensorboard=False',
  ],
)
finished = train(config, finetuned, watch=LiveCurves('your photos'))

# %% [markdown]
# Which classes does it mix up? A row is what a photo shows, a column what it was taken for.

# %%
evaluate.main([f'--workdir={finetuned}', '--confusion=confusion.npz'])
mixed = np.load('confusion.npz')
notebook.show(pictures.confusion(mixed['confusion'], mixed['class_names']))

# %%
network = senet_jax.load(finetuned)
val = found.splits['val'].paths
paths = [photos / path for path in val[:: max(len(val) // 12, 1)][:12]]
titles = [f'{best.name}, {best.probability:.0%}' for (best,) in network.top_k(paths, k=1)]
notebook.show(pictures.grid([Image.open(path) for path in paths], titles), 'jpeg')

# %% [markdown]
# ## On from here
#
# - `squeeze_excite_explained.ipynb`: what the block does, and how to put it into your own
# network.
# - `performance.ipynb`: what it costs on this device, and on a TPU pod that is not here.
# - `paper.ipynb`: a table of the paper, ours beside the published.
# - In a shell: `senet --help`.
