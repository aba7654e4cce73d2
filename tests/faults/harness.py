"""What the kinds of faults share: cases and their ledger, jobs and their processes, training runs.

A kind is a module of this folder with a function run(context) that hands cases to context.run:
pairs of a name and a function f(random, folder) that injects faults in a fresh folder and raises
Failure when something was lost, wrong or hung. It returns how many faults it injected (None: one).
A case draws whatever it draws from `random`, which is seeded by the seed and its name, so that
`--only NAME` repeats it alone.
"""

import concurrent.futures
import contextlib
import fnmatch
import itertools
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

RETRYABLE = 75  # exit code: start it again


class Failure(Exception):
    """A case that failed: kind is lost, wrong or hung."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Skip(Exception):
    """Raised by a kind, or a part of one, that cannot run here; never counts as passed."""


def lost(message):
    raise Failure("lost", message)


def wrong(message):
    raise Failure("wrong", message)


def hung(message):
    raise Failure("hung", message)


class Context:
    """The programs under test, how much to do, and what came of it, for one kind."""

    def __init__(self, kind, build, work, is_long, seed, only=None, jobs=1, keep=False):
        self.kind = kind
        self.build = Path(build)
        self.serrate = self.build / "bin" / "serrate"
        self.compare = self.build / "bin" / "compare_checkpoints"
        self.shim = self.build / "bin" / "libfault_shim.so"
        self.mpirun = find_mpirun()
        self.work = Path(work)
        self.long = is_long
        self.seed = seed
        self.only = only
        self.jobs = jobs
        self.keep = keep
        self.injected = 0
        self.counts = {"lost": 0, "wrong": 0, "hung": 0}
        self.notes = {}  # further figures for the ledger, by name
        self.skipped = []
        self.lock = threading.Lock()

    def run(self, cases, jobs=None, work=None):
        """Runs cases, some at a time, in folders of `work`; adds up what each of them injected."""
        chosen = (c for c in cases if self.only is None or fnmatch.fnmatch(c[0], self.only))
        jobs = jobs or self.jobs
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            # A few at a time: the cases may be a generator of thousands.
            while batch := list(itertools.islice(chosen, 64 * jobs)):
                list(pool.map(lambda case: self._run_one(*case, work or self.work), batch))

    def _run_one(self, name, case, work):
        folder = Path(tempfile.mkdtemp(prefix="case.", dir=work))
        injected = 1
        try:
            injected = case(random.Random(f"{self.seed}:{name}"), folder)
            injected = 1 if injected is None else injected
        except Skip as skip:
            injected = 0
            self.skip(f"{name}: {skip}")
        except Failure as failure:
            self.fail(name, failure.kind, str(failure), folder)
        except Exception as error:  # of the harness: no test is passed by it
            self.fail(name, "wrong", f"{type(error).__name__}: {error}", folder)
        with self.lock:
            self.injected += injected
        if not self.keep:
            shutil.rmtree(folder, ignore_errors=True)

    def fail(self, name, kind, message, folder):
        with self.lock:
            self.counts[kind] += 1
            length = "long" if self.long else "short"
            kept = f" (in {folder})" if self.keep else ""
            print(f"FAILED {self.kind} {name}: {kind}: {message}{kept}\n"
                  f"  repeat: scripts/faults {length} {self.kind} --seed {self.seed} "
                  f"--only '{name}' --keep", flush=True)

    def skip(self, message):
        with self.lock:
            self.skipped.append(message)
            print(f"skipped {self.kind} {message}", flush=True)

    def note(self, name, count=1):
        with self.lock:
            self.notes[name] = self.notes.get(name, 0) + count


@contextlib.contextmanager
def memory_folder(context):
    """A folder in memory, where fsync costs nothing; one of context.work where there is none."""
    in_memory = os.access("/dev/shm", os.W_OK)
    folder = tempfile.mkdtemp(prefix="serrate_faults.", dir="/dev/shm" if in_memory else context.work)
    try:
        yield Path(folder)
    finally:
        if not context.keep:
            shutil.rmtree(folder, ignore_errors=True)


def find_mpirun():
    """mpirun with what it needs to run as root, with more ranks than cores; None without it."""
    if not shutil.which("mpirun"):
        return None
    return ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none"]


# ---- jobs -----------------------------------------------------------------------------------------


def fields_of(pid):
    """What /proc knows of a process, from its state on (proc(5), stat)."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()


