"""Too little of everything: address space, open files, processes, file size, room on stdout.

Every command is run with a limit swept from too little to enough. At each step it either does its
work, with the result of an unlimited run, or ends with a message and an exit code of its own; never by
a signal, never late, and without damage to what was there or a file that is not complete.
"""

import hashlib
import os
import resource
import shutil

import commands
import harness
from commands import MEBIBYTE
from harness import wrong

# What the dynamic linker and the C and OpenMP libraries say for themselves, before main or in a
# place where nothing can be caught.
OF_THE_SYSTEM = ("error while loading shared libraries", "cannot allocate memory", "libgomp: ",
                 "failed to map segment")


def digest(path):
    if path.is_dir():
        return {name: digest(path / name) for name in commands.files_below(path)}
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Bed:
    def __init__(self, context):
        self.context = context
        self.folder = context.work / "memory"
        self.folder.mkdir()
        self.data = harness.make_dataset(context, self.folder, users=12, items=10, events=150)
        self.source = self.folder / "events.csv"
        self.run = self.folder / "run"
        harness.must_run(harness.train_command(context, self.data, self.run, 4, 2,
                                               options=["--checkpoint-every", 2]), self.folder)
        self.topology = self.folder / "topology.json"
        harness.must_run([context.serrate, "calibrate", "--output", self.topology, "--ranks", 2],
                         self.folder)
        self.inputs = {path: digest(path) for path in (self.data, self.source, self.run)}
        self.expected, self.prints = {}, {}
        for name in self.commands(self.folder):
            folder = self.folder / f"undisturbed_{name}"
            folder.mkdir()
            command, made = self.commands(folder)[name]
            outcome = commands.call(command, folder)
            if outcome.code != 0:
                wrong(str(outcome))
            self.expected[name] = self.result(outcome, made)
            self.prints[name] = bool(outcome.stdout)

    def commands(self, folder):
        """{name: (command, what it makes)}"""
        serrate = self.context.serrate
        return {
            "train": (harness.train_command(self.context, self.data, folder / "new", 4, 2,
                                            options=["--checkpoint-every", 2]), folder / "new"),
            "evaluate": ([serrate, "evaluate", "--data", self.data, "--model", self.run, "--ranks", 2,
                          "--json", folder / "result.json"], folder / "result.json"),
            "convert": ([serrate, "convert", "--input", self.source, "--output", folder / "made.h5",
                         "--user", "user", "--item", "item", "--time", "time", "--categorical",
                         "country"], folder / "made.h5"),
            "generate": ([serrate, "generate", "--output", folder / "made.h5", "--users", 20,
                          "--items", 20, "--events", 500], folder / "made.h5"),
            "inspect": ([serrate, "inspect", self.run], None),
            "inspect_data": ([serrate, "inspect", self.data], None),
            "plan": ([serrate, "plan", "--from", self.data, "--topology", self.topology, "--output",
                      folder / "plan.json"], folder / "plan.json"),
        }

    def result(self, outcome, made):
        if made is None:
            return outcome.stdout
        if not made.is_dir():
            return digest(made)
        files = digest(made)
        return {name: files[name] for name in files if name.endswith(".h5")}

    def judge(self, name, folder, outcome, made):
        """Says what came of a disturbed run."""
        for path, before in self.inputs.items():
            if digest(path) != before:
                wrong(f"{path} has changed: {outcome}")
        if outcome.code == 0:
            if self.result(outcome, made) != self.expected[name]:
                wrong(f"exit code 0 and another result: {outcome}")
            return "right"
        if outcome.says(*OF_THE_SYSTEM) and outcome.code in (1, 127):
            result = "ended by the system's libraries, with a message"
        else:
            commands.check_sane(outcome)
            result = "refused with a message"
        # What is there has to be complete, and nothing half made may stay.
        if made and made.is_file() and name in ("convert", "generate", "plan"):
            if self.result(outcome, made) != self.expected[name]:
                wrong(f"{made} is there, and not what it should be: {outcome}")
        if made and made.is_dir():
            self.check_resumes(folder, outcome, made)
        return result

    def check_resumes(self, folder, outcome, made):
        """The run goes on without the limit, to the same bits."""
        again, _ = self.commands(folder)["train"]
        resumed = commands.call(again, folder)
        if resumed.code != 0 or self.result(resumed, made) != self.expected["train"]:
            wrong(f"does not go on: {resumed}\nafter {outcome}")


def limited(bed, name, limits, shown, nobody=False):
    def case(_, folder):
        command, made = bed.commands(folder)[name]
        apply = commands.set_limits({resource.RLIMIT_CORE: 0, **limits})

        def preexec():
            apply()
            if nobody:  # root has no limit of processes
                os.setgid(NOBODY)
                os.setuid(NOBODY)
        if nobody:
            folder.chmod(0o777)
        outcome = commands.call(command, folder, 30, preexec)
        bed.context.note(bed.judge(name, folder, outcome, made))
    return f"{name} {shown}", case


def full_stdout(bed, name):
    def case(_, folder):
        command, made = bed.commands(folder)[name]
        with open("/dev/full", "wb") as full:
            outcome = commands.call(command, folder, 30, stdout=full)
        commands.check_sane(outcome)
        if outcome.code == 0 and bed.prints[name]:
            wrong(f"exit code 0 with a full stdout: {outcome}")
        bed.context.note(bed.judge(name, folder, outcome, made))
    return f"{name} stdout=/dev/full", case


NOBODY = 65534


def cases(bed):
    is_long = bed.context.long
    for name in bed.commands(bed.folder):
        step = 2 if is_long else 24
        for mebibytes in range(8, 420 if is_long else 260, step):
            limits = {resource.RLIMIT_AS: mebibytes * MEBIBYTE}
            yield limited(bed, name, limits, f"address_space={mebibytes}MiB")
        for files in range(3, 40, 1 if is_long else 5):
            yield limited(bed, name, {resource.RLIMIT_NOFILE: files}, f"files={files}")
        for size in range(0, 60_000, 500 if is_long else 12_000):
            yield limited(bed, name, {resource.RLIMIT_FSIZE: size}, f"file_size={size}")
        if os.getuid() == 0 and is_readable_by_all(bed):
            for processes in range(1, 8, 1 if is_long else 3):
                yield limited(bed, name, {resource.RLIMIT_NPROC: processes},
                              f"processes={processes}", nobody=True)
        yield full_stdout(bed, name)


def is_readable_by_all(bed):
    """Whether nobody may run the program on the files of the test."""
    for path in (bed.context.serrate, bed.data):
        for parent in path.parents:
            if not parent.stat().st_mode & 0o001:
                return False
    return True


def run(context):
    context.work.chmod(0o755)
    bed = Bed(context)
    context.run(cases(bed))
    shutil.rmtree(bed.folder)
