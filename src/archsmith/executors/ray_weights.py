"""Weights between the driver's folder and workers that may not see it: read for a job, and kept from its outcome.

The files are content-addressed, so each is checked against its name where it arrives.
"""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.artifacts import ArtifactFolder, is_digest, matches, open_artifacts
from archsmith.core.errors import StoreError
from archsmith.core.executor import Completed, Job
from archsmith.core.trial import Failure, TrialState
from archsmith.executors.ray_worker import Outcome


def is_folder(address: str | None) -> bool:
    """Whether weights are kept in a folder of this machine: other machines may not see it."""
    return address is not None and isinstance(open_artifacts(address), ArtifactFolder)


def read_for(job: Job) -> dict[str, bytes]:
    """The artifacts that a job may read, by digest: its parent's, and its own where it goes on. One that is gone is left
    out: the job is told so where it asks for it."""
    folder = _folder(job)
    own = job.resume.checkpoint if job.resume is not None else None
    found = {}
    for digest in filter(is_digest, {*job.earlier.values(), *([own] if own is not None else [])}):
        try:
            found[digest] = folder.read(digest)
        except StoreError:
            continue
    return found


def check_kept(job: Job, outcome: Outcome) -> Completed:
    """How a job completed, once the artifacts that travelled with its outcome are in its folder."""
    completed = outcome.completed
    if not outcome.kept:
        return completed
    folder = _folder(job)
    try:
        for digest, content in outcome.kept.items():
            matches(content, digest, f"{digest[:12]} from a worker")
            folder.write(content)
    except StoreError as error:
        if completed.state is TrialState.PAUSED:  # it begins anew when it goes on, and loses nothing else
            return replace(completed, result=replace(completed.result, checkpoint=None))
        result = replace(completed.result, failure=Failure("store", str(error)), artifact=None, checkpoint=None)
        return Completed(completed.trial, TrialState.FAILED, result)
    return completed


def _folder(job: Job) -> ArtifactFolder:
    assert job.artifacts is not None
    folder = open_artifacts(job.artifacts)
    assert isinstance(folder, ArtifactFolder)
    return folder
