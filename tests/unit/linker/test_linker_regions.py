"""The region tree. Addresses are those of real kernels' symbol tables (tests/linker_kernel/data: nm's lines)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.linker_kernels import KERNELS, MACHINES, named, names, symbols_of, tree_of

from kplug.arch import registry
from kplug.linker.boundary_table import boundary_table, table_symbols
from kplug.linker.region_builder import build_region_tree
from kplug.linker.regions import Gap, Region, RegionTree
from kplug.model import BRK, BSS, DATA, INIT, PERCPU_CLASS, RODATA, TEXT

# Region by region: its name and the symbols that bound it, as the kernels' own linker scripts have them.
EVERYWHERE = """
image _text _end
text _stext _etext
rodata __start_rodata __end_rodata
init __init_begin __init_end
data _sdata _edata
bss __bss_start __bss_stop
percpu __per_cpu_start __per_cpu_end
sched.text __sched_text_start __sched_text_end
spinlock.text __lock_text_start __lock_text_end
noinstr.text __noinstr_text_start __noinstr_text_end
cpuidle.text __cpuidle_text_start __cpuidle_text_end
softirqentry.text __softirqentry_text_start __softirqentry_text_end
irqentry.text __irqentry_text_start __irqentry_text_end
ro_after_init __start_ro_after_init __end_ro_after_init
jump_table __start___jump_table __stop___jump_table
tracepoints_ptrs __start___tracepoints_ptrs __stop___tracepoints_ptrs
ksymtab __start___ksymtab __stop___ksymtab
param __start___param __stop___param
modver __start___modver __stop___modver
ex_table __start___ex_table __stop___ex_table
notes __start_notes __stop_notes
BTF __start_BTF __stop_BTF
bug_table __start___bug_table __stop___bug_table
data_nosave __nosave_begin __nosave_end
data..once __start_once __end_once
dyndbg __start___dyndbg __stop___dyndbg
trace_printk_fmt __start___trace_bprintk_fmt __stop___trace_bprintk_fmt
mcount_loc __start_mcount_loc __stop_mcount_loc
init.setup __setup_start __setup_end
initcall __initcall_start __initcall_end
initcallearly __initcall_start __initcall0_start
initcall7 __initcall7_start __initcall_end
con_initcall __con_initcall_start __con_initcall_end
"""
FULL_LISTS = """
initcall0 __initcall0_start __initcall1_start
initcall5 __initcall5_start __initcallrootfs_start
initcallrootfs __initcallrootfs_start __initcall6_start
initcall6 __initcall6_start __initcall7_start
ksymtab_gpl __start___ksymtab_gpl __stop___ksymtab_gpl
kcrctab __start___kcrctab __stop___kcrctab
pci_fixup_early __start_pci_fixups_early __end_pci_fixups_early
ftrace_events __start_ftrace_events __stop_ftrace_events
governor_thermal_table __governor_thermal_table __governor_thermal_table_end
init.ramfs __initramfs_start __initramfs_size
entry.text __entry_text_start __entry_text_end
altinstructions __alt_instructions __alt_instructions_end
"""
AMD64 = """
init.text _sinittext _einittext
brk __brk_base __brk_limit
smp_locks __smp_locks __smp_locks_end
orc_unwind_ip __start_orc_unwind_ip __stop_orc_unwind_ip
orc_unwind __start_orc_unwind __stop_orc_unwind
orc_lookup orc_lookup orc_lookup_end
init.scratch __init_scratch_begin __init_scratch_end
static_call.text __static_call_text_start __static_call_text_end
static_call_sites __start_static_call_sites __stop_static_call_sites
retpoline_sites __retpoline_sites __retpoline_sites_end
apicdrivers __apicdrivers __apicdrivers_end
x86_cpu_dev.init __x86_cpu_dev_start __x86_cpu_dev_end
bss..decrypted __start_bss_decrypted __end_bss_decrypted
vvar __vvar_page __init_begin
"""
ARM64 = """
head.text _text _stext
init.text __inittext_begin __inittext_end
init.data __initdata_begin __initdata_end
inittext _sinittext _einittext
exit.text __exittext_begin __exittext_end
hyp.text __hyp_text_start __hyp_text_end
hyp.idmap.text __hyp_idmap_text_start __hyp_idmap_text_end
idmap.text __idmap_text_start __idmap_text_end
hibernate_exit.text __hibernate_exit_text_start __hibernate_exit_text_end
entry.tramp.text __entry_tramp_text_start __entry_tramp_text_end
kprobes.text __kprobes_text_start __kprobes_text_end
hyp.rodata __hyp_rodata_start __hyp_rodata_end
idmap_pg_dir idmap_pg_dir tramp_pg_dir
reserved_pg_dir reserved_pg_dir swapper_pg_dir
clk_of_table __clk_of_table __reservedmem_of_table
irqchip_of_table __irqchip_of_table __irqchip_acpi_probe_table
init_pg_dir init_pg_dir init_pg_end
early_init_stack init_pg_end early_init_stack
mmuoff.data __mmuoff_data_start __mmuoff_data_end
rela.dyn __pi_rela_start __pi_rela_end
"""


def expectations() -> list[tuple[str, str, str, str]]:
    lists = (
        ("amd64-6.12", EVERYWHERE + FULL_LISTS + AMD64),
        ("arm64-6.12", EVERYWHERE + FULL_LISTS + ARM64),
        ("amd64-7.3", EVERYWHERE),
        ("arm64-7.3", EVERYWHERE),
        ("riscv64-6.12", EVERYWHERE + "init.text __init_text_begin __init_text_end\ndata.rw _data _edata"),
    )
    found = []
    for kernel, text in lists:
        present = symbols_of(kernel)
        for line in text.split("\n"):
            if line and all(symbol in present for symbol in line.split()[1:]):
                name, start, end = line.split()
                found.append((kernel, name, start, end))
    assert len(found) > 180
    return found


@pytest.mark.parametrize(("kernel", "name", "start", "end"), expectations())
def test_a_region_lies_between_its_two_symbols(kernel: str, name: str, start: str, end: str) -> None:
    symbols = symbols_of(kernel)
    tree = build_region_tree(symbols, MACHINES[kernel.split("-")[0]])
    region = next(region for region in (*tree.regions, *tree.empty) if region.name == name)
    assert (region.start, region.end) == (symbols[start], symbols[end])
    assert (region.start_symbol, region.end_symbol) == (start, end)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_byte_of_the_image_is_in_a_region_or_in_a_gap(kernel: str) -> None:
    tree = tree_of(kernel)
    assert tree.root is not None
    bounds = [bound for bound in tree.boundaries() if tree.root.start <= bound < tree.root.end]
    assert bounds[0] == tree.root.start
    assert all((tree.gap(bound) is None) == bool(tree.chain(bound)) for bound in bounds)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_gap_ends_where_regions_do(kernel: str) -> None:
    tree = tree_of(kernel)
    starts = {region.name: region.start for region in tree.regions} | {"_end": symbols_of(kernel)["_end"]}
    ends = {region.name: region.end for region in tree.regions} | {"_text": symbols_of(kernel)["_text"]}
    assert tree.gaps
    for gap in tree.gaps:
        assert (gap.start, gap.end) == (ends[gap.after], starts[gap.before])


@pytest.mark.parametrize(
    ("kernel", "symbol", "region_class"),
    [
        ("amd64-6.12", "__sched_text_start", TEXT),
        ("amd64-6.12", "__start___jump_table", RODATA),
        ("amd64-6.12", "init_stack", DATA),
        ("amd64-6.12", "__start___bug_table", DATA),
        ("amd64-6.12", "__start_orc_unwind", DATA),
        ("amd64-6.12", "orc_lookup", BSS),
        ("amd64-6.12", "_sinittext", INIT),
        ("amd64-6.12", "__per_cpu_load", INIT),
        ("amd64-6.12", "__per_cpu_start", PERCPU_CLASS),
        ("amd64-6.12", "__nosave_begin", DATA),
        ("amd64-6.12", "__start_bss_decrypted", BSS),
        ("amd64-6.12", "__brk_base", BRK),
        ("amd64-6.12", "__init_scratch_begin", INIT),
        ("amd64-6.12", "__end_rodata", None),  # the gap before data
        ("amd64-7.3", "__per_cpu_start", PERCPU_CLASS),  # not at 0 any more, but inside init
        ("arm64-6.12", "_text", TEXT),
        ("arm64-6.12", "__hyp_rodata_start", RODATA),
        ("arm64-6.12", "__idmap_text_start", TEXT),
        ("arm64-6.12", "swapper_pg_dir", RODATA),
        ("arm64-6.12", "__inittext_begin", INIT),
        ("arm64-6.12", "__per_cpu_start", PERCPU_CLASS),
        ("arm64-6.12", "__hyp_bss_start", BSS),
        ("arm64-6.12", "init_pg_dir", BSS),
        ("riscv64-6.12", "__start_rodata", RODATA),  # although [_sdata, _edata) holds it
        ("riscv64-6.12", "_data", DATA),
    ],
)
def test_the_class_is_that_of_the_narrowest_region_that_has_one(kernel: str, symbol: str, region_class: str) -> None:
    assert tree_of(kernel).region_class(symbols_of(kernel)[symbol]) == region_class


@pytest.mark.parametrize(
    ("kernel", "symbol", "expected"),
    [
        ("amd64-6.12", "__cpuidle_text_start", "text noinstr.text cpuidle.text"),
        ("amd64-6.1", "__irqentry_text_start", "text entry.text irqentry.text"),
        ("amd64-6.12", "__start_static_call_sites", "rodata ro_after_init static_call_sites"),
        ("amd64-6.12", "__initcall4_start", "init initcall initcall4"),
        ("amd64-6.12", "__start_bss_decrypted_unused", "bss bss..decrypted bss..decrypted.unused"),
        ("amd64-7.3", "__per_cpu_hot_start", "init percpu percpu.hot"),
        ("arm64-6.12", "__start___kvm_ex_table", "text hyp.text kvm_ex_table"),
        ("arm64-6.12", "__exittext_begin", "init init.text exit.text"),
        ("arm64-6.12", "_sinittext", "init init.text inittext"),
        ("arm64-6.12", "__start_runtime_shift_d_hash_shift", "init init.data runtime_shift_d_hash_shift"),
        ("arm64-6.12", "__start___bug_table", "data bug_table"),
        ("riscv64-6.12", "__start___jump_table", "data rodata ro_after_init jump_table"),
    ],
)
def test_regions_nest_from_the_widest_to_the_narrowest(kernel: str, symbol: str, expected: str) -> None:
    assert names(tree_of(kernel).chain(symbols_of(kernel)[symbol])) == expected.split()


def test_a_region_ends_before_its_end_symbol() -> None:
    tree, symbols = tree_of("amd64-6.12"), symbols_of("amd64-6.12")
    assert "sched.text" in names(tree.chain(symbols["__sched_text_end"] - 1))
    assert "sched.text" not in names(tree.chain(symbols["__sched_text_end"]))


@pytest.mark.parametrize("address", [-1, 0x39000, 1 << 64, 0xFFFFFFFF80FFFFFF, 0xFFFFFFFF83C30000])
def test_no_region_and_no_gap_outside_the_image(address: int) -> None:
    tree = tree_of("amd64-6.12")
    assert tree.chain(address) == ()
    assert tree.gap(address) is None


@pytest.mark.parametrize(
    ("kernel", "start", "end", "after", "before"),
    [
        ("amd64-7.3", "_etext", "__start_rodata", "text", "rodata"),
        ("amd64-7.3", "__end_rodata", "_sdata", "rodata", "data"),
    ],
)
def test_x86_frees_the_padding_around_rodata(kernel: str, start: str, end: str, after: str, before: str) -> None:
    symbols = symbols_of(kernel)
    why = f"padding between {after} and {before}; x86 frees these pages after boot"
    assert tree_of(kernel).gap(symbols[start]) == Gap(symbols[start], symbols[end], after, before, why, True)


def test_other_architectures_keep_the_padding() -> None:
    gap = tree_of("arm64-6.12").gap(symbols_of("arm64-6.12")["_edata"])
    assert gap is not None
    assert (gap.after, gap.before, gap.why, gap.freed_after_boot) == ("data", "bss", "between two regions", None)


def test_at_the_edges_of_the_image_a_gap_has_the_boundary_symbols_names() -> None:
    tree = build_region_tree({"_text": 0x1000, "_stext": 0x2000, "_etext": 0x3000, "_end": 0x4000}, "x86_64")
    assert [(gap.after, gap.before) for gap in tree.gaps] == [("_text", "text"), ("text", "_end")]


@pytest.mark.parametrize(
    ("kernel", "symbol", "freed"),
    [
        ("amd64-6.12", "_stext", False),
        ("amd64-6.12", "__sched_text_start", False),
        ("amd64-6.12", "_sinittext", True),
        ("amd64-6.12", "__initcall3_start", True),
        ("amd64-6.12", "__brk_base", None),  # the unused part of it is; where that starts only the kernel knows
        ("amd64-6.12", "__smp_locks", None),  # with the CPUs at hand
        ("amd64-6.12", "__start_bss_decrypted", False),
        ("amd64-6.12", "__start_bss_decrypted_unused", True),
        ("arm64-6.12", "__per_cpu_start", True),
        ("arm64-6.12", "_edata", None),  # no region there
    ],
)
def test_whether_the_memory_is_freed_after_boot(kernel: str, symbol: str, freed: bool | None) -> None:
    chain = tree_of(kernel).chain(symbols_of(kernel)[symbol])
    assert (chain[-1].freed_after_boot if chain else None) is freed


@pytest.mark.parametrize(
    ("kernel", "symbol", "read_only"),
    [
        ("amd64-6.12", "__start_ro_after_init", True),
        ("amd64-6.12", "__start___jump_table", True),
        ("amd64-6.12", "__start_BTF", True),
        ("amd64-6.12", "__start_once", False),
        ("riscv64-6.12", "__start_rodata", True),
        ("riscv64-6.12", "__start_once", False),
    ],
)
def test_whether_the_memory_is_read_only_after_init(kernel: str, symbol: str, read_only: bool) -> None:
    assert tree_of(kernel).chain(symbols_of(kernel)[symbol])[-1].read_only_after_init is read_only


def test_pairs_of_no_length_are_kept_apart() -> None:
    tree, symbols = tree_of("amd64-6.12"), symbols_of("amd64-6.12")
    kprobes = [region for region in tree.empty if region.name == "kprobes.text"]
    assert [(region.start, region.end) for region in kprobes] == [(symbols["__kprobes_text_start"],) * 2]
    assert "kprobes.text" not in names(tree.regions)


def test_the_copy_of_zero_based_per_cpu_data_lies_in_init() -> None:
    tree, symbols = tree_of("amd64-6.12"), symbols_of("amd64-6.12")
    load = named(tree, "percpu.load")
    assert (load.start, load.end) == (symbols["__per_cpu_load"], symbols["__per_cpu_load"] + 0x39000)
    assert tree.parent(load) == named(tree, "init")


def test_per_cpu_data_that_is_linked_where_it_loads_has_no_second_region() -> None:
    assert "percpu.load" not in names(tree_of("arm64-6.12").regions)


def test_the_last_page_table_of_arm64_is_as_long_as_the_one_before() -> None:
    region = named(tree_of("arm64-7.3"), "swapper_pg_dir")
    assert (region.end - region.start, region.end_symbol) == (0x1000, None)


def test_a_pair_without_its_end_leaves_the_region_unknown() -> None:
    # arm64's kallsyms of code alone: __inittext_end lies among data. _einittext is an earlier end, of another region.
    symbols = dict(symbols_of("arm64-6.12"))
    for name in ("__inittext_end", "__init_end"):
        del symbols[name]
    tree = build_region_tree(symbols, "aarch64")
    assert "init.text" not in names(tree.regions)
    region = named(tree, "inittext")
    assert (region.start, region.end) == (symbols["_sinittext"], symbols["_einittext"])
    assert region.region_class == INIT
    assert region.freed_after_boot is True


def test_an_unused_table_is_not_the_padding_behind_it() -> None:
    # amd64 builds no cpuidle_method driver: 8 bytes of alignment follow the symbol.
    tree = tree_of("amd64-6.12")
    unused = next(region for region in tree.empty if region.name == "cpuidle_method_of_table")
    assert unused.end_symbol is None
    assert "cpuidle_method_of_table" not in names(tree.regions)


@pytest.mark.parametrize(("machine", "read_only"), [("aarch64", True), ("riscv64", None)])
def test_what_arm64_has_between_rodata_and_init_is_read_only(machine: str, read_only: bool | None) -> None:
    places = ("_text", "__start_rodata", "__end_rodata", "__init_begin", "__init_end", "_sdata", "_edata", "_end")
    symbols = {name: 0xFFFF800080000000 + 0x1000 * number for number, name in enumerate(places)}
    gaps = {(gap.after, gap.before): gap.read_only_after_init for gap in build_region_tree(symbols, machine).gaps}
    assert gaps == {
        ("_text", "rodata"): None,
        ("rodata", "init"): read_only,
        ("init", "data"): None,
        ("data", "_end"): None,
    }


@pytest.mark.parametrize(
    ("machine", "size", "held"),
    [("s390x", 0, False), ("s390x", 24, False), ("ppc64", 31, False), ("arm", 8, True), ("arm", 160, True)],
)
def test_a_table_of_cpu_methods_has_entries_on_arm_alone(machine: str, size: int, held: bool) -> None:
    """Elsewhere what follows is padding, up to 31 bytes of it before the device tree blobs."""
    start = 0xC1001000
    symbols = {"_text": start - 0x1000, "__cpu_method_of_table": start, "__dtb_start": start + size, "_end": start * 2}
    tree = build_region_tree(symbols, machine)
    [table] = [each for each in (*tree.regions, *tree.empty) if each.name == "cpu_method_of_table"]
    assert (table.start, table.end) == (start, start + size if held else start)
    assert table.end_symbol == ("__dtb_start" if held else None)


def test_parents_and_depths() -> None:
    tree = tree_of("amd64-6.12")
    assert tree.root is not None
    idle, noinstr, text = (named(tree, name) for name in ("cpuidle.text", "noinstr.text", "text"))
    assert [tree.parent(region) for region in (idle, noinstr, text, tree.root)] == [noinstr, text, tree.root, None]
    assert [tree.depth(region) for region in (tree.root, text, noinstr, idle)] == [0, 1, 2, 3]
    assert tree.parent(named(tree, "percpu")) is None


def test_the_root_comes_first_in_the_list_and_is_in_no_chain() -> None:
    tree = tree_of("arm64-6.12")
    assert tree.regions[0] == tree.root
    assert tree.root not in tree.chain(symbols_of("arm64-6.12")["_text"])


@pytest.mark.parametrize("missing", ["_text", "_end"])
def test_without_the_bounds_of_the_image_there_is_no_root_and_no_gap(missing: str) -> None:
    symbols = symbols_of("amd64-6.12")
    end_of_rodata = symbols["__end_rodata"]
    del symbols[missing]
    tree = build_region_tree(symbols, "x86_64")
    assert tree.root is None
    assert tree.gap(end_of_rodata) is None
    assert named(tree, "rodata").region_class == RODATA


def test_no_two_rows_of_the_table_say_the_same_for_one_architecture() -> None:
    for architecture in registry.declared():
        seen = set()
        for row in boundary_table(architecture.name):
            for pair in row.pairs:
                key = (row.name, pair, row.inside)
                assert key not in seen
                seen.add(key)


def test_the_table_lists_its_symbols() -> None:
    assert {
        "_text",
        "_end",
        "_sinittext",
        "__pi_rela_start",
        "__initcall4_start",
        "early_init_stack",
    } <= table_symbols()
    assert not any(" " in name for name in table_symbols())


# --- properties, against a slow and plain reading of the definitions ---

intervals = st.lists(
    st.tuples(st.integers(0, 200), st.integers(1, 80)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=25
)


def made(spans: list[tuple[int, int]]) -> RegionTree:
    regions = [Region(f"r{number}", start, end, None, None) for number, (start, end) in enumerate(spans)]
    return RegionTree(Region("image", 20, 180, "_text", "_end"), regions)


@settings(max_examples=200)
@given(intervals, st.integers(-5, 300))
def test_chain_holds_exactly_the_regions_around_the_address(spans: list[tuple[int, int]], address: int) -> None:
    chain = made(spans).chain(address)
    assert sorted(names(chain)) == sorted(
        f"r{number}" for number, (start, end) in enumerate(spans) if start <= address < end
    )
    sizes = [region.end - region.start for region in chain]
    assert sizes == sorted(sizes, reverse=True)


@settings(max_examples=200)
@given(intervals, st.integers(-5, 300))
def test_a_gap_is_the_widest_run_of_the_image_that_no_region_holds(spans: list[tuple[int, int]], address: int) -> None:
    free = {at for at in range(20, 180) if not any(start <= at < end for start, end in spans)}
    gap = made(spans).gap(address)
    if address not in free:
        assert gap is None
    else:
        assert gap is not None
        assert set(range(gap.start, gap.end)) <= free
        assert gap.start - 1 not in free
        assert gap.end not in free


@settings(max_examples=200)
@given(intervals)
def test_between_two_boundaries_nothing_changes(spans: list[tuple[int, int]]) -> None:
    tree = made(spans)
    bounds = tree.boundaries()
    assert bounds == sorted(set(bounds))
    for low, high in zip(bounds, bounds[1:]):
        assert len({(tree.chain(address), tree.gap(address)) for address in range(low, high)}) == 1


@settings(max_examples=200)
@given(intervals)
def test_a_parent_holds_its_child_and_comes_before_it(spans: list[tuple[int, int]]) -> None:
    tree = made(spans)
    for position, region in enumerate(tree.regions):
        parent = tree.parent(region)
        if parent is not None:
            assert parent.start <= region.start
            assert region.end <= parent.end
            assert tree.regions.index(parent) < position
            size = region.end - region.start
            holders = [other for other in tree.regions[1:] if other.start <= region.start and region.end <= other.end]
            wider = [other for other in holders if other.end - other.start > size]
            assert all(parent.end - parent.start <= other.end - other.start for other in wider)
