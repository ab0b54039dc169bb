# make demo shows everything that works; make help lists the rest.
PYTHON ?= python3
BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt deploy/install.py client/pyproject.toml
EXTRAS := all

help:
	@echo "make setup   create .venv, install everything, prepare the default models"
	@echo "make demo    setup, then: start the stack, read three PDFs, ask questions, show answers, stop"
	@echo "make up      setup, then run the stack until Ctrl-C (ARGS='--port 8080' for options)"
	@echo "make test    every check and test    make lint   the checks alone    make bench  the figures"
	@echo "make test-faults   everything that can be killed, killed, in 20 minutes"
	@echo "make clean   remove .venv and caches; the data folder .enginehouse stays"

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

test: lint chromium
	@$(BIN)/pytest -n 2 --dist loadfile -m "not slow_fault" $(ARGS)

# Every process killed, every connection broken; a quick part of it belongs to `make test`. Alone on the machine, please.
test-faults: .venv/.installed-dev
	@$(BIN)/pytest -n 2 --dist loadfile tests/faults $(ARGS)

bench: .venv/.installed-dev setup
	@$(BIN)/python -m benchmarks.overhead
	@$(BIN)/python -m benchmarks.generation_throughput
	@$(BIN)/python -m benchmarks.fairness
	@$(BIN)/python -m benchmarks.streams

# The page is tested in a real browser. Only a machine of continuous integration gets it without being asked.
chromium:
	@[ -z "$(CI)" ] || command -v chromium >/dev/null || { echo "[chromium] installing"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium >/dev/null; }

clean:
	@rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamp is written last, so an installation that was broken off is taken up again.
.venv/.installed: $(INPUTS)
	@$(PYTHON) deploy/install.py $(EXTRAS)
	@touch $@

.venv/.installed-dev: $(INPUTS)
	@$(PYTHON) deploy/install.py $(EXTRAS) --dev
	@touch .venv/.installed $@

.PHONY: chromium help setup demo up lint test test-faults bench clean
