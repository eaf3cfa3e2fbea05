r"""What a training step or an evaluation costs on a TPU, a GPU or the machine at hand.

  python -m senet_jax.tools.profile --config=configs/imagenet_se_r50.py --target=tpu:v5e:2x2 \
      --per_device=128 --compare=model.name=resnet50 --output=profile.json

Compiles the real program ahead of time, so the machine need not be there: TPU slices
(tpu:v5e:2x2; extra `tpu`), NVIDIA GPUs as slices x hosts x GPUs (gpu:h200, gpu:h100:1x4x8; extra
`cuda`), or `here`. Prints operations, bytes of main memory, the roofline of the chip, peak memory,
collectives, and the costliest kernels and largest arrays with their layers. --compare gives a
second column: fields of the configuration that differ, separated by spaces, or `textbook` or
`textbook_se` for ResNet-50 as in Flax's ImageNet example. On `here`, --steps runs the program and
times it, and --trace says where the time goes: by kind of work, by layer and by kernel.
"""

import os

from senet_jax import cli
from senet_jax.reporting import tables

_TEXTBOOK = ('textbook', 'textbook_se')


def main(argv: list[str]) -> None:
  """Prints the profile; with --output writes it too."""
  parser = cli.Parser('tools.profile', __doc__)
  parser.add_argument('--config', required=True, help='file of the run, as of senet_jax.main')
  parser.add_argument('--target', default='here', help='machine to compile for')
  parser.add_argument('--mode', choices=('train', 'inference'), default='train')
  parser.add_argument('--per_device', type=int, help='images a device; else config.batch_size')
  parser.add_argument('--compare', help="such as 'model.name=resnet50' or 'model.se.fused=False'")
  parser.add_argument('--top', type=int, default=12, help='kernels and arrays to list')
  parser.add_argument('--steps', type=int, default=0, help='steps to time, on `here`')
  parser.add_argument('--trace', help='directory for a trace of three more, on `here`')
  parser.add_output()
  args, overrides = parser.parse_with_overrides(argv)
  if args.per_device is not None and args.per_device < 1:
    parser.error(f'--per_device={args.per_device} must be at least 1')

  from senet_jax.measure.targets import HERE, Target

  target = Target.parse(args.target)
  if (args.steps or args.trace) and target.platform != HERE:
    parser.error(f'--steps and --trace run the program, and {args.target} is not here')
  target.prepare()

  reports = [_report(args, target, overrides)]
  if args.compare in _TEXTBOOK:
    reports.append(_report(args, target, overrides, args.compare))
  elif args.compare:
    from senet_jax.config import reading

    changes = [reading.FIELD + change for change in args.compare.split()]
    reports.append(_report(args, target, [*overrides, *changes]))
  _print(args, reports)
  if args.output:
    from senet_jax.storage import files
    from senet_jax.workdir import summary

    here = target.platform == HERE
    row = {
      **summary.record_head(
        f'{args.mode} compiled ahead of time, costs of one device', 'profile', argv
      ),
      'target': args.target,
      'versions': {**summary.versions(), **_compiler_version(target)},
      'xla_flags': os.environ.get('XLA_FLAGS', ''),
      'profiles': reports,
    }
    if not here:
      row['device'] = f'{reports[0]["devices"]} x {args.target}, ahead of time'
    if len(reports) == 2:
      row['ratios'] = {k: reports[0][k] / reports[1][k] for k in ('flops', 'bytes')}
    files.write_json(args.output, row)


def _report(args, target, overrides: list[str], name: str | None = None) -> dict:
  """The profile of the configuration, or of the textbook's network called `name` in its place."""
  from senet_jax import config as config_lib
  from senet_jax.config import reading
  from senet_jax.measure import compiled, hlo, targets, trace
  from senet_jax.measure.textbook import TextbookResNet50

  config = reading.load(args.config, overrides)
  devices = target.devices()
  if args.per_device:
    config.batch_size = args.per_device * len(devices)
  config_lib.check(config)
  chip = target.chip or targets.here(devices[0].device_kind)
  other = TextbookResNet50(se=name == 'textbook_se', dtype=config.model.dtype) if name else None
  program = compiled.compile_program(config, devices, args.mode, other)
  found = compiled.report(program, chip, args.top)
  if args.steps or args.trace:
    found['measured'] = compiled.measure(program, config, chip, max(args.steps, 1), args.trace)
  if args.trace:
    module = hlo.Module(program.compiled.as_text())
    found['trace'] = trace.reduce(args.trace, module).report(args.top)
  return {'name': name or config.model.name, 'overrides': overrides, **found}


