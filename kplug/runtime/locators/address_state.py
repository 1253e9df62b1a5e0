"""The state of an address: mapped or not, with which permissions, and whether the kernel freed it."""

from __future__ import annotations

from kplug.errors import TargetError
from kplug.model import UNKNOWN_STATE, State
from kplug.resolver import StateError
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.freed import was_freed
from kplug.runtime.tables.kasan import ACCESSIBLE, kasan_of
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.user_space import UserSpace


class MemoryState:
    """The state of an address (`kplug.resolver.StateSource`).

    `user` is the program that user addresses belong to, None if it is not known.
    """

    def __init__(self, kernel: Kernel, user: UserSpace | None = None) -> None:
        self._kernel = kernel
        self._user = user

    def state(self, address: int) -> State:
        """Raises StateError with the part that is known."""
        tables = page_tables(self._kernel)
        paging = tables.paging
        if paging is None:
            return UNKNOWN_STATE
        root = None
        if paging.is_user(address) and paging.is_canonical(address):
            root = self._user.root(address) if self._user is not None else None
            if root is None:
                return UNKNOWN_STATE
        problems = []
        freed = mapped = permissions = page_size = None
        try:
            freed = was_freed(self._kernel, address)
        except TargetError as error:
            problems.append(str(error))
        try:
            found = tables.translate(address, root)
            mapped = found is not None
            if found is not None:
                permissions, page_size = found.permissions, found.page_size
        except TargetError as error:
            problems.append(str(error))
        kasan = None
        try:
            kasan = self._kasan(address, mapped)
        except TargetError as error:
            problems.append(str(error))
        state = State(mapped, permissions, freed, page_size, kasan)
        if problems:
            raise StateError("; ".join(problems), state)
        return state

    def _kasan(self, address: int, mapped: bool | None) -> str | None:
        """What KASAN's shadow says of an address. Where nothing is mapped, one page of zeros is the shadow of all."""
        kasan = kasan_of(self._kernel)
        words = kasan.words(address) if kasan is not None else None
        return None if words == ACCESSIBLE and not mapped else words
