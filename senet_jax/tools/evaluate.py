"""Evaluates a checkpoint on a split of a data set.

  python -m senet_jax.tools.evaluate --workdir=runs/digits
  python -m senet_jax.tools.evaluate --workdir=runs/se20 --checkpoint=latest --split='train[:10%]'

Prints loss and top-1, top-3 and top-5 error over every example of the split.
"""

import pathlib

from senet_jax import cli, files
from senet_jax.errors import UserError


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  parser = cli.Parser('tools.evaluate', __doc__)
  parser.add_argument('--workdir', required=True, type=pathlib.Path, help='of the run')
  parser.add_argument('--checkpoint', default='best', help='best (default), latest, or a step')
  parser.add_argument('--split', help="default: the run's evaluation split")
  parser.add_argument('--data_dir', help="default: the run's")
  parser.add_argument('--batch_size', type=int, help='over all devices; default: of the run')
  parser.add_output()
  args = parser.parse_args(argv)

  from senet_jax import config as config_lib, runtime
  from senet_jax.data.feeds import evaluation_feed
  from senet_jax.evaluation.evaluate import eval_program, evaluate
  from senet_jax.training import saved

  runtime.use_compilation_cache()
  mesh = runtime.data_mesh()
  run = saved.load(args.workdir, args.checkpoint, mesh)
  config = run.config
  config.data.dir = args.data_dir or config.data.dir
  if args.batch_size is not None:
    config.eval.batch_size = args.batch_size
  config_lib.check(config)
  split = args.split or config.data.eval_split
  config.model.num_classes = run.model.num_classes
  feed = evaluation_feed(config, split, mesh)
  _check_classes(run.class_names, feed.split.class_names, config.data.name)
  results = evaluate(eval_program(run.model, feed, mesh), run.variables, feed)
  count = feed.split.num_examples
  print(f'{config.model.name}, step {run.step}, on {config.data.name} {split}: {count} images')
  for name, value in results.items():
    print(f'  {name:11} {value:8.4f}{" %" if name.endswith("error") else ""}')
  if args.output:
    row = {
      'model': config.model.name,
      'workdir': str(args.workdir),
      'step': run.step,
      'dataset': config.data.name,
      'split': split,
      'examples': count,
      'device': runtime.describe_devices(),
    }
    files.write_json(args.output, {**row, **results})


def _check_classes(
  trained: tuple[str, ...] | None, given: tuple[str, ...] | None, dataset: str
) -> None:
  """Checks that labels mean the same; names that are not known cannot differ."""
  for label, (there, here) in enumerate(zip(trained or (), given or (), strict=False)):
    if there != here:
      raise UserError(
        f'class {label} of {dataset} is {here!r}, and {there!r} in the data that the network was '
        'trained on; evaluate it on data with the same classes.'
      )


if __name__ == '__main__':
  cli.run(main)
