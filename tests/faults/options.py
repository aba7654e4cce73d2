"""Every number that a command takes, at its limits and beyond, alone and in pairs.

The options are read from `serrate COMMAND --help`, so that none is forgotten. A value is refused by
the option's name with exit code 2, or the command does what the value says: as many steps as asked
for, weights that are finite, the same ranking whatever the batch. A value may also ask for more than
this machine has (a message that says how much) or for a training that never ends (it has to stop on
SIGTERM); nothing ends by a signal or says what only a programmer understands.
"""

import contextlib
import itertools
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import commands
import harness
from harness import wrong

INTEGERS = ["-9223372036854775808", "-1", "0", "1", "2147483648", "9007199254740993",
            "9223372036854775807", "9223372036854775808", "18446744073709551616", "1.5", "0x10",
            "", "text", "nan"]
NUMBERS = ["-9223372036854775808", "-1", "-0.0", "0", "1", "2147483648", "9007199254740993",
           "9223372036854775807", "nan", "inf", "-inf", "1e38", "1e39", "1e-38", "1e-45", "1e-46",
           "1e400", "", "text"]
TIMES = ["-1s", "0s", "0ms", "1ms", "2147483648s", "9223372036854775807ms", "9223372036854775807min",
         "1e38s", "nans", "5", "s", "", "text"]
BYTES = ["-1", "0", "1", "1KiB", "9223372036854775807", "18446744073709551616", "8589934592GiB",
         "1e38GiB", "nanGiB", "infGiB", "GiB", "", "text"]
LISTS = INTEGERS + ["1,-1", "1,9223372036854775807", ",", "1,,2", "5,5"]
EVERY = ["-1", "0", "1", "2147483648", "9223372036854775807", "9223372036854775808", "0s", "1ms",
         "9223372036854775807min", "nan", "1.5", "", "text"]
WHAT_IF = ["hbm=-1", "hbm=0", "hbm=nan", "hbm=1e38GiB", "ranks=-1", "ranks=0", "ranks=1",
           "ranks=2147483648", "ranks=9223372036854775807", "ranks=nan", "hbm=", "ranks=text"]
BY_KIND = {"N": INTEGERS, "X": NUMBERS, "TIME": TIMES, "BYTES": BYTES, "N,N,..": LISTS,
           "N|TIME": EVERY}
PAIRED = ["2147483648", "9007199254740993", "9223372036854775807", "limit"]

BEYOND_THE_MACHINE = re.compile(r"memory|MiB|GiB|TiB|PiB|EiB|threads|File too large|does not fit")
DIVERGED = re.compile(r"diverged|not finite|is nan|is inf|non-finite|-?nan at step")
MEMORY = 6 << 30  # address space of a command


class Bed:
    """What the commands are tried on, and what they do undisturbed."""

    def __init__(self, context):
        self.context = context
        self.folder = context.work / "options"
        self.folder.mkdir()
        self.data = harness.make_dataset(context, self.folder, users=12, items=10, events=150)
        self.source = self.folder / "events.csv"
        self.run = self.folder / "run"
        harness.must_run([*self.train(self.run), "--steps", 2], self.folder)
        self.ranking = harness.must_run(self.evaluate(), self.folder)
        self.topology = self.folder / "topology.json"
        harness.must_run([context.serrate, "calibrate", "--output", self.topology, "--ranks", 2],
                         self.folder)
        one = self.folder / "one"
        one.mkdir()
        harness.must_run(self.command("train", one, {"epochs": 1, "batch-size": 1}), self.folder)
        self.windows = len((one / "run" / "metrics.jsonl").read_text().splitlines())

    def train(self, output):
        return [self.context.serrate, "train", "--data", self.data, "--output", output,
                *(part for option in harness.SMALL_MODEL.items() for part in option)]

    def evaluate(self):
        return [self.context.serrate, "evaluate", "--data", self.data, "--model", self.run]

    def command(self, name, folder, values):
        """The command with small values but for those given, {option: value}."""
        line = {"generate": [self.context.serrate, "generate", "--output", folder / "made.h5"],
                "convert": [self.context.serrate, "convert", "--input", self.source, "--output",
                            folder / "made.h5", "--user", "user", "--item", "item", "--time", "time"],
                "train": self.train(folder / "run"),
                "evaluate": self.evaluate(),
                "plan": [self.context.serrate, "plan", "--from", self.data, "--topology",
                         self.topology, "--output", folder / "plan.json"],
                "calibrate": [self.context.serrate, "calibrate", "--output", folder / "t.json"],
                }[name]
        line = list(map(str, line))
        small = {"generate": {"users": 5, "items": 5, "events": 50}, "train": {"steps": 2}}.get(name, {})
        if "epochs" in values:
            small = {}
        for option, value in {**small, **values}.items():
            if f"--{option}" in line:
                at = line.index(f"--{option}")
                del line[at:at + 2]
            line.append(f"--{option}={value}")
        return line


