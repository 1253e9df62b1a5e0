# kplug's own commands. Each does its own set-up; what is fetched or built goes into ~/.cache/kplug (KPLUG_CACHE).
# The system's Python, which is gdb's too; Debian's is also built for speed.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv/bin
export PYTHON
# Compiled Python is kept, whatever the shell says: tests start hundreds of Pythons and gdbs, each of which imports kplug.
export PYTHONDONTWRITEBYTECODE :=

# Tests run on both cores; tests/support/groups.py has which of them stay together.
SIDE_BY_SIDE := -n 2
# Many tests ask the dumps of these: they are made while other kernels are fetched.
DUMPED := amd64-6.1 amd64-6.12 amd64-sid arm64-6.12
# Modules are built for these.
BUILT_FOR := amd64-6.1 amd64-6.12
FETCH := $(PYTHON) vm-images/vm.py fetch --all $(DUMPED:%=--dump %) $(BUILT_FOR:%=--headers %)

.PHONY: help setup test test-all built unit check demo bench matrix questions hunt format clean

help:
	@echo "make demo    boot a real kernel under QEMU with KASLR and ask gdb, the prompts and the shell about it"
	@echo "make test    all tests (fetches kernels, boots and dumps them)"
	@echo "make test-all  the same, exhaustive comparisons whole, and those with two kernels that it builds"
	@echo "make built   the kernels of .ci/build-tree, each once, into the cache: minutes for each"
	@echo "make unit    the fast tests alone"
	@echo "make check   formatting, lint, types"
	@echo "make bench   speed, as ratios to peers"
	@echo "make questions  docs/questions.md's table: every front end, asked about every kind of address"
	@echo "make hunt    what users reported of other tools, asked on real kernels: case, answer, right value"
	@echo "make matrix  every kernel from every source, gdb and Python: docs/support.md's tables. A part: CELLS='s390x-*/vmlinux'"

setup:
	@.ci/setup test

test:
	@.ci/setup test -- $(FETCH)
	$(VENV)/python -m pytest $(SIDE_BY_SIDE)

test-all:
	@.ci/setup test build -- $(FETCH)
	map=$$(.ci/build-tree) && page_owner=$$(.ci/build-tree page-owner) && kasan=$$(.ci/build-tree kasan) && \
		KPLUG_BUILD_TREE=$$map KPLUG_PAGE_OWNER_TREE=$$page_owner KPLUG_KASAN_TREE=$$kasan \
		$(VENV)/python -m pytest $(SIDE_BY_SIDE) --whole

built:
	@.ci/setup test build
	for kernel in map page-owner kasan clang; do .ci/build-tree $$kernel || exit; done

unit: setup
	$(VENV)/python -m pytest -m "not kernel and not boot"

check: setup
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy kplug gdb/kplug_gdb vm-images/vmimages

format: setup
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

demo: setup
	$(VENV)/python vm-images/demo.py

bench:
	@.ci/setup test bench
	$(VENV)/python vm-images/vm.py fetch
	$(VENV)/python tests/bench/run.py

questions:
	@.ci/setup test bench
	$(VENV)/python tests/questions/run.py
	$(VENV)/python tests/questions/peers.py

hunt: setup
	$(VENV)/python tests/hunt/run.py

# Cells that have a result of this very code are not run again, but for AGAIN=1; KEEP=1 keeps the kernels they fetched.
matrix:
	@.ci/setup test matrix
	$(VENV)/python tests/matrix/run.py $(if $(AGAIN),--again) $(if $(KEEP),--keep) $(if $(CELLS),'$(CELLS)')

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
