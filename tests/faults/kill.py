"""SIGKILL at random moments, each followed by a resume on other ranks.

A chain is one training that is killed again and again. Every start draws its number of ranks (1 to
4, another than before) and whether they are threads or processes of mpirun; who is killed: a rank,
mpirun, or all; and when: after a random time, a moment after the folder of an unfinished checkpoint
appears, or at a random system call on a file of a checkpoint (fault_shim.c). In the end the
training is left to finish, and its losses and its last checkpoint have to be those of a training
that nothing happened to: the same bits with --reproducible, or when the number of ranks never
changes, else within 1e-5. In some cases --max-restarts starts the training again, instead of the
test.
"""

import os
import signal
import time
from pathlib import Path

import harness
from harness import lost, wrong

TIMEOUT_SECONDS = 5
KILLS_PER_CHAIN = 8


class Plan:
    """What the chains of one sort train, and the training that nothing happened to."""

    def __init__(self, context, name, steps, options, tolerance, choices=(1, 2, 3, 4)):
        folder = Path(context.work) / name
        folder.mkdir()
        self.context = context
        self.choices = choices  # of numbers of ranks
        self.steps = steps
        self.options = [*options, "--timeout", f"{TIMEOUT_SECONDS}s"]
        self.tolerance = tolerance
        self.data = harness.make_dataset(context, folder)
        self.expected = folder / "expected"
        started = time.monotonic()
        harness.must_run(self.command(self.expected, choices[0], False), folder)
        self.seconds = time.monotonic() - started

    def other_ranks(self, draw, ranks):
        return draw.choice([n for n in self.choices if n != ranks] or self.choices)

    def command(self, output, ranks, mpirun):
        return harness.train_command(self.context, self.data, output, self.steps, ranks, mpirun,
                                     self.options)


def unfinished_checkpoints(output):
    try:
        return [name for name in os.listdir(output / "checkpoint") if name.startswith("tmp.")]
    except FileNotFoundError:
        return []


def wait_for_moment(job, moment, seconds, output):
    """False when the job ended before."""
    if moment == "time":
        end = time.monotonic() + seconds
        while time.monotonic() < end and job.process.poll() is None:
            time.sleep(min(0.002, max(0.0, end - time.monotonic())))
    elif moment == "folder":
        known = set(unfinished_checkpoints(output))
        while job.process.poll() is None and not set(unfinished_checkpoints(output)) - known:
            time.sleep(0.0002)
        time.sleep(seconds / 100)
    return job.process.poll() is None


def kill_victim(job, victim, draw):
    ranks = job.processes()
    chosen = {"rank": [draw.choice(ranks)] if ranks else [job.pid], "mpirun": [job.pid],
              "all": ranks + [job.pid]}[victim]
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def start_and_kill(plan, draw, folder, output, ranks, mpirun):
    """One start and, unless the training ends before, one kill. True when it was killed."""
    context = plan.context
    victim = draw.choice(["rank", "mpirun", "all"]) if mpirun else "all"
    moments = ["time", "folder"] + (["call"] if context.shim.exists() else [])
    moment = draw.choice(moments)
    command = plan.command(output, ranks, mpirun)
    shim = None
    if moment == "call":
        effect = {"rank": "kill", "mpirun": "kill-parent", "all": "kill-all" if mpirun else "kill"}
        rule = f"any:{draw.randrange(1, 300 * ranks)}:{effect[victim]}"
        shim = harness.Shim(context, output.parent, rule=rule, only="/checkpoint")
        command = shim.under(command)
    start_up = 0.25 if mpirun else 0.02
    seconds = start_up * draw.random() + plan.seconds * draw.random() / 4
    job = harness.Job(command, folder)
    if shim:
        code = job.wait(300)
        killed = shim.result()["injected"] > 0
    else:
        killed = wait_for_moment(job, moment, seconds, output)
        if killed:
            kill_victim(job, victim, draw)
            if job.is_stuck_mpirun(TIMEOUT_SECONDS + 3):
                context.note("that mpirun did not survive")
                job.kill()
        code = job.wait(TIMEOUT_SECONDS + 3 if killed else 300)
    if not killed and code != 0:
        wrong(f"exit code {code} without a kill\n{job.output()[-800:]}")
    if killed:
        context.note(f"of {victim if mpirun else 'a process of threads'}")
        context.note("inside a checkpoint", 1 if unfinished_checkpoints(output) else 0)
    return killed, job.output()


