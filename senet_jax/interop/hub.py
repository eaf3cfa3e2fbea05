"""Networks on the Hugging Face hub: `hf:OWNER/REPO` or `hf:OWNER/REPO@REVISION`.

Only the configuration and the `.safetensors` file of a repository are fetched; both are data.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from senet_jax.errors import UserError

BEGINNING = 'hf:'
WEIGHTS, CONFIG = 'model.safetensors', 'config.json'


def is_name(name: str | os.PathLike) -> bool:
  """Returns whether `name` is that of a repository on the hub."""
  return str(name).startswith(BEGINNING)


def fetch(name: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a repository's weights in the cache, with its configuration beside them.

  The cache, the address of the hub, a token and working without a network are those of
  huggingface_hub: `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE=1`.

  Raises:
    UserError: there is no such repository, revision or file, it is private, or there is neither a
      network nor a copy in the cache; or huggingface_hub is not installed.
  """
  repository, _, revision = str(name).removeprefix(BEGINNING).partition('@')
  try:
    import huggingface_hub
  except ImportError as error:
    raise UserError(
      f"huggingface_hub is not installed, which is needed for {name}: pip install 'senet_jax[hub]'."
    ) from error
  with _in_one_line(str(name)):
    for file in (CONFIG, WEIGHTS):
      path = huggingface_hub.hf_hub_download(repository, file, revision=revision or None)
  return pathlib.Path(path)


@contextlib.contextmanager
def _in_one_line(name: str) -> Iterator[None]:
  """Turns what the library raises into errors that say what to do."""
  from huggingface_hub import errors

  try:
    yield
  except errors.GatedRepoError as error:
    raise UserError(f'{name} is not open to all; accept its terms, and set HF_TOKEN.') from error
  except errors.RepositoryNotFoundError as error:
    raise UserError(
      f'{name}: there is no such repository on the hub, or it is private; check the name, or set '
      'HF_TOKEN.'
    ) from error
  except errors.RevisionNotFoundError as error:
    raise UserError(
      f'{name}: the repository has no such revision; check what follows @.'
    ) from error
  except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as e:
    raise UserError(
      f'{name} is not in the cache, and the hub cannot be reached; connect once, or give a file.'
    ) from e
  except errors.EntryNotFoundError as error:
    raise UserError(
      f'{name} has no {CONFIG} or no {WEIGHTS}, the only files that are read; choose another.'
    ) from error
  except errors.HFValidationError as error:
    raise UserError(f'{name} is no name of a repository; give hf:OWNER/REPO.') from error
  except (errors.HfHubHTTPError, OSError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise UserError(f'{name} could not be fetched: {reason}') from error
