"""Per-CPU memory of real kernels, both ways.

Truth: the guest's own /proc/kallsyms for the variables, nm for their sizes, drgn's per_cpu_ptr() for the instances, the
types of what the kernel allocated for the bounds of allocations, and the allocator's own sums for the maps as a whole.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import drgn
import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.percpu import per_cpu_ptr
from support.answers import names
from support.open_dumps import Dumped

from kplug import model
from kplug.errors import ExpressionError
from kplug.model import Annotation, Layer

if TYPE_CHECKING:
    from vmimages import Symbol


pytestmark = [pytest.mark.kernel, pytest.mark.boot]

Sizes = dict[tuple[str, int], int]


class PercpuDump(Dumped):
    """A dump, open, and its per-CPU memory by drgn and nm."""

    @cached_property
    def cpus(self) -> list[int]:
        return list(for_each_possible_cpu(self.prog))

    def instance(self, address: int, cpu: int) -> int:
        """drgn's instance of what has that per-CPU address."""
        pointer = drgn.Object(self.prog, "void *", address)
        value: int = per_cpu_ptr(pointer, cpu).value_()
        return value

    @cached_property
    def start(self) -> int:
        return self.dumps.truth.address("__per_cpu_start")

    @cached_property
    def end(self) -> int:
        return self.dumps.truth.address("__per_cpu_end")

    def is_static(self, address: int) -> bool:
        return self.start <= address < self.end

    @cached_property
    def sizes(self) -> Sizes:
        """nm's: (name, address) of each variable of the per-CPU section to its size, where it has one."""
        kaslr_offset = (
            self.dumps.truth.kaslr_offset(self.dumps.files) if self.start else 0
        )  # a section at 0 does not move
        found = {}
        output = subprocess.run(["nm", "-S", str(self.dumps.files.vmlinux)], capture_output=True, text=True, check=True)
        for line in output.stdout.splitlines():
            fields = line.split()
            if len(fields) == 4 and fields[2] in "dDbBvV" and self.is_static(int(fields[0], 16) + kaslr_offset):
                found[fields[3], int(fields[0], 16) + kaslr_offset] = int(fields[1], 16)
        return found


@pytest.fixture(scope="module", params=["amd64-6.1", "amd64-6.12", "amd64-sid"])
def dumped(request: pytest.FixtureRequest) -> PercpuDump:
    from vmimages import cached, find

    if not find(request.param).default and cached(request.param) is None:
        pytest.skip(f"{request.param} is not fetched: it is not among those that the tests need")
    return PercpuDump.open(request.param, modules=True)


def percpu(annotation: Annotation) -> Layer:
    layer = annotation.first(model.PERCPU)
    assert layer is not None, f"{annotation.address:#x} is not per-CPU: {annotation.layers}"
    return layer


def allocation(annotation: Annotation) -> Layer:
    layer = annotation.last(model.PERCPU)
    assert layer is not None
    assert layer.name in ("allocation", "free"), f"{annotation.address:#x}: {layer}"
    return layer


# -- variables ---------------------------------------------------------------------------------------------------------


def test_every_static_variable_on_every_cpu(dumped: PercpuDump) -> None:
    truth = dumped.dumps.truth
    variables = [symbol for symbol in truth.symbols if symbol.module is None and dumped.is_static(symbol.address)]
    assert len(variables) > 200
    checked = 0
    for symbol in variables:
        size = dumped.sizes.get((symbol.name, symbol.address), 0)
        for cpu in dumped.cpus:
            instance = dumped.instance(symbol.address, cpu)
            for offset in sorted({0, max(size - 1, 0)}):
                found = dumped.where(instance + offset)
                layer = percpu(found)
                assert symbol.name in names(found) or symbol.name == "__per_cpu_start"
                assert (layer.details["cpu"], layer.details["kind"]) == (cpu, "static")
                assert int(layer.details["offset"], 16) == symbol.address - dumped.start + offset
                assert layer.start == dumped.instance(dumped.start, cpu)
                assert found.region_class == "percpu"
                assert found.warnings == ()
                checked += 1
            if size:
                narrowest = found.last(model.SYMBOL)
                assert narrowest is not None
                assert narrowest.end == instance + size
                assert symbol.name not in names(dumped.where(instance + size))
    assert checked > 2 * len(variables)


