# Everything here makes its own environment first: .venv, from hash-locked wheels, once.
# Needs Python 3.11 or later and make, nothing else; a C compiler, if there is one, makes landing faster.  PYTHON=python3.13 chooses one.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
# $(call install,PYTHON,WORDS): uv takes an eighth of pip's CPU time; pip installs if it has its own index, or if uv fails.
install = { ! $(BIN)/python -m pip config list | grep -q index && \
	UV_SYSTEM_CERTS=1 $(BIN)/uv pip install --quiet --python $(1) $(2); } || \
	$(BIN)/python -m pip --python $(1) --disable-pip-version-check --no-input install --quiet --no-compile $(2)
ARGS ?=
# Tests start Python a thousand times: without byte code each start would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Maven runs for seconds: the optimising compiler and a parallel collector would take two fifths of its CPU time.
export MAVEN_OPTS ?= -XX:TieredStopAtLevel=1 -XX:+UseSerialGC

WHEEL = $(BIN)/python -m pip --disable-pip-version-check --no-input wheel --quiet --no-index --no-deps --no-build-isolation

.PHONY: docs picture help demo test check nightly coverage lint lint-tests lint-package lint-sql lint-layers format bench wheel wheels lock clean

help:
	@echo "make demo      sample data, landed, built and shown (ARGS='--readings 1000000' for more)"
	@echo "make .venv/.spark  PySpark, 450 MB, and Iceberg's jars, for the tests of the Spark engine; needs Java and Maven"
	@echo "make test      each test that is quick, one case of many (ARGS='-k consent' for some, LEVEL=full for every case)"
	@echo "make check     what CI runs: lint, and every test, Spark's too"
	@echo "make nightly   every test, all of what runs in part by day, and mutants of it: some hours"
	@echo "make coverage  every test, and at least 95% of the lines of src/stedi"
	@echo "make lint      ruff, mypy, sqlfluff, the layering test"
	@echo "make format    rewrites Python and SQL the way make lint wants it"
	@echo "make bench     side by side with peers; writes docs/benchmarks.md (ARGS=--quick)"
	@echo "make docs      the documentation as a site, in build/site"
	@echo "make picture   the picture of the report in docs; needs Chromium"
	@echo "make wheel     builds the package into dist/, for Python 3.11 and later"
	@echo "make wheels    both wheels of a release, for any platform and for this one, and their SHA-256"
	@echo "make lock      pins the newest versions that pyproject.toml allows"
	@echo "make clean     removes what the others made, the environment too"

demo: $(VENV)/.run
	@$(BIN)/stedi demo $(ARGS)

# How much the tests try: quick, full or nightly (tests/support/effort.py).
LEVEL ?= quick
# Some processes; each file's tests, and all that start Spark, are one's (tests/conftest.py).
SHARED = --numprocesses auto --no-loadscope-reorder
test: $(VENV)/.dev
	@STEDI_TESTS=$(LEVEL) $(BIN)/python -m pytest $(SHARED) $(ARGS)

check: $(VENV)/.spark
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test LEVEL=full

nightly: build/contracts/.made
	@$(MAKE) --no-print-directory build/trino/.made || echo "make nightly: no Trino; its tests are skipped" >&2
	@$(MAKE) --no-print-directory test LEVEL=nightly

coverage: $(VENV)/.dev
	@$(BIN)/python -m coverage erase
	@STEDI_TESTS=full $(BIN)/python -m coverage run -m pytest $(SHARED) $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report --fail-under=95

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 lint-tests lint-layers lint-package lint-sql  # each keeps one core busy

lint-tests:
	@$(BIN)/mypy --config-file tests/mypy.ini
lint-package:
	@$(BIN)/mypy
lint-sql:
	@$(BIN)/sqlfluff lint src/stedi/schema/sql
lint-layers:  # it collects every test, which rewrites their assertions once for all processes that run them later
	@$(BIN)/python -m pytest -k test_layers

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/sqlfluff fix --quiet src/stedi/schema/sql

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(ARGS)

# The report of the demo's lake, audited and with one release, as a browser shows it.
picture: $(VENV)/.run
	@rm -rf build/picture && mkdir -p build/picture
	@cd build/picture && ../../$(BIN)/stedi demo >/dev/null && export STEDI_LAKE=build/demo/lake && \
		../../$(BIN)/stedi dataset create gait --match nearest --window 10s --labels build/demo/inbox/_labels.csv >/dev/null && \
		../../$(BIN)/stedi audit --files >/dev/null && ../../$(BIN)/stedi report
	@chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --window-size=900,1160 \
		--screenshot=docs/report.png file://$(CURDIR)/build/picture/report.html 2>/dev/null

# The documentation as a site: build/site/html. The reference is made of the parser, the schema and the docstrings.
docs: $(VENV)/.run build/docs/.made
	@$(BIN)/python docs/site.py build/site
	@cd build/site && ../docs/bin/zensical build --strict

build/docs/.made: requirements/docs.txt | $(BIN)/uv
	@$(PYTHON) -m venv --clear --without-pip build/docs
	@$(call install,build/docs/bin/python,--require-hashes --only-binary :all: -r requirements/docs.txt)
	@touch $@

wheel: $(VENV)/.run
	@rm -f dist/stedi-*.whl
	@$(WHEEL) --wheel-dir dist .

wheels: $(VENV)/.run
	@rm -f dist/stedi-*.whl
	@STEDI_PURE=1 $(WHEEL) --wheel-dir dist .
	@$(WHEEL) --wheel-dir dist .
	@cd dist && sha256sum stedi-*.whl > SHA256SUMS

