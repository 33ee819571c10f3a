"""Imputation of many subjects: what is missing of each, whatever becomes of the others."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from tqdm import tqdm

from tsf_seq2seq.checkpoints.checkpoint import Model
from tsf_seq2seq.data.discovery import FoundSubject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.imputation.output import Output, is_done, write
from tsf_seq2seq.imputation.subject import (
    BATCH_SIZE,
    Imputation,
    Progress,
    choose_sources,
    impute_targets,
)
from tsf_seq2seq.tables import group_by


@dataclass(frozen=True)
class Request:
    """What is to be made of each subject; empty `targets`: all that it lacks."""

    targets: Sequence[str] = ()
    sources: Sequence[str] | None = None
    precision: str = "fp32"
    resample: bool = False
    batch_size: int = BATCH_SIZE
    command: str | None = None


def impute_subjects(
    subjects: Sequence[FoundSubject], model: Model, request: Request, output: Output
) -> dict[str, str]:
    """Impute and write; name → what was wrong, for the subjects that could not be imputed.

    Raises the UserError of an only subject, and where the folder of results can't be written to.
    """
    failures: dict[str, str] = {}
    with closing(_Bar(len(subjects))) as bar:
        for subject in subjects:
            try:
                impute_subject(subject, model, request, output, bar.slices)
            except (UserError, MemoryError, torch.OutOfMemoryError) as error:
                reason = str(error)
                if not isinstance(error, UserError):
                    reason = f"subject {subject.name} needs more memory than there is: {error}"
                if len(subjects) == 1 or isinstance(error.__cause__, OSError):
                    raise UserError(reason) from error.__cause__
                failures[subject.name] = reason
            bar.subject_done()
    return failures


def impute_subject(
    subject: FoundSubject,
    model: Model,
    request: Request,
    output: Output,
    progress: Progress | None = None,
) -> None:
    """Impute what is asked for and not done yet of one subject, and say so."""
    if subject.doubles:
        raise UserError(f"subject {subject.name}: {subject.doubles[0]}")
    missing = [name for name in model.sequences if name not in subject.files]
    targets = list(dict.fromkeys(request.targets)) or missing
    if not targets:
        tqdm.write(f"{subject.name}: no sequence is missing")
    given = list(subject.files)

    def sources_of(target: str) -> tuple[str, ...]:
        return tuple(choose_sources(model, given, [target], request.sources)[0])

    for sources, group in group_by(targets, sources_of).items():  # sources are encoded once
        places = {target: output.paths(subject, target) for target in group}
        files = {name: subject.files[name] for name in sources}
        done = [target for target in group if is_done(places[target], model, files)]
        for target in done:
            tqdm.write(f"{subject.name}: {target} is done already")
        if len(done) < len(group):
            left = {target: places[target] for target in group if target not in done}
            found = impute_targets(
                *(subject.files, model, list(left), request.sources),
                precision=request.precision,
                resample=request.resample,
                batch_size=request.batch_size,
                progress=progress,
            )
            for target, paths in left.items():
                write(found[target], paths, output, request.command)
                tqdm.write(f"{subject.name}: {_summary(found[target])}: {paths.image}")
            first = next(iter(found.values()))
            for text in first.warnings:
                tqdm.write(f"{subject.name}: warning: {text}")
            for text in first.resampling:
                tqdm.write(f"{subject.name}: resampled {text}")


def _summary(found: Imputation) -> str:
    """Such as "t1ce from t1 (ω 0.81), t2 (ω 0.19)"."""
    weights = found.fusion_weights
    sources = [f"{name} (ω {weights[name]:.2f})" if weights else name for name in found.sources]
    return f"{found.target} from {', '.join(sources)}"


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
