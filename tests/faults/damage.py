"""Damage to files: every file of a dataset and of a run, flipped, changed, cut, extended, zeroed,
swapped, stale, missing; each tried by a new training, a resumed one, evaluate and inspect.

Damage is found before it is used (an exit code, and a message that names the file), or passed over by
saying so (an older checkpoint), or has no effect: the bits of an undamaged run. What inspect says is
only trusted of files under a checksum: there it has to find each.
"""

import hashlib
import json
import os
import re
import shutil

import commands
import harness
from harness import wrong

STEPS = 6  # of a run whose checkpoints are those of steps 2 and 4, and which is resumed
BLOCK = 8192  # bytes under one checksum
OPTIONS = ["--checkpoint-every", 2]
PLAN = {"version": 1, "world_size": 2, "tables": [
    {"table": "item", "type": "row_wise", "shards": [
        {"rank": 0, "rows": [0, 5], "columns": [0, 8]}, {"rank": 1, "rows": [5, 10], "columns": [0, 8]}]},
    {"table": "country", "type": "table_wise", "shards": [
        {"rank": 1, "rows": [0, 5], "columns": [0, 8]}]}]}

# Under no checksum, for people: what inspect shows of them is what they say.
FOR_PEOPLE = ("config.json", "plan.json", "metrics.jsonl", "lock")


