"""drgn's own view of the modules: one is registered when an address in it needs unwinding or a source line.

drgn unwinds through a registered module, with the module's debug file or the ORC tables in memory
(CONFIG_UNWINDER_ORC). Registering all modules would take seconds, since all of their debug information is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import drgn

from kplug.errors import TargetError
from kplug.image.placed import PlacedImage
from kplug.lifetimes import FOR_EVER, UNTIL_RESUMED, remembered
from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.images import images_of
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.modules.struct_module import Module
from kplug.runtime.types.lines import SOURCE, line_layer


class DebugFiles:
    """Registers with drgn the modules that hold addresses."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._given: set[object] = set()

    def give(self, addresses: Iterable[int]) -> bool:
        """Register the modules that hold these addresses with drgn, with their debug files if there are any.

        Returns whether any of them was new to drgn.
        """
        kernel = self._kernel
        if not kernel.has_types:
            return False
        added = False
        for address in addresses:
            if not kernel.word.is_kernel(address) or (
                kernel.image is not None and kernel.image.piece(address) is not None
            ):
                continue
            try:
                held = modules_of(kernel).holding(address)
                identity = held[0].identity if held is not None else None
            except TargetError:
                return added
            if identity is not None and held is not None and identity not in self._given:
                self._given.add(identity)
                added = self._register(held[0]) or added
        return added

    def _register(self, module: Module) -> bool:
        kernel = self._kernel
        try:
            known = kernel.prog.linux_kernel_loadable_module(
                drgn.Object(kernel.prog, "struct module *", value=module.address), create=True
            )
            known = known[0] if isinstance(known, tuple) else known  # a tuple up to 0.2
        except Exception:  # broken memory, or a drgn without it (before 0.0.31): then its frames end the trace
            return False
        # drgn knows where a module's code is that lasts. Its ORC tables have the init code too, while that is there.
        with suppress(AttributeError, ValueError):  # a drgn that has one range alone (before 0.0.32)
            known.address_ranges = [(part.start, part.end) for part in module.memory]
        image = images_of(kernel).placed(module)
        for path in dict.fromkeys((image.image.path, image.image.symbols_path) if image is not None else ()):
            if path and image is not None and image.image.on_disk and known.wants_debug_file():
                try:
                    known.try_file(path)
                except Exception:  # drgn's libraries reject what ours took
                    continue
        return True


class ProgramLines:
    """Source lines and inlined callers from the debug information that drgn has. Implements `LineSource`."""

    def __init__(self, kernel: Kernel, files: DebugFiles) -> None:
        self._kernel = kernel
        self._files = files
        self.memo = kernel.memo

    def line_layers(self, address: int, link_address: int, image: PlacedImage) -> Iterable[Layer]:
        """The source line of a code address; nothing without debug information for it."""
        piece = image.piece(address)
        if piece is None or not piece.may_be_code:
            return ()
        layer = self._layer(address, image)
        return () if layer is None else (layer,)

    @remembered(UNTIL_RESUMED)
    def _layer(self, address: int, image: PlacedImage) -> Layer | None:
        if image.image.is_module:
            self._files.give((address,))
        try:
            chain = [(place.name(), place.filename, place.line) for place in self._kernel.prog.source_location(address)]
        except Exception:  # no line there; or a bare Exception for what libdw rejects
            return None
        # A broken line table gives places without a file.
        return line_layer(chain, SOURCE) if chain and chain[0][1] and chain[0][2] else None


@remembered(FOR_EVER)
def debug_files_of(kernel: Kernel) -> DebugFiles:
    """What registers a kernel's modules with drgn."""
    return DebugFiles(kernel)
