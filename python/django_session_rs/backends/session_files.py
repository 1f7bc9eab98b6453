"""Files that many processes share: each is read whole, replaced whole, and only if it is unchanged.

The protocol is that of ``FileStore`` on the Rust side (``docs/adr/0013``), so both may use one
directory: a writer locks the file, makes sure that the name still leads to it, compares, writes a
temporary file beside it and exchanges the two names. Django writes without any lock; where the
system can exchange names in one step (Linux, macOS), what it did in between is noticed and put
back, and a file that it has deleted stays deleted. Elsewhere a moment remains.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from django_session_rs.exceptions import StoreUnavailableError

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:
    # Windows, where files are not locked.
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Found", "Locked", "create", "exists", "locked", "read", "remove_abandoned"]

#: Between the name of a file and what makes its temporary one unique, as in Django.
TEMPORARY = "_out_"
#: How long in seconds to wait for a file that somebody else has locked.
LOCK_TIMEOUT = 5.0
#: How long to wait before a lock is tried again, at first and at most.
WAITS = (0.0001, 0.005)
#: After how many seconds a temporary file is nobody's.
ABANDONED_AFTER = 24 * 60 * 60
#: The longest file that is read, as on the Rust side: as base64, the largest session that is.
MAX_LENGTH = 2 * (64 << 20)

# What means that there is no such file: a link, a directory, a pipe, a name that no file can have.
NO_FILE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG}
)
# Of a file system on another machine.
AWAY = frozenset(
    getattr(errno, name)
    for name in ("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENOTCONN", "ESTALE")
    if hasattr(errno, name)
)
BUSY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}
)

# Nothing to follow, and no pipe to wait at.
FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Found(NamedTuple):
    """A file as it was read."""

    content: bytes
    #: When it was last modified, in seconds since 1970.
    modified: float


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """Raise a failure of the file system as a ``StoreUnavailableError``, whose cause it is.

    Its text names no path, which would name a session key.
    """
    try:
        yield
    except OSError as error:
        number = error.errno
        if isinstance(error, TimeoutError):
            reason = "timed_out"
        elif number in AWAY or number in {errno.ENOENT, errno.ENOTDIR}:
            # The second is a volume that is not mounted.
            reason = "unreachable"
        else:
            reason = "busy" if number in BUSY else "refused"
        raise StoreUnavailableError(reason) from OSError(number, os.strerror(number or 0))


def _missing(path: Path, error: OSError) -> None:
    """Return if a failure means that there is no such file; one of the directory never does."""
    if error.errno not in NO_FILE or not path.parent.is_dir():
        raise error


def _status(path: Path) -> os.stat_result | None:
    """Return what is under a path, if it is a regular file."""
    try:
        found = path.lstat()
    except OSError as error:
        _missing(path, error)
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _open(path: Path, flags: int) -> int | None:
    try:
        number = os.open(path, flags | FLAGS)
    except OSError as error:
        _missing(path, error)
        return None
    if stat.S_ISREG(os.fstat(number).st_mode):
        return number
    os.close(number)
    return None


def _content(number: int) -> bytes:
    parts, length = [], 0
    while part := os.read(number, 1 << 20):
        parts.append(part)
        length += len(part)
        if length > MAX_LENGTH:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return b"".join(parts)


def _id(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def exists(path: Path) -> bool:
    """Tell whether there is a file."""
    with _answering():
        return _status(path) is not None


def read(path: Path) -> Found | None:
    """Return the file, if there is one."""
    with _answering():
        number = _open(path, os.O_RDONLY)
        if number is None:
            return None
        try:
            return Found(_content(number), os.fstat(number).st_mtime)
        finally:
            os.close(number)


def create(path: Path, content: bytes) -> bool:
    """Add a file, whole from the first moment; false if the name is taken."""
    with _answering():
        if _status(path) is not None:
            return False
        with _temporary(path, content) as temporary:
            try:
                os.link(temporary.path, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
            else:
                return True
            # As Django: the file is empty for a moment, which reads as an empty session.
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                return False
            temporary.replace(path)
            return True


class _Temporary:
    """A file that has no name of its own yet."""

    def __init__(self, path: Path, content: bytes) -> None:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + TEMPORARY)
        self.path = Path(name)
        self.number: int | None = number
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(number, view) :]
        except BaseException:
            self.close()
            raise

    def replace(self, path: Path) -> None:
        """Have it take the place of a file."""
        if not HAS_LOCKS and self.number is not None:
            # Windows renames no open file.
            os.close(self.number)
            self.number = None
        self.path.replace(path)

    def close(self) -> None:
        """Remove it, unless it has another name by now."""
        if self.number is not None:
            os.close(self.number)
            self.number = None
        # What cannot be removed is cleared later as abandoned.
        with contextlib.suppress(OSError):
            self.path.unlink()


@contextlib.contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[_Temporary]:
    temporary = _Temporary(path, content)
    try:
        yield temporary
    finally:
        temporary.close()


class Locked:
    """A file that nobody else who takes locks replaces or removes."""

    def __init__(self, path: Path, found: Found, file_id: tuple[int, int]) -> None:
        self.path = path
        self.found = found
        self._id = file_id

    def replace(self, content: bytes, *, whatever: bool) -> bool | None:
        """Replace it; ``False`` if somebody without a lock did, ``None`` if there is none any more.

        With ``whatever``, what somebody without a lock has put there meanwhile too.
        """
        with _answering(), _temporary(self.path, content) as temporary:
            # Whoever takes locks sees the new file when it is certain that it stays.
            if HAS_LOCKS and temporary.number is not None:
                _lock(temporary.number)
            now = _status(self.path)
            if now is None:
                return None
            if not whatever and _id(now) != self._id:
                return False
            return self._exchange(temporary, whatever=whatever)

    def _exchange(self, temporary: _Temporary, *, whatever: bool) -> bool | None:
        inserted, expected = _id(temporary.path.lstat()), self._id
        replaced = True
        while True:
            try:
                _exchange_names(temporary.path, self.path)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                # Between the look and this step somebody without a lock may come.
                temporary.replace(self.path)
                return True
            removed = _id(temporary.path.lstat())
            # What is in the temporary file now goes when that goes.
            if whatever or removed == expected:
                return replaced
            # Somebody has put it there without a lock, just now: it goes back in.
            inserted, expected = removed, inserted
            replaced = False

    def remove(self) -> None:
        """Remove it."""
        with _answering(), contextlib.suppress(FileNotFoundError):
            self.path.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Locked | None]:
    """Have the file to oneself, as far as others take locks; ``None`` if there is none."""
    with _answering():
        number, found = _locked(path)
    if number is None or found is None:
        yield None
        return
    try:
        yield found
    finally:
        os.close(number)


def _locked(path: Path) -> tuple[int | None, Locked | None]:
    until = time.monotonic() + LOCK_TIMEOUT
    while True:
        number = _open(path, os.O_RDWR)
        if number is None:
            return None, None
        try:
            _wait_for_lock(number, until)
            own, now = os.fstat(number), _status(path)
            if now is not None and _id(now) == _id(own):
                return number, Locked(path, Found(_content(number), own.st_mtime), _id(own))
            # Replaced or removed by whoever had the lock, so this is one on nothing.
            if time.monotonic() >= until:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def _lock(number: int) -> None:
    # Only asked for where there are locks.
    flock(number, LOCK_EX | LOCK_NB)  # pyright: ignore


def _wait_for_lock(number: int, until: float) -> None:
    if not HAS_LOCKS:
        return
    wait, longest = WAITS
    while True:
        try:
            _lock(number)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
            time.sleep(wait * random.random())  # noqa: S311 - so that not all wait alike
            wait = min(wait * 2, longest)
        else:
            return


def remove_abandoned(path: Path) -> None:
    """Remove a temporary file that nobody has touched for a day."""
    with contextlib.suppress(OSError):
        # Not when it was modified, which may be set to any time.
        if time.time() - path.lstat().st_ctime > ABANDONED_AFTER:
            path.unlink()


def _exchanger() -> Callable[[bytes, bytes], int] | None:
    """Return the function of the system that exchanges two names in one step."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if hasattr(library, "renamex_np"):
            # macOS.
            renamex_np, swap = library.renamex_np, 2
            renamex_np.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint)
            return lambda one, other: int(renamex_np(one, other, swap))
        renameat2, here, exchange = library.renameat2, -100, 2
        renameat2.argtypes = (
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_uint,
        )
    except (AttributeError, OSError, TypeError):
        return None
    return lambda one, other: int(renameat2(here, one, here, other, exchange))


_exchange_by_system = _exchanger()


def _exchange_names(one: Path, other: Path) -> None:
    if _exchange_by_system is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _exchange_by_system(os.fsencode(one), os.fsencode(other)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
