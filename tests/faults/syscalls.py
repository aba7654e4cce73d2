"""Errors of system calls: every file call of a training, a conversion, an inspection and a metrics
write, in turn.

The calls are counted in an undisturbed run. Then, for every k and every error that the call may
give, the command runs again and its k-th call fails (fault_shim.c), once, or from then on as on a
full disk. What has to come of it:

* EINTR and short writes are survived, without a word.
* Any other error is reported with the name of a file. The exit code is 0 only when the output is
  complete all the same (a checkpoint that failed was written at the next interval); else it is not
  a signal and the output that was there before is intact.
* EIO on reading a checkpoint is damage to it; what says nothing about the file, as EMFILE or
  EACCES, is not: no checkpoint is passed over for it.
* Started again without faults, the command finishes with the right result.
"""

import os
import re
import shutil
from pathlib import Path

import harness
from harness import lost, wrong

STEPS, EVERY = 9, 3
SECONDS = 20  # a run takes a fraction of one

# What may come of each call; names of errno, or short.
EFFECTS = {"open": ["EIO", "ENOSPC", "EMFILE"], "openread": ["EIO", "EMFILE", "EACCES"],
           "read": ["EIO", "EINTR"],
           "write": ["ENOSPC", "EIO", "EINTR", "short"], "fsync": ["EIO", "ENOSPC", "EINTR"],
           "rename": ["EIO", "ENOSPC"], "unlink": ["EIO"], "mkdir": ["ENOSPC", "EACCES"],
           "truncate": ["EIO", "EINTR"], "close": ["EIO", "ENOSPC"]}
LASTING = {"write": "ENOSPC", "fsync": "EIO", "open": "ENOSPC", "rename": "EROFS"}
OLDER = b"the older dataset"
HARMLESS = ("EINTR", "short")


class Target:
    """A command that writes into `root`/..., and how to tell whether its output is right."""

    def __init__(self, context, name, folder):
        self.context = context
        self.name = name
        self.folder = Path(folder) / name
        self.folder.mkdir()
        self.only = None

    def prepare(self, root):
        """Puts into a fresh root what is there before the command."""

    def command(self, root):
        raise NotImplementedError

    def check_intact(self, root):
        """What was there before is still there and whole."""

    def check_no_damage(self, root, output):
        """Nothing that was there before counts as damaged, or is said to be."""

    def check_result(self, root):
        """The output is complete and right."""

    def count(self):
        """Number of calls by name in an undisturbed run."""
        root = self.folder / "counted"
        root.mkdir()
        self.prepare(root)
        shim = harness.Shim(self.context, root, rule="any:1000000000:EIO", only=self.only)
        harness.must_run(shim.under(self.command(root)), self.folder)
        self.check_result(root)
        result = shim.result()
        return {call: result[call] for call in harness.CALLS}


class Training(Target):
    """A training that goes on from the newer of two checkpoints and writes three more."""

    ranks, mpirun = 1, False

    def __init__(self, context, name, folder):
        super().__init__(context, name, folder)
        self.data = harness.make_dataset(context, self.folder, users=20, items=12, events=300)
        self.expected = self.folder / "expected"
        harness.must_run(self.train(self.expected, STEPS), self.folder)
        self.before = self.folder / "before"
        for steps in range(1, EVERY):  # a checkpoint each: there is one to fall back to
            harness.must_run(self.train(self.before, steps), self.folder)
        shutil.copy(self.data, self.before / "data.h5")

    def train(self, output, steps):
        return harness.train_command(self.context, self.data, output, steps, self.ranks, self.mpirun,
                                     ["--checkpoint-every", EVERY, "--reproducible", "--timeout", "5s"])

    def prepare(self, root):
        shutil.copytree(self.before, root / "run")

    def command(self, root):
        return self.train(root / "run", STEPS)

    def check_intact(self, root):
        if not harness.checkpoints(root / "run"):
            lost("no checkpoint is left")

    def check_no_damage(self, root, output):
        if found := list((root / "run" / "checkpoint").glob("damaged.*")):
            lost(f"{found} are taken for damaged")

    def check_result(self, root):
        harness.check_same_run(self.context, self.expected, root / "run", STEPS)


