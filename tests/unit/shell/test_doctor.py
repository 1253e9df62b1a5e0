"""kplug doctor where there is nothing, and what it tells to do on each distribution: a root folder made here, with the
os-release(5) and /proc/version of each.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kplug.live import machine as live_machine
from kplug.live.distribution import remedies
from kplug.live.machine import Machine
from kplug.live.survey import survey
from kplug.shell import cli

BANNERS = {
    "debian": "Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org) (gcc-12) #1 SMP Debian 6.1.192-2",
    "ubuntu": "Linux version 6.8.0-31-generic (buildd@lcy02-amd64-080) (gcc-13) #31-Ubuntu SMP PREEMPT_DYNAMIC",
    "fedora": "Linux version 6.8.5-301.fc40.x86_64 (mockbuild@1a2b3c) (gcc 14.0.1) #1 SMP PREEMPT_DYNAMIC",
    "rhel": "Linux version 5.14.0-427.13.1.el9_4.x86_64 (mockbuild@x86-64-02) (gcc 11.4.1) #1 SMP",
    "opensuse-leap": "Linux version 6.4.0-150600.21-default (geeko@buildhost) (gcc 7.5.0) #1 SMP",
    "arch": "Linux version 6.8.7-arch1-1 (linux@archlinux) (gcc 13.2.1) #1 SMP PREEMPT_DYNAMIC",
}


def machine(root: Path, identity: str, banner: str, like: str = "") -> Machine:
    for path, text in (("etc/os-release", f'ID="{identity}"\nID_LIKE="{like}"\n'), ("proc/version", banner + "\n")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Machine(str(root))


@pytest.mark.parametrize(
    ("identity", "like", "command"),
    [
        ("debian", "", "apt install linux-image-6.1.0-56-amd64-dbg"),
        ("ubuntu", "debian", "apt install linux-image-6.8.0-31-generic-dbgsym"),
        ("fedora", "", "dnf debuginfo-install kernel-6.8.5-301.fc40.x86_64"),
        ("rhel", "fedora", "dnf debuginfo-install kernel-5.14.0-427.13.1.el9_4.x86_64"),
        ("opensuse-leap", "suse opensuse", "zypper install kernel-default-debuginfo"),
        ("arch", "", "debuginfod-find debuginfo "),
    ],
)
def test_the_command_is_the_distributions_own(tmp_path: Path, identity: str, like: str, command: str) -> None:
    how = remedies(machine(tmp_path, identity, BANNERS[identity], like))
    assert how.is_its_kernel
    assert how.debug_command.startswith(command)


def test_a_kernel_of_another_maker_is_in_no_package(tmp_path: Path) -> None:
    how = remedies(machine(tmp_path, "debian", "Linux version 6.18.44-mine (me@here) (gcc 14) #1 SMP"))
    assert not how.is_its_kernel
    assert "apt" not in how.debug_command
    assert "debuginfod" in how.debug_command


def test_with_nothing_there_all_is_missing_and_each_thing_has_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live_machine, "Machine", lambda: Machine(str(tmp_path)))
    assert cli.main(["doctor", "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    sources = {row["what"]: row for row in rows if row["group"] == "source"}
    assert {row["state"] for row in sources.values()} == {"missing"}
    assert all(row["remedy"] and row["gives"] for row in sources.values())
    assert {row["schema"] for row in rows} == {"kplug.doctor/1"}
    assert cli.main(["doctor"]) == 1
    assert "kallsyms" in capsys.readouterr().out


def test_what_is_no_kernel_at_all_breaks_nothing(tmp_path: Path) -> None:
    release = "6.1.0-56-amd64"
    made = machine(tmp_path, "debian", BANNERS["debian"])
    for path in (
        f"boot/vmlinuz-{release}",
        f"boot/System.map-{release}",
        f"usr/lib/debug/boot/vmlinux-{release}",
        "proc/kallsyms",
        "proc/modules",
        "proc/iomem",
        "sys/kernel/notes",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"\xff\xfe nothing of use \0\n" * 20)
    found = survey(made)
    assert not found.answers
    states = {finding.what: finding.state for finding in found.findings}
    assert [states[what] for what in ("vmlinux", "boot image", "kallsyms")] == ["not usable"] * 3


def test_a_release_that_leads_elsewhere_is_no_path(tmp_path: Path) -> None:
    made = machine(tmp_path, "debian", "Linux version ../../../etc/passwd (x)")
    assert made.vmlinux_files == made.boot_images == made.system_maps == []


@pytest.mark.parametrize(
    ("restrict", "paranoid", "capable", "state", "remedy"),
    [
        ("0", "1", False, "there", None),
        ("0", "2", False, "zeros", "perf_event_paranoid=1 (it is 2)"),
        ("0", "2", True, "there", None),
        ("1", "-1", False, "zeros", "kptr_restrict=0"),
        ("1", "3", True, "there", None),
        ("2", "-1", True, "zeros", "kptr_restrict=0"),
    ],
)
def test_who_sees_addresses(
    tmp_path: Path, restrict: str, paranoid: str, capable: bool, state: str, remedy: str | None
) -> None:
    """kallsyms_show_value() in kernel/kallsyms.c."""
    made = machine(tmp_path, "debian", BANNERS["debian"])
    for path, text in (
        ("proc/sys/kernel/kptr_restrict", restrict),
        ("proc/sys/kernel/perf_event_paranoid", paranoid),
        ("proc/self/status", f"CapEff:\t{int(capable) << 34:016x}"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    (found,) = [finding for finding in survey(made).findings if finding.what == "kptr_restrict"]
    assert found.state == state
    assert (remedy is None and found.remedy is None) or (remedy or "") in (found.remedy or "")
