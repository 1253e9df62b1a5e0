"""drgn's own view of the modules: told of one when an address in it needs unwinding or a source line, not before.

drgn unwinds through a module that it knows of, with the module's debug file or by the ORC tables that the kernel keeps
(CONFIG_UNWINDER_ORC); it knows of none that it was not told of, and reading all of them with all of their debug
information takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

import drgn

from kplug import model
from kplug.errors import TargetError
from kplug.image.placed import PlacedImage
from kplug.lifetimes import FOR_EVER, UNTIL_MOVED, remembered
from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.images import images_of
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.modules.struct_module import Module
from kplug.runtime.types.lines import SOURCE, line_layer


class DebugFiles:
    """Gives drgn the modules that addresses are in."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._given: set[object] = set()

    def give(self, addresses: Iterable[int]) -> bool:
        """Tell drgn of the modules that hold these addresses, with their debug files where there are any.

        Returns whether it was told of one that it did not know.
        """
        kernel = self._kernel
        if not kernel.has_types:
            return False
        told = False
        for address in addresses:
            if not kernel.word.is_kernel(address) or (
                kernel.image is not None and kernel.image.piece(address) is not None
            ):
                continue
            try:
                held = modules_of(kernel).holding(address)
                identity = held[0].identity if held is not None else None
            except TargetError:
                return told
            if identity is not None and held is not None and identity not in self._given:
                self._given.add(identity)
                told = self._tell(held[0]) or told
        return told

    def _tell(self, module: Module) -> bool:
        kernel = self._kernel
        try:
            known = kernel.prog.linux_kernel_loadable_module(
                drgn.Object(kernel.prog, "struct module *", value=module.address), create=True
            )
            known = known[0] if isinstance(known, tuple) else known  # a tuple up to 0.2
        except Exception:  # broken memory, or a drgn without it (before 0.0.31): then its frames end the trace
            return False
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
        """The source line of a code address; nothing where there is no debug information for it."""
        piece = image.piece(address)
        if piece is None or piece.region_class not in (model.TEXT, model.INIT):
            return ()
        layer = self._layer(address, image)
        return () if layer is None else (layer,)

    @remembered(UNTIL_MOVED)
    def _layer(self, address: int, image: PlacedImage) -> Layer | None:
        if image.image.is_module:
            self._files.give((address,))
        try:
            chain = [(place.name(), place.filename, place.line) for place in self._kernel.prog.source_location(address)]
        except Exception:  # no line there; or what libdw rejects, as a bare Exception
            return None
        # A broken line table gives places without a file.
        return line_layer(chain, SOURCE) if chain and chain[0][1] and chain[0][2] else None


@remembered(FOR_EVER)
def debug_files_of(kernel: Kernel) -> DebugFiles:
    """What tells drgn of a kernel's modules."""
    return DebugFiles(kernel)
