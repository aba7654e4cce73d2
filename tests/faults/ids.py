"""Ids outside of their tables: negative, huge, just beyond; in every feature, first and last, on every
rank, in one batch or the last, several at once; under every policy and sharding.

In batches of an embedding (bad_ids.cc): an error that names feature, bag, position, id and table, with
the weights untouched, or sums and counts that are exact. In a dataset under a right seal: train and
evaluate say which event of which user it is, or count what they drop.
"""

import re

import commands
import harness
from harness import wrong

EVENTS = 150
IDS = ["-1", "-9223372036854775808", "-4294967296", "rows", "2147483648", "4294967297",
       "9007199254740993", "9223372036854775807"]
ROWS = {"item": 10, "country": 5}
AT_ONCE = 50  # kinds of one case
PLACE = re.compile(r'feature "(\w+)": .*\(event (\d+) of all\) has id (-?\d+) at position 0')


class Bed:
    def __init__(self, context):
        self.context = context
        self.bad_ids = context.build / "bin" / "bad_ids"
        self.folder = context.work / "ids"
        self.folder.mkdir()
        self.data = harness.make_dataset(context, self.folder, users=12, items=10, events=EVENTS)
        text = harness.must_run([context.serrate, "inspect", self.data], self.folder)
        for name, rows in ROWS.items():
            if not re.search(rf"\b{name}\b.*\b{rows}\b", text):
                wrong(f"not {rows} of {name}: {text}")

    def train(self, folder, policy, ranks):
        return [*harness.train_command(self.context, "data.h5", folder / "run", 12, ranks),
                "--invalid-ids", policy]


def embedding_case(bed, first, end):
    def case(_, folder):
        outcome = commands.call([bed.bad_ids, "embedding", bed.context.seed, first, end], folder, 300)
        if outcome.code != 0:
            wrong(f"{outcome.stdout[-1500:]} {outcome}")
        bed.context.note("kinds of batches", end - first)
        return end - first
    return f"embedding {first} to {end}", case


def dataset_case(bed, feature, event, policy, ranks, words):
    """Bad ids in a file: `words` are those of one event, or of that and others."""
    def case(_, folder):
        ids = [str(ROWS[feature]) if word == "rows" else word for word in words]
        places = [event, (event + 7) % EVENTS, (event + 50) % EVENTS][:len(ids)]
        changes = [word for pair in zip(places, ids) for word in map(str, pair)]
        harness.must_run([bed.bad_ids, "dataset", bed.data, folder / "data.h5",
                          f"/features/{feature}/values", *changes], folder)
        checked = commands.call([bed.context.serrate, "inspect", "data.h5"], folder)
        commands.check_sane(checked)
        trained = commands.call(bed.train(folder, policy, ranks), folder, 60)
        commands.check_sane(trained)
        if policy == "error":
            check_error(checked, trained, feature, dict(zip(places, ids)))
        elif trained.code != 0:
            wrong(f"{policy} does not go on: {trained}")
        else:
            check_counted(trained, policy)
            evaluated = commands.call([bed.context.serrate, "evaluate", "--data", "data.h5",
                                       "--model", "run"], folder)
            commands.check_sane(evaluated)
            if evaluated.code != 0:
                wrong(f"evaluate does not do as the training did: {evaluated}")
            # The last event is what the last user is evaluated by.
            if feature == "item" and EVENTS - 1 in places and \
                    not re.search(r"^users left out: [1-9]", evaluated.stdout, re.MULTILINE):
                wrong(f"no user is left out: {evaluated.stdout} {evaluated}")
        bed.context.note("kinds of datasets")
    return f"dataset {feature} {event} {policy} {ranks} {','.join(words)}", case


def check_error(checked, trained, feature, changed):
    """Training refuses what it reads; what it holds out, only inspect sees."""
    for outcome in (checked, trained):
        if outcome.code == 0 and outcome is trained:
            continue
        found = PLACE.search(outcome.stdout + outcome.stderr)
        if outcome.code == 0 or not found:
            wrong(f"no event of feature {feature} is named: {outcome}\n{outcome.stdout[-500:]}")
        name, event, id_ = found.groups()
        if name != feature or changed.get(int(event)) != id_:
            wrong(f"event {event} has not id {id_} of {name}: {changed} {outcome}")


def check_counted(trained, policy):
    found = re.search(rf"invalid ids \({policy}\): (\d+)", trained.stdout)
    # What is held out is not trained on; then there is nothing to count.
    if found and int(found.group(1)) == 0:
        wrong(f"none is counted: {trained}")


def cases(bed):
    is_long = bed.context.long
    for first in range(0, 2400 if is_long else 400, AT_ONCE):
        yield embedding_case(bed, first, first + AT_ONCE)
    number = 0
    for feature in ROWS:
        for event in (0, 1, EVENTS // 2, EVENTS - 1):
            for policy in ("error", "drop", "oov"):
                for i, word in enumerate(IDS):
                    number += 1
                    if is_long or number % 24 == 0:
                        words = [word] if i % 3 else [word, IDS[i - 1], IDS[i - 2]]
                        yield dataset_case(bed, feature, event, policy, 1 + number % 3, words)


def run(context):
    bed = Bed(context)
    context.run(cases(bed))
