"""Run as the service: tries what a daemon that was taken over would try, and prints the answers as JSON."""

import ctypes
import errno
import json
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWUSER = 0x10000000


def outcome(attempt: Callable[[], object]) -> str:
    """Name what the kernel answered."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def send_to(address: str) -> Callable[[], object]:
    def attempt() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"?", (address, 9))

    return attempt


def call(name: str, *arguments: object) -> Callable[[], object]:
    def attempt() -> None:
        if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), name)

    return attempt


def capability_sets() -> set[str]:
    status = Path("/proc/self/status").read_text().splitlines()
    return {line.split()[1] for line in status if line.startswith("Cap")}


def readable(path: str) -> Callable[[], object]:
    return lambda: os.close(os.open(path, os.O_RDONLY))


def writable(folder: str) -> Callable[[], object]:
    def attempt() -> None:
        probe = Path(folder, "probe")
        probe.write_text("?")
        probe.unlink()

    return attempt


def executable_memory() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


if __name__ == "__main__":
    secret = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/"), "curve_secret")
    print(
        json.dumps(
            {
                "write": {
                    folder: outcome(writable(folder))
                    for folder in (
                        *("/etc/inspectd", "/usr", "/opt/inspectd", "/var/lib/inspectd", "/var/log"),
                        *(os.environ["STATE_DIRECTORY"], os.environ["RUNTIME_DIRECTORY"], "/tmp"),
                    )
                },
                "read": {path: outcome(readable(path)) for path in ("/root", "/home", "/etc/shadow")},
                "devices": {
                    path: outcome(readable(path)) for path in ("/dev/null", "/dev/camera", "/dev/disk0")
                },
                "send to": {
                    address: outcome(send_to(address))
                    for address in ("127.0.0.1", "192.0.2.7", "198.51.100.7")
                },
                "own namespace": outcome(call("unshare", _CLONE_NEWUSER)),
                "mount": outcome(call("mount", b"none", b"/mnt", b"tmpfs", 0, None)),
                "real-time": outcome(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
                "executable memory": outcome(executable_memory),
                "packet socket": outcome(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
                "first process": outcome(readable("/proc/1/status")),
                "capabilities": sorted(capability_sets()),
                "nice": os.getpriority(os.PRIO_PROCESS, 0),
                "secret": secret.read_text() if secret.exists() else None,
            }
        )
    )
