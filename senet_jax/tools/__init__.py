"""The commands: `python -m senet_jax.tools.<name> --help`."""
