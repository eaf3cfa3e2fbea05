"""`tools.convert`: weights of other code bases to workdirs and files, and back."""

import json
import os
import pickle
import re
import zipfile

import jax
import numpy as np
import pytest

import senet_jax
from senet_jax import config as config_lib, runtime
from senet_jax.data import class_names
from senet_jax.interop import from_torch, storage
from senet_jax.interop.names import VARIANTS
from senet_jax.tools import convert, predict
from senet_jax.training import initial
from senet_jax.training.loop import train
from senet_jax.workdir import exchange
from senet_jax.workdir.network import build_model
from tests.helpers.commands import complaint
from tests.helpers.evil import Evil
from tests.helpers.torch_networks import network_of, randomized
from tests.helpers.torch_zoo import import_timm

import_timm()
import torch  # noqa: E402

SAFETENSORS, VARIANT = 'weights.safetensors', 'timm:seresnet18'
IMAGENET = {'mean': (123.675, 116.28, 103.53), 'std': (58.395, 57.12, 57.375)}


@pytest.fixture(scope='module')
def network():
  """timm's SE-ResNet-18 for 1000 classes, whose options differ from those of ours."""
  return randomized(network_of(VARIANT, 1000), 64)


@pytest.fixture(scope='module')
def folder(network, tmp_path_factory):
  """The network's weights in files of all kinds."""
  path = tmp_path_factory.mktemp('weights')
  arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
  storage.write_safetensors(path / SAFETENSORS, arrays, {})
  np.savez(path / 'weights.npz', **arrays)
  wrapped = {'epoch': 90, 'state_dict': {f'module.{k}': v for k, v in network.state_dict().items()}}
  torch.save(wrapped, path / 'weights.pth')
  torch.save(network.state_dict(), path / 'weights.bin', _use_new_zipfile_serialization=False)
  return path


