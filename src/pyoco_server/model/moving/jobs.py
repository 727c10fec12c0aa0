"""The jobs that wait in a store of the existing system: which of them our workers can run, and why not the others."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pyoco_server.errors import InvalidFlow, InvalidInput, TooLarge
from pyoco_server.model.findings.finding import Finding, FindingCode, info, warning
from pyoco_server.model.flow.workflow import Workflow, parse_workflow
from pyoco_server.model.job import Job
from pyoco_server.model.tags import is_tag

MOST_FLOWS = 500
"""Distinct texts of flows that are parsed: each takes about a millisecond."""
_NAMED = 10
_REASONS = 10
_BUNDLE = "it is a workflow bundle, which only the existing system's 0.7 runs"


@dataclass
class Jobs:
    """What was found in the queue.

    Args:
        looked_at: How many jobs.
        unfit: For each reason the runs that ours could not run.
        by_name: For each flow that is only named, how many jobs.
        flows: How many distinct flow texts were parsed.
        flows_left: How many jobs carry a text that was not parsed, because there were too many.
    """

    looked_at: int = 0
    unfit: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    by_name: Counter[str] = field(default_factory=Counter)
    flows: int = 0
    flows_left: int = 0

    def findings(self) -> list[Finding]:
        """Return what is to be told of them."""
        found = []
        worst = sorted(self.unfit.items(), key=lambda item: -len(item[1]))
        for reason, runs in worst[:_REASONS]:
            found.append(warning(FindingCode.JOBS_UNFIT, jobs=len(runs), reason=reason, runs=runs[:_NAMED]))
        if rest := sum(len(runs) for _, runs in worst[_REASONS:]):
            found.append(
                warning(FindingCode.JOBS_UNFIT, jobs=rest, reason="other reasons", runs=worst[_REASONS][1][:1])
            )
        if self.by_name:
            names = [name for name, _ in self.by_name.most_common(_NAMED)]
            found.append(warning(FindingCode.JOBS_BY_NAME, jobs=self.by_name.total(), flows=names))
        if self.flows_left:
            found.append(info(FindingCode.FLOWS_NOT_PARSED, jobs=self.flows_left, parsed=self.flows))
        return found


def judge_jobs(jobs: Iterable[bytes], *, max_bytes: int) -> Jobs:
    """Look at jobs as a worker of ours would.

    Args:
        jobs: The messages.
        max_bytes: Largest flow text that is accepted.
    """
    judge = _Judge(max_bytes)
    for raw in jobs:
        judge.look(raw)
    return judge.jobs


class _Judge:
    def __init__(self, max_bytes: int) -> None:
        self.jobs = Jobs()
        self._max_bytes = max_bytes
        self._parsed: dict[str, Workflow | str] = {}

    def look(self, raw: bytes) -> None:
        self.jobs.looked_at += 1
        try:
            job = Job.from_json(raw)
            sha256 = job.flow_sha256
        except InvalidInput as refused:
            self.jobs.unfit[refused.message].append(_run_id(raw))
            return
        if job.workflow_yaml and sha256:
            if reason := self._flow_trouble(job, job.workflow_yaml, sha256):
                self.jobs.unfit[f"the flow.yaml is refused: {reason}"].append(job.run_id)
        elif not sha256:  # one that names a hash alone is ours: its text lies in a bucket
            if b'"workflow_bundle"' in raw and _is_bundle(raw):
                self.jobs.unfit[_BUNDLE].append(job.run_id)
            else:
                self.jobs.by_name[job.flow_name] += 1

    def _flow_trouble(self, job: Job, text: str, sha256: str) -> str | None:
        if sha256 not in self._parsed:
            if len(self._parsed) >= MOST_FLOWS:
                self.jobs.flows_left += 1
                return None
            self._parsed[sha256] = self._parse(text.encode("utf-8", "surrogatepass"))
            self.jobs.flows += 1
        parsed = self._parsed[sha256]
        if isinstance(parsed, str):
            return parsed
        try:
            parsed.check({**parsed.defaults, **(job.params or {})})
        except InvalidFlow as refused:
            return refused.message
        return None

    def _parse(self, raw: bytes) -> Workflow | str:
        try:
            return parse_workflow(raw, max_bytes=self._max_bytes)
        except (InvalidFlow, TooLarge) as refused:
            return refused.message


def judge_tags(queued: dict[str, int]) -> list[Finding]:
    """Return what is to be told of the tags under which jobs wait.

    Args:
        queued: How many jobs, by tag.
    """
    unfit = {tag: count for tag, count in queued.items() if not is_tag(tag)}
    if not unfit:
        return []
    return [warning(FindingCode.TAGS_UNFIT, jobs=sum(unfit.values()), tags=sorted(unfit)[:_NAMED])]


def _is_bundle(raw: bytes) -> bool:
    body: Any = json.loads(raw)
    return bool(body.get("workflow_bundle"))


def _run_id(raw: bytes) -> str:
    try:
        body = json.loads(raw)
        return str(body["run_id"])[:128]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "?"