def state_of(pid):
    """R, S, D, T, ...; nothing of one that is gone."""
    with contextlib.suppress(OSError):
        return fields_of(pid)[0]
    return None


class Job:
    """A command and all processes it starts, which are a session of their own."""

    def __init__(self, command, folder, environment=None):
        self.command = [str(word) for word in command]
        self.log = Path(tempfile.mkstemp(prefix="log.", dir=folder)[1])
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=folder, start_new_session=True,
                                            env={**os.environ, **(environment or {})})
        self.started = time.monotonic()

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def processes(self):
        """Living processes of the job but its first, by id: the ranks, when that is mpirun."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == self.pid:
                continue
            with contextlib.suppress(OSError):
                fields = fields_of(entry)
                if int(fields[3]) == self.pid and fields[0] not in "ZX":
                    found.append(int(entry))
        return sorted(found)

    def wait(self, seconds):
        """The exit code; Failure hung, after killing the job, when it or a process of it stays."""
        deadline = time.monotonic() + seconds
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            tail, left = self.output()[-500:], self.processes()
            self.kill()
            hung(f"not ended after {seconds:.1f} s, nor its processes {left}: "
                 f"{' '.join(self.command)}\n{tail}")
        while left := self.processes():
            if time.monotonic() > deadline:
                self.kill()
                hung(f"processes {left} outlived the job by {seconds:.1f} s: "
                     f"{' '.join(self.command)}")
            time.sleep(0.005)
        return code

    def is_stuck_mpirun(self, seconds):
        """Whether, after so many seconds, all ranks are gone and mpirun alone stays, which has
        locked itself out: Open MPI 4.1's, now and then, when a rank dies while it connects."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return (self.process.poll() is None and not self.processes() and
                "PMIX ERROR: UNREACHABLE" in self.output())

    def kill(self):
        for pid in self.processes() + [self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def run(command, folder, environment=None, seconds=300):
    """(exit code, output) of a command."""
    job = Job(command, folder, environment)
    return job.wait(seconds), job.output()


def must_run(command, folder, environment=None, seconds=300):
    code, output = run(command, folder, environment, seconds)
    if code != 0:
        wrong(f"exit code {code} of {' '.join(map(str, command))}\n{output[-800:]}")
    return output


# ---- the shim (fault_shim.c) ----------------------------------------------------------------------

CALLS = ["open", "openread", "read", "write", "fsync", "rename", "unlink", "mkdir", "truncate",
         "close"]


class Shim:
    """Environment of a job whose file calls under `root` are counted, logged or disturbed."""

    def __init__(self, context, root, rule=None, only=None, log=None):
        # Outside the root, or the shim would count itself.
        self.state = Path(tempfile.mkstemp(prefix="shim.", dir=context.work)[1])
        self.state.write_bytes(bytes(4096))
        self.environment = {"LD_PRELOAD": str(context.shim), "FAULT_ROOT": os.path.realpath(root),
                            "FAULT_STATE": str(self.state)}
        for name, value in (("FAULT_RULE", rule), ("FAULT_ONLY", only), ("FAULT_LOG", log)):
            if value is not None:
                self.environment[name] = str(value)

    def under(self, command):
        """The command with the shim in it, not in mpirun: it must not exec."""
        words = ["env"] + [f"{name}={value}" for name, value in self.environment.items()]
        command = [str(word) for word in command]
        at = next(i for i, word in enumerate(command) if os.path.basename(word) == "serrate")
        return command[:at] + words + command[at:]

    def injected(self):
        return struct.unpack_from("<q", self.state.read_bytes(), 8 * (len(CALLS) + 1))[0]

    def result(self):
        """Counts by call, `matched`, `injected`, and `first`: the call changed first."""
        data = self.state.read_bytes()
        numbers = struct.unpack_from(f"<{len(CALLS) + 2}q", data)
        text_at = 8 * (len(CALLS) + 4 + 64)
        first = data[text_at:].split(b"\0")[0].decode()
        self.state.unlink()
        return {**dict(zip(CALLS + ["matched", "injected"], numbers)), "first": first}


def needs_shim(context):
    if not context.shim.exists():
        raise Skip(f"there is no {context.shim.name} (Linux on x86-64, built without sanitizers)")


# ---- training -------------------------------------------------------------------------------------


def make_dataset(context, folder, users=40, items=30, events=900, seed=3):
    """Converts a made-up table with two features; the path of the dataset."""
    draw = random.Random(seed)
    lines = ["user,item,time,country"]
    for t in range(events):
        item = int(items * draw.random() ** 2)
        lines.append(f"{draw.randrange(users)},{item},{t},{item % 5}")
    source = Path(folder) / "events.csv"
    source.write_text("\n".join(lines) + "\n")
    data = Path(folder) / "data.h5"
    must_run([context.serrate, "convert", "--input", source, "--output", data, "--user", "user",
              "--item", "item", "--time", "time", "--categorical", "country"], folder)
    return data


# Small, but with all that a run has: two tables, dropout, negatives, moments of Adam.
SMALL_MODEL = {"--features": "country", "--dim": 8, "--blocks": 1, "--heads": 2, "--max-length": 12,
               "--batch-size": 16, "--negatives": 20, "--dropout": 0.2, "--optimizer": "adam",
               "--seed": 5}


def train_command(context, data, output, steps, ranks=1, mpirun=False, options=()):
    """`serrate train` on threads or under mpirun; under mpirun one rank is a job, too."""
    command = [context.serrate, "train", "--data", data, "--output", output, "--steps", steps, *options]
    for name, value in SMALL_MODEL.items():
        command += [] if name in options else [name, value]
    if mpirun:
        return [*context.mpirun, "-n", ranks, *command]
    return [*command, "--ranks", ranks]


def losses(run_directory, steps):
    """The logged losses as they are written, from step 1; every step has to be there once."""
    path = Path(run_directory) / "metrics.jsonl"
    found = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError):
            wrong(f"line {number} of {path.name} is not a step: {line[:80]!r}")
        if step != number:
            wrong(f"line {number} of {path.name} is of step {step}")
        found.append(re.search(r'"loss": *([^,}]*)', line).group(1))
    if len(found) != steps:
        wrong(f"{path.name} has {len(found)} steps instead of {steps}")
    return found


