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
# # What squeeze-and-excitation costs
#
# [Open in Colab](https://colab.research.google.com/)
#
# On paper the block is nearly free: it adds 0.07 % of multiply-adds to ResNet-50. In practice it
# reads and writes whole maps again, and on a GPU or TPU the step of a ResNet waits for memory,
# not for arithmetic. This notebook measures what SE costs **on the device at hand**, says where
# the time goes, and compiles the same step for a TPU slice that is not there. On two CPU cores
# everything is small and takes two minutes.

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

# %%
from senet_jax.reporting import notebook

# Small sizes, for a CPU: SENET_JAX_SMALL=1 or 0 in the environment decides otherwise.
SMALL = notebook.begin()

# %% [markdown]
# ## The tax, measured
#
# Three networks: with SE as this package computes it, with SE written as in the textbook
# (`fused=False`: BN, then the mean over the map, then the product), and without SE. They take
# turns, and ratios are taken within a turn, so that a slow moment hits all of them. The "SE tax"
# is the time that SE adds to a step. The numbers that are stored here are of two CPU cores on
# which other programs ran: look at the deviation behind `±` before you believe a difference.

# %%
from senet_jax.tools import benchmark

plain = 'resnet20_cifar' if SMALL else 'resnet50'
networks = [f'se_{plain}', f'se_{plain}:model.se.fused=False', plain]
options = (
  ['--batch=32', '--seconds=0.5', '--repeats=3'] if SMALL else ['--batch=128', '--dtype=bfloat16']
)
_ = benchmark.main([f'--models={",".join(networks)}', '--mode=train', *options])

# %% [markdown]
# ## Where the time goes
#
# A profile takes the program apart: operations, bytes of memory and the costliest kernels, by
# layer of the network. With `--trace` the step runs, and the trace says where its time went.

# %%
from senet_jax.tools import profile

if SMALL:  # an SE-ResNet-8
  step = ['--config=cifar10_se_r20', '--config.model.depths=(1,1,1)', '--per_device=32']
else:
  step = ['--config=imagenet_se_r50', '--config.model.dtype=bfloat16', '--per_device=128']
profile.main([*step, '--target=here', '--top=5', '--trace=trace'])

# %% [markdown]
# The same trace opens in xprof, a page of TensorBoard: operations on a time line, memory, the
# roofline. Colab shows it here. Elsewhere: `pip install xprof tensorboard`, then `tensorboard
# --logdir=trace`.

# %%
from senet_jax.storage import colab

if colab.is_here() and importlib.util.find_spec('xprof'):
  get_ipython().run_line_magic('load_ext', 'tensorboard')
  get_ipython().run_line_magic('tensorboard', '--logdir=trace')
else:
  print('no xprof in this notebook: the table above is from the same trace.')

# %% [markdown]
# ## A machine that is not here
#
# XLA compiles for TPUs and GPUs that nobody has plugged in, so the costs of a step on a TPU slice
# can be read on a laptop, or on a Colab runtime of another kind. It needs the compiler of the TPU
# (`pip install libtpu`, or the extra `tpu`). Here is what it says of SE-ResNet-50, in bfloat16,
# with 128 images on each of the chips of a v5e
# (`results/benchmarks/profile_v5e_se_r50_vs_r50.json`):
#
# | | SE-ResNet-50 | ResNet-50 | ratio |
# |---|---|---|---|
# | billion operations in a step | 3351.4 | 3349.5 | 1.0006 |
# | GB read and written in a step | 48.39 | 47.78 | 1.0128 |
#
# SE adds 1.3 % to what a step moves. Compiling that took three minutes; small networks take one.

# %%
from senet_jax.errors import UserError

try:
  profile.main([*step, f'--target=tpu:v5e:{"2x4" if SMALL else "16x16"}', '--top=5'])
except UserError as error:
  print(f'{error} The table above is what it says of ResNet-50.')

# %% [markdown]
# `all-reduce` is all that the chips say to each other: gradients, statistics and metrics, once a
# step, whether there is SE or not. `senet scaling` goes on from there to 1,024 chips, and
# `docs/performance.md` has what was tried to make SE cheap, with bytes.
