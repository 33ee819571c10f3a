"""Imputation of many subjects: what is missing of each, whatever becomes of the others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tqdm import tqdm

from tsf_seq2seq.checkpoint import Model
from tsf_seq2seq.data.discovery import FoundSubject
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.imputation.imputation import (
    BATCH_SIZE,
    Imputation,
    Progress,
    choose_sources,
    impute_targets,
)
from tsf_seq2seq.imputation.output import Output, Paths, is_done, write


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
    with tqdm(subjects, unit="subject", desc="imputing", disable=len(subjects) == 1) as bar:
        for subject in bar:
            try:
                impute_subject(subject, model, request, output)
            except (UserError, MemoryError, torch.OutOfMemoryError) as error:
                if len(subjects) == 1 or isinstance(error.__cause__, OSError):
                    raise _as_user_error(subject, error) from error.__cause__
                failures[subject.name] = " ".join(str(error).split()) or "out of memory"
                bar.set_postfix_str(f"{len(failures)} failed")
    return failures


def impute_subject(subject: FoundSubject, model: Model, request: Request, output: Output) -> None:
    """Impute what is asked for and not done yet of one subject, and say so."""
    if subject.doubles:
        raise UserError(f"subject {subject.name}: {subject.doubles[0]}")
    missing = [name for name in model.sequences if name not in subject.files]
    targets = list(dict.fromkeys(request.targets)) or missing
    if not targets:
        tqdm.write(f"{subject.name}: no sequence is missing")
    for group, sources in grouped(subject, model, targets, request.sources):
        places = {target: output.paths(subject, target) for target in group}
        files = {name: subject.files[name] for name in sources}
        done = [target for target in group if is_done(places[target], model, files)]
        for target in done:
            tqdm.write(f"{subject.name}: {target} is done already")
        if len(done) < len(group):
            left = {target: places[target] for target in group if target not in done}
            _impute_group(subject, model, request, output, left)


def _impute_group(
    subject: FoundSubject, model: Model, request: Request, output: Output, places: dict[str, Paths]
) -> None:
    """Impute and write targets, the keys of `places`, which have the same sources."""
    with _slice_bar(f"{subject.name} {', '.join(places)}") as progress:
        found = impute_targets(
            *(subject.files, model, list(places), request.sources),
            precision=request.precision,
            resample=request.resample,
            batch_size=request.batch_size,
            progress=progress,
        )
    for target, paths in places.items():
        write(found[target], paths, output, request.command)
        tqdm.write(f"{subject.name}: {_summary(found[target])}: {paths.image}")
    first = next(iter(found.values()))
    for text in first.warnings:
        tqdm.write(f"{subject.name}: warning: {text}")
    for text in first.resampling:
        tqdm.write(f"{subject.name}: resampled {text}")


def grouped(
    subject: FoundSubject, model: Model, targets: Sequence[str], sources: Sequence[str] | None
) -> list[tuple[list[str], list[str]]]:
    """Targets that are made from the same sources, which then are encoded once; these sources."""
    groups: list[tuple[list[str], list[str]]] = []
    for target in targets:
        chosen, _ = choose_sources(model, list(subject.files), [target], sources)
        for group, others in groups:
            if others == chosen:
                group.append(target)
                break
        else:
            groups.append(([target], chosen))
    return groups


def _summary(found: Imputation) -> str:
    """Such as "t1ce from t1 (ω 0.81), t2 (ω 0.19)"."""
    weights = found.fusion_weights
    sources = [f"{name} (ω {weights[name]:.2f})" if weights else name for name in found.sources]
    return f"{found.target} from {', '.join(sources)}"


@contextmanager
def _slice_bar(title: str) -> Iterator[Progress]:
    with tqdm(unit="slice", desc=title, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _as_user_error(subject: FoundSubject, error: BaseException) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(f"subject {subject.name} needs more memory than there is: {error}")