def resumed_after(output):
    """The step that a training said it goes on after; 0 when it began anew."""
    found = re.search(r"resuming the run in .* after step (\d+)|the run in .* has done (\d+) of", output)
    return int(found.group(1) or found.group(2)) if found else 0


def checkpoints(run_directory):
    """Committed checkpoints, oldest first: {step: folder}."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(Path(run_directory) / "checkpoint"):
            if re.fullmatch(r"step_[0-9]+", entry.name):
                found[int(entry.name[5:])] = Path(entry.path)
    return dict(sorted(found.items()))


def same_files(a, b):
    """Whether two folders hold files of the same names and bytes."""
    names = sorted(os.listdir(a))
    return names == sorted(os.listdir(b)) and all(
        (Path(a) / name).read_bytes() == (Path(b) / name).read_bytes() for name in names)


def check_same_run(context, expected, found, steps, tolerance=0):
    """The losses and the final checkpoint of two runs; with a tolerance, of 1 relative to the
    largest magnitude, else all bits."""
    expected_losses, found_losses = losses(expected, steps), losses(found, steps)
    for step, (a, b) in enumerate(zip(expected_losses, found_losses), 1):
        apart = abs(float(a) - float(b))
        if (a != b if tolerance == 0 else not apart <= tolerance * abs(float(a))):
            wrong(f"the loss of step {step} is {b} instead of {a}")
    last = checkpoints(found).get(steps)
    if last is None:
        lost(f"there is no checkpoint of step {steps}, only of {list(checkpoints(found))}")
    first = checkpoints(expected)[steps]
    if same_files(first, last):
        return
    code, output = run([context.compare, first, last, tolerance], found)
    if code != 0:
        wrong(f"other tensors in {last.name}: {output.strip()[:400]}")