@pytest.fixture(scope='module')
def workdir(folder, tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'timm'
  convert.main([f'--from={folder / SAFETENSORS}', f'--to={path}', '--model=se_resnet18'])
  return path


def same_arrays(actual, network):
  expected = {k: v.numpy() for k, v in network.state_dict().items() if 'num_batches' not in k}
  assert set(actual) == set(expected)
  for name, array in expected.items():
    np.testing.assert_array_equal(actual[name], array, name)


# --- a workdir ------------------------------------------------------------------------------------


def test_workdir_predicts_what_torch_does(workdir, network):
  predictor = senet_jax.load(workdir, batch_size=2)
  assert predictor.step == 0
  assert predictor.class_names == tuple(wnid for wnid, _ in class_names.imagenet_classes())
  photos = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
  crops = photos[:, 16:-16, 16:-16] / 255
  inputs = (crops - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  with torch.no_grad():
    logits = network(torch.from_numpy(inputs.transpose(0, 3, 1, 2)).float())
  expected = torch.softmax(logits, 1).numpy()
  np.testing.assert_allclose(predictor.probabilities(photos), expected, rtol=1e-3, atol=1e-7)


def test_workdir_config(workdir):
  config = senet_jax.load(workdir, 'latest').config
  assert config.model.name == 'se_resnet18' and config.model.pool_align == 'torch'
  assert config.model.se.hidden_divisor == 8 and config.model.stride_in is None
  assert config.data.name == 'imagenet2012'
  assert {'mean': config.data.mean, 'std': config.data.std} == IMAGENET
  assert {path.name for path in workdir.iterdir()} == {'config.json', 'classes.json', 'checkpoints'}
  assert not list(workdir.parent.glob('*.partial'))


def test_workdir_for_the_command(workdir, tmp_path, capsys):
  from PIL import Image

  Image.new('RGB', (300, 300), 'red').save(tmp_path / 'red.png')
  assert predict.main([f'--workdir={workdir}', '--top_k=1', str(tmp_path / 'red.png')]) == 0
  assert re.search(r'\d+\.\d\d %  \w+', capsys.readouterr().out)


def test_fine_tuning_from_a_workdir(workdir):
  config = config_lib.default()
  config.update_from_flattened_dict(
    {
      'model.name': 'se_resnet18',
      'model.pool_align': 'torch',
      'model.se.hidden_divisor': 8,
      'init_from': str(workdir),
      'new_head': True,
    }
  )
  said, mesh = [], runtime.data_mesh(1)
  model = build_model(config)
  with pytest.raises(convert.UserError, match=r'set --config\.data\.mean="\(123\.675, '):
    initial.initial_variables(config, model, mesh, said.append)
  theirs = senet_jax.load(workdir).config.data
  config.data.mean, config.data.std = theirs.mean, theirs.std
  actual = initial.initial_variables(config, model, mesh, said.append)['params']
  expected = senet_jax.load(workdir).variables['params']
  assert actual.pop('fc')['kernel'].shape == (512, 10) and expected.pop('fc')
  jax.tree.map(np.testing.assert_array_equal, actual, expected)
  assert said == [f'starts from step 0 of {workdir} with a new head of 10 classes']


def test_workdir_is_no_run_to_resume(workdir):
  config = senet_jax.load(workdir).config
  config.data.fake, config.batch_size, config.steps = True, 8, 1
  with pytest.raises(convert.UserError, match=r'another configuration .*dataset\.converted_from'):
    train(config, workdir)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['safetensors', 'npz', 'pth', 'bin'])
def test_files_in_and_out(folder, network, tmp_path, kind, capsys):
  ours, theirs = tmp_path / 'ours.safetensors', tmp_path / 'theirs.safetensors'
  convert.main([f'--from={folder}/weights.{kind}', f'--to={ours}'])
  out = capsys.readouterr().out
  assert f'se_resnet18 of 1000 classes, from {folder}/weights.{kind} ({VARIANT})' in out
  arrays, metadata = storage.read(ours)
  assert arrays['params/stage2_block1/se/fc1/kernel'].shape == (64, 8)
  assert (metadata['model'], metadata['num_classes']) == ('se_resnet18', '1000')
  assert json.loads(metadata['overrides']) == {
    'pool_align': 'torch',
    'se': {'hidden_divisor': 8},
  }
  convert.main([f'--from={ours}', f'--to={theirs}', f'--variant={VARIANT}'])
  same_arrays(storage.read(theirs)[0], network)
  assert '(RGB, 0 to 255, minus (123.675, 116.28, 103.53)) / (58.395,' in capsys.readouterr().out


def test_workdirs_out(workdir, network, tmp_path):
  ours, theirs = tmp_path / 'new' / 'ours.safetensors', tmp_path / 'theirs.safetensors'
  convert.main([f'--from={workdir}', f'--to={theirs}', f'--variant={VARIANT}'])
  same_arrays(storage.read(theirs)[0], network)
  convert.main([f'--from={workdir}', f'--to={ours}', '--checkpoint=0'])
  again = tmp_path / 'again'
  again.mkdir()
  convert.main([f'--from={ours}', f'--to={again}'])
  before, after = senet_jax.load(workdir), senet_jax.load(again)
  assert before.config == after.config and before.class_names == after.class_names
  jax.tree.map(np.testing.assert_array_equal, before.variables, after.variables)


def test_other_classes(tmp_path):
  network = network_of('torchvision:resnet18', 7)
  torch.save(network.state_dict(), tmp_path / 'seven.pt')
  convert.main(
    [f'--from={tmp_path}/seven.pt', f'--to={tmp_path}/run', '--variant=torchvision:resnet18']
  )
  predictor = senet_jax.load(tmp_path / 'run')
  assert predictor.class_names == tuple(f'class {i}' for i in range(7))
  assert predictor.config.data.name == 'image_folder'


def test_preprocessing_of_each_source(tmp_path):
  network = network_of('timm:mobilenetv1_100', 10)
  torch.save(network.state_dict(), tmp_path / 'mobile.pt')
  convert.main([f'--from={tmp_path}/mobile.pt', f'--to={tmp_path}/run'])
  predictor = senet_jax.load(tmp_path / 'run')
  assert predictor.preprocessing.mean == predictor.preprocessing.std == (127.5,) * 3
  assert predictor.model.activation == 'relu6'
  expected = from_torch('mobilenet_v1', network.state_dict(), num_classes=10)
  jax.tree.map(np.testing.assert_array_equal, predictor.variables, expected)


@pytest.mark.parametrize(
  ('variant', 'model', 'options'),
  [
    ('timm:legacy_seresnext26_32x4d', 'se_resnext50_32x4d', {'depths': (2, 2, 2, 2)}),
    ('cadene:bninception', 'bn_inception', {'conv_bias': True}),
  ],
)
def test_options_of_each_source(variant, model, options, tmp_path):
  network = network_of(variant, 10)
  torch.save(network.state_dict(), tmp_path / 'weights.pt')
  ours, theirs = tmp_path / 'ours.safetensors', tmp_path / 'theirs.safetensors'
  convert.main([f'--from={tmp_path}/weights.pt', f'--to={ours}'])
  convert.main([f'--from={ours}', f'--to={theirs}', f'--variant={variant}'])
  same_arrays(storage.read(theirs)[0], network)
  config = config_lib.from_dict(json.loads(storage.read(ours)[1]['config']))
  assert config.model.name == model
  assert {field: config.model[field] for field in options} == options
  built = build_model(config, 10)
  assert {field: getattr(built, field) for field in options} == options


def test_the_head_of_vgg_is_told():
  variant = VARIANTS['timm:vgg16_bn']
  config = exchange.config_of(variant, variant.images, usual=True)
  assert build_model(config).head == 'sliding'


# --- mistakes -------------------------------------------------------------------------------------


def fails(arguments, message, monkeypatch, capsys):
  """Checks that the command ends in one line and status 2."""
  error = complaint(convert.main, arguments, monkeypatch, capsys)
  assert re.fullmatch(rf'senet_jax: [^\n]*{message}[^\n]*\n', error)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--from={f}/weights.npz', '--to={t}/x.pth'], r'x\.pth must end in \.safetensors, or be a'),
    (['--from={f}/no.pth', '--to={t}/x'], r'No such file or directory: \S+/no\.pth; check the'),
    (['--from={f}/weights.npz', '--to={f}'], 'is there already; choose another directory'),
    (['--from={f}/weights.npz', '--to={f}/weights.safetensors'],
     r'weights\.safetensors is there already; choose another file'),
    (['--from={f}/weights.safetensors', '--to={f}/weights.safetensors'], 'is there already; cho'),
    (['--from={f}/weights.npz', '--to={t}/x', '--model=resnet5'], "'resnet5' is unknown; did you"),
    (['--from={f}/weights.npz', '--to={t}/x', '--model=se_resnet34'],
     r'\d+ missing: .*They look like those of timm:seresnet18, here the network se_resnet18\.'),
    (['--from={f}/weights.npz', '--to={t}/x', '--variant=timm:x'], "variant='timm:x' is unknown"),
    (['--from={f}/weights.npz', '--to={t}/x', '--variant=timm:legacy_seresnet18'],
     r'not the weights of se_resnet18 \(timm:legacy_seresnet18\): .*They look like'),
    (['--from={w}', '--to={t}/x', '--model=se_resnet34'], 'is se_resnet18; leave --model out'),
    (['--from={w}', '--to={t}/x', '--variant=timm:seresnet18'], 'is to be a workdir'),
    (['--from={w}', '--to={t}/x.safetensors', '--variant=timm:legacy_seresnet18'],
     "something else .*: pool_align='torch' here and 'caffe' there; branch_relu=False here "
     'and True there; se.hidden_divisor=8 here and 1 there'),
    (['--from={w}', '--to={t}/x.safetensors', '--variant=caffe:se_resnet50'], 'is unknown'),
    (['--from={w}', '--to={t}/x.safetensors', '--checkpoint=5'], "no checkpoint '5'"),
    (['--from={f}', '--to={t}/x'], 'holds no run'),
    (['--from={f}/weights.npz'], 'the following arguments are required: --to'),
  ],
)  # fmt: skip
def test_mistakes(arguments, message, folder, workdir, tmp_path, monkeypatch, capsys):
  given = [a.format(f=folder, w=workdir, t=tmp_path) for a in arguments]
  fails(given, message, monkeypatch, capsys)
  assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings('error')  # torch has one for plain pickles
