#!/usr/bin/env python3
"""Makes docs/session.svg: a real gdb session on a real guest, as a picture.

Boots the guest, runs gdb on a pseudo-terminal, types the commands, and draws what the terminal received.
"""

from __future__ import annotations

import html
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "vm-images"))

import vmimages  # noqa: E402

COMMANDS = (
    "source gdb/kplug.py",
    "kwhere $pc",
    "kwhere -b schedule+0x10/0xc7 &init_task 0x18 0xfffffffffffffff4",
    "kaslr",
)
PROMPT = b"(gdb) "

CHARACTER_WIDTH, LINE_HEIGHT, MARGIN = 7.83, 17, 14
COLOURS = {
    "30": "#6e7681", "31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff",
    "36": "#76e3ea", "37": "#e6edf3",
}  # fmt: skip
FONTS = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"
FOREGROUND, BACKGROUND = "#e6edf3", "#0d1117"


def session(vm: vmimages.VM) -> str:
    """What a terminal receives from gdb for the commands, without the connecting and the ending."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "118", "LINES": "60"}
    process = subprocess.Popen(
        ["gdb", "-q", "-nx", "-iex", "set pagination off", "-iex", "set confirm off", "-iex", "set width 0",
         "-iex", "set style enabled on", "-ex", f"target remote {vm.gdb}", str(vm.files.vmlinux)],
        stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    _until_prompt(master)
    received = PROMPT
    for command in COMMANDS:
        os.write(master, command.encode() + b"\n")
        received += _until_prompt(master)
    os.write(master, b"detach\nquit\n")
    process.wait(30)
    os.close(master)
    text = re.sub(rb"\x1b\[\?[0-9]+[hl]|\r", b"", received).decode("utf-8", "replace")
    return text.rstrip().removesuffix("(gdb)").rstrip()


def _until_prompt(master: int) -> bytes:
    received, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.5)[0]:
            received += os.read(master, 65536)
        elif received.endswith(PROMPT) or re.search(rb"\(gdb\) (\x1b\[[?0-9;]*[a-zA-Z])*$", received):
            return received
    raise SystemExit("session_picture: gdb gave no prompt")


def spans(line: str) -> Iterator[tuple[str, str | None, bool]]:
    """(text, colour, bold) runs of a line with SGR sequences."""
    colour, bold, position = None, False, 0
    for match in re.finditer(r"\x1b\[([0-9;]*)m", line):
        if match.start() > position:
            yield line[position : match.start()], colour, bold
        for code in (match.group(1) or "0").split(";"):
            if code in ("0", ""):
                colour, bold = None, False
            elif code == "1":
                bold = True
            elif code in COLOURS:
                colour = COLOURS[code]
        position = match.end()
    if position < len(line):
        yield line[position:], colour, bold


def svg(text: str) -> str:
    """The terminal's text as a picture."""
    lines = text.splitlines()
    columns = max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in lines)
    width, height = columns * CHARACTER_WIDTH + 2 * MARGIN, len(lines) * LINE_HEIGHT + 2 * MARGIN
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        f'<g font-family="{FONTS}" font-size="13" fill="{FOREGROUND}">',
    ]
    for number, line in enumerate(lines):
        y = MARGIN + (number + 0.75) * LINE_HEIGHT
        column = 0
        for run, colour, bold in spans(line):
            style = (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if bold else "")
            x = MARGIN + column * CHARACTER_WIDTH
            length = len(run) * CHARACTER_WIDTH
            drawn.append(
                f'<text x="{x:.1f}" y="{y:.1f}" xml:space="preserve" textLength="{length:.1f}"{style}>'
                f"{html.escape(run)}</text>"
            )
            column += len(run)
    return "\n".join([*drawn, "</g>", "</svg>", ""])


def main() -> None:
    with vmimages.boot("amd64-6.1", cpus=1) as vm:
        vm.stop()
        (ROOT / "docs" / "session.svg").write_text(svg(session(vm)))


if __name__ == "__main__":
    main()
