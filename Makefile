# make demo     set up, and see the main job at work on the running system
# make test     set up, and run every test (as root)
# make check    ruff and mypy
# make bench    measure, beside Debian's schroot and the bare system calls
# make soak     the long campaigns: every pair of crashes, every errno of every call, a hundred power cuts, and
#               2,000 operations at random
# make docs     write the generated parts of the manual pages again
# make install  install below PREFIX (/usr/local), with DESTDIR for packages; WITH_VENV=1 brings the dependencies along
# make uninstall
# make divert   put the installed command in the place of Debian's /usr/bin/schroot; make undivert gives it back;
#               both refuse while sessions are open, unless KEEP_SESSIONS=1

# Debian's own interpreter where there is one: it starts four times as fast as a self-built one.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

DESTDIR ?=
PREFIX ?= /usr/local
WITH_VENV ?=
KEEP_SESSIONS ?=
INSTALLER = $(PYTHON) -IB etc/packaging/install.py --destdir "$(DESTDIR)" --prefix "$(PREFIX)" \
	$(if $(WITH_VENV),--with-venv) $(if $(KEEP_SESSIONS),--keep-sessions)

.PHONY: all setup demo test test-packages check bench soak docs install uninstall divert undivert clean
all: setup

setup: $(VENV)/installed
demo: $(VENV)/installed
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/demo.sh

test: test-packages $(VENV)/installed-for-tests
	$(VENV)/bin/python -m pytest $(TESTS)

check: $(VENV)/installed-for-tests
	$(VENV)/bin/ruff check sessions setup.d/[0-9]* etc/packaging tests
	$(VENV)/bin/ruff format --check sessions setup.d/[0-9]* etc/packaging
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy etc/packaging/*.py
	$(VENV)/bin/mypy --scripts-are-modules setup.d/[0-9]*

bench: test-packages $(VENV)/installed-for-tests
	$(VENV)/bin/python tests/bench/bench.py

soak: test-packages $(VENV)/installed-for-tests
	SESSIONS_CRASH_PAIRS=all SESSIONS_SOAK_OPERATIONS=2000 $(VENV)/bin/python -m pytest tests/crash tests/power \
		tests/kernel/mapper/test_mapper_crash.py

docs: $(VENV)/installed
	$(VENV)/bin/python -m sessions.cli.man

# Debian packages that the tests use the real programs of.
test-packages:
	@tests/packages.sh

$(VENV)/bin/python:
	@tests/venv.sh "$(PYTHON)" "$(VENV)"

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --config-settings editable_mode=compat --editable .
	touch $@

$(VENV)/installed-for-tests: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --config-settings editable_mode=compat --editable '.[test]'
	touch $@ $(VENV)/installed

install uninstall divert undivert:
	@$(INSTALLER) $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
