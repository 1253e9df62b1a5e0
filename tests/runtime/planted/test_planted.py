"""Known addresses of every kind: what kwhere says of each, beside what a guest's module and program planted there."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support.open_dumps import session_in
from support.planted import EXPECTED, expected_of, missing

from kplug.render.text import TextRenderer

if TYPE_CHECKING:
    from support.planted import Expected
    from vmimages import Specimen

    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# Not planted in every guest: KFENCE has to be on, tables to have a level, and what init pages become is up to the
# kernel.
_SOMETIMES = ("kfence_", "pt_p4d_", "reuse_", "init_now_", "pt_pte_", "userpage_", "struct_page_user_")


class Guest(NamedTuple):
    """The dump, open; what was planted in the kernel, and the addresses of the process `pid`."""

    session: Session
    arch: str
    specimens: list[Specimen]
    user_specimens: list[Specimen]
    pid: int


# Every machine, with and without its vmlinux; those after the first two are asked by `make test-all`.
_SAMPLED = {"append": ("kfence.sample_interval=1",)}
_LA57 = {"la57": True, **_SAMPLED}
_DEBUGGED = {"pti": True, "append": ("slub_debug=FZPU",)}
_GUESTS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "6.1": ("amd64-6.1", True, {}),
    "6.12 with 5 levels and KFENCE, without vmlinux": ("amd64-6.12", False, _LA57),
    "6.1 without vmlinux": ("amd64-6.1", False, {}),
    "6.12 with 5 levels and KFENCE": ("amd64-6.12", True, _LA57),
    "6.1 with pti and slub_debug": ("amd64-6.1", True, _DEBUGGED),
    "6.1 with pti and slub_debug, without vmlinux": ("amd64-6.1", False, _DEBUGGED),
    "arm64 with KFENCE": ("arm64-6.12", True, _SAMPLED),
    "arm64 with KFENCE, without vmlinux": ("arm64-6.12", False, _SAMPLED),
    "newest": ("amd64-sid", True, {}),
    "newest without vmlinux": ("amd64-sid", False, {}),
}


@functools.lru_cache
def _guest(machine: str) -> Guest:
    from vmimages import planted_dump, specimens, user_pid, user_specimens

    name, vmlinux, options = _GUESTS[machine]
    dump = planted_dump(name, quiet=True, **options)
    session = session_in(dump, vmlinux=vmlinux)
    return Guest(session, dump.files.arch, specimens(dump), user_specimens(dump), user_pid(dump))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = list(_GUESTS) if metafunc.config.option.whole else list(_GUESTS)[:2]
    metafunc.parametrize("guest", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def guest(request: pytest.FixtureRequest) -> Guest:
    return _guest(request.param)


def test_every_specimen_has_an_expectation(guest: Guest) -> None:
    for specimen in (*guest.specimens, *guest.user_specimens):
        expected_of(specimen)


@pytest.mark.parametrize("expected", EXPECTED, ids=[each.key for each in EXPECTED])
def test_specimens_are_answered_as_they_were_planted(guest: Guest, expected: Expected) -> None:
    asked = 0
    for specimens, pid in ((guest.specimens, None), (guest.user_specimens, guest.pid)):
        for specimen in specimens:
            if expected_of(specimen) is expected:
                asked += 1
                with guest.session.program(pid):
                    (answer,) = guest.session.where(f"{specimen.address:#x}")
                text = TextRenderer().annotation(answer)
                assert not missing(specimen, text), f"{specimen.truth}\n{text}"
    assert asked or expected.key.startswith(_SOMETIMES) or expected.arch not in (None, guest.arch)
