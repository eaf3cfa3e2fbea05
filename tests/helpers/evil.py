"""What a hostile file may hold."""

import os


class Evil:
  """Makes the file `mark` when it is unpickled."""

  def __init__(self, mark):
    self.mark = mark

  def __reduce__(self):
    return os.system, (f'touch {self.mark}',)
