"""Files of torch, read without torch and without executing anything in them."""

import pickle
import zipfile

import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.interop import storage, torch
from tests.helpers import torch_format
from tests.helpers.evil import Evil
from tests.helpers.paths import ROOT

WEIGHTS = ROOT.parent / 'shared' / 'data' / 'weights'
ARRAYS = {'conv1.weight': np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)}
ARRAYS['bn1.weight'] = np.ones(3, np.float64)


@pytest.fixture(params=[False, True], ids=['zip', 'legacy'])
def save(request, tmp_path):
  """Writes a content as torch does, and returns the path."""

  def write(content):
    path = tmp_path / 'weights.pth'
    torch_format.save(content, path, legacy=request.param)
    return path

  return write


def read(path):
  content, metadata = storage.read(path)
  assert metadata == {}
  return content


def test_arrays(save):
  found = torch.as_arrays(read(save(ARRAYS)))
  assert set(found) == set(ARRAYS)
  for name, x in ARRAYS.items():
    np.testing.assert_array_equal(found[name], x)
    assert found[name].dtype == np.float32


def test_what_torch_trainers_write(save):
  """timm's train.py leaves the options of its command beside the weights, averaged ones too."""
  options = torch_format.called('argparse', 'Namespace', state={'model': 'resnet50', 'lr': 0.1})
  scalar = torch_format.called('numpy._core.multiarray', 'scalar', 'f8', b'12345678')
  counters = {
    'module.bn1.num_batches_tracked': np.int64([3]), 'module.total_ops': np.float64([7]),
    'module.conv1.total_params': np.float64([7]),
  }  # fmt: skip
  content = {
    'epoch': 3, 'args': options, 'metric': scalar,
    'state_dict': {'module.x': np.zeros(1, np.float32)},
    'state_dict_ema': {f'module.{k}': v for k, v in ARRAYS.items()} | counters,
  }  # fmt: skip
  content = read(save(content))
  assert set(torch.as_arrays(content)) == set(ARRAYS)
  assert torch.architecture(content) == 'resnet50'
  assert torch.architecture({**content, 'arch': 'seresnet18'}) == 'seresnet18'


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.module.', 'model._orig_mod.', 'model.'])
@pytest.mark.parametrize('wrapper', [None, 'state_dict', 'model', 'model_state_dict'])
def test_prefixes_and_wrappers(prefix, wrapper):
  arrays = {f'{prefix}{name}': x for name, x in ARRAYS.items()}
  found = torch.as_arrays({wrapper: arrays, 'epoch': 1} if wrapper else arrays)
  assert set(found) == set(ARRAYS)


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.bin', '.th', '.pth.tar', '.ckpt'])
def test_suffixes(suffix, tmp_path):
  path = tmp_path / f'a{suffix}'
  torch_format.save(ARRAYS, path)
  assert set(torch.as_arrays(read(path))) == set(ARRAYS)


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_nothing_is_executed(save, tmp_path, protocol):
  mark = tmp_path / 'executed'
  code = pickle.dumps(Evil(mark), protocol)
  evil = torch_format.Raw(code[2:-1] if protocol == 2 else b'')
  if protocol == 2:
    path = save({**ARRAYS, 'conv1.weight': evil})
    with pytest.raises(UserError, match=r"'conv1.weight' .* Python objects .* posix.system"):
      torch.as_arrays(read(path))
    assert set(torch.as_arrays(read(save({'state_dict': ARRAYS, 'x': evil})))) == set(ARRAYS)
  else:
    path = tmp_path / 'plain.pt'
    path.write_bytes(code)
    with pytest.raises(UserError, match=r'plain\.pt is damaged or of another format'):
      read(path)
  assert not mark.exists()


def test_stand_ins_cannot_be_changed(save):
  """`BUILD` sets attributes; on a function of ours it would change how the next file is read."""
  target = b'ctorch._utils\n_rebuild_tensor_v2\n'
  state = pickle.dumps((None, {'__defaults__': (1,), '_function': 3}), 2)[2:-1]
  content = read(save({'x': torch_format.Raw(target + state + b'b'), **ARRAYS}))
  found = torch.as_arrays({k: v for k, v in content.items() if k in ARRAYS})
  np.testing.assert_array_equal(found['conv1.weight'], ARRAYS['conv1.weight'])


def test_a_whole_module(save):
  module = torch_format.called('torchvision.models.resnet', 'ResNet', state={'training': False})
  with pytest.raises(
    UserError, match=r'a torchvision\.models\.resnet\.ResNet, not weights by name'
  ):
    torch.as_arrays(read(save(module)))


def test_torchscript(tmp_path):
  path = tmp_path / 'script.pt'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('script/data.pkl', b'\x80\x02}.')
    file.writestr('script/constants.pkl', b'\x80\x02).')
    file.writestr('script/code/__torch__.py', 'x')
  with pytest.raises(
    UserError, match=r'is a TorchScript program.*module\.state_dict\(\)'
  ) as caught:
    read(path)
  assert 'jit.load' not in str(caught.value) and 'weights_only' not in str(caught.value)


@pytest.mark.parametrize('share', [0.0, 0.3, 0.6, 0.95])
def test_cut_short(save, share):
  path = save(ARRAYS)
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(UserError, match='damaged'):
    torch.as_arrays(read(path))


def test_a_changed_bit_of_a_tensor(tmp_path):
  path = tmp_path / 'a.pth'
  torch_format.save(ARRAYS, path)
  data = bytearray(path.read_bytes())
  data[data.index(ARRAYS['conv1.weight'].tobytes()) + 5] ^= 1
  path.write_bytes(data)
  with pytest.raises(UserError, match=r"'conv1\.weight' in the file is damaged: Bad CRC"):
    torch.as_arrays(read(path))


def test_few_bytes_do_not_become_terabytes(tmp_path):
  """A step of 0 shows one number any number of times; an object may be put at place 2^31."""
  path = tmp_path / 'a.pth'
  storage_of = torch_format._Writer(False)
  code = storage_of.tensor(np.ones(1, np.float32))
  huge = code.replace(b'K\x01\x85', b'J\xff\xff\xff\x7f\x85', 1).replace(b'K\x01\x85', b'K\x00\x85')
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('archive/data.pkl', b'\x80\x02}' + b'X\x01\0\0\0a' + huge + b's.')
    file.writestr('archive/data/0', np.ones(1, np.float32).tobytes())
  with pytest.raises(
    UserError, match=r"'a' in the file is damaged: a tensor of shape \(2147483647"
  ):
    torch.as_arrays(read(path))
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('archive/data.pkl', b'\x80\x02}r\xff\xff\xff\x7f.')
  with pytest.raises(UserError, match='damaged'):
    read(path)


def test_a_dictionary_in_itself(tmp_path):
  path = tmp_path / 'a.pth'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('archive/data.pkl', b'\x80\x02}q\x00X\x05\0\0\0modelh\x00s.')
  with pytest.raises(UserError, match='no array'):
    torch.as_arrays(read(path))


@pytest.mark.parametrize('name', ['resnet20-12fca82f.th', 'resnet56-4bfd9763.th'])
def test_published_files(name):
  path = WEIGHTS / name
  if not path.exists():
    pytest.skip(f'needs {path}')
  content = read(path)
  assert isinstance(content['best_prec1'], float)
  arrays = torch.as_arrays(content)
  assert arrays['conv1.weight'].shape == (16, 3, 3, 3) and arrays['linear.weight'].shape == (10, 64)
  assert all(np.isfinite(x).all() for x in arrays.values())
