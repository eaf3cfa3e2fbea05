"""A network as a folder that timm reads, and that the Hugging Face hub shows."""

import json
import pathlib

from senet_jax import __version__
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError
from senet_jax.interop import hub, mapping, names, storage
from senet_jax.storage import files
from senet_jax.workdir import exchange

_CARD = """---
library_name: timm
tags: [image-classification, squeeze-and-excitation]
---
# {name}

`{architecture}` of {num_classes} classes, from {origin}, by senet_jax {version}.

Images: {size} pixels in the middle of {resize}, {interpolation}; RGB from 0 to 255, minus {mean},
over {std}.

```python
import timm

network = timm.create_model('local-dir:{name}', pretrained=True)
```
"""


def write(weights: exchange.Weights, folder: pathlib.Path, variant: str | None = None) -> None:
  """Writes `config.json`, `model.safetensors` and a card; whole or not at all.

  Args:
    weights: the network.
    folder: a new one.
    variant: of timm; None: the one that computes what the network does.

  Raises:
    UserError: timm has no such network.
  """
  chosen = _variant(weights, variant)
  arrays = mapping.to_arrays(chosen, weights.variables)
  transform, architecture = evaluation_transform(weights.config), chosen.name.partition(':')[2]
  config = {
    'architecture': architecture,
    'num_classes': weights.num_classes,
    'num_features': weights.variables['params']['fc']['kernel'].shape[0],
    'pretrained_cfg': {
      'num_classes': weights.num_classes,
      'input_size': [3, transform.image_size, transform.image_size],
      'crop_pct': transform.image_size / transform.resize,
      'crop_mode': 'center',
      'interpolation': transform.interpolation,
      'mean': [x / 255 for x in transform.mean],
      'std': [x / 255 for x in transform.std],
      'first_conv': chosen.naming.name('stem_conv', 'kernel').removesuffix('.weight'),
      'classifier': chosen.naming.name('fc', 'kernel').removesuffix('.weight'),
    },
  }
  if weights.class_names:
    config['label_names'] = list(weights.class_names)
  card = _CARD.format(
    name=folder.name, architecture=architecture, num_classes=weights.num_classes,
    origin=weights.origin, version=__version__, size=transform.image_size,
    resize=transform.resize, interpolation=transform.interpolation, mean=transform.mean,
    std=transform.std,
  )  # fmt: skip
  with files.whole(folder.expanduser().absolute()) as partial:
    partial.mkdir(parents=True, exist_ok=True)
    storage.write_safetensors(partial / hub.WEIGHTS, arrays, {'format': 'pt'})
    (partial / hub.CONFIG).write_text(json.dumps(config, indent=2), 'utf-8')
    (partial / 'README.md').write_text(card, 'utf-8')


def _variant(weights: exchange.Weights, name: str | None) -> names.Variant:
  model = weights.config.model.name
  if name is not None:
    chosen = names.variant_of(model, name, ('timm',))
    exchange.check_function(weights, chosen)
    return chosen
  for chosen in names.variants_of(model, ('timm',)):
    if not exchange.differing(weights, chosen):
      return chosen
  raise UserError(
    f'timm has no network that computes what this {model} does; give --to=FILE.safetensors.'
  )