def test_every_static_variable_by_name_on_every_cpu(dumped: PercpuDump) -> None:
    by_name: dict[str, set[int]] = {}
    for name, address in dumped.sizes:
        by_name.setdefault(name, set()).add(address)
    for name, addresses in by_name.items():
        for cpu in dumped.cpus:
            expected = {dumped.instance(address, cpu) for address in addresses}
            assert {place.address for place in dumped.session.places(f"{name}@{cpu}")} == expected
    everywhere = [place.address for place in dumped.session.places("&runqueues@*+8")]
    assert everywhere == [dumped.instance(dumped.prog["runqueues"].address_ + 8, cpu) for cpu in dumped.cpus]


def test_a_cpu_that_is_not_there(dumped: PercpuDump) -> None:
    with pytest.raises(ExpressionError) as error:
        dumped.session.places("runqueues@7")
    assert str(error.value) == "runqueues@7: CPU 7: this kernel has CPUs 0-1"


def module_variables(dumped: PercpuDump) -> list[Symbol]:
    """The modules' per-CPU variables: what kallsyms has at addresses behind the kernel's own."""
    reserved = range(dumped.end, dumped.end + 0x4000)
    found = [symbol for symbol in dumped.dumps.truth.symbols if symbol.module and symbol.address in reserved]
    assert {symbol.module for symbol in found} == {"drop_monitor", "br_netfilter"}
    return found


def test_every_module_variable_on_every_cpu(dumped: PercpuDump) -> None:
    for symbol in module_variables(dumped):
        for cpu in dumped.cpus:
            instance = dumped.instance(symbol.address, cpu)
            found = dumped.where(instance)
            layer, module = percpu(found), found.first(model.MODULE)
            assert module is not None
            assert (module.name, layer.details["cpu"], layer.details["kind"]) == (symbol.module, cpu, "module")
            assert layer.details["variable"] == symbol.name
            assert symbol.name in names(found)
            assert found.last(model.SYMBOL).start == instance  # type: ignore[union-attr]
            assert [place.address for place in dumped.session.places(f"{symbol.name}@{cpu}")] == [instance]


def test_a_module_has_the_bytes_that_it_says_and_no_more(dumped: PercpuDump) -> None:
    for module in list_for_each_entry("struct module", dumped.prog["modules"].address_of_(), "list"):
        size = module.percpu_size.value_()
        for cpu in dumped.cpus if size else ():
            start = dumped.instance(module.percpu.value_(), cpu)
            for offset, inside in ((-1, False), (0, True), (size - 1, True), (size, False)):
                layer = dumped.where(start + offset).first(model.MODULE)
                named = layer is not None and layer.name == module.name.string_().decode()
                assert named is inside
                if inside:
                    assert layer is not None
                    assert (layer.start, layer.end) == (start, start + size)


def test_an_offset_of_a_module_variable_is_told_with_its_module(dumped: PercpuDump) -> None:
    for symbol in module_variables(dumped):
        found = dumped.where(symbol.address)
        if dumped.start:  # such an offset is an address in the image as well, and answered as that
            assert found.first(model.IMAGE) is not None
            continue
        special, module = found.first(model.SPECIAL), found.first(model.MODULE)
        assert special is not None
        assert module is not None
        assert (special.details["what"], special.details["kind"]) == ("percpu-offset", "module")
        assert module.name == symbol.module


# -- allocations -------------------------------------------------------------------------------------------------------


def pointers(prog: drgn.Program) -> Iterator[tuple[drgn.Object, int]]:
    """__percpu pointers that the kernel got from alloc_percpu() and its like, and the bytes that it asked for."""
    mib = prog["init_net"].mib
    for member in ("ip_statistics", "tcp_statistics", "net_statistics", "udp_statistics", "icmp_statistics"):
        yield getattr(mib, member), drgn.sizeof(getattr(mib, member).type_.type)
    of_caches = "cpu_slab" if prog.type("struct kmem_cache").has_member("cpu_slab") else "cpu_sheaves"
    for cache in list_for_each_entry("struct kmem_cache", prog["slab_caches"].address_of_(), "list"):
        pointer = getattr(cache, of_caches)
        if pointer:
            yield pointer, drgn.sizeof(pointer.type_.type)
    for counter in list_for_each_entry("struct percpu_counter", prog["percpu_counters"].address_of_(), "list"):
        yield counter.counters, 4