class Bed:
    def __init__(self, context):
        self.context = context
        self.folder = context.work / "damage"
        self.folder.mkdir()
        self.make_dataset("data.h5", 3)
        self.make_dataset("other.h5", 4)
        (self.folder / "sharding.json").write_text(json.dumps(PLAN))
        self.must_run(self.train("run", 4))
        self.must_run(self.train("other_run", 4) + ["--seed=6"])
        self.files = ["data.h5"] + ["run/" + name for name in commands.files_below(self.folder / "run")]
        self.steps = sorted((self.folder / "run" / "checkpoint").glob("step_*"))
        if [step.name for step in self.steps] != ["step_2", "step_4"]:
            wrong(f"other checkpoints than expected: {self.steps}")
        self.expected = {}
        undamaged = self.fresh(context.work / "undamaged")
        for action in self.actions():
            self.expected[action] = self.result(action, undamaged, self.do(action, undamaged))
        older = self.fresh(context.work / "older")
        shutil.rmtree(older / "run" / "checkpoint" / "step_4")
        self.older_ranking = self.do("evaluate", older).stdout
        resumed = self.result("resume", older, self.do("resume", older))
        if resumed["tensors"] != self.expected["resume"]["tensors"]:
            wrong("a run that is resumed from an older checkpoint ends elsewhere")

    def make_dataset(self, name, seed):
        folder = self.folder / f"made_{seed}"
        folder.mkdir()
        made = harness.make_dataset(self.context, folder, users=12, items=10, events=150, seed=seed)
        made.rename(self.folder / name)

    def must_run(self, command):
        harness.must_run(command, self.folder)

    def train(self, output, steps):
        command = harness.train_command(self.context, "data.h5", output, steps, 2, options=OPTIONS)
        command = [str(word) for word in command] + ["--plan", "sharding.json"]
        if output == "other_run":
            at = command.index("--seed")
            del command[at:at + 2]
        return command

    def actions(self):
        """What is done in a folder with a dataset and a run; inspect first: it changes nothing."""
        serrate = self.context.serrate
        return {
            "inspect": [serrate, "inspect", "run"],
            "inspect_data": [serrate, "inspect", "data.h5"],
            "evaluate": [serrate, "evaluate", "--data", "data.h5", "--model", "run"],
            "train": self.train("new", 2),
            "resume": self.train("run", STEPS),
        }

    def fresh(self, folder):
        folder.mkdir(exist_ok=True)
        for name in ("data.h5", "sharding.json", "run"):
            commands.copy(self.folder / name, folder / name)
        return folder

    def do(self, action, folder):
        return commands.call(self.actions()[action], folder)

    def result(self, action, folder, outcome):
        """What a run has come to, to be compared."""
        if outcome.code != 0:
            wrong(str(outcome))
        if action not in ("train", "resume"):
            return outcome.stdout
        output = folder / ("new" if action == "train" else "run")
        last = output / "checkpoint" / f"step_{2 if action == 'train' else STEPS}"
        tensors = {}
        for path in sorted(last.glob("rank*.h5")):
            tensors[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        lines = (output / "metrics.jsonl").read_text(errors="replace").rstrip("\n").split("\n")
        return {"tensors": tensors, "losses": [loss_of(line) for line in lines]}


def loss_of(line):
    """(step, loss as it is written), None where they cannot be read."""
    step = re.match(r'{"step": (\d+),', line)
    loss = re.search(r'"loss": ([^,]*),', line)
    return int(step.group(1)) if step else None, loss.group(1) if loss else None


def judge(bed, action, folder, outcome, damaged):
    """Says what came of one command on damaged files, given by path."""
    commands.check_sane(outcome)
    names = {os.path.basename(name) for name in damaged}
    if "MANIFEST.json" in names:
        names |= {"rank0.h5", "rank1.h5"}  # are not those of a manifest from elsewhere
    says = outcome.says(*names) or any(name in outcome.stdout for name in names)
    concerned = [name for name in damaged if name == "data.h5" or action not in
                 ("train", "inspect_data")]
    if outcome.code != 0:
        # A manifest of another run, whole and with the files of this one, says so itself.
        if not says and not ("MANIFEST.json" in names and outcome.says("was begun with")):
            wrong(f"{action}: the message names none of {sorted(names)}: {outcome}")
        return "found"
    for_people = all(os.path.basename(name) in FOR_PEOPLE for name in damaged)
    if action.startswith("inspect"):
        concerned = [name for name in concerned if (name == "data.h5") == (action == "inspect_data")]
        sealed = [name for name in concerned if name.endswith((".h5", "MANIFEST.json"))]
        if sealed and not says:
            wrong(f"{action} shows damaged {sealed} as good: {outcome}\n{outcome.stdout[-600:]}")
        return "without effect" if not concerned else "shown"
    if action == "evaluate":
        if outcome.stdout == bed.expected[action]:
            return "without effect"
        if outcome.stdout == bed.older_ranking and says:
            return "passed over"
        wrong(f"evaluate has another result: {outcome}\n{outcome.stdout}\n{bed.expected[action]}")
    found = bed.result(action, folder, outcome)
    expected = bed.expected[action]
    if found["tensors"] != expected["tensors"]:
        wrong(f"{action} has another result: {outcome}")
    if found["losses"] != expected["losses"]:
        only_metrics = damaged == ["run/metrics.jsonl"]
        if not only_metrics or found["losses"][-2:] != expected["losses"][-2:]:
            wrong(f"{action} has other losses: {found['losses']} {outcome}")
        steps = [step for step, _ in found["losses"]]
        if steps != list(range(1, STEPS + 1)) and not says:
            wrong(f"{action} goes on behind steps {steps} without a word: {outcome}")
    return "passed over" if says and not for_people else "without effect"


# ---- damage ---------------------------------------------------------------------------------------


def place(random, size):
    """A byte: anywhere, near the beginning or the end, or near the border of a block."""
    kind = random.randrange(4)
    if kind == 0:
        at = random.randrange(min(size, 256))
    elif kind == 1:
        at = size - 1 - random.randrange(min(size, 256))
    elif kind == 2:
        at = BLOCK * random.randrange(size // BLOCK + 1) + random.randrange(-2, 3)
    else:
        at = random.randrange(size)
    return min(max(at, 0), size - 1)


def flip_bit(random, data):
    data[place(random, len(data))] ^= 1 << random.randrange(8)


def change_byte(random, data):
    at = place(random, len(data))
    data[at] = (data[at] + random.randrange(1, 256)) % 256


def change_bytes(random, data):
    at = place(random, len(data))
    for i in range(at, min(at + random.randrange(2, 17), len(data))):
        data[i] = random.randrange(256)


def cut(random, data):
    del data[place(random, len(data)):]


def cut_out(random, data):
    at = place(random, len(data))
    del data[at:at + random.choice([1, 2, 8, 512, BLOCK])]


def extend(random, data):
    data.extend(random.randbytes(random.randrange(1, 3000)) if random.randrange(2) else
                bytes(random.randrange(1, 3000)))


def insert(random, data):
    at = place(random, len(data))
    data[at:at] = random.randbytes(random.choice([1, 2, 8, 512]))


def zero(random, data):
    at = place(random, len(data)) // 512 * 512
    end = min(at + 512 * random.randrange(1, 17), len(data))
    data[at:end] = bytes(end - at)


def repeat(random, data):
    source, target = place(random, len(data)), place(random, len(data))
    length = min(random.randrange(1, 600), len(data) - max(source, target))
    data[target:target + length] = data[source:source + length]


def change_digit(random, data):
    """What a text file can take and still be one."""
    digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if digits:
        data[random.choice(digits)] = 48 + random.randrange(10)
    else:
        flip_bit(random, data)


BYTES = [flip_bit, flip_bit, change_byte, change_bytes, cut, cut_out, extend, insert, zero, repeat,
         change_digit]


def damage_bytes(random, folder, name):
    path = folder / name
    before = path.read_bytes()
    while True:
        data = bytearray(before)
        random.choice(BYTES)(random, data)
        if bytes(data) != before:
            break
    path.write_bytes(bytes(data))


def swap(first, second):
    def damage(_, bed, folder):
        a, b = (folder / first).read_bytes(), (folder / second).read_bytes()
        (folder / first).write_bytes(b)
        (folder / second).write_bytes(a)
        return [name for name in (first, second) if a != b]
    return f"swap {first} {second}", damage


def from_elsewhere(name, source):
    """A whole file of another checkpoint or run."""
    def damage(_, bed, folder):
        stale = (bed.folder / source).read_bytes()
        same = stale == (folder / name).read_bytes()
        (folder / name).write_bytes(stale)
        return [] if same else [name]
    return f"{name} from {source}", damage


def replace(name, by):
    def damage(_, bed, folder):
        (folder / name).unlink()
        if by == "directory":
            (folder / name).mkdir()
        elif by == "fifo":
            os.mkfifo(folder / name)
        elif by == "dangling link":
            (folder / name).symlink_to("nowhere")
        elif by == "link to itself":
            (folder / name).symlink_to(os.path.basename(name))
        elif by == "empty file":
            (folder / name).touch()
        return [name]
    return f"{name} is {by}", damage


def swap_folders(_, bed, folder):
    checkpoint = folder / "run" / "checkpoint"
    (checkpoint / "step_2").rename(checkpoint / "moved")
    (checkpoint / "step_4").rename(checkpoint / "step_2")
    (checkpoint / "moved").rename(checkpoint / "step_4")
    return ["step_2", "step_4", "MANIFEST.json"]


def remade_dataset(_, bed, folder):
    shutil.copyfile(bed.folder / "other.h5", folder / "data.h5")
    return ["data.h5"]


def whole_files(bed):
    """Named damage to whole files."""
    step_2, step_4 = "run/checkpoint/step_2/", "run/checkpoint/step_4/"
    h5 = [name for name in bed.files if name.endswith(".h5")]
    for i, first in enumerate(h5):
        for second in h5[:i]:
            yield swap(first, second)
    yield swap(step_2 + "MANIFEST.json", step_4 + "MANIFEST.json")
    for file in ("rank0.h5", "rank1.h5", "MANIFEST.json"):
        for to, of in ((step_4, step_2), (step_2, step_4)):
            yield from_elsewhere(to + file, of + file)
        for to in (step_2, step_4):
            yield from_elsewhere(to + file, to.replace("run/", "other_run/", 1) + file)
    yield "checkpoints swapped", swap_folders
    for name in bed.files:
        for by in ("missing", "directory", "dangling link", "link to itself", "empty file"):
            yield replace(name, by)
        if name.startswith("run/checkpoint/step"):  # others may be one, as with --plan <(command)
            yield replace(name, "fifo")


# ---- cases ----------------------------------------------------------------------------------------


def try_all(bed, folder, damaged, skip=()):
    for action in bed.actions():
        if action in skip:
            continue
        bed.context.note(judge(bed, action, folder, bed.do(action, folder), damaged))


def whole_file_case(bed, damage):
    def case(random, folder):
        bed.fresh(folder)
        damaged = damage(random, bed, folder)
        if damaged:
            try_all(bed, folder, damaged)
        return 1 if damaged else 0
    return case


def remade_case(bed):
    def case(random, folder):
        bed.fresh(folder)
        remade_dataset(random, bed, folder)
        for action in ("evaluate", "resume"):
            outcome = bed.do(action, folder)
            commands.check_sane(outcome)
            if outcome.code == 0 or not outcome.says("data.h5"):
                wrong(f"a remade dataset is not refused: {outcome}")
            bed.context.note("found")
    return case


def bytes_case(bed, names):
    def case(random, folder):
        bed.fresh(folder)
        for name in names:
            damage_bytes(random, folder, name)
        try_all(bed, folder, list(names))
        return len(names)
    return case


def cases(bed):
    is_long = bed.context.long
    for number, (name, damage) in enumerate(whole_files(bed)):
        if is_long or number % 8 == 0:
            yield name, whole_file_case(bed, damage)
    yield "remade dataset", remade_case(bed)
    sealed = [name for name in bed.files if name.endswith((".h5", "MANIFEST.json"))]
    # What decides results more often than what is for people.
    drawn = bed.files + 2 * sealed
    for number in range(5200 // len(drawn) if is_long else 2):
        for at, name in enumerate(drawn):
            yield f"{name} {number}.{at}", bytes_case(bed, [name])
    for number in range(60 if is_long else 1):
        for first in ("run/checkpoint/step_2/rank1.h5", "run/checkpoint/step_2/MANIFEST.json"):
            for second in ("run/checkpoint/step_4/rank0.h5", "run/checkpoint/step_4/MANIFEST.json"):
                yield f"{first} and {second} {number}", bytes_case(bed, [first, second])


def run(context):
    bed = Bed(context)
    context.note("files", len(bed.files))
    context.run(cases(bed))
