# Two commands do everything: `make book` and `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV   ?= .venv
# Any option for pip, such as `--index-url` with the CPU index of PyTorch's own
# installation page, where the default torch wheel would bring gigabytes of CUDA.
PIP_ARGS ?=
PORT   ?= 8000
# Every package comes in the version that the lock holds; `make lock` asks for the newest.
VERSIONS := -c requirements-lock.txt

PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
# Only what has this file was made here, and may be removed.
OURS   := $(VENV)/.made-by-make
HTML   := _build/html
# jupyter-book, kept from loading a grammar of addresses for two seconds, which
# jsonschema would use where it is and which no page needs.
BUILDER := $(PY) -c "import sys; sys.modules['rfc3987_syntax'] = None; \
  from jupyter_book.cli.main import main; main()"
# A worker for each core, up to four; a file of tests stays with one worker.
PYTEST := $(PY) -m pytest -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder
# A failing command fails the pipe it writes into.
SHELL       := /bin/bash
.SHELLFLAGS := -eo pipefail -c
# One thread per process: results do not depend on the number of cores.
export OMP_NUM_THREADS ?= 1
export PYTHONHASHSEED ?= 0
# Hundreds of processes load bnlib: it is compiled once, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup vendor book test coverage check export exercises run experiments bench lab serve pdf \
	links lock release clean distclean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | \
	  awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY)  ## create .venv and install everything, if it is missing or stale

# A .venv that cannot import bnlib from *this* checkout (a moved folder, a removed
# interpreter, an interrupted install) is not worth repairing: it is made anew.
ifneq ($(shell $(PY) -I tools/setup_check.py 2>/dev/null),ok)
.PHONY: $(READY)
endif
$(READY): requirements.txt requirements-lock.txt pyproject.toml tools/setup_check.py
	@$(PYTHON) tools/setup_check.py --python
	@$(PY) -I tools/setup_check.py >/dev/null 2>&1 || [ ! -e $(VENV) ] || [ -e $(OURS) ] || \
	  { echo "== make did not make $(VENV), and it has no bnlib from here: name another" \
	  "(make VENV=...), or remove it"; exit 1; }
	@echo "== setting up $(VENV): about 1.8 GB, a few minutes"
	@$(PY) -I tools/setup_check.py >/dev/null 2>&1 || rm -rf $(VENV)
	@[ -d $(VENV) ] || { mkdir -p $(VENV); touch $(OURS); $(PYTHON) -m venv $(VENV); }
	@rm -f $(READY)
	@$(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -r requirements.txt $(VERSIONS) \
	  | awk '/^Collecting|^Obtaining/ {printf "\r   %d packages found", ++n; fflush()} \
	         /^Installing/ {printf "\n   installing them, a minute or two\n"; fflush()}'
	@touch $(READY)

# Asked for by name, it tries again what was refused.
vendor: $(READY)
	@$(PY) tools/frontend.py $(if $(filter vendor,$(MAKECMDGOALS)),--again)
	@$(PY) tools/python_in_page.py $(if $(filter vendor,$(MAKECMDGOALS)),--again)

book: $(READY) vendor  ## build the site into _build/html
	@echo "== building the book: a minute or two where all pages are new"
	@mkdir -p _build
	@# The builder does not notice a change of the look alone; then it builds all pages.
	@all=$$(find chapters/_static tools/*.py tools/inpage tools/search _build/extra/inpage _config.yml _toc.yml \
	  -type f -newer _build/.built -print -quit 2>/dev/null || echo none yet); \
	$(BUILDER) build -W -n --keep-going -q $${all:+--all} . \
	  >_build/book.log 2>&1 \
	  || (cat _build/book.log; exit 1)
	@touch _build/.built
	@echo "== the book is in $(HTML): open $(HTML)/index.html, or run \`make serve\`"

test: check book  ## every check there is
	@echo "== chapters re-executed, functions against PyTorch, the site in a browser"
	@$(PYTEST) tests chapters \
	  -rs --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg

coverage: $(READY)  ## how much of bnlib its tests run, notebooks and site apart
	@$(PYTEST) -q tests \
	  --ignore tests/test_site.py --ignore tests/test_inpage.py --ignore tests/test_pdf.py \
	  --ignore tests/test_search.py \
	  --cov=bnlib --cov-report=term:skip-covered

check: $(READY)  ## the quick loop: style, export in sync, types, notebooks' hygiene
	@$(PY) -m ruff check -q . && $(PY) -m ruff format -q --check tools tests bnlib experiments benchmarks
	@$(PY) tools/export.py --check
	@$(PY) tools/exercises.py --check
	@$(PY) -m mypy --no-error-summary
	@$(PY) -m pytest -q tests/test_export.py tests/test_notebooks.py

export: $(READY)  ## write bnlib/ from the chapters
	@$(PY) tools/export.py

exercises: $(READY)  ## write what comes of the exercises: their modules, the workbooks
	@$(PY) tools/export.py
	@$(PY) tools/exercises.py

run: $(READY)  ## run chapters and store their outputs: CHAPTER=04, =changed (all without)
	@$(PY) tools/run.py $(if $(filter changed,$(CHAPTER)),changed,chapters/$(CHAPTER)*.ipynb)

experiments: $(READY)  ## every long run anew, on real data: make experiments JOBS=2
	@$(PY) -m experiments --jobs $(or $(JOBS),1)

bench: $(READY)  ## speed of whole training steps, then of layers; ratios, eleven minutes
	@$(PY) -m benchmarks

lab: $(READY)  ## open chapters and workbooks in JupyterLab
	@$(VENV)/bin/jupyter lab --notebook-dir=.

serve: book  ## build the site and serve it at http://localhost:8000 (PORT=...)
	@echo "== http://localhost:$(PORT)  (Ctrl-C stops)"
	@$(PY) -m http.server -d $(HTML) -b 127.0.0.1 $(PORT) \
	  || (echo "== is port $(PORT) taken? make serve PORT=8001"; exit 1)

pdf: book  ## print the whole book into one file, with a headless Chromium
	@echo "== printing the book"
	@$(PY) tools/pdf.py

links: $(READY)  ## follow every link that leads out of the book (needs the web)
	@$(VENV)/bin/jupyter-book build -q --builder linkcheck --path-output _build/links . \
	  >_build/links.log 2>&1 || true
	@test -f _build/links/_build/html/output.txt || (cat _build/links.log; exit 1)
	@! grep -F '[broken]' _build/links/_build/html/output.txt

lock: VERSIONS := --upgrade --upgrade-strategy eager
lock: $(READY)  ## renew requirements-lock.txt: the newest that requirements.txt allows
	@$(PY) -m pip install -q --disable-pip-version-check $(PIP_ARGS) -r requirements.txt $(VERSIONS)
	@$(PY) tools/lock.py
	@touch $(READY)

release: $(READY)  ## commit and tag what is unreleased: make release VERSION=0.2.0
	@$(PY) tools/release.py $(VERSION)

clean:  ## remove what was built
	rm -rf _build .pytest_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +

distclean: clean  ## and the virtual environment
	rm -rf *.egg-info
	@[ ! -e $(OURS) ] || rm -rf $(VENV)
	@[ ! -e $(VENV) ] || echo "== make did not make $(VENV): it is left"
