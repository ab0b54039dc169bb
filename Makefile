# `make demo` shows what Enginehouse does; `make help` lists all targets.
PYTHON ?= python3
BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt deploy/hashes.txt deploy/install.py client/pyproject.toml
EXTRAS := all

help:
	@echo "make setup         create .venv, install everything, prepare the default models"
	@echo "make demo          start the stack, index three PDFs, ask questions, print answers, stop"
	@echo "make up            run the stack until Ctrl-C (ARGS='--port 8080' for options)"
	@echo "make test          all checks and tests     make lint   only the checks     make bench   the benchmarks"
	@echo "make test-faults   fault injection: kill every process, break every connection (slow)"
	@echo "make web           build the web page from web/src into web/dist"
	@echo "make docs          build the documentation as a site into site/"
	@echo "make dist          build the wheels of the server and the client into dist/"
	@echo "make lock          renew the hashes of constraints.txt     make digests   pin the digests of container images"
	@echo "make env           write .env with random passwords for docker compose"
	@echo "make clean         remove environments and caches, but not the data folder .enginehouse"

setup: .venv/.installed
	@$(BIN)/enginehouse models prepare

demo: .venv/.installed
	@exec $(BIN)/enginehouse demo $(ARGS)

up: .venv/.installed
	@exec $(BIN)/enginehouse up --with-parent $(ARGS)

lint: .venv/.installed-dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python web/build.py --check

# The checks leave a core idle, so they run beside the tests. Many tests wait, so there are more of them at once than cores. Files run in
# alphabetical order, which has the short ones last; xdist would have those with few tests last, which are the longest.
test:
	@$(MAKE) --no-print-directory -j3 .venv/.installed-dev .venv-clients/.installed web/node_modules/.package-lock.json system-packages
	@$(MAKE) --no-print-directory -j2 lint tests

# With PYTHONDONTWRITEBYTECODE, every process of a test would compile our modules again.
tests:
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow_fault" $(ARGS)

# `make test` includes a short part of these. Run them on an otherwise idle machine. Slow tests of other folders follow, such as mutated
# files, lm-eval, 300 schemas, and killed ingests.
test-faults: .venv/.installed-dev
	@$(BIN)/pytest -n 2 --dist loadfile tests/faults $(ARGS)
	@$(BIN)/pytest -n 2 --dist loadfile -m slow_fault --ignore tests/faults $(ARGS)

bench: .venv/.installed-dev setup
	@$(BIN)/python -m benchmarks.overhead
	@$(BIN)/python -m benchmarks.generation_throughput
	@$(BIN)/python -m benchmarks.fairness
	@$(BIN)/python -m benchmarks.streams

# The built page is committed, so only those who change it need this. Node comes from PyPI.
web: .venv/.installed-dev
	@$(BIN)/python web/build.py

# Warnings are errors: a page missing from the navigation, a link or an anchor without a target.
docs: .venv/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "[docs] site/index.html; search needs a server: $(BIN)/python -m http.server --directory site --bind 127.0.0.1"

dist: .venv/.installed-dev
	@$(BIN)/python -m build --outdir dist .
	@$(BIN)/python -m build --outdir dist client

# What tests need of the system: a browser for the web page, Prometheus' own tool for the alerts, and the second OCR engine. Installed
# automatically only in continuous integration.
system-packages:
	@[ -z "$(CI)" ] || { command -v chromium-headless-shell && command -v promtool && command -v tesseract; } >/dev/null || { \
	  echo "[system packages] installing chromium-headless-shell, prometheus, tesseract-ocr"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
	  chromium-headless-shell prometheus tesseract-ocr >/dev/null; }

# torch is left out: its builds for CPU and CUDA come from several indexes, and each has other files.
lock: .venv/.installed-dev
	@grep --invert-match '^torch==' constraints.txt | $(BIN)/uv pip compile - --quiet --no-deps --universal --python-version 3.11.5 \
	  --generate-hashes --no-annotate --custom-compile-command 'make lock' --output-file deploy/hashes.txt
	@$(BIN)/uv pip compile --quiet --group clients --universal --python-version 3.11.5 \
	  --generate-hashes --no-annotate --custom-compile-command 'make lock' --output-file testing/clients.txt

# Needs Docker and the registry. Run it before a deployment for the security updates of the images, and commit what it changes.
digests:
	@$(PYTHON) deploy/pin_images.py

env:
	@$(PYTHON) -m cli.local.project_folder

clean:
	@rm -rf .venv .venv-clients web/node_modules dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamp is written last, so an interrupted installation is continued.
.venv/.installed: $(INPUTS)
	@$(PYTHON) deploy/install.py $(EXTRAS)
	@touch $@

.venv/.installed-dev: $(INPUTS)
	@$(PYTHON) deploy/install.py $(EXTRAS) gpl-formats --dev
	@touch .venv/.installed $@

# lm-eval and LlamaIndex, which tests run as clients. uv takes ten seconds for these 120 packages, where pip takes minutes; but pip knows
# settings for proxies and certificates that uv does not read.
.venv-clients/.installed: testing/clients.txt | .venv/.installed-dev
	@echo "[clients] installing lm-eval and LlamaIndex into .venv-clients: 750 MB"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-clients
	@$(BIN)/uv pip install --quiet --python .venv-clients --require-hashes --requirements $< --build-constraints $< \
	  || $(BIN)/python -m pip --python .venv-clients install --quiet --no-input --no-deps --require-hashes --requirement $<
	@touch $@

web/node_modules/.package-lock.json: web/package-lock.json | .venv/.installed-dev
	@echo "[web] installing npm packages into web/node_modules"
	@$(BIN)/python web/build.py --packages

.PHONY: docs tests web system-packages env lock digests help setup demo up lint test test-faults bench dist clean
