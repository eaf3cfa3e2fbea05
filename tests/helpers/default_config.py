"""The defaults, as a file for `--config`."""

from senet_jax.config import default as get_config  # noqa: F401
