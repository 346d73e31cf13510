# make run and make test do all the set-up they need on a fresh Debian or Ubuntu machine.

VENV := .venv
PYTHON := $(VENV)/bin/python
PYTEST := $(VENV)/bin/pytest

# What the tests use beside Python packages: a real browser, a C compiler, Go with gorilla, Node, systemd's checkers.
TEST_PACKAGES := chromium gcc libc6-dev golang-go golang-github-gorilla-websocket-dev nodejs node-ws curl systemd prometheus

.PHONY: run test lint format bench prove prove-stop prove-kills prove-front clean

run: $(VENV)/.for-run
	@scripts/run

test: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(PYTEST) $(PYTEST_ARGS)

# The long forms of what make test shows in short.
prove: prove-stop prove-kills prove-front

# SIGTERM with 200 clients, of which 20 never read, 20 times.
prove-stop: $(VENV)/.for-test
	$(PYTEST) -m slow tests/process/test_stop.py

# kill -9 during a stream of writes, 50 times.
prove-kills: $(VENV)/.for-test
	$(PYTEST) -m slow tests/process/test_kill.py

# 1,000 requests that end a Hypercorn process.
prove-front: $(VENV)/.for-test
	$(PYTEST) -m slow tests/process/test_hostile_upgrades.py

lint: $(VENV)/.for-test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: $(VENV)/.for-test
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

# CPU-µs a delivery beside a C send() loop and a Go hub; see benchmarks/README.md.
bench: $(VENV)/.for-run
	@scripts/debian-packages gcc libc6-dev golang-go golang-github-gorilla-websocket-dev
	$(PYTHON) -m benchmarks.run $(BENCH_ARGS)

clean:
	rm -rf $(VENV) .run build benchmarks/build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/debian-packages python3 python3-venv
	python3 -m venv $(VENV)

$(VENV)/.for-run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[examples]'
	@touch $@

$(VENV)/.for-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[examples,test,lint]'
	@touch $@ $(VENV)/.for-run
