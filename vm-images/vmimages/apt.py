"""apt with a state of its own: it uses the machine's mirrors, keys and proxies, and changes none of its files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from . import aptparse
from .aptparse import Mirrors, Package
from .errors import VMError
from .paths import cache_root

_DEBIAN_RELEASES = ("stable", "oldstable", "testing", "unstable", "sid", "bullseye", "bookworm", "trixie", "forky")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_UPDATE_SECONDS = 900
_DOWNLOAD_SECONDS = 3600


def _run(command: Sequence[str], env: dict[str, str] | None = None, timeout: float = 120) -> str:
    """A tool's output. Its error message becomes the error."""
    try:
        result = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout,
        )  # fmt: skip
    except FileNotFoundError:
        raise VMError(f"{command[0]} isn't installed; this needs Debian's apt") from None
    except subprocess.TimeoutExpired:
        raise VMError(f"{command[0]} {command[1]} gave no answer for {timeout:.0f} s") from None
    if result.returncode != 0:
        raise VMError(f"{command[0]} {command[1]}: {complaint(result.stderr)}")
    return result.stdout


def complaint(stderr: str) -> str:
    """The one line of apt's errors that says most."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for start in ("E:", "W:"):
        for line in lines:
            if line.startswith(start):
                return line[2:].strip()
    return lines[-1] if lines else "it failed and gave no reason"


def _helper() -> str:
    """apt-helper is next to apt's methods, not in PATH."""
    text = _run(["apt-config", "shell", "methods", "Dir::Bin::methods/d"], env=_c_locale())
    methods = text.partition("=")[2].strip().strip("'") or "/usr/lib/apt/methods"
    return str(Path(methods).parent / "apt-helper")


def _c_locale() -> dict[str, str]:
    # apt's texts are parsed here; a translated "Package:" would not be found.
    return {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "C"}


def machine_mirrors() -> Mirrors:
    """The mirrors in the machine's apt configuration, or those in `KPLUG_MIRROR` and `KPLUG_SECURITY_MIRROR`."""
    own = os.environ.get("KPLUG_MIRROR")
    if own:
        return Mirrors(own, os.environ.get("KPLUG_SECURITY_MIRROR"))
    text = _run(["apt-get", "indextargets", "--format", aptparse.TARGET_FORMAT], env=_c_locale())
    found = aptparse.mirrors(text, _DEBIAN_RELEASES)
    if found is None:
        raise VMError("this machine's apt knows no Debian mirror; name one in KPLUG_MIRROR (and KPLUG_SECURITY_MIRROR)")
    return found


