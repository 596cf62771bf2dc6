"""What the child takes from itself before it reads a stranger's file.

Rules kept here: resource limits stop accidents, namespaces, Landlock and seccomp stop attackers; each is tried on its
own, and what the system would not give is reported, not hidden. Nothing here can be undone by the process.
Sources: getrlimit(2), prctl(2), unshare(2), landlock(7), seccomp(2).
"""

import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable
from ctypes import c_int, c_ubyte, c_ulong, c_ushort, c_void_p
from functools import partial
from pathlib import Path
from typing import Final

from ingestion.readers import Confinement

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

LANDLOCK_CREATE: Final = 444
LANDLOCK_ADD: Final = 445
LANDLOCK_RESTRICT: Final = 446
ALL_FILES: Final = 0b1_1111_1111_1111
"""Landlock's rights over files of ABI 1: execute, write, read, list, and remove and make of every kind."""
READ: Final = 0b1100
"""Landlock's rights to read a file and to list a folder."""
REFER_TRUNCATE: Final = 0b110_0000_0000_0000
"""Linking across folders (ABI 2) and truncating (ABI 3)."""
ABI_TRUNCATE: Final = 3
ABI_NETWORK: Final = 4
"""Landlock's version that can also forbid TCP bind and connect."""

MODELS: Final = ("/usr/share/tesseract-ocr/5/tessdata", "/usr/share/tessdata", "/usr/share/tesseract-ocr/4.00/tessdata")
"""Where Tesseract's models lie, if it is installed: the only data a reader may open."""

ALLOW: Final = 0x7FFF0000
ERRNO_EPERM: Final = 0x00050001

DENIED: Final[dict[str, tuple[int, tuple[int, ...]]]] = {
    # socket connect sendto socketpair clone fork vfork execve kill ptrace tkill tgkill process_vm_* bpf execveat
    # io_uring_* pidfd_open pidfd_send_signal pidfd_getfd clone3; then what a new user namespace would open up:
    # unshare setns mount umount2 pivot_root keyctl add_key request_key perf_event_open userfaultfd *init_module,
    # the mount family from open_tree on, mount_setattr
    "x86_64": (
        0xC000003E,
        (
            *(41, 42, 44, 53, 56, 57, 58, 59, 62, 101, 200, 234, 310, 311, 321, 322, 425, 426, 427, 434, 424, 438, 435),
            *(272, 308, 165, 166, 155, 250, 248, 249, 298, 323, 175, 313, 428, 429, 430, 431, 432, 442),
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(198, 203, 206, 199, 220, 221, 129, 117, 130, 131, 270, 271, 280, 281, 425, 426, 427, 434, 424, 438, 435),
            *(97, 268, 40, 39, 41, 219, 217, 218, 241, 282, 105, 273, 428, 429, 430, 431, 432, 442),
        ),
    ),
}
"""System calls that a reader has no use for, by machine: the audit architecture and the numbers."""


