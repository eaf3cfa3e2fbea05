"""Colab's own package, as far as the notebooks call it."""

import sys
import types


def install(monkeypatch, *, mount=lambda place: None, uploaded=None):
  """Makes this process take itself for one on Colab.

  Args:
    monkeypatch: takes it back.
    mount: what `drive.mount` does.
    uploaded: what `files.upload` returns.
  """
  modules = {name: types.ModuleType(name) for name in
             ('google.colab', 'google.colab.drive', 'google.colab.files')}  # fmt: skip
  for name, module in modules.items():
    module.__spec__ = types.SimpleNamespace(name=name)
    monkeypatch.setitem(sys.modules, name, module)
  modules['google.colab.drive'].mount = mount
  modules['google.colab.files'].upload = lambda: uploaded or {}
  modules['google.colab'].drive = modules['google.colab.drive']
  modules['google.colab'].files = modules['google.colab.files']
