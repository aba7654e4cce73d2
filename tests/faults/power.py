"""Power loss: what a disk may hold at every moment of a training that writes checkpoints.

The file calls of a real training are recorded with their data (fault_shim.c): creates, writes,
truncates, renames, unlinks, mkdirs, fsyncs. From the record, states of the file system are made
that a power loss could leave behind, and from each the training is started again. The model, after
ALICE (Pillai et al., OSDI 2014) and CrashMonkey (Mohan et al., OSDI 2018), is what POSIX promises
and no more than that:

* What a file's fsync returned for is on disk: the data and length of that file, not its name. A
  name (create, rename, unlink, mkdir) is on disk once fsync of its folder returned.
* Anything else of what was called before the crash may or may not be: any subset, in any order. Of
  a write any 512-byte sectors may be, the others hold what was there before: zeros, or, in a new
  extent, whatever the disk held. The length of a file may be on disk before its data.
* A rename is atomic: the name leads to the old file or to the new one.

A state is made by going through the calls before the crash and leaving some out, in one of these ways:

  all       nothing is left out: a kill
  none      all is left out that need not be on disk
  journal   names reach the disk in the order of the calls, as in a journaling file system, up to a
            random one; unsynced data does not
  random    each unsynced call is left out or not
  torn      the same, and writes are torn into sectors
  garbage   the same, and sectors of unsynced data that are missing hold garbage

What has to come of a state: the newest checkpoint in it that is complete, which means every file of
it byte for byte as in the undisturbed run, is what the training resumes from, and it finishes with
the bits of an undisturbed run. What the training relied on must be in it: once it went on after a
checkpoint to write the next or to remove an older one, that checkpoint or a newer one is complete
in every state.
"""

import hashlib
import random
import re
import struct
import tempfile
from pathlib import Path

import harness
from harness import lost, wrong

SECTOR = 512
STEPS, EVERY = 60, 2
RECORD = struct.Struct("<8q")
CREATED, TRUNCATED, IS_FOLDER, EXCHANGED = 1, 2, 4, 8


class Operation:
    """A recorded call. Files and folders have numbers of our own: the disk's are used again."""

    def __init__(self, call, node, folder=None, name="", other_folder=None, other_name="", offset=0,
                 data=b"", is_folder=False, other_node=None):
        self.call = call
        self.node = node
        self.folder, self.name = folder, name
        self.other_folder, self.other_name = other_folder, other_name
        self.offset, self.data = offset, data
        self.is_folder = is_folder
        self.other_node = other_node

    def folders(self):
        """Those whose fsync makes the operation durable."""
        return [f for f in (self.folder, self.other_folder) if f is not None]


def read_log(path):
    data = Path(path).read_bytes()
    at = 0
    while at < len(data):
        call, _, inode, offset, length, flags, n, m = RECORD.unpack_from(data, at)
        at += RECORD.size
        first, other = data[at:at + n].decode(), data[at + n:at + n + m].decode()
        at += n + m
        yield harness.CALLS[call], inode, offset, flags, first, other, data[at:at + length]
        at += length


def operations(log, root):
    """The recorded calls with names resolved, in order. Node 0 is the root folder."""
    names = {str(root): 0}  # of folders and files that are there, by path
    last = 0
    result = []

    def place(path):
        folder, name = path.rsplit("/", 1)
        return names[folder], name

    for call, _, offset, flags, path, other, data in read_log(log):
        if call == "mkdir" or (call == "open" and flags & CREATED):
            last += 1
            names[path] = last
            result.append(Operation("create", last, *place(path), is_folder=call == "mkdir"))
        elif call == "open":
            if path not in names:
                continue  # a device, or the dataset
            if flags & TRUNCATED:
                result.append(Operation("truncate", names[path], offset=0))
        elif call == "rename" and flags & EXCHANGED:
            a, b = names[path], names[other]
            result.append(Operation("exchange", a, *place(path), *place(other), other_node=b))
            moved = {p: n for p, n in names.items() if (p + "/").startswith((path + "/", other + "/"))}
            for name in moved:
                del names[name]
            for name, found in moved.items():
                old, new = (path, other) if (name + "/").startswith(path + "/") else (other, path)
                names[new + name[len(old):]] = found
        elif call == "rename":
            node = names[path]
            result.append(Operation("rename", node, *place(path), *place(other)))
            inside = [p for p in names if p == path or p.startswith(path + "/")]
            for name in [p for p in names if p == other or p.startswith(other + "/")]:
                del names[name]
            for name in inside:
                names[other + name[len(path):]] = names.pop(name)
        elif call == "unlink":
            result.append(Operation("unlink", names.pop(path), *place(path)))
        elif path in names:  # not files that were there before: the run does not change them
            kinds = {"write": "write", "truncate": "truncate", "fsync": "fsync"}
            if call in kinds:
                result.append(Operation(kinds[call], names[path], offset=max(offset, 0), data=data))
    return result