def options_of(context, command):
    """{name: what it takes} of all options with numbers, as the help has them."""
    text = harness.must_run([context.serrate, command, "--help"], context.work)
    found = {}
    for name, takes in re.findall(r"^  (?:-\w, )?--([a-z0-9-]+) (\S+)", text, re.M):
        if takes in BY_KIND:
            found[name] = takes
        elif name == "what-if":
            found[name] = "WHAT-IF"
    return found


def values_of(bed, command, name, takes):
    """What an option is tried at: the list of its kind, and around the limits that it names."""
    values = list(WHAT_IF if takes == "WHAT-IF" else BY_KIND[takes])
    for limit in limits_of(bed, command, name):
        values += [str(limit - 1), str(limit), str(limit + 1)]
    return list(dict.fromkeys(values))


def limits_of(bed, command, name):
    """The least and the most, from the message that refuses a text."""
    with_text = bed.command(command, bed.folder, {name: "text"})
    message = commands.call(with_text, bed.folder).stderr
    found = re.search(r"from (\d+)(?: to (\d+(?:\^\d+ - 1)?))?\)", message)
    if not found:
        return []
    return [int(eval(limit.replace("^", "**"))) for limit in found.groups() if limit]


def call_or_stop(command, folder, seconds):
    """(outcome, whether it had to be stopped). What does not end is asked to, and has to."""
    limits = commands.set_limits({resource.RLIMIT_AS: MEMORY, resource.RLIMIT_FSIZE: 64 << 20,
                                  resource.RLIMIT_CORE: 0})
    with open(folder / "out", "w+b") as out, open(folder / "err", "w+b") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                   cwd=folder, preexec_fn=limits)
        stopped = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            stopped = True
            process.terminate()
            before = cpu_seconds(process.pid)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                used = cpu_seconds(process.pid) - before
                process.terminate()  # the second one ends a step that takes long
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    used = 0
                    process.kill()
                    process.wait()
                if used < 0.5:  # of 15, beside all that runs on this machine
                    harness.hung(f"does not stop on SIGTERM: {' '.join(command)}")
        texts = [(folder / name).read_text(errors="replace") for name in ("out", "err")]
    return commands.Outcome(command, process.returncode, *texts), stopped


def cpu_seconds(pid):
    """Of a process and its children: with --max-restarts the work is a child's."""
    used = 0
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            used += cpu_seconds(child)
    return used


def judge(bed, name, values, folder, seconds):
    """One command with some values; says what came of it."""
    command = bed.command(name, folder, values)
    outcome, stopped = call_or_stop(command, folder, seconds)
    if stopped and outcome.code == (-signal.SIGTERM if name != "train" else harness.RETRYABLE):
        return "stopped"
    if stopped and outcome.code in (harness.RETRYABLE, -signal.SIGTERM):
        return "stopped"
    commands.check_sane(outcome)
    if outcome.code == 2:
        named = [*values, *(str(value).split("=")[0] for value in values.values() if "=" in str(value))]
        if outcome.says(*named):
            return "refused"
        if BEYOND_THE_MACHINE.search(outcome.stderr):
            return "beyond the machine"
        wrong(f"the message names none of {list(values)}: {outcome}")
    if outcome.code == 1:
        if DIVERGED.search(outcome.stderr) and name == "train":
            return "diverged"
        if BEYOND_THE_MACHINE.search(outcome.stderr):
            return "beyond the machine"
        wrong(f"a failure that is no value's: {outcome}")
    CHECKS[name](bed, values, folder, outcome)
    return "right"


