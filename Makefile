# Everything a fresh machine needs: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo demo-line test test-fast lint docs dist clean

venv: .venv/installed

.venv/installed: pyproject.toml distributions/verdicts/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "inspectd needs Python 3.11 or newer")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { test "$$(id -u)" = 0 && apt-get install -y python3-venv; } \
		|| { echo "Python's venv module is missing: sudo apt install python3-venv" >&2; exit 2; }
	@echo "setting up .venv (1 to 3 minutes)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable distributions/verdicts --editable '.[dev]'
	@touch $@

demo: venv
	$(BIN)/python -m examples.demo

# The simulated line goes on, with the page on which operators watch it, until Ctrl-C.
demo-line: venv
	$(BIN)/python -m examples.demo_line

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# Without what is marked slow: under two minutes on two cores.
test-fast: venv
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow'

# The docs as a site, into build/site.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What a release consists of, into dist/.
dist: venv
	$(BIN)/python -m release.dist

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/lint-imports

clean:
	rm -rf .venv demo-output build dist *.egg-info distributions/*/*.egg-info distributions/*/build