def _print(args, reports: list[dict]) -> None:
  from senet_jax.measure import trace

  first = reports[0]
  print(
    f'{args.mode} on {args.target}: {first["devices"]} devices, '
    f'{first["batch_per_device"]} images each; all figures are of one device'
  )
  rows = [('', *(report['name'] for report in reports))]
  if len(reports) == 2:
    rows[0] = (*rows[0], 'ratio')
  for label, value, form in _FIGURES:
    values = [value(report) for report in reports]
    if None in values:
      continue
    cells = [form(v) for v in values]
    if len(values) == 2 and not isinstance(values[0], str):
      cells.append(f'{values[0] / values[1]:.4f}' if values[1] else '')
    rows.append((label, *cells))
  width = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
  for row in rows:
    print('  ' + '  '.join(cell.ljust(w) for cell, w in zip(row, width, strict=False)).rstrip())
  for report in reports:
    print(f'\ncostliest kernels of {report["name"]} ({tables.size(report["bytes"])} in all)')
    for kernel in report['kernels']:
      near = f'near {kernel["near"]}' if kernel['near'] else 'of no layer'
      what = kernel['layer'] or f'{kernel["kernel"]} ({near})'
      print(f'  {tables.size(kernel["bytes"]):>8}  {what}  {" ".join(kernel["results"][:3])}')
    print(f'largest arrays of {report["name"]}')
    for array in report['arrays'][:5]:
      where = array['layer'] or '(of no layer)'
      print(f'  {tables.size(array["bytes"]):>8}  {array["array"]}  {where}')
    if 'trace' in report:
      print(f'\n{report["name"]}:', *trace.table(report['trace']), sep='\n')


def _of(*keys, scale: float = 1):
  """A figure of a report, by its keys; None where the report has none."""

  def get(report: dict):
    for key in keys:
      report = report.get(key) if isinstance(report, dict) else None
    return report / scale if isinstance(report, int | float) and scale != 1 else report

  return get


def _all_reduced(report: dict) -> str:
  return (
    ', '.join(
      f'{found["count"]} {kind}, {found["bytes"] / 1e6:.2f} MB'
      for kind, found in report['collectives'].items()
    )
    or 'none'
  )


def _fits(report: dict) -> str | None:
  memory = report['memory']
  if 'fits' not in memory:
    return None
  if memory['fits']:
    return 'yes'
  return f'no, by {tables.size(memory["peak"] - memory["available"])}'


_FIGURES = (
  ('GFLOP of convolutions and products', _of('flops', scale=1e9), '{:.1f}'.format),
  ('read and written', _of('bytes'), tables.size),
  ('FLOP a byte', _of('intensity'), '{:.1f}'.format),
  ('compute alone, ms', _of('roofline', 'compute_s', scale=1e-3), '{:.2f}'.format),
  ('memory alone, ms', _of('roofline', 'memory_s', scale=1e-3), '{:.2f}'.format),
  ('bound', _of('roofline', 'bound'), '{}'.format),
  ('images/s at the roofline', _of('roofline', 'images_per_second'), '{:.0f}'.format),
  ('peak memory', _of('memory', 'peak'), tables.size),
  ('fits', _fits, '{}'.format),
  ('images that fit, about', _of('memory', 'about_largest_batch'), '{}'.format),
  ('collectives', _all_reduced, '{}'.format),
  ('compile time, s', _of('compile_s'), '{:.1f}'.format),
  ('measured step, ms', _of('measured', 'step_s', scale=1e-3), '{:.2f}'.format),
  ('measured images/s', _of('measured', 'images_per_second'), '{:.1f}'.format),
  ('MFU', _of('measured', 'mfu'), '{:.3f}'.format),
)


def _compiler_version(target) -> dict[str, str]:
  import importlib.metadata

  package = {'tpu': 'libtpu', 'gpu': 'jax-cuda13-plugin'}.get(target.platform)
  try:
    return {package: importlib.metadata.version(package)} if package else {}
  except importlib.metadata.PackageNotFoundError:
    return {}


if __name__ == '__main__':
  cli.run(main)
