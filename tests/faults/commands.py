"""Small commands by the thousand: what they may do at all, whatever was done to them."""

import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import harness

MEBIBYTE = 1 << 20
EXIT_CODES = (0, 1, 2, harness.RETRYABLE)


@dataclass
class Outcome:
    command: list
    code: int  # negative: the signal that ended it
    stdout: str
    stderr: str

    def __str__(self):
        words = " ".join(map(str, self.command))
        return f"exit code {self.code} of {words}\n{self.stderr[-600:]}"

    def says(self, *words):
        """Whether one of them is in what it printed to stderr."""
        return any(word in self.stderr for word in words)


def set_limits(limits):
    """For preexec_fn: {resource: soft and hard limit}."""
    def apply():
        for name, value in limits.items():
            resource.setrlimit(name, (value, value))
    return apply


def call(command, folder, seconds=20, preexec=None, stdout=subprocess.PIPE, environment=None):
    """Runs a command to its end. Hung when that takes longer."""
    command = [str(word) for word in command]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                          cwd=folder, preexec_fn=preexec, env=environment) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
            harness.hung(f"not ended after {seconds} s: {' '.join(command)}\n"
                         f"{err.decode(errors='replace')[-400:]}")
    return Outcome(command, process.returncode, (out or b"").decode(errors="replace"),
                   err.decode(errors="replace"))


def check_sane(outcome):
    """An exit code of ours, and a message with every failure, which is not what a library said of
    its own insides."""
    if outcome.code not in EXIT_CODES:
        harness.wrong(str(outcome))
    if outcome.code not in (0, harness.RETRYABLE):
        lines = [line for line in outcome.stderr.splitlines() if line.startswith("serrate: ")]
        if not lines:
            harness.wrong(f"no message: {outcome}")
        for nonsense in ("std::", "vector::", "basic_string", "type_error", "parse_error",
                         "terminate called", "boost::", "invariant", "bad_alloc"):
            if outcome.says(nonsense):
                harness.wrong(f"a message that says nothing: {outcome}")


def copy(source, target):
    """A file or a tree, without the times."""
    if Path(source).is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)


def files_below(folder):
    """Relative paths of all regular files, in order."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*")
                  if path.is_file())