class _Filter(ctypes.Structure):
    """One instruction of a classic BPF program (linux/filter.h)."""

    _fields_ = (("code", c_ushort), ("jt", c_ubyte), ("jf", c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """A classic BPF program (linux/filter.h)."""

    _fields_ = (("length", c_ushort), ("filter", ctypes.POINTER(_Filter)))


class _Ruleset(ctypes.Structure):
    """What a Landlock ruleset handles; whatever no rule allows again is denied (linux/landlock.h)."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    """What is allowed below a folder (linux/landlock.h: packed)."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)


def confine(limits: Confinement) -> dict[str, str]:
    """Give up everything but reading and answering; gives what holds: "" or the name of the error that stopped it.

    Must be called while the process has one thread.
    """
    size = _loaded()
    held = {
        "own process group": _try(_lead_group),
        "dies with its parent": _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        "no new privileges": _prctl(PR_SET_NO_NEW_PRIVS, 1),
        "network namespace": _result(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)),
        "no files but code (landlock)": _landlock(),
        "system calls (seccomp)": _seccomp(),
    }
    most = size + limits.memory
    limited = {
        "memory limit": (resource.RLIMIT_AS, most, most),
        "CPU limit": (resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 1),
        "open files limit": (resource.RLIMIT_NOFILE, limits.files, limits.files),
        "file size 0": (resource.RLIMIT_FSIZE, 0, 0),
        "no core dumps": (resource.RLIMIT_CORE, 0, 0),
    }
    for name, (which, soft, hard) in limited.items():
        held[name] = _try(partial(resource.setrlimit, which, (soft, hard)))
    return held


def no_connections() -> None:
    """Refuse what this process and its children would send or ask through Python's own sockets; for the nursery.

    It is not confined as its children are, since it must fork and kill. Before readers are imported, so that a library
    that calls home on import is refused too. What it cannot see is what `residency/egress.py` says of its own hook.
    """
    sys.addaudithook(_hook)


_OUTWARD: Final = frozenset(
    f"socket.{call}"
    for call in ["bind", "connect", "getaddrinfo", "gethostbyaddr", "gethostbyname", "getnameinfo", "sendmsg", "sendto"]
)
"""Events of PEP 578; the pipe to the parent raises none of them."""


def _hook(event: str, _arguments: tuple[object, ...]) -> None:
    if event in _OUTWARD:
        raise PermissionError(f"a reader has no use for {event}")


def models() -> str:
    """Give the folder of Tesseract's models, "" where there is none."""
    return next((folder for folder in MODELS if Path(folder).is_dir()), "")


def _loaded() -> int:
    """Give the bytes of address space that the nursery's code took before any file came."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def no_new_privileges() -> None:
    """Forbid that this process or a child ever gains rights by running another program."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def _lead_group() -> None:
    if os.getpgid(0) != os.getpid():
        os.setsid()


def _try(step: Callable[[], None]) -> str:
    try:
        step()
    except (OSError, ValueError) as error:
        return type(error).__name__
    return ""


def _result(returned: int) -> str:
    return "" if returned == 0 else os.strerror(ctypes.get_errno())


def _prctl(option: int, value: int) -> str:
    return _result(_libc.prctl(c_int(option), c_ulong(value), c_ulong(0), c_ulong(0), c_ulong(0)))


def _landlock() -> str:
    """Take away every right over files and TCP but reading the code that readers may still have to import."""
    abi = _libc.syscall(LANDLOCK_CREATE, None, c_ulong(0), c_int(1))
    if abi < 1:
        return os.strerror(ctypes.get_errno())
    rules = _Ruleset(ALL_FILES | (REFER_TRUNCATE if abi >= ABI_TRUNCATE else 0), 0b11 if abi >= ABI_NETWORK else 0)
    size = ctypes.sizeof(rules) if abi >= ABI_NETWORK else 8
    handle = _libc.syscall(LANDLOCK_CREATE, ctypes.byref(rules), c_ulong(size), c_int(0))
    if handle < 0:
        return os.strerror(ctypes.get_errno())
    for folder in _code():
        place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        beneath = _Beneath(READ, place)
        _libc.syscall(LANDLOCK_ADD, c_int(handle), c_int(1), ctypes.byref(beneath), c_int(0))
        os.close(place)
    problem = _result(_libc.syscall(LANDLOCK_RESTRICT, c_int(handle), c_int(0)))
    os.close(handle)
    return problem


def _code() -> list[str]:
    """Give the folders of Python's library, of packages, of this room, of Tesseract's models: nobody's data."""
    named = ("site-packages", "dist-packages", "lib-dynload")
    folders = {Path(path) for path in sys.path if path.endswith(named)}
    folders |= {Path(os.__file__).parent, Path(__file__).parent.parent, *map(Path, MODELS)}
    return [str(folder) for folder in sorted(folders) if folder.is_dir()]


def _seccomp() -> str:
    known = DENIED.get(platform.machine())
    if known is None:
        return "no list of system calls for this machine"
    architecture, numbers = known
    # 1. Wrong architecture: refuse all. 2. Each listed number jumps to the refusal. 3. The rest may pass.
    # x86-64's x32 calls carry bit 30: they are refused whole, or they would slip past the numbers.
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    count = len(numbers)
    steps = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, ERRNO_EPERM), (load, 0, 0, 0)]
    steps.append((at_least, count + 1, 0, 0x40000000))
    steps += [(equal, count - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(give, 0, 0, ALLOW), (give, 0, 0, ERRNO_EPERM)]
    filters = (_Filter * len(steps))(*(_Filter(*step) for step in steps))
    program = _Program(len(steps), filters)
    mode = c_ulong(2)  # SECCOMP_MODE_FILTER
    return _result(
        _libc.prctl(c_int(PR_SET_SECCOMP), mode, c_void_p(ctypes.addressof(program)), c_ulong(0), c_ulong(0))
    )