class PrivateApt:
    """apt for some suites of one architecture, all of its state in one folder of the cache.

    What it downloads lies in a folder that `kernel` names, else that of the architecture.
    """

    def __init__(self, suites: Sequence[str], arch: str, kernel: str | None = None) -> None:
        self.suites = tuple(suites)
        self.arch = arch
        self.root = cache_root() / "apt" / f"{suites[0]}-{arch}"
        self.archives = cache_root() / "archives" / (kernel or arch)
        self._updated = False

    def _prepare(self) -> None:
        mirrors = machine_mirrors()
        for folder in ("lists/partial", "cache/archives/partial", "empty"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.archives.mkdir(parents=True, exist_ok=True)
        # An empty status file: with the machine's own, apt would take its packages for candidates.
        (self.root / "status").write_text("")
        signed = f" signed-by={_KEYRING}" if _KEYRING.exists() else ""
        lines = []
        for suite in self.suites:
            uri = mirrors.security if suite.endswith("-security") else mirrors.main
            if uri is not None:  # a machine without the security suite has to do without
                lines.append(f"deb [arch={self.arch}{signed}] {uri} {suite} main\n")
        (self.root / "sources.list").write_text("".join(lines))
        self._write_config()

    def _write_config(self) -> None:
        """The whole configuration in one file.

        The machine's apt.conf.d must not be read: images made for containers have hooks there that delete files of
        the machine's cache after every update, and a hook can't be taken back on the command line.
        """
        # The machine's file may hold a proxy's password.
        path = self.root / "apt.conf"
        path.touch(mode=0o600)
        dump = _run(["apt-config", "dump"], env=_c_locale())
        trusted = _run(["apt-config", "shell", "parts", "Dir::Etc::trustedparts/d"], env=_c_locale())
        settings = {
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": self.root / "empty",
            "Dir::Etc::sourcelist": self.root / "sources.list",
            "Dir::Etc::sourceparts": self.root / "empty",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": self.root / "empty",
            "Dir::Etc::trustedparts": trusted.partition("=")[2].strip().strip("'") or "/etc/apt/trusted.gpg.d",
            "Dir::State": self.root,
            "Dir::State::lists": self.root / "lists",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root / "cache",
            "Dir::Cache::archives": self.root / "cache" / "archives",
            "Dir::Log": self.root / "log",
            # What would be kept twice isn't kept.
            "Dir::Cache::srcpkgcache": "",
            "Acquire::GzipIndexes": "true",
            "APT::Architecture": self.arch,
            "APT::Architectures::": self.arch,
            # Root's downloads run as the user _apt, who can't write below a home directory.
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        own = "".join(f'{key} "{value}";\n' for key, value in settings.items())
        path.write_text("".join(line + "\n" for line in aptparse.config_lines(dump)) + own)

    def _env(self) -> dict[str, str]:
        return {**_c_locale(), "APT_CONFIG": str(self.root / "apt.conf")}

    def update(self, note: Callable[[str], None]) -> None:
        """Bring the lists up to date, once. Offline, older lists have to do."""
        if self._updated:
            return
        self._prepare()
        try:
            _run(["apt-get", "update", "-q"], env=self._env(), timeout=_UPDATE_SECONDS)
        except VMError as error:
            if not any((self.root / "lists").glob("*Packages*")):
                raise VMError(f"can't read the package lists of {', '.join(self.suites)}: {error}") from None
            note(f"using older package lists ({error})")
        self._updated = True

    def show(self, *names: str) -> list[Package]:
        """All versions of the named packages, the newest first; names that don't exist are left out."""
        command = ["apt-cache", "-o", "APT::Cache::AllVersions=true", "show", *names]
        result = subprocess.run(
            command, env=self._env(), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=120,
        )  # fmt: skip
        # apt-cache fails when one name is unknown, and still shows the others.
        found = aptparse.packages(result.stdout)
        return sorted(found, key=lambda package: aptparse.version_key(package.version), reverse=True)

    def names(self, pattern: str) -> list[str]:
        """The packages whose names match a regular expression."""
        text = _run(["apt-cache", "search", "--names-only", pattern], env=self._env())
        return [line.split(" ", 1)[0] for line in text.splitlines() if line]

    def download(self, package: Package, update: Callable[[float], None]) -> Path:
        """The package's file, its checksum right. A file that is there already is used, a part of one is completed."""
        path = self.archives / f"{package.name}_{package.version.replace(':', '%3a')}_{self.arch}.deb"
        if path.exists() and path.stat().st_size >= package.size:
            if sha256(path) == package.sha256:
                return path
            path.unlink()
        text = _run(["apt-get", "download", "--print-uris", f"{package.name}={package.version}"], env=self._env())
        match = re.match(r"'([^']+)' ", text)
        if match is None:
            raise VMError(f"apt-get download {package.name}: no address was given")
        self._download(match[1], path, package.sha256, update)
        if sha256(path) != package.sha256:
            path.unlink()
            raise VMError(f"{path.name}: the checksum is wrong; the file was thrown away")
        return path

    def _download(self, uri: str, path: Path, checksum: str, update: Callable[[float], None]) -> None:
        """Download with apt's own helper: like apt-get it uses the machine's proxies and passwords, and unlike
        `apt-get download`, which throws parts of files away first, it goes on where an earlier run stopped."""
        read_fd, write_fd = os.pipe()
        try:
            process = subprocess.Popen(
                [_helper(), "-o", f"APT::Status-Fd={write_fd}", "download-file", uri, str(path), f"SHA256:{checksum}"],
                env=self._env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, errors="replace", pass_fds=(write_fd,), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(read_fd)
            raise VMError(f"apt-helper can't be started: {error.strerror}") from None
        finally:
            os.close(write_fd)
        timer = threading.Timer(_DOWNLOAD_SECONDS, process.kill)
        timer.start()
        try:
            with os.fdopen(read_fd, "r", errors="replace") as status:
                for line in status:
                    fields = line.split(":")
                    if fields[0] == "dlstatus" and len(fields) > 2:
                        update(float(fields[2]) / 100)
            _, stderr = process.communicate()
        finally:
            timer.cancel()
            if process.poll() is None:
                # Interrupted. apt goes on from a part of a file only if that has the server's time, and it is the
                # process that downloads which sets it when it gets a signal: hence the signal to the whole group.
                os.killpg(process.pid, signal.SIGINT)
                process.wait()
        if process.returncode != 0:
            raise VMError(f"{path.name}: {complaint(stderr)}")

    def forget(self, paths: Sequence[Path]) -> None:
        """Remove downloaded files that are no longer needed."""
        for path in paths:
            path.unlink(missing_ok=True)
        if self.archives.exists() and not any(self.archives.iterdir()):
            shutil.rmtree(self.archives, ignore_errors=True)


def sha256(path: Path) -> str:
    """A file's checksum, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
