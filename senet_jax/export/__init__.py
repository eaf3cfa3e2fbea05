"""Files that other programs run, made of trained networks and checked in their own runtimes.

The package is also the function `senet_jax.export(…)`: Python gives a package's name to its module
as soon as anything of it is imported, so the module has to be what the name is called for.
"""

import sys
import types


class _Callable(types.ModuleType):
  """This module, which can be called as `exported.export`."""

  def __call__(self, *args, **options):
    """Writes a trained network as a file; as `senet_jax.export`."""
    from senet_jax.errors import UserError
    from senet_jax.export import exported

    try:
      return exported.export(*args, **options)
    except UserError as error:  # which says it all, without what it came from
      raise error.with_traceback(None) from None


sys.modules[__name__].__class__ = _Callable
