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
# # A table of the paper
#
# [Open in Colab](https://colab.research.google.com/)
#
# Section 6 of the paper asks what each choice in the block is worth, on ResNet-50 and ImageNet.
# Each of its tables is a *study* of the package: configurations, seeds, the published numbers,
# and a command that makes the runs that are missing. This notebook runs **Table 10, the reduction
# ratio**, at a scale that a notebook affords. On two CPU cores that is a part of it, for two
# minutes.

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
# ## The question
#
# A block with $C$ channels has $2C^2/r$ weights. A small ratio $r$ costs parameters; a large one
# leaves a narrow bottleneck. The paper finds that it hardly matters between 2 and 32, as long as
# there is SE at all, and settles on 16. A study is data: these are its rows.

# %%
from senet_jax.config import reading

study = reading.load_study('ratio')
for row in study.rows:
  print(f'{row.name:10} senet train --config={row.config}')

# %% [markdown]
# Runs at full scale take a day each on one GPU. `ratio:small` has ResNet-20 on a tenth of
# CIFAR-10, two seeds. Where CIFAR-10 is not to be had, handwritten digits stand in, which are too
# easy to tell the rows apart.

# %%
from senet_jax import runtime
from senet_jax.data import download
from senet_jax.tools import study as study_tool

runtime.use_compilation_cache()
arguments = ['--study=ratio:small']
if SMALL:  # a part of the rows, and a sixth of the steps
  arguments += ['--rows=r2,r16,original', '--config.epochs=2', '--config.eval.every_epochs=2']
  arguments += ['--config.data.eval_split=test[:1000]', '--note=Here: 2 epochs, 1,000 images.']
if download.cifar10_or_digits(try_it=not SMALL) == 'digits':
  arguments += ['--config.data.name=digits', '--config.data.eval_split=test', '--config.data.pad=1']
  arguments += ['--config.data.train_split=train', '--config.data.flip=False', '--note=On digits.']

# %% [markdown]
# A study goes on where it was stopped: run the cell again, and only what is missing is made. On
# Colab the runs lie in your Drive.

# %%
from senet_jax.storage import colab

runs = colab.lasting('ratio')
_ = study_tool.main([*arguments, f'--workdir={runs}', '--output=ratio.json'])

# %% [markdown]
# The command has written the table as Markdown, too, which a notebook shows as one. *Published*
# is ResNet-50 on ImageNet: the numbers of both columns are not to be compared, but their
# **order** is.

# %%
from IPython.display import Markdown

Markdown(pathlib.Path('ratio.md').read_text())

# %% [markdown]
# ## What a longer run says
#
# The whole of `ratio:small`, 12 epochs and two seeds, is in the repository
# (`results/studies/ratio_small.md`):
#
# | row | test error, % | to the baseline |
# |---|---|---|
# | `r2` | 52.89 ± 0.35 | -0.99 (p = 0.07) |
# | `r4` | 52.99 ± 1.17 | -0.89 (p = 0.31) |
# | `r8` | 52.92 ± 0.25 | -0.96 (p = 0.12) |
# | `r16` | 52.72 ± 0.74 | -1.16 (p = 0.09) |
# | `original` | 53.88 ± 0.51 | |
#
# As in the paper: SE helps by about a point, and the ratio hardly matters. Two seeds are too few
# to be sure: no $p$ is below 0.05.

# %%
import json

from senet_jax.reporting import pictures

rows = json.loads(pathlib.Path('ratio.json').read_text())['rows']
ours = {row['row']: row['mean'] for row in rows if row['mean'] is not None}
published = {row['row']: row['published'] for row in rows if row['row'] in ours}
notebook.show(pictures.bars({'ours': ours, 'published (ImageNet)': published}, 'test error (%)'))

# %% [markdown]
# `senet study --study=squeeze:small`, `excitation`, `integration`, `stages`: the other tables of
# section 6 go the same way, and `configs/README.md` maps every table of the paper to its
# configuration.
