"""Archives as GNU tar writes them."""

import io
import tarfile


def tar_of(files) -> bytes:
  """Returns an archive of files, given as their contents by name."""
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:', format=tarfile.GNU_FORMAT) as tar:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return buffer.getvalue()