def test_evil_files(tmp_path, monkeypatch, capsys):
  mark, out = tmp_path / 'executed', tmp_path / 'out'
  evil = {'conv1.weight': Evil(mark)}
  torch.save(evil, tmp_path / 'evil.pth')
  (tmp_path / 'evil.bin').write_bytes(pickle.dumps(evil, protocol=2))
  (tmp_path / 'evil.pt').write_bytes(pickle.dumps(evil))
  np.savez(tmp_path / 'evil.npz', **{k: np.array([v], object) for k, v in evil.items()})
  for name in ('evil.pth', 'evil.bin', 'evil.pt', 'evil.npz'):
    arguments = [f'--from={tmp_path / name}', f'--to={out}', '--model=resnet18']
    fails(arguments, rf'{name}(: .*Python objects| is damaged or)', monkeypatch, capsys)
  assert not mark.exists() and not out.exists()


@pytest.mark.parametrize(
  'name', ['weights.safetensors', 'weights.npz', 'weights.pth', 'weights.bin']
)
@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_truncated_files(folder, tmp_path, name, share, monkeypatch, capsys):
  data = (folder / name).read_bytes()
  path, out = tmp_path / name, tmp_path / 'out'
  path.write_bytes(data[: int(share * len(data))])
  fails([f'--from={path}', f'--to={out}', '--model=se_resnet18'], r'damaged', monkeypatch, capsys)
  assert [p.name for p in tmp_path.iterdir()] == [name]