def check_resumed_from(newest, output):
    """The job goes on after the newest committed checkpoint, if it got so far as to say so."""
    resumed = harness.resumed_after(output)
    if newest is not None and "step 1/" in output:
        lost(f"began anew, but there was a checkpoint of step {newest}")
    if resumed and resumed != newest:
        lost(f"resumed after step {resumed}, but the newest checkpoint was of step {newest}")


def chain(plan):
    def case(draw, folder):
        output = folder / "run"
        kills, ranks = 0, 0
        for _ in range(KILLS_PER_CHAIN):
            ranks = plan.other_ranks(draw, ranks)
            mpirun = plan.context.mpirun is not None and draw.random() < 0.5
            newest = max(harness.checkpoints(output), default=None)
            killed, said = start_and_kill(plan, draw, folder, output, ranks, mpirun)
            check_resumed_from(newest, said)
            after = max(harness.checkpoints(output), default=None)
            if newest is not None and (after is None or after < newest):
                lost(f"the checkpoint of step {newest} is gone, there is {after}")
            kills += killed
            if not killed:
                break
        else:
            ranks = plan.other_ranks(draw, ranks)
            newest = max(harness.checkpoints(output), default=None)
            said = harness.must_run(plan.command(output, ranks, False), folder)
            check_resumed_from(newest, said)
        harness.check_same_run(plan.context, plan.expected, output, plan.steps, plan.tolerance)
        return kills
    return case


def supervised(plan):
    """The process that trains is killed twice; --max-restarts starts it again both times."""
    def case(draw, folder):
        output = folder / "run"
        harness.needs_shim(plan.context)
        # By the lines it logs, so that it cannot have ended before. Twice, or more
        # often where the disk is slow, checkpoints lag behind and many steps are done again.
        every = draw.randrange(plan.steps * 23 // 60, plan.steps * 29 // 60)
        shim = harness.Shim(plan.context, folder, rule=f"write:{every}%:kill", only="metrics.jsonl")
        command = plan.command(output, draw.choice([1, 2, 3]), False) + ["--max-restarts", 9]
        job = harness.Job(shim.under(command), folder)
        code = job.wait(300)
        kills = shim.result()["injected"]
        if code != 0 or kills < 2 or f"restart {kills} of 9" not in job.output():
            wrong(f"exit code {code} after {kills} kills\n{job.output()[-600:]}")
        harness.check_same_run(plan.context, plan.expected, output, plan.steps)
        plan.context.note("of a supervised process", kills)
        return kills
    return case


def run(context):
    same_bits = Plan(context, "reproducible", 2000 if context.long else 600,
                     ["--reproducible", "--checkpoint-every", 7], 0)
    # Rounding differs between numbers of ranks, and training blows it up: few steps, plain SGD.
    near = Plan(context, "near", 60,
                ["--checkpoint-every", 3, "--optimizer", "sgd", "--learning-rate", 1e-4,
                 "--embedding-learning-rate", 1e-2], 1e-5)
    same_ranks = Plan(context, "same_ranks", 600, ["--checkpoint-every", 7], 0, choices=(2,))
    bf16 = Plan(context, "bf16", 200, ["--reproducible", "--checkpoint-every", 7,
                                        "--embedding-precision", "bf16"], 0)
    context.run((f"{name}.{i}", make(plan)) for name, make, plan, long, short in (
        ("reproducible", chain, same_bits, 36, 2), ("near", chain, near, 10, 1),
        ("same_ranks", chain, same_ranks, 5, 1), ("bf16", chain, bf16, 5, 1),
        ("supervised", supervised, same_bits, 5, 1))
        for i in range(long if context.long else short))
