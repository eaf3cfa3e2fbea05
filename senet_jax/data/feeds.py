"""The feed that a configuration asks for."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax.data.device_feed import DeviceFeed, EvalFeed
from senet_jax.data.stream_feed import StreamEvalFeed, StreamFeed

TrainingFeed = DeviceFeed | StreamFeed
EvaluationFeed = EvalFeed | StreamEvalFeed


def training_feed(config: ConfigDict, mesh: Mesh) -> TrainingFeed:
  """The feed over the training split.

  Raises:
    UserError: the data is not usable, or the batch does not fit the devices.
  """
  return (StreamFeed if streams(config) else DeviceFeed).create(config, mesh)


def evaluation_feed(config: ConfigDict, split: str, mesh: Mesh) -> EvaluationFeed:
  """The feed over `split`, each example once.

  Raises:
    UserError: the data is not usable.
  """
  return (StreamEvalFeed if streams(config) else EvalFeed).create(config, split, mesh)


def streams(config: ConfigDict) -> bool:
  """Returns whether images are streamed; made-up ones are few and live on the devices."""
  return config.data.feed == 'stream' and not config.data.fake
