"""Photos that a reader of a notebook gives: uploaded on Colab, in a folder elsewhere."""

import io
import lzma
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping

from senet_jax.data import photos, samples
from senet_jax.storage import colab, files

# `cat (3).jpg`, `cat 3.jpg`, `cat_3.jpg`: how Windows and macOS number files that they rename.
_NUMBER = re.compile(r'[ _-]*(\(?\d+\)?)?$')
# What people do not see in their folders.
_HIDDEN = ('.', '__MACOSX')
_MOST_BYTES = 100_000_000  # of a photo
_PARTS = re.compile(r'[/\\]')
# What zipfile and its decompressors say of zips that are cut off, damaged or have a password.
_UNREADABLE = (zipfile.BadZipFile, RuntimeError, zlib.error, lzma.LZMAError, EOFError, OSError)


def own_photos(folder: str | os.PathLike = 'photos') -> pathlib.Path:
  """Returns a folder with the reader's photos, `<class>/*`, or with samples if there are none.

  On Colab photos are uploaded: a zip with a folder for each class, or photos called `cat 1.jpg`,
  `cat 2.jpg`, `dog 1.jpg`, …. Elsewhere they lie in `folder`. What is no photo is left out, in one
  line for each file.

  Args:
    folder: of the photos.

  Raises:
    UserError: there are none, and scikit-learn, which has the samples, is not installed.
  """
  folder = pathlib.Path(folder)
  if colab.is_here():
    from google.colab import files as colab_files

    store(colab_files.upload(), folder)
  if folder.is_dir() and any(path.is_file() for path in folder.rglob('*')):
    return folder
  print(f'no photos of yours in {folder.name}/: parts of the two that scikit-learn ships will do.')
  return samples.write_folder(folder.with_name(f'{folder.name}_samples'))


def store(uploaded: Mapping[str, bytes], folder: pathlib.Path) -> int:
  """Writes uploaded photos to `folder`, `<class>/<name>`; prints a line for each that is none.

  Args:
    uploaded: contents by the name of the file; photos, and zips of photos in folders.
    folder: that they go to.

  Returns:
    How many photos were written.
  """
  count = 0
  for name, data in _unpacked(uploaded):
    *parents, base = [part for part in _PARTS.split(name) if part.strip('.')] or ['']
    stem, suffix = os.path.splitext(base)
    kind = parents[-1] if parents else _NUMBER.sub('', stem)
    try:
      with photos.opened_rgb(data):
        pass
    except photos.UnreadableImage as error:
      print(f'{name} is left out: {error}.')
      continue
    if not kind or suffix.lower() not in photos.SUFFIXES:
      print(f'{name} is left out: call it CLASS NUMBER.jpg, such as "cat 1.jpg".')
      continue
    with files.whole(folder / kind / base) as partial:
      partial.write_bytes(data)
    count += 1
  return count


def _unpacked(uploaded: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
  """Yields name and content of each file, also of those in zips, but for hidden and huge ones."""
  for name, data in uploaded.items():
    if not zipfile.is_zipfile(io.BytesIO(data)):
      yield name, data
      continue
    try:
      with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
          hidden = any(part.startswith(_HIDDEN) for part in _PARTS.split(entry.filename))
          if not entry.is_dir() and not hidden and entry.file_size <= _MOST_BYTES:
            yield entry.filename, archive.read(entry)
    except _UNREADABLE as error:
      print(f'{name}, or the rest of it, is left out: {error}.')