class Inspection(Training):
    """What inspect says of the two checkpoints, and of the other files of their run."""

    def command(self, root):
        return [self.context.serrate, "inspect", root / "run"]

    def check_no_damage(self, root, output):
        if "DAMAGED" in output:
            wrong(f"intact files are called damaged\n{output[-600:]}")

    def check_result(self, root):
        if len(harness.checkpoints(root / "run")) != EVERY - 1:
            lost("a checkpoint is gone")


class Threads(Training):
    """The same on two ranks: the fault is one rank's, the error is all ranks'."""

    ranks = 2


class Processes(Training):
    """The same under mpirun."""

    ranks, mpirun = 2, True


class Conversion(Target):
    """A conversion over an older dataset."""

    def __init__(self, context, name, folder):
        super().__init__(context, name, folder)
        harness.make_dataset(context, self.folder, users=20, items=12, events=300)
        self.expected = self.folder / "data.h5"

    def prepare(self, root):
        shutil.copy(self.folder / "events.csv", root)
        (root / "data.h5").write_bytes(OLDER)

    def command(self, root):
        return [self.context.serrate, "convert", "--input", root / "events.csv", "--output",
                root / "data.h5", "--user", "user", "--item", "item", "--time", "time",
                "--categorical", "country"]

    def check_intact(self, root):
        # The new one when the fsync after its rename failed: whole, but perhaps not durable.
        if (root / "data.h5").read_bytes() not in (OLDER, self.expected.read_bytes()):
            lost("neither the older dataset is there nor the new one")

    def check_result(self, root):
        # Writers are deterministic: the same content is the same bytes.
        if (root / "data.h5").read_bytes() != self.expected.read_bytes():
            wrong("another dataset was written")


class Metrics(Training):
    """The same training, and faults in its metrics alone."""

    def __init__(self, context, name, folder):
        super().__init__(context, name, folder)
        self.only = "metrics.jsonl"


def check_fault(target, call, k, effect, lasting):
    def case(_, folder):
        root = folder / "root"
        root.mkdir()
        target.prepare(root)
        rule = f"{call}:{k}{'+' if lasting else ''}:{effect}"
        shim = harness.Shim(target.context, root, rule=rule, only=target.only)
        code, output = harness.run(shim.under(target.command(root)), folder, seconds=SECONDS)
        result = shim.result()
        if result["injected"] == 0:
            return 0  # a write of one byte cannot be short
        where = f"{rule} at {result['first']}: exit code {code}"
        said = output.strip().splitlines()
        complaint = [line for line in said if line.startswith("serrate: ") or "warn" in line]
        if code < 0 or code >= 128:
            wrong(f"{where}, a signal\n{output[-600:]}")
        if effect in HARMLESS and not lasting:
            if code != 0:
                lost(f"{where}\n{output[-600:]}")
        elif not any(str(root) in line for line in complaint):
            wrong(f"{where}, and no message names a file\n{output[-600:]}")
        if code == 0:
            target.check_result(root)
        else:
            target.check_intact(root)
        if effect != "EIO":  # which says that what was written cannot be read back
            target.check_no_damage(root, output)
        again_code, again = harness.run(target.command(root), folder, seconds=SECONDS)
        if again_code != 0:
            lost(f"{where}; started again: exit code {again_code}\n{again[-600:]}")
        target.check_result(root)
        target.context.note(f"of {target.name}")
        return 1
    return f"{target.name}.{call}.{k}{'+' if lasting else ''}.{effect}", case


def cases(target, counts):
    for call, effects in EFFECTS.items():
        for k in range(1, counts[call] + 1):
            for effect in effects:
                yield check_fault(target, call, k, effect, False)
            if call in LASTING:
                yield check_fault(target, call, k, LASTING[call], True)


def run(context):
    harness.needs_shim(context)
    # Name, target, of how many cases one is run in the long version, how many in the short one.
    targets = [("convert", Conversion, 1, 20), ("train", Training, 1, 20),
               ("threads", Threads, 3, 15), ("metrics", Metrics, 1, 15),
               ("inspect", Inspection, 1, 15)]
    if context.mpirun is not None:
        targets.append(("mpirun", Processes, 20, 5))
    for name, make, every, few in targets:
        if context.only and not context.only.startswith(name):
            continue
        target = make(context, name, context.work)
        found = list(cases(target, target.count()))
        if context.only is None:
            found = found[::every if context.long else max(1, len(found) // few)]
        context.run(found)
