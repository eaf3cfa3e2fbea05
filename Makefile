# `make demo` and `make test` work on a fresh machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
# The versions that were tested: the newest ones, where Python is not too old for them.
CONSTRAINTS ?= $(shell $(firstword $(wildcard $(VENV)/bin/python) $(PYTHON)) -c 'import sys; \
  print("constraints-latest.txt" if sys.version_info >= (3, 12) else "constraints.txt")')

.PHONY: demo test test-interop slow golden mutants notebooks lint docs clean exports

# Trains an SE-ResNet on real handwritten digits; a second call shows the result again.
demo: $(VENV)/.base
	$(VENV)/bin/python -m senet_jax.main --config=configs/digits_se_r20.py --workdir=runs/digits

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# What needs torch, torchvision, timm or Keras, what takes long, and whether those libraries still give
# the golden numbers.
test-interop: $(VENV)/.test-interop
	$(VENV)/bin/python -m pytest --live -m "not slow" -n auto --maxprocesses 4 --dist worksteal

# What takes minutes each: other networks, whole rehearsals, more processes.
slow: $(VENV)/.test-interop
	$(VENV)/bin/python -m pytest --live -m slow -n auto --maxprocesses 2 --dist worksteal

# Writes the golden numbers of tests/golden/numbers anew.
golden: $(VENV)/.test-interop
	$(VENV)/bin/python -m pytest --live --write-golden -n 0 -m "slow or not slow"

# Every network of the registry as an ONNX file, at a small size; ten minutes.
exports: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 -m slow tests/export

# Puts faults into a copy of the code and sees that the tests notice; half an hour.
mutants: $(VENV)/.test
	$(VENV)/bin/python -m tests.campaigns.mutants

# Runs the notebooks of colab/ and writes them with what they show; minutes, small on a CPU.
notebooks: $(VENV)/.test
	$(VENV)/bin/python -m tests.helpers.notebooks $(NAMES)

lint: $(VENV)/.test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# The documentation site, docs/_build/html/index.html; a warning is an error, and so is a broken link.
docs: $(VENV)/.docs
	$(VENV)/bin/python -m sphinx -q -W --keep-going -d docs/_build/.doctrees docs docs/_build/html
	$(VENV)/bin/python docs/check_site.py docs/_build/html

clean:
	rm -rf $(VENV) docs/_build runs

$(VENV)/.base: setup.cfg $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "senet_jax needs Python 3.11 or newer; give one: make PYTHON=python3.12")'
	@echo 'installing about 1 GB into $(VENV), which takes some minutes'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-compile -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(VENV)/bin/pip install --quiet --no-compile -c $(CONSTRAINTS) -e '.[test]'
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(VENV)/bin/pip install --quiet --no-compile -c $(CONSTRAINTS) -e '.[docs]'
	touch $@

$(VENV)/.test-interop: $(VENV)/.test
	$(VENV)/bin/pip install --quiet --no-compile -c $(CONSTRAINTS) -e '.[test-interop]'
	touch $@
