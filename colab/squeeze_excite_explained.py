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
# # Squeeze-and-excitation explained
#
# [Open in Colab](https://colab.research.google.com/)
#
# A convolution mixes all channels at each place of a map, and sees only its neighbourhood. A
# squeeze-and-excitation block ([Hu et al., 2018](https://arxiv.org/abs/1709.01507)) lets the
# network weigh its channels by what the **whole image** shows. This notebook writes the block
# down, puts it into a network of your own, and looks at what a trained one does with it. On two
# CPU cores it takes a minute.

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
# ## The block, in ten lines
#
# For a map $u$ with $C$ channels of $H \times W$ pixels, the paper has three equations.
#
# | | | |
# |---|---|---|
# | squeeze (2) | $z_c = \frac{1}{HW}\sum_{i,j} u_c(i, j)$ | the mean of each channel |
# | excitation (3) | $s = \sigma(W_2\,\delta(W_1 z))$ | two small layers make gates of the means |
# | scale (4) | ${\tilde{x}}_c = s_c\, u_c$ | each channel times its gate |
#
# $\delta$ is a ReLU, and $\sigma$ a sigmoid, so that a gate is between 0 and 1. The first layer
# has $C / r$ units; the ratio $r$ is 16. The same in Flax:

# %%
from flax import linen as nn