def test_allocations_of_the_kernel(dumped: PercpuDump) -> None:
    sizes: dict[int, int] = {}
    for pointer, size in pointers(dumped.prog):
        sizes[pointer.value_()] = size
    # Since 6.6 several percpu_counters come from one allocation (c439d5e8a0ac): its bytes are those of all of them.
    singles = {pointer: size for pointer, size in sizes.items() if size != 4}
    assert len(singles) > 100
    kinds = set()
    for pointer, size in sizes.items():
        for cpu in dumped.cpus:
            instance = dumped.instance(pointer, cpu)
            for offset in (0, size - 1):
                found = dumped.where(instance + offset)
                layer, run = percpu(found), allocation(found)
                assert (layer.name, layer.details["cpu"], layer.details["kind"]) == (f"CPU {cpu}", cpu, "dynamic")
                assert (run.details["allocated"], run.details["populated"]) == (True, True)
                assert int(layer.details["pointer"], 16) == pointer + offset & (1 << 64) - 1
                if pointer in singles:
                    assert (run.start, run.end) == (instance, instance + size + 3 & ~3)
                kinds.add(layer.details["chunk"])
            if pointer in singles:
                assert allocation(dumped.where(run.end)).start == run.end  # type: ignore[arg-type]
    assert len(kinds) > 1  # the first chunk and a further one


def test_a_pointer_to_an_allocation_is_told_and_has_an_instance_on_every_cpu(dumped: PercpuDump) -> None:
    for pointer, size in pointers(dumped.prog):
        value = pointer.value_()
        found = dumped.where(value)
        if found.first(model.IMAGE) is None:
            special = found.first(model.SPECIAL)
            assert special is not None
            assert (special.name, special.details["what"]) == ("per-CPU pointer", "percpu-offset")
            assert (special.details["kind"], special.details["allocated"]) == ("dynamic", True)
        else:
            assert dumped.start  # only where the section has ordinary addresses
        places = dumped.session.places(f"{value:#x}@*+{size}")
        assert [place.address for place in places] == [dumped.instance(value, cpu) + size for cpu in dumped.cpus]


def chunks(prog: drgn.Program) -> list[drgn.Object]:
    found = [prog["pcpu_reserved_chunk"]]
    for number in range(prog["pcpu_nr_slots"].value_()):
        found += list_for_each_entry("struct pcpu_chunk", prog["pcpu_chunk_lists"][number].address_of_(), "list")
    return found


def runs(dumped: PercpuDump, start: int, end: int) -> Iterator[tuple[Layer, Annotation]]:
    """The allocations and free runs between two addresses: each begins where the last one ends."""
    address = start
    while address < end:
        found = dumped.where(address)
        run = allocation(found)
        assert run.start == address
        assert run.end is not None
        yield run, found
        address = run.end
    assert address == end


def test_the_runs_of_a_chunk_are_all_of_it_and_their_sum_is_what_the_kernel_says(dumped: PercpuDump) -> None:
    unit_offsets = dumped.prog["pcpu_unit_offsets"]
    _, *others = chunks(dumped.prog)
    assert len(others) > 1
    for chunk in others:
        begin = chunk.base_addr.value_() + chunk.start_offset.value_()
        end = chunk.base_addr.value_() + chunk.nr_pages.value_() * 4096 - chunk.end_offset.value_()
        for cpu in dumped.cpus:
            offset = unit_offsets[cpu].value_()
            found = list(runs(dumped, begin + offset, end + offset))
            free = sum(run.end - run.start for run, _ in found if not run.details["allocated"])  # type: ignore[operator]
            assert free == chunk.free_bytes.value_()
            assert all(int(run.details["chunk"], 16) == chunk.value_() for run, _ in found)
            assert {percpu(each).name for _, each in found} == {f"CPU {cpu}"}
            # What lies around the unit is not of this chunk.
            for outside in (begin + offset - 1, end + offset):
                layer = dumped.where(outside).first(model.PERCPU)
                assert layer is None or layer.details.get("chunk") != hex(chunk.value_()) or layer.name != f"CPU {cpu}"


def test_pages_that_are_populated_are_as_many_as_the_kernel_says(dumped: PercpuDump) -> None:
    for chunk in chunks(dumped.prog):
        pages = range(chunk.base_addr.value_(), chunk.base_addr.value_() + chunk.nr_pages.value_() * 4096, 4096)
        told: list[Any] = [percpu(dumped.where(page)).details["populated"] for page in pages]
        assert sum(told) == chunk.nr_populated.value_()
        readable = []
        for page in pages:
            try:
                dumped.prog.read(page, 1)
                readable.append(True)
            except drgn.FaultError:
                readable.append(False)
        assert told == readable
