"""Runs of the Glue job: starts a run and follows its log to the end; reports the stacks' current status."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from stedi._frozen import dataclass
from stedi.aws import account, stacks
from stedi.aws.account import answering, client
from stedi.errors import CloudFailed

POLL = 5.0
"""Seconds between two checks of a run."""
_LOOKED = 25
"""How many of the latest runs are searched for a new run."""
_ATTEMPTS = 24
"""How many times a new run is searched for."""
_SHOWN = 5
"""How many of the latest runs a status contains."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the job.

    Attributes:
        id: Glue's id of the run.
        state: `SUCCEEDED`, `FAILED`, `RUNNING` or another of Glue's states.
        started: When it started, ISO 8601 in UTC.
        seconds: How long it ran, without start-up.
        dpu_seconds: The billed DPU seconds, if Glue already reports them.
        error: Glue's message about a failure.
    """

    id: str
    state: str
    started: str
    seconds: int
    dpu_seconds: float | None
    error: str


@dataclass(frozen=True, slots=True)
class Status:
    """The current status of the stacks and the job.

    Attributes:
        stacks: The state of each stack, by name.
        outputs: The outputs of both stacks.
        runs: The latest runs, newest first.
    """

    stacks: Mapping[str, str]
    outputs: Mapping[str, str]
    runs: tuple[Run, ...]


def status(stack: str, data: str) -> Status:
    """Returns the status of a stack and its data stack.

    Raises:
        CloudFailed: Neither stack exists.
    """
    found = {name: stacks.find(name) for name in (data, stack)}
    states = {name: about["StackStatus"] for name, about in found.items() if about is not None}
    if not states:
        raise CloudFailed(f"stack {stack}: expected it on AWS, found none; create it with `stedi aws deploy`")
    outputs = {**stacks.outputs(data), **stacks.outputs(stack)}
    runs: tuple[Run, ...] = ()
    if "Job" in outputs:
        with answering(f"job {outputs['Job']}"):
            listed = client("glue").get_job_runs(JobName=outputs["Job"], MaxResults=_SHOWN)["JobRuns"]
        runs = tuple(_run(about) for about in listed)
    return Status(states, outputs, runs)


def run(stack: str, say: stacks.Say, *, workers: int | None = None) -> Run:
    """Starts the job and returns when it has ended, with success or without.

    Args:
        stack: The stack's name.
        say: Called with the state and each line of the log.
        workers: The number of workers for this run only; it can be chosen only by an administrator of the stack. By
            default, the run uses the stack's setting and is started by the job's trigger, because anyone who may start
            the job itself can choose its arguments.

    Raises:
        CloudFailed: The job cannot be started.
    """
    outputs = stacks.outputs(stack)
    if "Job" not in outputs:
        raise CloudFailed(f"stack {stack}: expected its job, found no stack; create it with `stedi aws deploy`")
    job, what = outputs["Job"], f"job {outputs['Job']}"
    if workers is None:
        name = _triggered(job, outputs["Now"])
    else:
        with answering(what):
            # Glue takes a number of workers only together with their type
            kind = client("glue").get_job(JobName=job)["Job"].get("WorkerType", "G.1X")
            started = client("glue").start_job_run(JobName=job, NumberOfWorkers=workers, WorkerType=kind)
        name = started["JobRunId"]
    say(f"run {name}")
    log = _Log(outputs["LogGroup"], name)
    state = ""
    while True:
        with answering(what):
            about = client("glue").get_job_run(JobName=job, RunId=name)["JobRun"]
        if about["JobRunState"] != state:
            state = about["JobRunState"]
            say(state.lower())
        for text in log.new():
            say(text)
        if state in ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"):
            return _run(about)
        time.sleep(POLL)


def _triggered(job: str, trigger: str) -> str:
    """Starts the job by its trigger, which takes no arguments, and returns the run's id.

    Raises:
        CloudFailed: The trigger may not be started, or it has not started a run.
    """
    with answering(f"trigger {trigger}"):
        # the trigger does not say which run it starts: it is the one that was not there before
        known = {run["Id"] for run in client("glue").get_job_runs(JobName=job, MaxResults=_LOOKED)["JobRuns"]}
        client("glue").start_trigger(Name=trigger)
    for _ in range(_ATTEMPTS):
        with answering(f"job {job}"):
            listed = client("glue").get_job_runs(JobName=job, MaxResults=_LOOKED)["JobRuns"]
        for about in listed:
            if about["Id"] not in known and about.get("TriggerName", trigger) == trigger:
                return str(about["Id"])
        time.sleep(POLL)
    raise CloudFailed(f"trigger {trigger}: expected a run of job {job}, found none; see `stedi aws status`")


class _Log:
    """The driver's part of a run's log, read while the run writes it."""

    def __init__(self, group: str, run: str) -> None:
        self._group, self._run = group, run
        self._next: dict[str, str] = {}

    def new(self) -> list[str]:
        """Returns the lines added since the last call; none while there is no log yet."""
        try:
            with answering(f"log {self._group}"):
                # there is one stream per worker; only the driver's is of interest to a reader
                found = client("logs").describe_log_streams(logGroupName=self._group, logStreamNamePrefix=self._run)[
                    "logStreams"
                ]
                names = [entry["logStreamName"] for entry in found]
                return [
                    line for name in names if name == self._run or name.endswith("-driver") for line in self._of(name)
                ]
        except CloudFailed as error:
            if account.code(error) == "ResourceNotFoundException":
                return []
            raise

    def _of(self, stream: str) -> list[str]:
        lines: list[str] = []
        while True:
            token = {"nextToken": self._next[stream]} if stream in self._next else {}
            page = client("logs").get_log_events(
                logGroupName=self._group, logStreamName=stream, startFromHead=True, **token
            )
            lines += [event["message"].rstrip("\n") for event in page["events"]]
            # at the end of a stream, CloudWatch gives back the token that it was given
            if page["nextForwardToken"] == self._next.get(stream):
                return lines
            self._next[stream] = page["nextForwardToken"]


def _run(about: Mapping[str, Any]) -> Run:
    started = about.get("StartedOn")
    return Run(
        about["Id"],
        about["JobRunState"],
        started.strftime("%Y-%m-%dT%H:%M:%SZ") if started is not None else "",
        int(about.get("ExecutionTime") or 0),
        about.get("DPUSeconds"),
        str(about.get("ErrorMessage") or ""),
    )
