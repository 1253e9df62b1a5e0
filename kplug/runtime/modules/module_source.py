"""What `kmod` shows, from the kernel's list of modules (`kplug.loaded_modules.ModuleSource`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from kplug.errors import TargetError
from kplug.loaded_modules import LoadedModule, LoadedSection, ModuleMemory, UnloadedModule
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.images import FROM_FILE, LoadedImages, PlacedModule, images_of
from kplug.runtime.modules.module_list import Modules, modules_of
from kplug.runtime.modules.struct_module import Module

T = TypeVar("T")


class RuntimeModules:
    """The modules of a kernel that is open."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def modules(self) -> Sequence[LoadedModule]:
        return [self._loaded(module) for module in self._list()]

    def problem(self) -> str | None:
        return self._list().problem

    def unloaded(self) -> Sequence[UnloadedModule]:
        return [UnloadedModule(*gone) for gone in self._list().unloaded]

    def named(self, name: str) -> LoadedModule | None:
        module = self._list().named(name)
        return self._loaded(module) if module is not None else None

    def holding(self, address: int) -> LoadedModule | None:
        held = self._list().holding(address)
        return self._loaded(held[0]) if held is not None else None

    def sections(self, name: str) -> Sequence[LoadedSection]:
        module = self._list().named(name)
        if module is None:
            return ()
        found = []
        for section in self._placed(module).image.sections:
            if section.occupies_addresses:
                part = module.part_at(section.address)
                memory = part.type if part is not None else "percpu"
                found.append(
                    LoadedSection(
                        section.name, section.address, section.end, section.type, section.flag_letters, memory
                    )
                )
        return sorted(found, key=lambda section: (section.memory == "percpu", section.start))

    def _list(self) -> Modules:
        if not self._kernel.has_types:
            raise TargetError("the module list cannot be read: that needs the kernel's types (DWARF or BTF)")
        return modules_of(self._kernel)

    def _placed(self, module: Module) -> PlacedModule:
        images = images_of(self._kernel)
        assert isinstance(images, LoadedImages)
        return images.placed(module)

    def _loaded(self, module: Module) -> LoadedModule:
        placed = self._placed(module)
        problems = list(placed.warnings)

        def if_readable(make: Callable[[], T], otherwise: T) -> T:
            try:
                return make()
            except TargetError as error:
                problems.append(str(error))
                return otherwise

        image = placed.image
        return LoadedModule(
            name=module.name,
            state=module.state,
            size=module.size,
            memory=tuple(ModuleMemory(*part) for part in module.memory),
            percpu=module.percpu,
            refcount=module.refcount,
            users=if_readable(lambda: module.users, ()),
            taints=if_readable(lambda: module.taints, ""),
            version=module.version,
            source_version=module.source_version,
            build_id=module.build_id,
            symbols_from=image.symbols_from if image.symbols else None,
            path=image.path if image.symbols_from == FROM_FILE else None,
            problems=tuple(problems),
        )
