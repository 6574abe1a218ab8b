# Two commands matter: `make book` and `make test`. Both work on a fresh clone with
# Python >= 3.10 and nothing else; README.md spells them out for machines without make.

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11 \
  python3.10; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
  && echo $$p && break; done)
# Another index for torch, for example the CPU-only one: see README.md.
TORCH_INDEX ?=
PORT ?= 8000
# A file of tests, or a notebook, stays in one process. `make test PARALLEL=` for one.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile

IN_VENV := $(VENV)/bin/python
READY := $(VENV)/ready

.PHONY: book book-html test test-all lint lab bench colab clean distclean
.DELETE_ON_ERROR:

book: $(READY)
	$(IN_VENV) book/make.py --serve --port $(PORT)

book-html: $(READY)
	$(IN_VENV) book/make.py

test: $(READY) lint
	$(IN_VENV) -m pytest $(PARALLEL) $(PYTEST_ARGS)

# Also what `make test` leaves out: a whole class of hand-ins, half of them hostile.
test-all: $(READY) lint
	$(IN_VENV) -m pytest $(PARALLEL) -m '' $(PYTEST_ARGS)

lint: $(READY)
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m ruff format --check .

lab: $(READY)
	$(IN_VENV) -m jupyter lab book

bench: $(READY)
	$(IN_VENV) -m pip install --quiet --constraint constraints.txt --editable '.[peers]'
	$(IN_VENV) benchmarks/bench.py $(BENCH_ARGS)

colab: $(READY)
	$(IN_VENV) tools/colab_check.py --widgets $(COLAB_ARGS)

clean:
	rm -rf _build dist mutants .pytest_cache .ruff_cache .hypothesis .coverage

distclean: clean
	rm -rf $(VENV)

# The stamp is younger than everything that decides what is installed.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python >= 3.10 was not found." \
	  "Install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@test -x $(IN_VENV) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make virtual environments." \
	  "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(IN_VENV) -m pip install --quiet --upgrade pip
	$(IN_VENV) -m pip install torch torchvision \
	  $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(IN_VENV) -m pip install --constraint constraints.txt --editable '.[book,test]'
	touch $@