# ---- states ---------------------------------------------------------------------------------------


def durable(ops, end):
    """Which of the first `end` operations the disk has to hold: a flag each."""
    flags = [False] * end
    synced = set()
    for i in range(end - 1, -1, -1):
        op = ops[i]
        if op.call == "fsync":
            synced.add(op.node)
            flags[i] = True
        elif op.call in ("write", "truncate"):
            flags[i] = op.node in synced
        else:
            # A rename is one operation: on disk with the first of its two folders.
            flags[i] = any(folder in synced for folder in op.folders())
    return flags


def tear(op, draw, content, garbage):
    """Some sectors of a write; what is missing of them stays, or is garbage where nothing was."""
    out = bytearray(content)
    end = op.offset + len(op.data)
    if draw.random() < 0.5 and len(out) < end:
        out.extend(bytes(end - len(out)))  # the length is on disk before the data
    in_order = draw.random() < 0.7  # a first part, as disks mostly write
    stop = draw.randrange(op.offset // SECTOR, end // SECTOR + 2)
    for sector in range(op.offset // SECTOR, (end - 1) // SECTOR + 1):
        begin, finish = max(sector * SECTOR, op.offset), min((sector + 1) * SECTOR, end)
        if (sector < stop) if in_order else draw.random() < 0.5:
            if len(out) < finish:
                out.extend(bytes(finish - len(out)))
            out[begin:finish] = op.data[begin - op.offset:finish - op.offset]
        elif garbage and len(out) >= finish and begin >= len(content):
            out[begin:finish] = draw.randbytes(finish - begin)
    return out


def state(ops, end, way, draw):
    """Files and folders after a crash before operation `end`: {path: bytes or None for a folder}."""
    must = durable(ops, end)
    journal_end = draw.randrange(end + 1)
    share = draw.choice([0.1, 0.5, 0.9])
    entries = {0: {}}  # of folders: {name: node}
    content = {}
    for i, op in enumerate(ops[:end]):
        if op.call == "fsync":
            continue
        is_name = op.call in ("create", "rename", "exchange", "unlink")
        if op.call == "create":
            if op.is_folder:
                entries.setdefault(op.node, {})
            else:
                content.setdefault(op.node, bytearray())
        keep = must[i] or way == "all"
        if way == "journal" and is_name:
            keep = keep or i < journal_end
        torn = False
        if way in ("random", "torn", "garbage") and not keep:
            keep = draw.random() < share
            torn = way != "random" and op.call == "write"
        if torn and (keep or draw.random() < 0.5):
            content[op.node] = tear(op, draw, content[op.node], way == "garbage")
        elif not keep:
            continue
        elif op.call == "create":
            entries[op.folder][op.name] = op.node
        elif op.call == "unlink":
            if entries[op.folder].get(op.name) == op.node:
                del entries[op.folder][op.name]
        elif op.call == "rename":
            if entries[op.folder].get(op.name) == op.node:
                del entries[op.folder][op.name]
            entries[op.other_folder][op.other_name] = op.node
        elif op.call == "exchange":
            entries[op.folder][op.name] = op.other_node
            entries[op.other_folder][op.other_name] = op.node
        elif op.call == "truncate":
            file = content[op.node]
            del file[op.offset:]
            file.extend(bytes(op.offset - len(file)))
        elif op.call == "write":
            file = content[op.node]
            if len(file) < op.offset:
                file.extend(bytes(op.offset - len(file)))
            file[op.offset:op.offset + len(op.data)] = op.data

    files = {}

    def walk(folder, path):
        for name, node in sorted(entries[folder].items()):
            if node in entries:
                files[f"{path}{name}"] = None
                walk(node, f"{path}{name}/")
            else:
                files[f"{path}{name}"] = bytes(content[node])

    walk(0, "")
    return files


def digest(files):
    total = hashlib.blake2b(digest_size=16)
    for path, data in sorted(files.items()):
        total.update(f"{path}\0{-1 if data is None else len(data)}\0".encode())
        total.update(data or b"")
    return total.digest()


def states(ops, draw, how_many):
    """Distinct states as (end, way, files), every prefix of the calls first."""
    seen = set()
    ways = ["all", "none", "journal", "random", "torn", "garbage"]

    def new(end, way):
        files = state(ops, end, way, draw)
        key = digest(files)
        if key in seen:
            return None
        seen.add(key)
        return end, way, files

    ends = range(len(ops) + 1)
    candidates = [(end, way) for way in ways for end in ends]
    if how_many < len(candidates):
        draw.shuffle(candidates)
    tries = 0
    while len(seen) < how_many and tries < 50 * how_many:
        end, way = candidates[tries] if tries < len(candidates) else (
            draw.choice(ends), draw.choice(ways[2:]))
        tries += 1
        if found := new(end, way):
            yield found


# ---- what has to come of them -----------------------------------------------------------------------


def parts_of_checkpoint(files, step):
    """{name: bytes} of the folder of a committed checkpoint; None when there is none."""
    prefix = f"run/checkpoint/step_{step}/"
    if prefix[:-1] not in files:
        return None
    return {path[len(prefix):]: data for path, data in files.items() if path.startswith(prefix)}


class Recording:
    """An undisturbed run and its calls."""

    def __init__(self, context, folder, ranks):
        folder = Path(tempfile.mkdtemp(prefix="recording.", dir=folder))
        self.context = context
        self.ranks = ranks
        # The dataset is outside: it is there in every state.
        self.data = harness.make_dataset(context, folder, users=20, items=12, events=300)
        root = Path(folder).resolve() / f"recorded.{ranks}"
        root.mkdir()
        self.expected = root / "run"
        log = Path(folder) / f"calls.{ranks}"
        shim = harness.Shim(context, root, log=log)
        harness.must_run(shim.under(self.command(self.expected)), folder)
        self.ops = operations(log, root)
        final = state(self.ops, len(self.ops), "all", random.Random(0))
        self.check_record_is_complete(root, final)
        # Complete checkpoints, as they were at the moment of their commit.
        self.complete, self.relied_on_at = {}, {}
        for i, op in enumerate(self.ops):
            step = re.fullmatch(r"step_(\d+)", op.other_name)
            if step:
                step = int(step.group(1))
                after = state(self.ops, i + 1, "all", random.Random(0))
                self.complete[step] = parts_of_checkpoint(after, step)
                self.relied_on_at[step] = next(
                    (j for j in range(i + 1, len(self.ops)) if self.ops[j].call != "fsync"
                     and self.touches_checkpoints(self.ops[j])), len(self.ops))
        if max(self.complete, default=0) != STEPS:
            wrong(f"checkpoints of steps {sorted(self.complete)} alone were committed")

    def command(self, output, every=EVERY):
        return harness.train_command(self.context, self.data, output, STEPS, self.ranks, False,
                                     ["--checkpoint-every", every, "--reproducible"])

    def touches_checkpoints(self, op):
        return op.call != "write" and re.match(r"(tmp\.)?step_", op.name or "") is not None

    def check_record_is_complete(self, root, final):
        """The model of all calls has to give what really is on disk."""
        on_disk = {}
        for path in sorted(root.rglob("*")):
            on_disk[str(path.relative_to(root))] = None if path.is_dir() else path.read_bytes()
        for path in sorted(on_disk.keys() | final.keys()):
            if on_disk.get(path, 0) != final.get(path, 0):
                wrong(f"the record does not explain {path}: calls are missing from it")


def check_state(recording, end, way, files):
    def case(_, folder):
        for path, data in files.items():
            target = folder / path
            if data is None:
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        complete = [step for step, parts in recording.complete.items()
                    if parts_of_checkpoint(files, step) == parts]
        relied_on = [step for step, at in recording.relied_on_at.items() if at < end]
        if relied_on and max(complete, default=0) < max(relied_on):
            lost(f"the training went on after its checkpoint of step {max(relied_on)}, but "
                 f"complete on disk are {complete}")
        code, output = harness.run(recording.command(folder / "run", STEPS), folder)
        if code != 0:
            lost(f"exit code {code} from a state with complete checkpoints {complete}\n{output[-600:]}")
        resumed = harness.resumed_after(output)
        if resumed != max(complete, default=0):
            wrong(f"resumed from step {resumed}; complete are {complete}\n{output[-600:]}")
        harness.check_same_run(recording.context, recording.expected, folder / "run", STEPS)
    return f"{recording.ranks}.{end}.{way}.{digest(files).hex()[:8]}", case


def run(context):
    harness.needs_shim(context)
    how_many = {1: 1500, 2: 1500} if context.long else {2: 80}
    for ranks, count in how_many.items():
        recording = Recording(context, context.work, ranks)
        for _ in range(5):  # on a busy machine few checkpoints fit in, and no old one is removed
            if len(recording.complete) > 3:
                break
            recording = Recording(context, context.work, ranks)
        context.note(f"checkpoints of {ranks} rank{'s' * (ranks > 1)}", len(recording.complete))
        context.note(f"calls of {ranks} rank{'s' * (ranks > 1)}", len(recording.ops))
        draw = random.Random(f"{context.seed}:{ranks}")
        with harness.memory_folder(context) as memory:
            context.run((check_state(recording, *found)
                         for found in states(recording.ops, draw, count)), work=memory)
