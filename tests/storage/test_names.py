"""Names that are not UTF-8, as of a class folder, are kept and come back."""

import json

from senet_jax.storage import files


def test_json_gives_back_a_name_that_is_no_text(tmp_path):
  value = {'names': ['rose', 'caf\udce9', 'é', 'a\\udce9']}
  files.write_json(tmp_path / 'classes.json', value)
  assert json.loads((tmp_path / 'classes.json').read_bytes()) == value
  files.write_text(tmp_path / 'a.csv', 'caf\udce9')
  assert (tmp_path / 'a.csv').read_text() == 'caf\\udce9'
