"""File systems of a few MiB, which a test can fill up."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs. Mounting takes root; without it the test fails, because a full disk cannot be tested otherwise."""

    def __init__(self, path: Path, mebibytes: int):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(path)], capture_output=True, text=True
        )
        if mounted.returncode != 0:
            pytest.fail(f"NOT TESTED: a full disk needs a tmpfs, and mounting takes root: {mounted.stderr.strip()}")

    @property
    def filler(self) -> Path:
        return self.path / "filler"

    def free_bytes(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self) -> None:
        """Takes every byte, as somebody else's file would."""
        with self.filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    pass

    def empty(self) -> None:
        self.filler.unlink()

    def remove(self, entry: Path) -> None:
        """A file or directory of the owner's."""
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry != self.filler:
            entry.unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=False)