def test_array_that_is_larger_than_its_file(tmp_path, monkeypatch, capsys):
  path = tmp_path / 'a.npz'
  header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}\n" % 2**50
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('w.npy', b'\x93NUMPY\1\0' + len(header).to_bytes(2, 'little') + header)
  arguments = [f'--from={path}', f'--to={tmp_path / "out"}']
  fails(arguments, r'a\.npz is damaged, or does not fit into memory', monkeypatch, capsys)


def test_damaged_file_of_ours(folder, tmp_path, monkeypatch, capsys):
  path, out = tmp_path / 'ours.safetensors', tmp_path / 'out'
  convert.main([f'--from={folder / SAFETENSORS}', f'--to={path}'])
  capsys.readouterr()
  arrays, metadata = storage.read(path)
  storage.write_safetensors(path, arrays, {**metadata, 'config': '{"model": 3}'})
  fails(
    [f'--from={path}', f'--to={out}'], 'not a configuration of this version', monkeypatch, capsys
  )
  storage.write_safetensors(path, arrays, {**metadata, 'num_classes': 'x'})
  fails([f'--from={path}', f'--to={out}'], 'damaged: its metadata', monkeypatch, capsys)
  del arrays['params/fc/bias']
  storage.write_safetensors(path, arrays, metadata)
  message = 'has not the variables of its se_resnet18; 1 missing: params/fc/bias'
  fails([f'--from={path}', f'--to={out}'], message, monkeypatch, capsys)
  arrays['params/fc/bias'] = np.zeros(1000, np.float16)
  storage.write_safetensors(path, arrays, metadata)
  message = 'damaged: params/fc/bias is float16 for float32'
  fails([f'--from={path}', f'--to={out}'], message, monkeypatch, capsys)
  assert not out.exists()


def test_nothing_is_left_of_a_failed_write(workdir, tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(28, 'No space left on device')

  from senet_jax.workdir.checkpoints import Checkpoints

  monkeypatch.setattr(Checkpoints, 'save', full)
  ours = tmp_path / 'ours.safetensors'
  convert.main([f'--from={workdir}', f'--to={ours}'])
  with pytest.raises(OSError, match='No space'):
    convert.main([f'--from={ours}', f'--to={tmp_path}/run'])
  assert [path.name for path in tmp_path.iterdir()] == ['ours.safetensors']
  assert (ours.stat().st_mode & 0o777) == 0o666 & ~_umask()


def _umask():
  current = os.umask(0)
  os.umask(current)
  return current
