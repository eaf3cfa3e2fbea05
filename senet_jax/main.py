"""Trains and evaluates a network.

  python -m senet_jax.main --config=configs/cifar10_se_r20.py --workdir=runs/se20

Several processes, one a host or a GPU, train together: Slurm, Open MPI and TPU slices are found by
themselves; elsewhere each is told --coordinator=HOST:PORT --num_processes=N --process_id=I. See
launch/README.md.

Any field of the configuration can be changed: --config.batch_size=256 --config.model.se.ratio=8.
`--fields` says what each does and may be, `--print_config` shows them with their values. A workdir
that has a checkpoint is resumed. Exit status: 0 when the run is complete, 75 when SIGTERM or Ctrl-C
made it save and stop, 2 for an error that the message explains.
"""

from senet_jax import cli, flags


def main(argv: list[str]) -> int:
  """Runs the command with the arguments `argv`; returns the exit status."""
  if not argv or {'--help', '-h', '--helpfull'} & set(argv):
    flags.make_parser(__doc__).print_help()
    return 0 if argv else cli.USER_ERROR
  options = flags.parse(argv)
  if options.print_config:
    flags.print_config(options.config)
    return 0

  from senet_jax import runtime
  from senet_jax.training.loop import train

  runtime.use_compilation_cache()
  runtime.connect(
    options.coordinator, options.num_processes, options.process_id, options.hosts_timeout
  )
  with runtime.together():
    finished = train(options.config, options.workdir)
  return 0 if finished else cli.PREEMPTED


if __name__ == '__main__':
  cli.run(main)
