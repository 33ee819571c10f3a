"""Imputation of many subjects: what is missing of each, whatever becomes of the others."""

import errno
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.discovery import FoundSubject
from tsf_seq2seq.errors import UserError, printable
from tsf_seq2seq.imputation.options import ImputeOptions
from tsf_seq2seq.imputation.output import Output, write
from tsf_seq2seq.imputation.places import Paths
from tsf_seq2seq.imputation.record import (
    REFERENCES_KEY,
    circumstances,
    out_of_date,
    refuse_foreign,
    refuse_others,
)
from tsf_seq2seq.imputation.references import Like, References, find_references
from tsf_seq2seq.imputation.sources import told_synthetic
from tsf_seq2seq.imputation.subject import (
    Imputation,
    choose_sources,
    finish_for,
    impute_targets,
)
from tsf_seq2seq.synthesis.stacks import Progress
from tsf_seq2seq.tables import group_by

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what a disk says of every write


@dataclass(frozen=True)
class Request:
    """What is to be made of each subject; empty `targets`: all that it lacks; `like`: references,
    which may be among the subjects; `command`: what asks for it, for the records."""

    targets: Sequence[str] = ()
    options: ImputeOptions = ImputeOptions()
    like: Sequence[Like] = ()
    command: str | None = None


def impute_subjects(
    subjects: Sequence[FoundSubject], model: Model, request: Request, output: Output
) -> dict[str, str]:
    """Impute and write; name → what was wrong, for the subjects that could not be imputed.

    Raises UserError, before any work, where files would share a place or lie outside the folder;
    the one of an only subject; and where the disk is full, or read-only.
    """
    wanted = []
    for subject in subjects:
        with suppress(UserError):  # told when it is this subject's turn
            wanted.append((subject, _places(subject, model, request, output)))
    output.check(wanted)
    references, finish = None, finish_for(model, request.options.finish, bool(request.like))
    if request.like:
        found = find_references(request.like, model, subjects)
        references = References(model, found, request.options, finish)
        references.check_model()
    failures: dict[str, str] = {}
    with closing(_Bar(len(subjects))) as bar:
        for subject in subjects:
            try:
                impute_subject(subject, model, request, output, references, bar.slices)
            except BrokenPipeError:
                raise
            except Exception as error:  # whatever a library makes of one subject's data
                reason = _reason(subject, error)
                if len(subjects) == 1 or _disk_refuses(error):
                    raise UserError(reason) from error
                failures[subject.name] = reason
            bar.subject_done()
    return failures


def impute_subject(
    subject: FoundSubject,
    model: Model,
    request: Request,
    output: Output,
    references: References | None = None,
    progress: Progress | None = None,
) -> None:
    """Impute what is asked for and not done yet of one subject, and say so."""
    places = _places(subject, model, request, output)
    if not places:
        _say(subject, "no sequence is missing")
    given, options = list(subject.files), request.options
    finish = finish_for(model, options.finish, bool(request.like))

    def sources_of(target: str) -> tuple[str, ...]:
        return tuple(choose_sources(model, given, [target], options.sources)[0])

    for sources, group in group_by(places, sources_of).items():  # sources are encoded once
        files = {name: subject.files[name] for name in sources}
        told_synthetic(files, options.synthetic_sources)
        made_in = {
            target: circumstances(model, files, options, finish)
            | _references(references, sources, target, files)
            for target in group
        }
        left = [t for t in group if _is_left(subject, t, places[t], made_in[t])]
        if left:
            found = impute_targets(
                *(subject.files, model, left, options), like=references or (), progress=progress
            )
            for target in left:
                write(found[target], places[target], output, made_in[target], request.command)
                _say(subject, f"{_summary(found[target])}: {places[target].image}")
            first = next(iter(found.values()))
            for text in dict.fromkeys(text for one in found.values() for text in one.warnings):
                _say(subject, f"warning: {text}")
            for text in first.resampling:
                _say(subject, f"resampled {text}")


def _references(
    references: References | None, sources: Sequence[str], target: str, files: Mapping[str, Path]
) -> dict[str, Any]:
    """What a sidecar tells of the content of the references of a task."""
    if references is None:
        return {REFERENCES_KEY: None}
    names = references.complete(sources, target, files)
    return {REFERENCES_KEY: references.fingerprints(names)}


def _places(
    subject: FoundSubject, model: Model, request: Request, output: Output
) -> dict[str, Paths]:
    """Files of each target that is wanted of a subject; UserError where that can't be told."""
    if subject.doubles:
        raise UserError(f"subject {subject.name}: {subject.doubles[0]}")
    missing = [name for name in model.sequences if name not in subject.files]
    return {
        target: output.paths(subject, target, [s for s in model.sequences if s != target])
        for target in request.targets or missing
    }


def _is_left(subject: FoundSubject, target: str, paths: Paths, made_in: Mapping[str, Any]) -> bool:
    """Whether a target must be made, and says why again; UserError where a file that isn't this
    subject's lies in its place."""
    refuse_foreign(paths)
    reason = out_of_date(paths, made_in)
    if reason is None:
        _say(subject, f"{target} is done already")
        return False
    refuse_others(paths, subject.files)
    if paths.image.exists() or paths.sidecar.exists():
        _say(subject, f"{target} is made again: {reason}")
    return True


def _reason(subject: FoundSubject, error: Exception) -> str:
    """What was wrong with a subject, in a sentence."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"subject {subject.name} needs more memory than there is: {error}"
    return f"subject {subject.name}: {type(error).__name__}: {error}"


def _disk_refuses(error: Exception) -> bool:
    """Whether the next subject would meet the same: no room, or no right to write at all."""
    causes = (error, error.__cause__)
    return any(isinstance(cause, OSError) and cause.errno in FULL_OR_CLOSED for cause in causes)


def _say(subject: FoundSubject, text: str) -> None:
    tqdm.write(printable(f"{subject.name}: {text}"))


def _summary(found: Imputation) -> str:
    """Such as "t1ce from t1 (ω 0.81), t2 (ω 0.19)"."""
    weights = found.fusion_weights
    sources = [f"{name} (ω {weights[name]:.2f})" if weights else name for name in found.sources]
    text = f"{found.target} from {', '.join(sources)}"
    if found.error_map is not None:
        margin = found.error_map.psnr_margin
        text += f", {found.error_map.psnr:.1f}{'' if margin is None else f' ± {margin:.1f}'} dB"
        text += " expected in the brain"
    if found.adapted is None:
        return text
    gain = found.adapted.fitted.gain_db
    told = "" if gain is None else f", {gain:+.1f} dB on what was left out of it"
    return f"{text}, adapted to {', '.join(found.adapted.references)}{told}"


class _Bar:
    """Progress over subjects; of an only one, over its slices."""

    def __init__(self, n_subjects: int) -> None:
        self.several = n_subjects > 1
        self.bar = tqdm(total=n_subjects, unit="subject", disable=not self.several)

    def slices(self, done: int, total: int) -> None:
        """So many slices of the subject are done, of how many."""
        if self.several:
            self.bar.set_postfix_str(f"slice {done} of {total}")
            return
        if self.bar.disable or self.bar.total != total or done < self.bar.n:
            self.bar = tqdm(total=total, unit="slice", leave=False)
        self.bar.update(done - self.bar.n)

    def subject_done(self) -> None:
        if self.several:
            self.bar.update()

    def close(self) -> None:
        self.bar.close()