# The locks hold versions and hashes only, for Linux and macOS and every Python from 3.11 on.
LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --only-binary :all: \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate
lock: $(BIN)/uv
	@$(LOCK) requirements/uv.in -o requirements/uv.txt
	@$(LOCK) -c requirements/constraints.in pyproject.toml requirements/build.in requirements/dev.in \
		-o requirements/dev.txt
	@$(LOCK) -c requirements/dev.txt pyproject.toml requirements/build.in -o requirements/run.txt
	@$(LOCK) -c requirements/dev.txt requirements/spark-build.in -o requirements/spark-build.txt
	@$(subst --only-binary :all:,,$(LOCK)) -c requirements/dev.txt requirements/spark.in -o requirements/spark.txt
	@$(LOCK) requirements/checkov.in -o requirements/checkov.txt
	@$(subst :all:,:all: --no-binary jsonpath-rw,$(LOCK)) requirements/releases.in -o requirements/releases.txt
	@$(LOCK) -c requirements/dev.txt requirements/contracts.in -o requirements/contracts.txt
	@$(LOCK) requirements/docs.in -o requirements/docs.txt

# What holds the templates of AWS against security rules; it wants other versions of what it shares with the rest.
build/checkov/.made: requirements/checkov.txt | $(BIN)/uv
	@echo "Installing checkov, about 150 MB" >&2
	@$(PYTHON) -m venv --clear --without-pip build/checkov
	@$(call install,build/checkov/bin/python,--require-hashes --only-binary :all: -r requirements/checkov.txt)
	@touch $@

# What reads releases as their recipients do, and holds their Croissant file against its standard.
build/releases/.made: requirements/releases.txt | $(BIN)/uv
	@echo "Installing Hugging Face's datasets and mlcroissant, about 580 MB" >&2
	@$(PYTHON) -m venv --clear --without-pip build/releases
	@$(call install,build/releases/bin/python,--require-hashes -r requirements/releases.txt)
	@touch $@

# What holds a lake against its data contracts: what the tests have not, about 40 MB, beside the packages that they have.
build/contracts/.made: requirements/contracts.txt | $(VENV)/.dev
	@echo "Installing datacontract-cli, about 40 MB" >&2
	@$(BIN)/python -m venv --clear --without-pip build/contracts
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo build/contracts/lib/python*/site-packages)/tests.pth
	@build/contracts/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
		--no-compile --require-hashes --only-binary :all: -r requirements/contracts.txt
	@touch $@

# What reads lakes as Athena does. Its tests need Java 24 or later, too (tests/support/trino_server.py).
TRINO = 476
MAVEN = mvn --quiet --batch-mode -DmarkersDirectory=$(CURDIR)/build/trino/markers
build/trino/.made:
	@echo "Fetching Trino, about 540 MB" >&2
	@rm -rf build/trino && mkdir -p build/trino/plugin
	@$(MAVEN) dependency:unpack -Dartifact=io.trino:trino-server-core:$(TRINO):tar.gz -DoutputDirectory=$(CURDIR)/build/trino
	@mv build/trino/trino-server-core-$(TRINO)/lib build/trino/lib
	@$(MAVEN) dependency:unpack -Dartifact=io.trino:trino-iceberg:$(TRINO):zip -DoutputDirectory=$(CURDIR)/build/trino
	@$(MAVEN) dependency:copy -Dartifact=org.xerial:sqlite-jdbc:3.50.3.0 -DoutputDirectory=$(CURDIR)/build/trino/trino-iceberg-$(TRINO)
	@rm -rf build/trino/trino-server-core-$(TRINO)
	@mv build/trino/trino-iceberg-$(TRINO) build/trino/plugin/iceberg  # last: tests run where it is
	@touch $@

clean:
	rm -rf $(VENV) build dist src/stedi/*/lib*.so .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) cannot make environments; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)" >&2
	@$(PYTHON) -m venv --clear $(VENV)

$(BIN)/uv: requirements/uv.txt | $(BIN)/python
	@$(PIP) --require-hashes --only-binary :all: -r requirements/uv.txt || echo "make: no uv; pip installs, which takes longer" >&2
	@touch -c $@

NATIVE = hatch_build.py $(wildcard src/stedi/*/*.c)
$(VENV)/.run: requirements/run.txt pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "Installing the project and what it needs, about 100 MB the first time" >&2
	@$(PIP) --require-hashes --only-binary :all: -r requirements/run.txt
	@$(PIP) --no-index --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q src/stedi  # pip compiles what it copies alone, not what it finds where it lies
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(NATIVE) | $(BIN)/uv
	@echo "Installing the project, what it needs and what tests it, about 400 MB the first time" >&2
	@$(call install,$(BIN)/python,--require-hashes --only-binary :all: -r requirements/dev.txt)  # Python compiles what it imports
	@$(PIP) --no-index --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q src/stedi  # pip compiles what it copies alone, not what it finds where it lies
	@touch $@ $(VENV)/.run

# PySpark comes as source that is built here; its jars of Iceberg come from where Maven gets them.
JARS = org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0 org.xerial:sqlite-jdbc:3.50.3.0 \
	org.apache.iceberg:iceberg-aws-bundle:1.11.0
$(VENV)/.spark: requirements/spark.txt requirements/spark-build.txt | $(VENV)/.dev
	@echo "Installing PySpark, about 450 MB, and Iceberg's jars" >&2
	@{ for jar in $(JARS); do mvn --quiet --batch-mode dependency:get -Dartifact=$$jar -Dtransitive=false || exit 1; done; } & \
		$(call install,$(BIN)/python,--require-hashes --only-binary :all: -r requirements/spark-build.txt) && \
		export DIST_EXTRA_CONFIG=$(CURDIR)/requirements/spark-wheel.cfg && \
		{ $(call install,$(BIN)/python,--require-hashes --no-build-isolation -r requirements/spark.txt); } && wait $$!
	@touch $@
