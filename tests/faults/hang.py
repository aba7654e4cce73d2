"""Ranks that hang, and one that is only slow.

Every case trains under mpirun with a short --timeout and disturbs one rank. The job has to end
within the timeout and 3 seconds, with all of its processes, with exit code 75 and a message that
names the lost rank and the operation; started again on other ranks it has to finish with the bits
of an undisturbed training. A rank that is slow, but not beyond the timeout, must not be ended.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import harness
from harness import hung, lost, wrong

TIMEOUT_SECONDS = 2
GRACE_SECONDS = 3
BUSY_GRACE_SECONDS = 20  # in the short version, which runs beside other tests
STEPS = 2000
OPTIONS = ["--batch-size", 32, "--reproducible", "--checkpoint-every", 20, "--timeout", f"{TIMEOUT_SECONDS}s"]


class Training:
    def __init__(self, context):
        self.context = context
        self.data = harness.make_dataset(context, context.work)
        self.expected = Path(context.work) / "expected"
        harness.must_run(self.command(self.expected, 1, mpirun=False), context.work)

    def command(self, output, ranks, mpirun=True):
        return harness.train_command(self.context, self.data, output, STEPS, ranks, mpirun, OPTIONS)

    def finish(self, output, folder, ranks):
        harness.must_run(self.command(output, ranks, mpirun=False), folder)
        harness.check_same_run(self.context, self.expected, output, STEPS)


def wait_until(condition, job, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if job.process.poll() is not None:
            wrong(f"the job ended too early: exit code {job.process.poll()}\n{job.output()[-600:]}")
        if time.monotonic() > end:
            job.kill()
            hung(f"no progress in {seconds} s\n{job.output()[-600:]}")
        time.sleep(0.005)


def stopping_at(training, folder, steps):
    """Has rank 0 stop (SIGSTOP) as it logs the given step, or every "K%"-th: a job that is not
    stopped may have ended before a test on a busy machine looks at it again."""
    harness.needs_shim(training.context)
    return harness.Shim(training.context, folder, only="metrics.jsonl", rule=f"write:{steps}:stop")


def wait_for_stop(job, ranks):
    """The process of `ranks` that has stopped."""
    def stopped():
        return [pid for pid in ranks() if harness.state_of(pid) == "T"]
    wait_until(stopped, job, seconds=300)  # hundreds of steps away, on a busy machine
    return stopped()[0]


def seconds_to_end(context):
    return TIMEOUT_SECONDS + (GRACE_SECONDS if context.long else BUSY_GRACE_SECONDS)


def check_ended(context, job, since, rank=None, operation=True, more_seconds=0):
    """The job ends in time, as one that may be started again, and says whom it waited for."""
    end = since + seconds_to_end(context) + more_seconds
    code = job.wait(max(0.1, end - time.monotonic()))
    said = job.output()
    if code != harness.RETRYABLE:
        wrong(f"exit code {code} instead of {harness.RETRYABLE}\n{said[-600:]}")
    named = r"rank \d+: .*\"[a-z_ :]+\".* for ranks? " + (str(rank) if rank is not None else r"\d")
    if operation and not re.search(named, said):
        wrong(f"no message names the operation and rank {rank}\n{said[-600:]}")


def rank_of(pid):
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(int(word.split(b"=")[1]) for word in environment
                if word.startswith(b"OMPI_COMM_WORLD_RANK="))


def stop_instead(stopped, victim):
    if victim != stopped:
        os.kill(victim, signal.SIGSTOP)
        os.kill(stopped, signal.SIGCONT)


def stopped_rank(training):
    """SIGSTOP to a random rank at a random step."""
    def case(draw, folder):
        output, ranks = folder / "run", draw.choice([2, 3, 4])
        shim = stopping_at(training, folder, draw.randrange(30, 400))
        job = harness.Job(shim.under(training.command(output, ranks)), folder)
        first = wait_for_stop(job, job.processes)
        victim = draw.choice(job.processes())
        rank = rank_of(victim)
        stop_instead(first, victim)
        check_ended(training.context, job, time.monotonic(), rank)
        training.finish(output, folder, draw.choice([1, 2, 3, 4]))
    return case


def stopped_in_checkpoint(training):
    """A rank that stops inside a system call on a file of a checkpoint, as on a dead disk."""
    def case(draw, folder):
        harness.needs_shim(training.context)
        output, ranks = folder / "run", draw.choice([2, 3])
        # One of the calls that there are in any case: a slow disk may leave time for the last checkpoint alone.
        shim = harness.Shim(training.context, folder, only="/checkpoint",
                            rule=f"any:{draw.randrange(8, 43)}:stop")
        job = harness.Job(shim.under(training.command(output, ranks)), folder)
        wait_until(lambda: shim.injected() > 0, job)
        check_ended(training.context, job, time.monotonic())
        shim.result()
        training.finish(output, folder, draw.choice([1, 2, 4]))
    return case


def slow_rank(training):
    """A rank that again and again does nothing for most of the timeout: nothing may end."""
    def case(draw, folder):
        output, times = folder / "run", 3
        every = draw.randrange(STEPS // (times + 1) + 1, STEPS // times + 1)
        shim = stopping_at(training, folder, f"{every}%")
        job = harness.Job(shim.under(training.command(output, 2)), folder)
        for _ in range(times):
            first = wait_for_stop(job, job.processes)
            victim = draw.choice(job.processes())
            stop_instead(first, victim)
            time.sleep(0.7 * TIMEOUT_SECONDS)
            os.kill(victim, signal.SIGCONT)
        code = job.wait(300)
        if code != 0:
            wrong(f"a slow rank ended the job: exit code {code}\n{job.output()[-600:]}")
        harness.check_same_run(training.context, training.expected, output, STEPS)
    return case


def rank_that_never_starts(training, program):
    """A rank that is another program, which never joins."""
    def case(_, folder):
        context, output = training.context, folder / "run"
        # One that was there before must come to no harm.
        harness.must_run(harness.train_command(context, training.data, output, 40, 1, False, OPTIONS),
                         folder)
        job = harness.Job(training.command(output, 1) + [":", "-n", "1", *program], folder)
        wait_until(job.processes, job)
        check_ended(context, job, time.monotonic(), operation=False)
        if "rank" not in job.output():
            wrong(f"no message says that a rank is missing\n{job.output()[-600:]}")
        training.finish(output, folder, 2)
    return case


def disagreeing_rank(training, what):
    """A rank that calls something else than the others."""
    def case(_, folder):
        context = training.context
        program = context.build / "bin" / "disagreeing_job"
        job = harness.Job([*context.mpirun, "-n", "3", program, what, TIMEOUT_SECONDS * 1000], folder)
        wait_until(job.processes, job)
        end = time.monotonic() + seconds_to_end(context)
        while job.processes() and time.monotonic() < end:
            time.sleep(0.01)
        if left := job.processes():
            job.kill()
            hung(f"ranks {left} have not ended\n{job.output()[-600:]}")
        # Open MPI 4.1.4 now and then waits for a thread of its own when all ranks have ended.
        try:
            code = job.process.wait(5)
        except subprocess.TimeoutExpired:
            context.note("mpirun that never ended after its ranks")
            job.kill()
            code = None
        said = job.output()
        if code == 0:
            wrong(f"exit code 0\n{said[-600:]}")
        if "did not notice" in said:
            wrong(f"a rank did not notice\n{said[-600:]}")
        if not re.search(r"rank \d", said) or not re.search('"(step|odd step|extra|other)"', said):
            wrong(f"no message names rank and operation\n{said[-600:]}")
    return case


class TwoMachines:
    """Two network namespaces joined by a cable (veth): machines, as far as MPI over TCP can tell."""

    NETWORK = "10.231.7"

    def __init__(self, folder):
        self.names = [f"serrate{os.getpid()}{side}" for side in "ab"]
        self.folder = folder

    def __enter__(self):
        a, b = self.names
        for name in self.names:
            self._ip("netns", "add", name)
        self._ip("link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b)
        for host, name in enumerate(self.names, 1):
            self._ip("-n", name, "addr", "add", f"{self.NETWORK}.{host}/24", "dev", "cable")
            self._ip("-n", name, "link", "set", "cable", "up")
            self._ip("-n", name, "link", "set", "lo", "up")
            # mpirun learns of a lost machine when its connections time out: by default after 15
            # minutes, with 3 tries after some seconds.
            self._ip("netns", "exec", name, "sh", "-c", "echo 3 >/proc/sys/net/ipv4/tcp_retries2")
        # What mpirun calls in place of ssh: AGENT HOST COMMAND...
        self.agent = self.folder / "agent"
        self.agent.write_text(f"#!/bin/sh\nshift\nexec ip netns exec {b} unshare --uts "
                              "sh -c \"hostname machine-b; exec sh -c '$*'\"\n")
        self.agent.chmod(0o755)
        return self

    def __exit__(self, *_):
        for name in self.names:
            for pid in self.processes(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)

    @staticmethod
    def _ip(*words):
        subprocess.run(["ip", *words], check=True)

    def processes(self, name):
        found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def ranks(self):
        found = []
        for name in self.names:
            for pid in self.processes(name):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/comm").read_text().strip() == "serrate":
                        found.append(pid)
        return found

    def mpirun(self, command):
        """One rank on each machine."""
        network = f"{self.NETWORK}.0/24"
        options = {"plm_rsh_agent": self.agent, "btl": "tcp,self", "btl_tcp_if_include": network,
                   "oob_tcp_if_include": network, "oob_tcp_keepalive_time": 1,
                   "oob_tcp_keepalive_intvl": 1, "oob_tcp_keepalive_probes": 2}
        words = ["ip", "netns", "exec", self.names[0], "unshare", "--uts", "sh", "-c",
                 'hostname machine-a; exec "$@"', "sh", "mpirun", "--allow-run-as-root"]
        for name, value in options.items():
            words += ["--mca", name, str(value)]
        return [*words, "-H", f"{self.NETWORK}.1:1,{self.NETWORK}.2:1", "-n", "2", *command]

    def cut(self):
        self._ip("-n", self.names[1], "link", "set", "cable", "down")


def lost_network(training):
    """The cable between two machines is cut: the ranks of both have to end."""
    def case(draw, folder):
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise harness.Skip("network namespaces need root and ip")
        output = folder / "run"
        with TwoMachines(folder) as machines:
            command = training.command(output, 2, mpirun=False)[:-2]  # without --ranks
            shim = stopping_at(training, folder, draw.randrange(30, 200))
            job = harness.Job(shim.under(machines.mpirun(command)), folder)
            first = wait_for_stop(job, machines.ranks)
            machines.cut()
            os.kill(first, signal.SIGCONT)
            since = time.monotonic()
            end = since + seconds_to_end(training.context)
            while machines.ranks() and time.monotonic() < end:
                time.sleep(0.01)
            ended = time.monotonic() - since
            if left := machines.ranks():
                hung(f"ranks {left} outlived the network by far")
            # mpirun itself needs until its connections time out to know that a machine is lost.
            check_ended(training.context, job, since, rank=1, more_seconds=20)
            training.context.note("ms in all until the ranks of cut networks ended", int(1000 * ended))
        training.finish(output, folder, draw.choice([1, 2, 3]))
    return case


def run(context):
    if context.mpirun is None:
        raise harness.Skip("there is no mpirun")
    training = Training(context)
    times = 5 if context.long else 1
    cases = [(f"{name}.{i}", make(training)) for i in range(times)
             for name, make in (("stopped", stopped_rank), ("checkpoint", stopped_in_checkpoint),
                                ("slow", slow_rank), ("network", lost_network))]
    cases += [(f"never_starts.{Path(program[0]).name}", rank_that_never_starts(training, program))
              for program in (["/bin/true"], ["/bin/sleep", "30"])]
    cases += [(f"disagrees.{what}", disagreeing_rank(training, what))
              for what in ("other", "size", "skip", "extra", "return")]
    context.run(cases, jobs=2)
