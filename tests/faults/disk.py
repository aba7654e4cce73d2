"""A disk that is really full: small file systems in memory, as a check of what fault_shim.c feigns.

Trainings and conversions write to a tmpfs of every size from too little to enough. What has to come
of it is what syscalls.py asks for: a message that names a file, no damage to what was there, and,
once there is room, the right result.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import harness
import syscalls
from harness import lost, wrong

PAGE = 4096


@contextlib.contextmanager
def small_disk(folder, size):
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def enlarge(disk):
    subprocess.run(["mount", "-o", "remount,size=64M", disk], check=True)


def check_size(target, size):
    def case(_, folder):
        with small_disk(folder, size) as disk:
            try:
                target.prepare(disk)
            except OSError:
                return 0  # not even room for what is there before
            code, output = harness.run(target.command(disk), folder, seconds=syscalls.SECONDS)
            if code < 0 or code >= 128:
                wrong(f"{size} bytes: exit code {code}, a signal\n{output[-600:]}")
            if code == 0:
                target.check_result(disk)
            else:
                target.check_intact(disk)
                if str(disk) not in output or "No space left" not in output:
                    wrong(f"{size} bytes: no message names a file and the cause\n{output[-600:]}")
            enlarge(disk)
            code, again = harness.run(target.command(disk), folder, seconds=syscalls.SECONDS)
            if code != 0:
                lost(f"with room again: exit code {code}\n{again[-600:]}")
            target.check_result(disk)
        return 1
    return f"{target.name}.{size}", case


def bytes_on_disk(folder):
    return sum(PAGE + (path.stat().st_size + PAGE - 1) // PAGE * PAGE for path in folder.rglob("*"))


def run(context):
    if os.geteuid() != 0:
        raise harness.Skip("mounting a small file system needs root")
    for name, make in (("convert", syscalls.Conversion), ("train", syscalls.Training)):
        target = make(context, name, context.work)
        root = Path(context.work) / f"enough.{name}"
        root.mkdir()
        target.prepare(root)
        before = bytes_on_disk(root)
        harness.must_run(target.command(root), context.work)
        after = bytes_on_disk(root)
        shutil.rmtree(root)
        # At the top, all copies that a commit has at a time, and more.
        sizes = range(before, 2 * after + 8 * PAGE, PAGE if context.long else 5 * PAGE)
        context.run(check_size(target, size) for size in sizes)