def check_train(bed, values, folder, outcome):
    steps = int(values.get("steps", 0))
    if "epochs" not in values and "steps" not in values:
        steps = 2
    if steps == 0:
        epochs = int(values.get("epochs", 10))
        batch = int(values.get("batch-size", 16))
        windows = bed.windows if "max-length" not in values else None
        steps = None if windows is None else epochs * -(-windows // batch)
    if steps is not None:
        harness.losses(folder / "run", steps)
    # Loads all of it, and refuses what is not finite. Finite weights may be too large to score with.
    evaluated = commands.call([bed.context.serrate, "evaluate", "--data", bed.data, "--model",
                               folder / "run"], folder)
    if evaluated.code != 0 and not evaluated.says("has the training diverged"):
        wrong(f"trained with exit code 0, but: {evaluated}\n{outcome}")


def check_evaluate(bed, values, folder, outcome):
    if set(values) <= {"batch-size", "threads", "ranks", "timeout"} and outcome.stdout != bed.ranking:
        wrong(f"another ranking:\n{outcome.stdout}\n{bed.ranking}{outcome}")


def check_generate(bed, values, folder, outcome):
    text = harness.must_run([bed.context.serrate, "inspect", folder / "made.h5"], folder)
    expected = {"users": 5, "items": 5, "events": 50, **values}
    for word in ("users", "events"):
        if not re.search(rf"\b{expected[word]}\b", text):
            wrong(f"not {expected[word]} {word}: {text}\n{outcome}")


def check_convert(bed, values, folder, outcome):
    harness.must_run([bed.context.serrate, "inspect", folder / "made.h5"], folder)


def check_plan(bed, values, folder, outcome):
    if (folder / "plan.json").exists():
        harness.must_run([bed.context.serrate, "inspect", folder / "plan.json"], folder)


def check_calibrate(bed, values, folder, outcome):
    harness.must_run([bed.context.serrate, "plan", "--from", bed.data, "--topology",
                      folder / "t.json", "--output", folder / "plan.json"], folder)


CHECKS = {"train": check_train, "evaluate": check_evaluate, "generate": check_generate,
          "convert": check_convert, "plan": check_plan, "calibrate": check_calibrate}


def case_of(bed, command, values, seconds):
    def case(_, folder):
        bed.context.note(judge(bed, command, values, folder, seconds))
    shown = " ".join(f"{option}={value}" for option, value in values.items())
    return f"{command} {shown}", case


def cases(bed, options):
    is_long = bed.context.long
    seconds = 4 if is_long else 2
    for command, of_command in options.items():
        if command == "calibrate" and not is_long:
            continue
        for name, takes in of_command.items():
            for value in values_of(bed, command, name, takes):
                yield case_of(bed, command, {name: value}, seconds)
    if not is_long:
        return
    for command, of_command in options.items():
        numbers = [name for name, takes in of_command.items() if takes == "N"]
        if command == "calibrate":
            continue
        limits = {name: max(limits_of(bed, command, name), default=0) for name in numbers}
        for first, second in itertools.combinations(numbers, 2):
            for a, b in itertools.product(PAIRED, repeat=2):
                values = {first: limits[first] if a == "limit" else a,
                          second: limits[second] if b == "limit" else b}
                yield case_of(bed, command, values, seconds)


def run(context):
    bed = Bed(context)
    options = {command: options_of(context, command) for command in CHECKS}
    context.note("options with numbers", sum(map(len, options.values())))
    start = time.monotonic()
    context.run(cases(bed, options))
    context.note("seconds of commands", round(time.monotonic() - start))
