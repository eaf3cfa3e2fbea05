"""Faults put in on purpose, each of which the tests must notice.

  python -m tests.campaigns.mutants [--only=NAME,...] [--output=mutants.json]

Each mutant changes one line of a copy of the checkout; the tests of the rooms where it should be
noticed run there, up to the first that fails. One that no test notices is a hole in the tests.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from tests.helpers.paths import ROOT


@dataclasses.dataclass(frozen=True)
class Mutant:
  """A fault.

  Attributes:
    name: what goes wrong.
    path: of the file, in `senet_jax/`.
    before: text that is in the file once.
    after: what takes its place.
    tests: what should notice, in `tests/`.
  """

  name: str
  path: str
  before: str
  after: str
  tests: tuple[str, ...]


MUTANTS = (
  Mutant(
    'sign of the gate',
    'layers/squeeze_excite.py',
    '[self.se.excitation](fc2(',
    '[self.se.excitation](-fc2(',
    ('layers/test_squeeze_excite.py',),
  ),
  Mutant(
    'hidden units rounded up',
    'layers/squeeze_excite.py',
    'hidden = width // self.se.ratio',
    'hidden = -(-width // self.se.ratio)',
    ('layers/test_squeeze_excite.py', 'complexity/test_counts.py'),
  ),
  Mutant(
    'squeeze of the fused block without its shift',
    'layers/normalization.py',
    'return self.image_mean * self.scale + self.shift',
    'return self.image_mean * self.scale',
    ('layers/test_fused.py',),
  ),
  Mutant(
    'gradient of the fused block without ReLU',
    'layers/normalization.py',
    'return jnp.where(active > 0, dy, 0)',
    'return jnp.where(active > -1e9, dy, 0)',
    ('layers/test_fused.py',),
  ),
  Mutant(
    'unbiased running variance',
    'layers/normalization.py',
    '(1 - keep) * var.mean((0, 1, 2))',
    '(1 - keep) * var.mean((0, 1, 2)) * x[..., 0].size / (x[..., 0].size - 1)',
    ('layers/test_normalization.py',),
  ),
  Mutant(
    'momentum of BN the other way round',
    'layers/normalization.py',
    'running_mean.value = keep * running_mean.value + (1 - keep) * (',
    'running_mean.value = (1 - keep) * running_mean.value + keep * (',
    ('layers/test_normalization.py',),
  ),
  Mutant(
    'global BN without its collective',
    'layers/normalization.py',
    'mean, square = jax.lax.pmean(jnp.stack([mean, square]), self.bn.axis_name)',
    'mean, square = jnp.stack([mean, square])',
    ('layers/test_normalization.py',),
  ),
  Mutant(
    'stride of the bottleneck on the other convolution',
    'models/resnet.py',
    "if self.options.stride_in == '1x1' else",
    "if self.options.stride_in != '1x1' else",
    ('models/test_torch_parity.py',),
  ),
  Mutant(
    'shortcut of the pre-activation unit from the raw input',
    'models/resnet.py',
    'if self.options.preact and self.share_preact:',
    'if self.options.preact and self.share_preact and not train:',
    ('models',),
  ),
  Mutant(
    'max pooling one pixel further',
    'layers/pooling.py',
    'padding = [(1, 1), (1, 1)]',
    'padding = [(0, 2), (0, 2)]',
    ('layers/test_pooling.py',),
  ),
  Mutant(
    'channels not shuffled',
    'models/shufflenet.py',
    "channel_shuffle(materialize(norm(name='bn1')(y, train), relu=True), self.groups)",
    "materialize(norm(name='bn1')(y, train), relu=True)",
    ('models/test_models_plain.py',),
  ),
  Mutant(
    'forgotten sum over devices',
    'runtime/devices.py',
    'packed, large = jax.lax.psum((packed, large), DATA_AXIS)',
    'packed, large = jax.lax.psum((packed, large), ())',
    ('training/test_step.py',),
  ),
  Mutant(
    'weight decay of all parameters',
    'training/optimizer.py',
    "return _named('kernel')",
    'return None',
    ('training/test_step.py',),
  ),
  Mutant(
    'warm-up one step short',
    'training/optimizer.py',
    'lambda step: main(step + warmup)], [warmup])',
    'lambda step: main(step + warmup)], [warmup - 1])',
    ('training/test_step.py',),
  ),
  Mutant(
    'EMA of the variables before the step',
    'training/step.py',
    "new = {'params': params, 'batch_stats': batch_stats}",
    "new = {'params': state.params, 'batch_stats': state.batch_stats}",
    ('training/test_step.py',),
  ),
  Mutant(
    'gradients not averaged over micro-batches',
    'training/step.py',
    'return jax.tree.map(lambda g: g / k, grads), batch_stats, metrics',
    'return grads, batch_stats, metrics',
    ('training/test_step.py',),
  ),
  Mutant(
    'the same dropout on all devices',
    'training/step.py',
    'jax.lax.axis_index(runtime.DATA_AXIS)',
    '0 * jax.lax.axis_index(runtime.DATA_AXIS)',
    ('training/test_step.py', 'training/test_training.py'),
  ),
  Mutant(
    'every epoch in the order of the first',
    'data/device_feed.py',
    'jax.random.fold_in(key, epoch + i)',
    'jax.random.fold_in(key, i)',
    ('data/test_feed.py',),
  ),
  Mutant(
    'epoch begins one example late',
    'data/device_feed.py',
    'epoch, offset = divmod(step * self.batch_size, n)',
    'epoch, offset = divmod(step * self.batch_size + 1, n)',
    ('data/test_feed.py',),
  ),
  Mutant(
    'augmentation that ignores the epoch',
    'runtime/keys.py',
    'jax.random.key(seed), epoch), index)',
    'jax.random.key(seed), 0 * epoch), index)',
    ('data/test_feed.py',),
  ),
  Mutant(
    'dropout with the keys of the augmentation',
    'training/step.py',
    'of_seed if options.rules == 1 else',
    'of_seed if options.rules else',
    ('training/test_keys.py',),
  ),
  Mutant(
    'averages of a constant decay',
    'training/step.py',
    'jnp.minimum(options.ema_decay, (1 + step) / (10 + step))',
    'options.ema_decay',
    ('training/test_keys.py',),
  ),
  Mutant(
    'padding of the last batch counted',
    'data/device_feed.py',
    'mask = index < self.split.num_examples',
    'mask = index < 2 * self.split.num_examples',
    ('data/test_feed.py',),
  ),
  Mutant(
    'flip upside down',
    'data/augment.py',
    'image[:, ::-1]',
    'image[::-1]',
    ('data/test_feed.py',),
  ),
  Mutant(
    'top-1 error where top-5 is asked',
    'evaluation/metrics.py',
    'hits[:, :k].any(-1)',
    'hits[:, :1].any(-1)',
    ('evaluation', 'training/test_step.py', 'test_prediction.py'),
  ),
  Mutant(
    'the worst checkpoint kept as the best',
    'workdir/checkpoints.py',
    'get_metric_fn=lambda results: -objective.cost(results)',
    'get_metric_fn=lambda results: objective.cost(results)',
    ('training/test_training.py', 'training/test_task.py', 'workdir'),
  ),
  Mutant(
    'the earlier of two equal evaluations is the best',
    'workdir/checkpoints.py',
    'key=lambda step: (costs[step], -step)',
    'key=lambda step: (costs[step], step)',
    ('training/test_training.py', 'training/test_task.py', 'workdir'),
  ),
  Mutant(
    'checkpoint taken without a look at its checksum',
    'workdir/checkpoints.py',
    "if checksum(state) != host['checksum']:",
    'if checksum(state) is None:',
    ('training/test_training.py', 'workdir'),
  ),
  Mutant(
    'records of steps that are run again stay',
    'training/resume.py',
    "record['step'] <= done[record['kind']]",
    "record['step'] <= done[record['kind']] + 1000",
    ('training/test_training.py',),
  ),
  Mutant(
    'squares of pixels without the padding in front',
    'layers/platform_conv.py',
    'fronts = [front % 2 for front, _ in padding]',
    'fronts = [0 for _ in padding]',
    ('layers/test_platform_conv.py',),
  ),
  Mutant(
    'squeeze at inference beside the running mean',
    'layers/normalization.py',
    'by_product = lambda: cheaper() - center',
    'by_product = lambda: cheaper()',
    ('layers/test_platform_forms.py',),
  ),
  Mutant(
    'another function after folded BN is measured',
    'training/folded.py',
    "params[*path, 'bias'] += slope",
    "params[*path, 'bias'] -= slope",
    ('training/test_folded.py',),
  ),
  Mutant(
    'classes of the data at other outputs',
    'evaluation/classes.py',
    'first = [outputs[name] for name in labels]',
    'first = sorted(outputs[name] for name in labels)',
    ('evaluation/test_classes.py',),
  ),
  Mutant(
    'any host for this server',
    'serving/guard.py',
    'address.is_loopback or not self._local',
    'True',
    ('serving',),
  ),
  Mutant(
    'a body without a length has no bound',
    'serving/guard.py',
    "left -= len(message.get('body', b''))",
    'left -= 0',
    ('serving',),
  ),
  Mutant(
    'requests without a bound',
    'serving/guard.py',
    'self._requests >= self._limits.requests',
    'self._requests < 0',
    ('serving',),
  ),
  Mutant(
    'the answer of another photo in the batch',
    'serving/classifier.py',
    'dict(zip(images, self._run(list(images.values())), strict=True))',
    'dict(zip(reversed(images), self._run(list(images.values())), strict=True))',
    ('serving',),
  ),
  Mutant(
    'SE blocks in alphabetical order',
    'excitation/activations.py',
    'return found\n\n\ndef measure(',
    'return dict(sorted(found.items()))\n\n\ndef measure(',
    ('excitation/test_activations.py',),
  ),
  Mutant(
    'an uploaded name leaves the folder',
    'data/uploads.py',
    "if part.strip('.')] or ['']",
    "if part] or ['']",
    ('data/test_uploads.py',),
  ),
  Mutant(
    'train and val share pixels of the sample photos',
    'data/samples.py',
    'return image.crop((0, 0, x, y)), image.crop((width - x, height - y, width, height))',
    'return image.crop((0, 0, x, y)), image',
    ('data/test_uploads.py',),
  ),
  Mutant(
    'gates of blocks in another order',
    'prediction/classifier.py',
    'list(sown(v, x).values())',
    'list(sown(v, x).values())[::-1]',
    ('test_features.py',),
  ),
  Mutant(
    'RoIAlign reads far outside',
    'detection/roi_align.py',
    '(at >= -1) & (at <= last + 1)',
    '(at >= -9) & (at <= last + 9)',
    ('detection/test_roi_align.py',),
  ),
  Mutant(
    'gradient of RoIAlign without the weights',
    'detection/roi_align.py',
    '.add(weight[..., None] * gradient',
    '.add(gradient',
    ('detection/test_roi_align.py',),
  ),
  Mutant(
    'classes suppress each other',
    'detection/nms.py',
    'return above & (other_groups[:, None] == own_groups)',
    'return above',
    ('detection/test_nms.py',),
  ),
  Mutant(
    'a box suppresses though it is suppressed itself',
    'detection/nms.py',
    '~(suppresses & keep[:, None]).any(0)',
    '~(suppresses & alive[:, None]).any(0)',
    ('detection/test_nms.py',),
  ),
  Mutant(
    'objects that no anchor overlaps take all anchors',
    'detection/matching.py',
    '& (best_of_target > 0)',
    '& (best_of_target > -2)',
    ('detection/test_matching.py',),
  ),
  Mutant(
    'decoded boxes are a pixel too large',
    'detection/boxes.py',
    'ends = (x + half_width - offset',
    'ends = (x + half_width',
    ('detection/test_boxes.py',),
  ),
  Mutant(
    'background has a loss of boxes',
    'detection/roi_heads.py',
    'valid & (labels > 0)',
    'valid & (labels >= 0)',
    ('detection/test_losses.py',),
  ),
  Mutant(
    'the second stage is trained',
    'detection/objective.py',
    '(*stages[:freeze_at],',
    '(*stages[: freeze_at - 1],',
    ('detection/test_faster_rcnn.py', 'training/test_detection.py'),
  ),
  Mutant(
    "detectron2's background stays the last class",
    'interop/names.py',
    'lambda x: _rolled(x, 1).T',
    'lambda x: _rolled(x, 0).T',
    ('interop/test_detectors.py',),
  ),
  Mutant(
    'a batch of few photos of a shape never comes',
    'detection/order.py',
    'size * epoch // self.batch_size',
    'size // self.batch_size * epoch',
    ('detection/test_order.py',),
  ),
  Mutant(
    'what fills a batch of an evaluation is counted',
    'detection/order.py',
    'np.where(fills, self.num_examples, position)',
    'np.where(fills, position, position)',
    ('detection/test_order.py',),
  ),
  Mutant(
    'a mirrored box lies a pixel beside its object',
    'detection/coordinates.py',
    'width - offset - x2',
    'width - x2',
    ('detection/test_coordinates.py',),
  ),
  Mutant(
    'behind a photo there is its mean',
    'detection/feeds.py',
    'jnp.where((down & across)[..., None], ',
    'jnp.where(True, ',
    ('detection/test_feeds.py',),
  ),
  Mutant(
    'photos are not tested for the size of their boxes',
    'detection/feeds.py',
    'if [image.height, image.width] != expected:',
    'if False:',
    ('detection/test_feeds.py',),
  ),
  Mutant(
    'a crowd is to be found',
    'detection/average_precision.py',
    "'iscrowd': int(annotations.crowd[i])",
    "'iscrowd': 0",
    ('detection/test_average_precision.py',),
  ),
  Mutant(
    'a photo may lie outside its folder',
    'detection/annotations.py',
    "'..' not in path.parts",
    'True',
    ('detection/test_annotations.py',),
  ),
  Mutant(
    'crowds are objects of the first stage',
    'detection/rpn.py',
    "real = targets['valid'] & ~targets['crowd']",
    "real = targets['valid']",
    ('detection/test_losses.py',),
  ),
  Mutant(
    'crowds are background of the second stage',
    'detection/roi_heads.py',
    'positive, negative = positive & ~crowded, negative & ~crowded',
    'pass',
    ('detection/test_losses.py',),
  ),
  Mutant(
    'anchors on the edge are inside',
    'detection/rpn.py',
    '(x2 < width + reach)',
    '(x2 <= width + reach)',
    ('detection/test_losses.py',),
  ),
  Mutant(
    'the first stage divides by one image',
    'detection/rpn.py',
    'number = logits.shape[0] * options.rpn_batch',
    'number = options.rpn_batch',
    ('detection/test_losses.py',),
  ),
  Mutant(
    'the first stage begins large',
    'detection/rpn.py',
    'nn.initializers.normal(0.01)',
    'nn.initializers.normal(0.1)',
    ('detection/test_initialisation.py',),
  ),
  Mutant(
    'the deltas of boxes begin large',
    'detection/roi_heads.py',
    'nn.initializers.normal(0.001)',
    'nn.initializers.normal(0.01)',
    ('detection/test_initialisation.py',),
  ),
  Mutant(
    'nothing from the level above',
    'detection/fpn.py',
    'x + _doubled(above)',
    'x + 0 * _doubled(above)',
    ('detection/test_faster_rcnn.py',),
  ),
  Mutant(
    'average recall of another number',
    'detection/average_precision.py',
    "recall[:, :, _AREAS['all'], place]",
    "recall[:, :, _AREAS['all'], 2]",
    ('detection/test_average_precision.py',),
  ),
  Mutant(
    'the squeezed vector meets small weights',
    'layers/squeeze_excite.py',
    "kernel_init=nn.initializers.he_normal(), name='fc1'",
    "name='fc1'",
    ('layers/test_squeeze_excite.py',),
  ),
  Mutant(
    'hidden layers of VGG begin small',
    'models/vgg.py',
    'init = nn.initializers.he_normal()',
    'init = nn.initializers.lecun_normal()',
    ('models/test_models_plain.py',),
  ),
  Mutant(
    'gradient of the moments without its 2',
    'layers/normalization.py',
    'dmean + 2 * (x.astype',
    'dmean + (x.astype',
    ('layers/test_normalization.py',),
  ),
  Mutant(
    'a branch that is kept is not larger',
    'layers/drop_path.py',
    'gate = (kept / (1 - self.rate))',
    'gate = (kept * 1.0)',
    ('layers/test_drop_path.py',),
  ),
  Mutant(
    'the same places skip on all devices',
    'layers/drop_path.py',
    '(total,))[places]',
    '(count,))',
    ('layers/test_drop_path.py',),
  ),
  Mutant(
    'shake-shake goes back as it came',
    'layers/shake.py',
    'return _mix(a, b, alpha, beta), beta',
    'return _mix(a, b, alpha, beta), alpha',
    ('models/test_shake.py',),
  ),
  Mutant(
    'micro-batches drop the same',
    'training/step.py',
    '(micro_batches, jax.random.split(key, k), each)',
    '(micro_batches, jnp.stack([key] * k), each)',
    ('training/test_step.py',),
  ),
  Mutant(
    'micro-batches skip the same',
    'training/step.py',
    '{name: jax.random.split(of_all, k) for',
    '{name: jnp.stack([of_all] * k) for',
    ('training/test_step.py',),
  ),
  Mutant(
    'statistics of BN in the average are the last',
    'training/step.py',
    'trained(new[kind], options.frozen)) for kind in ema}',
    "trained(new[kind], options.frozen)) for kind in ema} | {'batch_stats': batch_stats}",
    ('training/test_step.py',),
  ),
  Mutant(
    'a plateau lowers nothing',
    'training/step.py',
    'lambda u: u * state.scale',
    'lambda u: u * 1.0',
    ('training/test_step.py',),
  ),
  Mutant(
    'Nesterov is left out',
    'training/optimizer.py',
    'optax.sgd(schedule, o.momentum or None, o.nesterov)',
    'optax.sgd(schedule, o.momentum or None)',
    ('training/test_step.py',),
  ),
  Mutant(
    'the updates are clipped instead of the gradients',
    'training/optimizer.py',
    'parts.insert(0, optax.clip_by_global_norm(o.clip_norm))',
    'parts.append(optax.clip_by_global_norm(o.clip_norm))',
    ('training/test_finetune.py',),
  ),
  Mutant(
    'the cosine ends behind the run',
    'training/optimizer.py',
    'cosine_decay_schedule(peak, max(total_steps - warmup, 1)',
    'cosine_decay_schedule(peak, max(total_steps, 1)',
    ('training/test_step.py',),
  ),
  Mutant(
    'a share at the threshold is above it',
    'training/criterion.py',
    '(targets > self.threshold)',
    '(targets >= self.threshold)',
    ('training/test_criterion.py',),
  ),
  Mutant(
    'binary cross-entropy is a sum',
    'training/criterion.py',
    'sigmoid_binary_cross_entropy(logits, targets).mean(-1)',
    'sigmoid_binary_cross_entropy(logits, targets).sum(-1)',
    ('training/test_criterion.py',),
  ),
  Mutant(
    'errors are of the smaller share',
    'training/criterion.py',
    "batch['share'] < 0.5",
    "batch['share'] > 0.5",
    ('training/test_criterion.py',),
  ),
  Mutant(
    'labels of CutMix have the share that was drawn',
    'data/mixing.py',
    'jnp.where(is_cutmix, outside.mean(), share)',
    'jnp.where(is_cutmix, share, share)',
    ('data/test_mixing.py',),
  ),
  Mutant(
    'every step mixes alike',
    'data/mixing.py',
    "keys.stream(self.seed, 'mixing'), step)",
    "keys.stream(self.seed, 'mixing'), 0 * step)",
    ('data/test_mixing.py',),
  ),
  Mutant(
    'repeats of an image are equal',
    'data/device_feed.py',
    'epoch * self.repeats + again',
    'epoch * self.repeats',
    ('data/test_repeats.py',),
  ),
  Mutant(
    'a class is in the same order each lap',
    'data/class_order.py',
    'self._shuffled(len(members), 1, number, lap)',
    'self._shuffled(len(members), 1, number)',
    ('data/test_stream.py',),
  ),
  Mutant(
    'no crop from the last row',
    'data/augment.py',
    'jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)',
    'jax.random.randint(crop_key, (2,), 0, 2 * pad)',
    ('data/test_feed.py',),
  ),
  Mutant(
    'a checkpoint fewer than asked for',
    'workdir/checkpoints.py',
    'policies.LatestN(keep)',
    'policies.LatestN(max(keep - 1, 1))',
    ('workdir', 'training/test_training.py'),
  ),
  Mutant(
    'a file takes raw images as they are',
    'export/network.py',
    'preprocessing.to_input(images) if uint8 else images',
    'images.astype(jnp.float32) if uint8 else images',
    ('export/test_export.py',),
  ),
)


def noticed_by(mutant: Mutant, folder: pathlib.Path) -> str | None:
  """Returns the first test that fails with the fault, None if none does."""
  path = folder / 'senet_jax' / mutant.path
  text = path.read_text()
  path.write_text(text.replace(mutant.before, mutant.after))
  try:
    tests = [f'tests/{name}' for name in mutant.tests]
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', *tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
  finally:
    path.write_text(text)
  if done.returncode == 0:
    return None
  found = re.search(r'^(?:FAILED|ERROR) (\S+)', done.stdout, re.MULTILINE)
  if done.returncode != 1 or not found:
    raise RuntimeError(f'{mutant.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}')
  return found[1]


def main(argv: list[str] | None = None) -> int:
  """Tries the mutants; returns 1 if one was not noticed."""
  parser = argparse.ArgumentParser(
    'tests.campaigns.mutants', description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--only', default='', help='names, with commas')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the table')
  args = parser.parse_args(argv)
  chosen = [m for m in MUTANTS if not args.only or m.name in args.only.split(',')]
  rows = []
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch) / 'checkout'
    shutil.copytree(
      ROOT, folder, ignore=shutil.ignore_patterns('.git', '.venv', 'runs', '__pycache__')
    )
    for mutant in chosen:
      begin = time.monotonic()
      test = noticed_by(mutant, folder)
      rows.append({'mutant': mutant.name, 'file': mutant.path, 'noticed_by': test})
      print(
        f'{mutant.name:55} {test or "NOT NOTICED"}  {time.monotonic() - begin:.0f} s', flush=True
      )
      if args.output:
        args.output.write_text(json.dumps(rows, indent=1))
  missed = sum(row['noticed_by'] is None for row in rows)
  print(f'{len(rows) - missed} of {len(rows)} noticed')
  return int(missed > 0)


if __name__ == '__main__':
  sys.exit(main())
