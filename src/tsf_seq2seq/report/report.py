"""A report as a whole: inputs → sections → page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import Extras
from tsf_seq2seq.config import Config
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.writing import staged
from tsf_seq2seq.models.base import SynthesisNetwork
from tsf_seq2seq.report.blocks import Section
from tsf_seq2seq.report.cases import case_sections, missing_cases, rank_cases, write_cases
from tsf_seq2seq.report.inputs import Inputs, ReportSources
from tsf_seq2seq.report.page import write_page
from tsf_seq2seq.report.provenance import facts, other_weights, read_identity
from tsf_seq2seq.report.sections import all_sections

MAKE_CASES = "name the stage 2 weights with -l, and an evaluation that scored them"


@dataclass(frozen=True)
class Experiment:
    """What synthesizes the cases: the network, its settings, the file of its weights, and what
    else that carries."""

    network: SynthesisNetwork
    config: Config
    weights: Path
    batch_size: int
    extras: Extras = Extras()


def write_report(
    inputs: Inputs,
    experiment: Experiment | None,
    output: Path,
    command: Sequence[str],
    title: str,
    viewer: Path | None = None,
    method: str = "",
) -> Path:
    """Write the report's folder, whose files change together; the path of index.html.

    `method` of the evaluation is examined, else its first. Steps that were not made are left out
    with a note. Raises UserError where there is nothing to show at all, or a file is not what its
    name says.
    """
    if viewer is not None and not viewer.is_file():
        raise UserError(f"{viewer} does not exist; make viewer fetches NiiVue")
    if inputs == Inputs() and experiment is None:
        raise UserError("there is nothing to report: name at least one folder of results")
    with staged(output) as staging:
        names = list(experiment.config.data.sequences) if experiment else []
        sources = ReportSources(inputs, staging, method, names)
        identity_path = inputs.file("evaluation", "evaluation.json")
        identity = None if identity_path is None else read_identity(identity_path)
        weights = experiment.weights if experiment else None
        found = all_sections(sources, facts(command, weights, identity, sources.scores))
        if all(not section.blocks for section in found[:-1]):
            raise UserError("there is nothing to report: the folders named hold no results")
        place = [section.identifier for section in found].index("tasks")
        found[place:place] = show_cases(experiment, sources)
        judged = experiment.extras.error_map if experiment else None
        warning = other_weights(weights, identity, judged.network_sha256 if judged else None)
        page = write_page(staging, title, found, warning, viewer)
    return output / page.name


def show_cases(experiment: Experiment | None, sources: ReportSources) -> list[Section]:
    """Pictures and viewer of chosen cases, or a note why there are none."""
    if experiment is None:
        return [missing_cases(MAKE_CASES)]
    config = experiment.config
    names = list(config.data.sequences)
    try:
        subjects = find_subjects(config.data, config.data.test)
        ranked = rank_cases(sources.scores, subjects, names, sources.method)
        if not ranked:
            return [missing_cases(MAKE_CASES)]
        extras = experiment.extras
        found = write_cases(
            *(experiment.network, config, ranked, experiment.batch_size, sources.report, extras)
        )
    except UserError as error:
        if isinstance(error.__cause__, OSError):  # the disk: no note will say so on it
            raise
        return [missing_cases(str(error))]
    return case_sections(*found, names, adapted=extras.adaptation is not None)
