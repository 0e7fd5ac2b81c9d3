# Each command works on its own. They need Python (3.11 or newer, with its headers and venv module), a
# C compiler and make. Everything is installed into $(VENV); the package is installed in place, and
# again only when something that is compiled has changed.
#
#   make serve [CONFIG=mail.toml]   set up and serve; without a file, the embedded default
#   make test [ARGS="-k smtp"]      set up and run the tests
#   make lint                       style and types
#   make docs                       write the generated pages of docs/
#   make bench [ARGS=--quick]       run the benchmarks, write the table in docs/performance.md
#   make environment                install the package in place, and all tools
#   make clean                      remove everything that was built or installed here

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip -qq --disable-pip-version-check

.PHONY: serve test lint docs bench environment clean
.DELETE_ON_ERROR:

serve: $(VENV)/installed
	$(BIN)/fastlisten serve $(CONFIG)

test: $(VENV)/installed $(VENV)/installed-test
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/installed $(VENV)/installed-lint $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH=$(abspath $(BIN)):$$PATH cython-lint fastlisten/*.pyx fastlisten/*.pxd fastlisten/handlers/smtp/engine/*.pxd # runs pycodestyle
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/python -m mypy.stubtest fastlisten._arena fastlisten._core fastlisten._connection fastlisten._tls \
		fastlisten._mail_syntax

docs: $(VENV)/installed
	$(BIN)/python -m fastlisten.config.document_options

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks --markdown $(ARGS)

# For running setup.py by hand, which needs the build requirements that pip installs only temporarily.
environment: $(VENV)/installed $(VENV)/installed-dev

clean:
	rm -rf $(VENV) build dist fastlisten.egg-info .coverage htmlcov .hypothesis .benchmarks
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find fastlisten \( -name '*.so' -o -name '*.c' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/environment:
	$(PYTHON) -m venv $(VENV) || (echo 'on Debian: apt install python3-venv python3-dev gcc'; false)
	$(PIP) install --upgrade 'pip>=25.1'
	touch $@

$(VENV)/installed: $(VENV)/environment pyproject.toml setup.py $(wildcard fastlisten/*.p[yx][xd])
	@echo 'compiling; this takes about a minute'
	$(PIP) install --editable '.[serve]'
	touch $@

$(VENV)/installed-%: $(VENV)/environment pyproject.toml
	$(PIP) install --group $*
	touch $@
