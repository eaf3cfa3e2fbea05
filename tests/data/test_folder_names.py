"""Names of class folders that look alike and are not the same."""

import pytest

from senet_jax.data import image_folder
from senet_jax.errors import UserError

COMPOSED, DECOMPOSED = 'pur\xe9e', 'pure\u0301e'


@pytest.mark.parametrize(
  'folders',
  [(f'train/{COMPOSED}', f'train/{DECOMPOSED}'), (f'train/{COMPOSED}', f'val/{DECOMPOSED}')],
)
def test_two_normal_forms_of_unicode_are_told(folders, tmp_path):
  for folder in folders:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / 'a.jpg').touch()
  with pytest.raises(UserError, match='whose names look alike') as caught:
    image_folder.scan(tmp_path)
  assert ascii(COMPOSED) in str(caught.value) and ascii(DECOMPOSED) in str(caught.value)
