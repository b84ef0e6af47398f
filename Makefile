# Two commands matter: `make demo` shows what MedMLLM does, `make test` proves that it works.

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
SLICER_VENV ?= .venv-slicer
PIP_FLAGS ?=
SEED ?= 500000
WORKERS ?= 2
PYTEST_FLAGS ?=

RUN := $(VENV)/bin/python -m
SYSTEM_PACKAGES := dcmtk libpixelmed-java default-jdk-headless orthanc orthanc-dicomweb postgresql chromium \
  gcc libc6-dev python3-dev cmake libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri
IN_C := $(wildcard transforms/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help demo install test test-vllm slicer slicer-screenshots crash soak check lint bench clean system-packages ohif

help:  ## Show these lines
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{printf "%-18s%s\n", $$1, $$2}'
	@echo
	@echo "  PYTHON=python3.12     another Python than python3, 3.11 or newer"
	@echo "  PIP_FLAGS='...'       more options for pip, such as another package index"
	@echo "  SEED=N                another synthetic study for make demo"
	@echo "  WORKERS=N             run N tests side by side; 2 if left out"
	@echo "  PYTEST_FLAGS='...'    more options for pytest, such as -k window"

demo: $(VENV)/engine.stamp  ## Make a synthetic chest CT, read it, and say where the report lies
	@$(RUN) medmllm_plugin phantom demo/study --seed $(SEED)
	@echo
	@$(RUN) medmllm_plugin read demo/study -o demo/report
	@echo
	@echo "Open demo/report/report.html in a browser. What the study really holds: demo/study/truth.json"

install: $(VENV)/dev.stamp  ## Set up .venv with everything that developing needs

test: system-packages $(VENV)/dev.stamp ohif  ## Set up what the tests need and run them all
	OMP_NUM_THREADS=1 $(RUN) pytest -n $(WORKERS) -rs $(PYTEST_FLAGS)
	@$(MAKE) --no-print-directory slicer

slicer: system-packages $(VENV)/dev.stamp  ## The 3D Slicer extension in Slicer's own libraries, against the real engine
	@$(PYTHON) tools/slicer_environment.py $(SLICER_VENV) -- $(PIP_FLAGS)
	OMP_NUM_THREADS=1 MEDMLLM_PYTHON=$(abspath $(VENV))/bin/python $(SLICER_VENV)/bin/python -m pytest -rs tests/slicer

slicer-screenshots: slicer  ## The same, and the pictures of the extension's page anew
	OMP_NUM_THREADS=1 MEDMLLM_PYTHON=$(abspath $(VENV))/bin/python MEDMLLM_SCREENSHOTS=slicer_module/Screenshots \
	  $(SLICER_VENV)/bin/python -m pytest -q tests/slicer/test_screenshots.py

test-vllm:  ## The tests of vLLM with the real one, on the CPU, in an environment of its own
	@$(PYTHON) tools/vllm_environment.py $(VLLM_VENV) -- $(PIP_FLAGS)
	@if [ -e $(VLLM_VENV)/vllm.stamp ]; then \
	  OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest -rs $(PYTEST_FLAGS) tests/vllm tests/contracts/test_model.py; fi

crash: system-packages $(VENV)/dev.stamp  ## Kill nodes 400 times at random, bring every trouble on them; about an hour
	OMP_NUM_THREADS=1 $(RUN) tests.siege --database sqlite --kills 200
	OMP_NUM_THREADS=1 $(RUN) tests.siege --database postgres --kills 200
	OMP_NUM_THREADS=1 $(RUN) tests.troubles
	OMP_NUM_THREADS=1 $(RUN) tests.fuzz --seconds 60

soak: system-packages $(VENV)/dev.stamp  ## Send 10000 studies through a node, and see whether anything grows; some hours
	OMP_NUM_THREADS=1 $(RUN) tests.soak -n 10000 --write docs/endurance.md

check: lint test  ## What must pass before a commit: lint, then test

lint: $(VENV)/dev.stamp  ## Ruff and strict mypy
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

bench: $(VENV)/engine.stamp  ## Time imports, help, and each step of a reading
	@$(RUN) benchmarks.run

clean:  ## Delete what was built, cached or shown, but not .venv
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamps say which pins are installed: pip runs again only when pyproject.toml, constraints.txt or a source in C
# changed. The loops in C are built where there is a compiler; without one everything works, slower.

$(VENV)/venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: needs Python 3.11 or newer, found $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: this Python can't make environments; on Debian: sudo apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/engine.stamp: $(VENV)/venv.stamp pyproject.toml constraints.txt $(IN_C)
	@echo "Installing MedMLLM into $(VENV); the first time takes minutes"
	@$(RUN) pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[engine]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/venv.stamp pyproject.toml constraints.txt $(IN_C)
	@echo "Installing MedMLLM and its tests' needs into $(VENV); the first time takes minutes"
	@$(RUN) pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $(VENV)/engine.stamp $@

# Other people's readers, which check our SRs: DCMTK's dsrdump, PixelMed's validator with a Java to compile for it,
# and Orthanc with a compiler for the few lines that keep it on the loopback address; the compiler, with the headers
# of Debian's Python, also builds our loops in C, so it comes before the install.

system-packages:
	@if command -v dsrdump >/dev/null && command -v javac >/dev/null && [ -e /usr/share/java/pixelmed.jar ] \
	  && PATH=$$PATH:/usr/sbin command -v Orthanc >/dev/null && [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] \
	  && [ -d /usr/lib/postgresql ] && command -v chromium >/dev/null && command -v gcc >/dev/null \
	  && ls /usr/lib/*/libEGL_mesa.so.0 /usr/lib/*/libGL.so.1 >/dev/null 2>&1 \
	  && [ -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends $(SYSTEM_PACKAGES); \
	then exit 0; fi; \
	echo "The tests that need $(SYSTEM_PACKAGES) are skipped; to run them too: sudo apt-get install $(SYSTEM_PACKAGES)"

# OHIF's own SR code, pinned, which our SRs are loaded with.

ohif:
	@if [ tests/ohif/node_modules/.package-lock.json -nt tests/ohif/package-lock.json ]; then exit 0; fi; \
	if command -v npm >/dev/null && (cd tests/ohif && npm ci --silent); then exit 0; fi; \
	echo "The tests that run OHIF's code are skipped; to run them too: install Node.js, then cd tests/ohif && npm ci"
