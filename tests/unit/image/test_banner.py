"""The banner of a kernel: its parts, and which string it is. The banners are those of distributions' kernels."""

from __future__ import annotations

import pytest

from kplug.image.banner import banners_in, parse_banner

# As kernels of distributions say it (/proc/version): who built it, compiler, its version, linker, its version, uname -v
# and when it was built, each a part of the whole.
BANNERS = [
    (
        "Linux version 4.19.0-27-amd64 (debian-kernel@lists.debian.org) (gcc version 8.3.0 (Debian 8.3.0-6)) "
        "#1 SMP Debian 4.19.316-1 (2024-06-25)",
        *("debian-kernel@lists.debian.org", "gcc version 8.3.0 (Debian 8.3.0-6)", "8.3.0", None, None),
        *("#1 SMP Debian 4.19.316-1 (2024-06-25)", "2024-06-25"),
    ),
    (
        "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, "
        "GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.187-1 (2026-08-01)",
        *("debian-kernel@lists.debian.org", "gcc-12 (Debian 12.2.0-14) 12.2.0", "12.2.0"),
        *("GNU ld (GNU Binutils for Debian) 2.40", "2.40"),
        *("#1 SMP PREEMPT_DYNAMIC Debian 6.1.187-1 (2026-08-01)", "2026-08-01"),
    ),
    (
        "Linux version 6.5.6-300.fc39.x86_64 (mockbuild@host) (gcc (GCC) 13.2.1 20230918 (Red Hat 13.2.1-3), "
        "GNU ld version 2.40-13.fc39) #1 SMP PREEMPT_DYNAMIC Fri Oct  6 19:57:21 UTC 2023",
        *("mockbuild@host", "gcc (GCC) 13.2.1 20230918 (Red Hat 13.2.1-3)", "13.2.1"),
        *("GNU ld version 2.40-13.fc39", "2.40"),
        *("#1 SMP PREEMPT_DYNAMIC Fri Oct  6 19:57:21 UTC 2023", "Fri Oct  6 19:57:21 UTC 2023"),
    ),
    (
        "Linux version 6.6.30-android15 (a@b) (Android (11368308, +pgo, +bolt) clang version 18.0.0 "
        "(https://llvm.org/project 4776), LLD 18.0.0) #1 SMP PREEMPT Mon Jan  1 00:00:00 UTC 2024",
        *("a@b", "Android (11368308, +pgo, +bolt) clang version 18.0.0 (https://llvm.org/project 4776)", "18.0.0"),
        *("LLD 18.0.0", "18.0.0"),
        *("#1 SMP PREEMPT Mon Jan  1 00:00:00 UTC 2024", "Mon Jan  1 00:00:00 UTC 2024"),
    ),
    ("Linux version 6.1", None, None, None, None, None, None, None),
    ("Linux version 6.1 (unclosed", None, None, None, None, None, None, None),
]


@pytest.mark.parametrize(("text", "parts"), [(text, parts) for text, *parts in BANNERS])
def test_what_a_banner_says(text: str, parts: list[str | None]) -> None:
    banner = parse_banner(text.encode() + b"\n\0rest")
    assert banner is not None
    assert (banner.text, banner.release) == (text, text.split()[2])
    assert [*banner[2:]] == parts


def test_no_banner_is_none() -> None:
    assert parse_banner(b"Linux versions") is None
    assert parse_banner(b"") is None


def test_of_the_strings_that_begin_like_it_only_one_is_the_banner() -> None:
    """The format of /proc/version, and the banner without a build number that 6.2 and later have besides."""
    real = b"Linux version 6.12.1 (a@b) (gcc-12 12.2.0, GNU ld 2.40) #7 SMP Thu Jan  1 00:00:00 UTC 1970"
    weak = real.replace(b"#7 ", b"# ")
    formatted = b"Linux version %s (a@b) (gcc-12 12.2.0) #7 %s\n\0"
    assert banners_in(b"\0" + weak + b"\n\0" + real + b"\n\0" + formatted + real) == [real]
