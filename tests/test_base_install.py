"""What `pip install senet_jax` brings, without any extra, is enough to predict."""

import os
import subprocess
import sys

from tests.helpers.paths import ROOT

# Hides all that is installed here and that the base requirements do not bring. In a process of its
# own, before anything else is imported.
_ALONE = """
import configparser, importlib.metadata, re, runpy, sys

def name(requirement):
  return re.match(r'[A-Za-z0-9_.-]+', requirement).group().lower().replace('_', '-')

def brought(requirements, found):
  for requirement in map(name, requirements):
    if requirement not in found:
      found.add(requirement)
      try:
        more = importlib.metadata.requires(requirement) or ()
      except importlib.metadata.PackageNotFoundError:  # for another platform
        continue
      brought([r for r in more if 'extra ==' not in r], found)
  return found

setup = configparser.ConfigParser()
setup.read(sys.argv.pop(1))
lines = setup['options']['install_requires'].splitlines()
base = brought([line for line in lines if line], {'senet-jax'})
hidden = {
  module for module, owners in importlib.metadata.packages_distributions().items()
  if not {name(owner) for owner in owners} & base
}

class Hidden:
  def find_spec(self, module, path=None, target=None):
    if module.partition('.')[0] in hidden:
      raise ModuleNotFoundError(f'{module} is no base requirement', name=module)

assert {'tensorflow', 'pytest'} <= hidden and 'jax' not in hidden
sys.meta_path.insert(0, Hidden())
from senet_jax.console import main
main()
"""


def test_a_network_of_the_package_predicts(tmp_path):
  from PIL import Image
  from sklearn.datasets import load_sample_image  # a photo that comes with it

  Image.fromarray(load_sample_image('flower.jpg')).save(tmp_path / 'flower.png')
  done = subprocess.run(
    [sys.executable, '-c', _ALONE, str(ROOT / 'setup.cfg'), 'predict',
     '--workdir=se_resnet20_cifar10', 'flower.png'],
    capture_output=True, text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert 'bird' in done.stdout.splitlines()[1]
