"""The command line: one command for each step."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from . import dumping, initramfs, manifest, mishaps, paths
from .boot_images import BOOT_IMAGES, boot_image
from .building import headers
from .command import run_beside
from .dumping import DumpSet, dumps
from .errors import HeadersGone, VMError
from .fetching import KernelFiles, cached, fetch, obtain, verify
from .kexec import kexec_dumps
from .machine import READY_SECONDS, VM, boot
from .options import Options
from .progress import size_text

_EXAMPLES = """\
examples:
  vm.py fetch                          all kernels of the manifest
  vm.py boot amd64-6.1                 boot, say how to connect, stay until Ctrl-C
  vm.py boot amd64-6.12 --pti --spin 1 with page-table isolation, CPU 1 kept in user mode
  vm.py boot amd64-6.1 -- gdb {vmlinux} -ex 'target remote {gdb}'
                                       boot, run gdb on it, end it when gdb ends
  vm.py dump amd64-6.1                 dumps in all formats, into the cache
  vm.py dump amd64-6.1 -f kdump-zlib -o core.kdump
  vm.py dump amd64-6.1 --kexec         what a machine with kdump leaves when it crashes
  vm.py truth amd64-6.12 -o truth/     the guest's kallsyms, modules, sections, ...

All files lie below $KPLUG_CACHE, else ~/.cache/kplug; nothing else is changed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it was done, 2 if not, or the status of the program that was run with a machine."""
    # Ended politely, this program must end its machine too.
    signal.signal(signal.SIGTERM, _terminated)
    # Split here: argparse would take options after NAME for the command's own.
    words, command = _split(list(sys.argv[1:] if argv is None else argv))
    arguments = _parser().parse_args(words)
    arguments.command = command
    try:
        if command and arguments.run is not _boot:
            raise VMError("only boot takes a command after --")
        return int(arguments.run(arguments))
    except VMError as error:
        print(f"vm.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"vm.py: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vm.py: interrupted", file=sys.stderr)
        return 130


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _terminated(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vm.py",
        description="Real Debian kernels for kplug's tests and demo: fetch them, boot them under QEMU, dump them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        usage = f"vm.py {name} [options] NAME [-- COMMAND...]" if name == "boot" else None
        about = textwrap.fill(text[0].upper() + text[1:] + ".")
        sub = commands.add_parser(name, help=text, usage=usage, description=about)
        sub.set_defaults(run=run)
        return sub

    sub = add("list", _list, "the kernels of the manifest, and which of them are here")
    sub.add_argument("--json", action="store_true", help="as JSON, with all paths")

    sub = add("fetch", _fetch, "fetch kernels; what the cache has is not fetched again")
    sub.add_argument("names", nargs="*", metavar="NAME", help="all that the manifest has by default, if none is given")
    sub.add_argument("--all", action="store_true", help="the others too, as far as the mirror has them")
    sub.add_argument("--refresh", action="store_true", help="ask the mirror for newer ones")
    sub.add_argument("--verify", action="store_true", help="check the checksum of every file in the cache")
    sub.add_argument("--keep-archives", action="store_true", help="keep the packages after unpacking")
    sub.add_argument(
        "--dump", action="append", default=[], metavar="NAME",
        help="make this kernel's dumps, as soon as it is here, while others are fetched; may be repeated",
    )  # fmt: skip

    sub.add_argument(
        "--headers", action="append", default=[], metavar="NAME",
        help="this kernel's header packages too; if the mirror has them no longer, its newer kernel is fetched",
    )  # fmt: skip

    sub = add("image", _image, "a boot image of an architecture that is not booted here; prints its path")
    sub.add_argument("arch", metavar="ARCH", help=", ".join(BOOT_IMAGES))

    sub = add("initramfs", _initramfs, "build the guest's filesystem")
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("-o", "--output", type=Path, help="where to; in the cache by default")
    sub.add_argument("--module", action="append", metavar="MODULE", help="a module to load; may be repeated")

    sub = add("boot", _boot, "boot a kernel; it runs until Ctrl-C, or until the command after -- ends")
    sub.add_argument("name", metavar="NAME")
    _machine_options(sub)
    sub.add_argument("--info", type=Path, metavar="FILE", help="write how to connect to FILE, as JSON, once it is up")

    sub = add("dump", _dump, "boot a kernel and dump its memory; dumps in the cache are used again")
    sub.add_argument("name", metavar="NAME")
    sub.add_argument(
        "-f", "--format", action="append", default=[], choices=dumping.FORMATS, metavar="FORMAT",
        help=f"one of {', '.join(dumping.FORMATS)}; may be repeated; all by default",
    )  # fmt: skip
    sub.add_argument("-o", "--output", type=Path, help="a file for a dump of one format; the cache isn't used then")
    sub.add_argument("--refresh", action="store_true", help="make them again")
    sub.add_argument("--kexec", action="store_true", help="crash it, and copy the capture kernel's /proc/vmcore")
    sub.add_argument("--memory", type=int, default=256, metavar="MB")
    sub.add_argument("--cpus", type=int, default=2, metavar="N")
    sub.add_argument("--pti", action="store_true", help="page-table isolation on")
    sub.add_argument("--cpu", metavar="MODEL", help="QEMU's name of the CPU; the widest that it can be by default")

    sub = add("truth", _truth, "boot a kernel and write down what it says about its addresses")
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("-o", "--output", type=Path, help="the folder to write to; in the cache by default")
    _machine_options(sub)

    sub = add("mishaps", _mishaps, "have a guest report what kernels report, and keep its log of each in a file")
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("ways", nargs="*", metavar="WAY", help=f"all without any; {', '.join(mishaps.MISHAPS)}")
    sub.add_argument("-o", "--output", type=Path, default=Path(), help="the folder to write to; this one by default")

    sub = add("clean", _clean, "remove dumps, package lists and leftovers from the cache")
    sub.add_argument("--all", action="store_true", help="the kernels and boot images too")
    return parser


def _machine_options(parser: argparse.ArgumentParser) -> None:
    default = Options()
    parser.add_argument("--cpus", type=int, default=default.cpus, metavar="N", help="default: %(default)s")
    parser.add_argument("--memory", type=int, default=default.memory, metavar="MB", help="default: %(default)s")
    parser.add_argument("--nokaslr", dest="kaslr", action="store_false", help="no KASLR")
    parser.add_argument("--pti", action="store_true", help="page-table isolation on")
    parser.add_argument("--la57", action="store_true", help="five levels of page tables")
    parser.add_argument("--cpu", metavar="MODEL", help="QEMU's name of the CPU; the widest that it can be by default")
    parser.add_argument("--spin", type=int, metavar="CPU", help="keep this CPU busy in user mode")
    parser.add_argument("--gdb", choices=("unix", "tcp"), default=default.gdb, help="what the gdb stub listens on")
    parser.add_argument("-S", "--paused", action="store_true", help="stop before the first instruction")
    parser.add_argument("--threads", choices=("single", "multi"), default=default.threads, help="of the emulator")
    parser.add_argument("--append", action="append", default=[], metavar="WORD", help="for the kernel's command line")
    parser.add_argument("--timeout", type=float, default=READY_SECONDS, metavar="S", help="for the boot")


def _boot_vm(arguments: argparse.Namespace) -> VM:
    names = {field.name for field in fields(Options)} & vars(arguments).keys()
    chosen = {name: getattr(arguments, name) for name in names}
    chosen["append"] = tuple(word for text in arguments.append for word in text.split())
    return boot(arguments.name, timeout=arguments.timeout, **chosen)


def _list(arguments: argparse.Namespace) -> int:
    found = {row.name: cached(row.name) for row in manifest.KERNELS}
    if arguments.json:
        print(json.dumps({name: _files_json(files) if files else None for name, files in found.items()}, indent=1))
        return 0
    for row in manifest.KERNELS:
        files = found[row.name]
        what = f"{files.release:32} {files.root}" if files else "not fetched"
        print(f"{row.name:12} {what}{'' if row.bootable else '  (files only)'}")
    return 0


def _files_json(files: KernelFiles) -> dict[str, str]:
    return {field.name: str(getattr(files, field.name)) for field in fields(files)}


def _fetch(arguments: argparse.Namespace) -> int:
    """Downloads, unpacking and dumps go on side by side, one of each at a time."""
    names = list(arguments.names or manifest.names())
    others = [row.name for row in manifest.KERNELS if row.tested and row.name not in names] if arguments.all else []
    dumped: list[Future[DumpSet]] = []
    stop = threading.Event()
    with ThreadPoolExecutor(1) as unpacking, ThreadPoolExecutor(1) as beside:

        def arrive(name: str, unpack: Callable[[threading.Event], KernelFiles]) -> bool:
            whole = _is_whole(unpack(stop), arguments.verify)
            if whole and name in arguments.dump:
                dumped.append(beside.submit(dumps, name, quiet=True))
            return whole

        def left_out(name: str, error: VMError) -> None:
            if name not in others:
                raise error
            print(f"vm.py: left out: {error}", file=sys.stderr)

        arriving: dict[str, Future[bool]] = {}
        broken = 0
        try:
            # Those to be dumped come first: it takes longest.
            for name in sorted(names + others, key=lambda name: name not in arguments.dump):
                try:
                    unpack = obtain(name, refresh=arguments.refresh, keep_archives=arguments.keep_archives)
                    arriving[name] = unpacking.submit(arrive, name, unpack)
                except VMError as error:
                    left_out(name, error)
            for name, arrival in arriving.items():
                try:
                    broken += not arrival.result()
                except VMError as error:
                    left_out(name, error)
            for name in arguments.headers:
                if _with_headers(name, arguments.keep_archives) and name in arguments.dump:
                    dumped.append(beside.submit(dumps, name, quiet=True))
        except BaseException:
            stop.set()
            unpacking.shutdown(wait=False, cancel_futures=True)
            beside.shutdown(wait=False, cancel_futures=True)
            raise
        for made in dumped:
            print(f"{made.result().files.name:12} {'dumps':32} {made.result().root}")
    return 2 if broken else 0


def _with_headers(name: str, keep_archives: bool) -> bool:
    """Have the header packages of a kernel in the cache; whether a newer kernel had to be fetched for it."""
    try:
        headers(fetch(name))
        return False
    except HeadersGone as error:
        print(f"vm.py: {error}", file=sys.stderr)
    headers(fetch(name, refresh=True, keep_archives=keep_archives))
    return True


def _is_whole(files: KernelFiles, verified: bool) -> bool:
    """Say that a kernel is here; if it is to be verified, whether it is as it was unpacked."""
    wrong = verify(files) if verified else []
    if wrong:
        # Without its stamp it is no longer in the cache: the next fetch makes it again.
        files.info.unlink()
        print(f"vm.py: {files.name}: not as unpacked: {', '.join(wrong[:5])}; fetch it again", file=sys.stderr)
    else:
        print(f"{files.name:12} {files.release:32} {files.root}", flush=True)
    return not wrong


def _image(arguments: argparse.Namespace) -> int:
    print(boot_image(arguments.arch))
    return 0


def _initramfs(arguments: argparse.Namespace) -> int:
    files = fetch(arguments.name)
    extra = manifest.EXTRA_MODULES if arguments.module is None else tuple(arguments.module)
    out = initramfs.build(files, arguments.output or initramfs.place(files), extra)
    print(f"{out}  {size_text(out.stat().st_size)}")
    return 0


def _boot(arguments: argparse.Namespace) -> int:
    with _boot_vm(arguments) as vm:
        info = vm.info()
        if arguments.info is not None:
            temporary = arguments.info.with_name(f".{arguments.info.name}.{os.getpid()}")
            temporary.write_text(json.dumps(info, indent=1) + "\n")
            temporary.replace(arguments.info)
        try:
            if arguments.command:
                return run_beside(arguments.command, info)
            for key in ("vmlinux", "gdb", "qmp", "console"):
                print(f"{key:9} {info[key]}")
            print(f"\n  gdb {info['vmlinux']} -ex 'target remote {info['gdb']}'\n")
            print("Ctrl-C ends the machine.", flush=True)
            vm.wait()
        except KeyboardInterrupt:
            print("\nended", file=sys.stderr)
        finally:
            if arguments.info is not None:
                arguments.info.unlink(missing_ok=True)
    return 0


def _dump(arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in ("memory", "cpus", "pti", "cpu")}
    if arguments.output is not None:
        if len(arguments.format) != 1 or arguments.kexec:
            raise VMError("-o is for a dump of one --format")
        with boot(arguments.name, **options) as vm:
            dumping.dump(vm, arguments.output, arguments.format[0])
        return 0
    if arguments.kexec:
        if arguments.format or options != {
            name: default for name, default in dumping.DEFAULTS.items() if name in options
        }:
            raise VMError("--kexec has a machine and formats of its own")
        found = kexec_dumps(arguments.name, refresh=arguments.refresh)
    else:
        found = dumping.dumps(arguments.name, arguments.format, refresh=arguments.refresh, **options)
    for name, path in found.paths.items():
        if not arguments.format or name in arguments.format:
            size, used = path.stat().st_size, path.stat().st_blocks * 512
            print(f"{name:22} {size_text(size):>8} ({size_text(used)} on disk)  {path}")
    print(f"{'truth':22} {'':28} {found.truth.root}")
    return 0


def _truth(arguments: argparse.Namespace) -> int:
    into = arguments.output or paths.cache_root() / "truth" / arguments.name
    with _boot_vm(arguments) as vm:
        if arguments.paused:
            vm.cont()
            vm.wait_ready(arguments.timeout)
        found = vm.truth(into)
        kaslr_offset = found.kaslr_offset(vm.files)
        print(f"{into}  release {vm.files.release}  slide {kaslr_offset:#x}  symbols {len(found.symbols)}"
              f"  modules {len(found.modules)}")  # fmt: skip
    return 0


def _mishaps(arguments: argparse.Namespace) -> int:
    for path in mishaps.write(arguments.name, arguments.ways, arguments.output):
        print(path, flush=True)
    return 0


def _clean(arguments: argparse.Namespace) -> int:
    names = (
        "apt",
        "archives",
        "built",
        "built-lock",
        "disks",
        "disks-lock",
        "dumps",
        "dumps-lock",
        "gdb-index",
        "headers",
        "headers-lock",
        "initramfs",
        "kexec-lock",
        "kexec-tools",
        "run",
        "test-dumps-lock",
        "truth",
        *(("boot-images", "kernels", "lock") if arguments.all else ()),
        *(f"{row.name}-lock" for row in manifest.KERNELS if arguments.all),
    )
    for name in names:
        path = paths.cache_root() / name
        # A machine that runs keeps its folder.
        if name == "run":
            paths.sweep_run_dirs(path)
        else:
            paths.remove_tree(path)
    return 0