class SqueezeExcite(nn.Module):
  ratio: int = 16

  @nn.compact
  def __call__(self, u):
    channels = u.shape[-1]
    z = u.mean((1, 2))  # (2)
    hidden = nn.relu(nn.Dense(channels // self.ratio, name='fc1')(z))
    s = nn.sigmoid(nn.Dense(channels, name='fc2')(hidden))  # (3)
    return s[:, None, None, :] * u  # (4)


# %% [markdown]
# The layer of the package computes the same from the same weights. What it adds is speed: behind
# a BN it takes the squeeze from the sums that BN has taken already, so that no pass over the map
# is added.

# %%
import jax
import numpy as np

from senet_jax import layers

u = jax.random.normal(jax.random.key(0), (2, 8, 8, 64))
variables = SqueezeExcite().init(jax.random.key(1), u)
ours, theirs = SqueezeExcite().apply(variables, u), layers.SqueezeExcite().apply(variables, u)
print('largest difference:', float(np.abs(ours - theirs).max()))

# %% [markdown]
# It is cheap. Both layers have $2C^2/r$ weights together (equation 5), and act on one vector for
# each image, not on each pixel:

# %%
from senet_jax.complexity.counts import complexity
from senet_jax.models import create_model

for name in ('resnet50', 'se_resnet50'):
  cost = complexity(create_model(name), 224)
  print(f'{name:12} {cost.params:,} parameters, {cost.macs / 1e9:.3f} billion multiply-adds')

# %% [markdown]
# ## In your own network
#
# `add_squeeze_excite` puts blocks behind the submodules of any Flax network whose paths match a
# pattern. The code of the network stays as it is, and so do its variables: an old checkpoint
# lacks the `se` entries and nothing else.

# %%
import jax.numpy as jnp
from flax import traverse_util


class Block(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x, train):
    x = nn.Conv(self.width, (3, 3), strides=2, use_bias=False)(x)
    return nn.relu(nn.BatchNorm(use_running_average=not train)(x))


class MyNetwork(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    for width in (32, 64):
      x = Block(width)(x, train)
    return nn.Dense(10)(x.mean((1, 2)))


with_se = layers.add_squeeze_excite(MyNetwork(), '**/BatchNorm_0', layers.SEConfig(ratio=8))
images = jnp.ones((1, 32, 32, 3))
variables = with_se.init(jax.random.key(0), images, train=False)
for path, x in traverse_util.flatten_dict(variables['params'], sep='/').items():
  print(f'{path:40} {x.shape}')

# %% [markdown]
# Every block lays its gates aside, and `excitations` finds them.

# %%
_, state = with_se.apply(variables, images, train=False, mutable=['intermediates'])
gates = layers.excitations(state['intermediates'])
print({name: gate.shape for name, gate in gates.items()})

# %% [markdown]
# ## The gates of a trained network, on photos
#
# The package has a trained SE-ResNet-20, which knows the ten classes of CIFAR-10. Photos of your
# own go into `photos/CLASS/`; without any, these are parts of two photos that scikit-learn ships.

# %%
from PIL import Image

import senet_jax
from senet_jax import prediction
from senet_jax.data import samples
from senet_jax.reporting import pictures

own = {path.stem: Image.open(path) for path in sorted(pathlib.Path('photos').rglob('*.jpg'))[:6]}
photos = own or samples.photos()
network = senet_jax.load('se_resnet20_cifar10')
best = [prediction.name for (prediction,) in network.top_k(photos.values(), k=1)]
titles = [f'{name}:\n{guess}?' for name, guess in zip(photos, best)]
notebook.show(pictures.grid(list(photos.values()), titles), 'jpeg')

# %% [markdown]
# It has never seen such photos, and answers with what it knows. Its gates differ all the same.
# `SE_3_3` is the block of the third unit of stage 3: in the middle and at the end of the network
# the lines part, as a channel there stands for something that only some photos show. `SE_2_1`
# gives all photos the same gates. At a ratio of 16 its 16 channels leave a single hidden unit,
# and the ReLU of that one is never open; three of the nine blocks are like that.

# %%
gates = prediction.gates(network, photos.values())
some = {name: gates[name] for name in ('SE_2_1', 'SE_3_3', 'SE_4_3')}
notebook.show(pictures.gates(some, list(photos)))

# %% [markdown]
# ## Figures 6 and 7 of the paper
#
# The same for whole classes: Figure 6 has the mean gates of some classes and of all together,
# Figure 7 the deviation among the images of one class. Where CIFAR-10 is not at hand and cannot
# be downloaded, an SE-ResNet-20 learns handwritten digits first, which takes ten seconds on a CPU.

# %%
from senet_jax import runtime
from senet_jax.config import reading
from senet_jax.data import download
from senet_jax.tools import activations
from senet_jax.training.loop import train

runtime.use_compilation_cache()
data, workdir = download.cifar10_or_digits(try_it=not SMALL), 'se_resnet20_cifar10'
if data == 'digits':
  workdir = 'runs/digits'
  train(
    reading.load('digits_se_r20', ['--config.epochs=4', '--config.log.tensorboard=False']), workdir
  )
activations.main([f'--workdir={workdir}', '--output=gates', '--images_per_class=20'])
notebook.show(pathlib.Path('gates/classes.png'))

# %%
notebook.show(pathlib.Path('gates/within_class.png'))

# %% [markdown]
# `between/within` says it in one number: the variance of the gates between classes over that
# among the images of one class. It grows with depth. Of ResNet-50 on ImageNet the paper says the
# same, but for its very last blocks, which are nearly open, or much alike, for all classes. The
# last figure has this number for each block, and the share of gates that are closed or open.

# %%
notebook.show(pathlib.Path('gates/separation.png'))

# %% [markdown]
# ## Do the gates say what can go?
#
# The paper ends with the thought that low gates might show which channels a network can do
# without. `senet prune` tries it: it drops SE blocks, and channels by their gates, by the size of
# their weights, or by chance, and evaluates what is left. Low gates turn out **no** safe sign:
# for channels, small weights are the better one.

# %%
from senet_jax.tools import prune

amounts = ['--drop_blocks=1,3,6,9', '--channels=0.1,0.3', '--seeds=2'] if SMALL else []
split = ['--split=test[:500]', '--gates_split=train[:1000]'] if SMALL else []
prune.main(
  [f'--workdir={workdir}', '--figure=pruning.png', '--images_per_class=20', *amounts, *split]
)
notebook.show(pathlib.Path('pruning.png'))

# %% [markdown]
# On from here: `performance.ipynb` measures what the block costs on this device, `paper.ipynb`
# runs one of the paper's ablations.
