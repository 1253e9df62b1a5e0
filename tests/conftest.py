"""What all tests need: Ctrl-C that children hear, and memory that is given back."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from support.groups import group_of
from support.recorder import Recorder
from support.sampling import Sampling

# A busy machine fails no test; and what a fixture makes, no example changes.
settings.register_profile(
    "kplug", deadline=None, suppress_health_check=(HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
)
settings.load_profile("kplug")

# An open kernel takes some 200 MB, and is held by circles of references.
_COLLECTED_EACH = 1 << 29
_collected_at = 0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="ask every address in exhaustive comparisons")
    parser.addoption("--every-address", action="store_true", help="compare every address, whole answers of some")
    parser.addoption("--sample-seed", type=int, help="choose the addresses of an earlier run")
    parser.addoption(
        "--kernel", action="append", help="compare the answers of these files' kernels, not the usual ones"
    )
    parser.addoption("--source", help="of tests that ask several sources of a kernel, those of this one")


def pytest_configure(config: pytest.Config) -> None:
    """Where tests run in the background of a shell, SIGINT is ignored, in the programs they start as well."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.sample_seed is None:  # xdist hands the options on to its workers
        config.option.sample_seed = random.randrange(1_000_000)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(_sampling(terminalreporter.config).words())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from support.scheduler import InGroups

    return InGroups(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The groups that take longest come first, so that no process is left with one at the end: boots, whole kernels."""
    if config.option.source is not None:
        others = [item for item in items if source_of(item) not in (None, config.option.source)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]
    groups = {path: group_of(path) for path in {item.path for item in items}}
    first: dict[str, int] = {}
    for item in items:
        turn = 0 if item.get_closest_marker("boot") else 1 if item.get_closest_marker("kernel") else 2
        first[groups[item.path]] = min(turn, first.get(groups[item.path], turn))
    items.sort(key=lambda item: first[groups[item.path]])


def pytest_collection_finish() -> None:
    """Thousands of tests stay to the end: whoever looks for circles need not look through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sampling(request: pytest.FixtureRequest) -> Sampling:
    """The share of addresses that this run asks."""
    return _sampling(request.config)


def _sampling(config: pytest.Config) -> Sampling:
    return Sampling(config.option.sample_seed, config.option.whole, config.option.every_address)


def source_of(item: pytest.Item) -> str | None:
    """The source of a kernel that a test asks: its parameter `source`, or its mark."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    mark = item.get_closest_marker("source")
    found = parameters.get("source", mark.args[0] if mark is not None else None)
    return found if isinstance(found, str) else None


@pytest.fixture
def cell(record_property: Callable[[str, object], None]) -> Recorder:
    """What a test tells the cell of `make matrix` in which it runs."""
    return Recorder(record_property)


@pytest.fixture(autouse=True, scope="module")
def _forget(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a file of tests keeps open for its tests in a cache is closed after them."""
    yield
    for value in vars(request.module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    gc.collect()


def pytest_runtest_logfinish() -> None:
    global _collected_at
    if _memory() > _collected_at + _COLLECTED_EACH:
        gc.collect()
        _collected_at = _memory()


def _memory() -> int:
    """The bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
