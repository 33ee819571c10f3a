"""The report's sections, each from the files of one step; what is missing becomes a note."""

from collections.abc import Callable, Sequence

from tsf_seq2seq.errors import UserError
from tsf_seq2seq.evaluation.scores import Score, read_scores
from tsf_seq2seq.evaluation.statistics import Comparison, compare, power_note
from tsf_seq2seq.explain.contribution import METHOD, contribution_of
from tsf_seq2seq.report import quality
from tsf_seq2seq.report.blocks import (
    Block,
    Facts,
    Matrix,
    Section,
    Table,
)
from tsf_seq2seq.report.explanation_sections import contributions, error_estimation
from tsf_seq2seq.report.inputs import DataFolder, Inputs, Sources
from tsf_seq2seq.report.training_curves import training_charts
from tsf_seq2seq.report.tumour_table import RegionRow, tumour_blocks
from tsf_seq2seq.tables import read_rows, write_rows
from tsf_seq2seq.training.log import read_log

EVALUATE = "src/evaluate/seq2seq/evaluate_brats_tsf_seq2seq_2d.py"


def all_sections(sources: Sources, facts: Sequence[tuple[str, str]]) -> list[Section]:
    """Every section but that of the cases, in the page's order."""
    builders: Sequence[Callable[[Sources], Section]] = (
        summary,
        methods,
        matrix,
        contributions,
        error_estimation,
        tumours,
        contribution,
        training,
    )
    made = Section("made", "How this was made", blocks=[Facts(facts)], files=_identity(sources))
    return [*(build(sources) for build in builders), made]


def summary(sources: Sources) -> Section:
    title = "Summary"
    if not sources.scores:
        note = f"Left out: no scores. {EVALUATE} --all-tasks makes them."
        return Section("summary", title, note=note)
    found = quality.summarise_methods(sources.scores)
    quality.write_summary(sources.data.path("summary.csv"), found)
    subjects = len({score.name for score in sources.scores})
    text = [
        f"{len(sources.scores)} synthesized volumes of {subjects} subjects. A subject's tasks are "
        "averaged first; the intervals are bootstrapped over subjects.",
    ]
    if "lpips" not in quality.measured(sources.scores):
        text.append("LPIPS was not computed: AlexNet's weights (make weights) were not found.")
    files = ["data/metrics.csv", "data/summary.csv"]
    return Section("summary", title, text, [quality.summary_table(found)], files=files)


def methods(sources: Sources) -> Section:
    title = "Methods compared"
    if not sources.scores:
        return Section("methods", title, note=f"Left out: no scores. {EVALUATE} makes them.")
    names = list(dict.fromkeys(score.method for score in sources.scores))
    blocks: list[Block] = [quality.method_charts(quality.summarise_methods(sources.scores))]
    if len(names) < 2:
        note = f"No paired tests: only {names[0]} was scored. {EVALUATE} --methods takes several."
        return Section("methods", title, (), blocks, note, ["data/summary.csv"])
    found = compare(sources.scores, "tsf" if "tsf" in names else names[0])
    write_rows(sources.data.path("comparisons.csv"), Comparison, found)
    blocks.append(quality.comparison_table(found))
    files = ["data/summary.csv", "data/comparisons.csv"]
    return Section("methods", title, [power_note(found)], blocks, files=files)


def matrix(sources: Sources) -> Section:
    title = "Task matrix"
    if not sources.scores:
        note = f"Left out: no scores. {EVALUATE} --all-tasks makes them."
        return Section("tasks", title, note=note)
    content = quality.task_matrix(sources.scores, sources.sequences)
    text = ["Every source set (row) and target (column): mean over subjects."]
    return Section("tasks", title, text, [Matrix(content)], files=["data/metrics.csv"])


def tumours(sources: Sources) -> Section:
    title = "Tumour and healthy tissue"
    path = sources.inputs.file("trust", "tumour.csv") or sources.inputs.file(
        "evaluation", "tumour.csv"
    )
    if path is None:
        note = "Left out: src/evaluate/seq2seq/evaluate_tumour.py makes it, where labels exist."
        return Section("tumour", title, note=note)
    rows = read_rows(path, RegionRow)
    text = ["A subject's tasks are averaged first; intervals are bootstrapped over subjects."]
    return Section("tumour", title, text, tumour_blocks(rows), files=[sources.data.copy(path)])


def contribution(sources: Sources) -> Section:
    """Sequence contribution of stage 1."""
    title = "Single sources (stage 1)"
    path = sources.inputs.file("single_source", "metrics.csv")
    scores = [] if path is None else read_scores(path)
    if path is None or not any(score.method == METHOD for score in scores):
        note = "Left out: src/evaluate/seq2seq/evaluate_brats_seq2seq_2d.py --all-tasks makes it."
        return Section("single", title, note=note)
    found = contribution_of(scores)
    rows = [
        [name, *(f"{value:+.2f}" for value in (*line, found.totipotency[i]))]
        for i, (name, line) in enumerate(zip(found.sequences, found.matrix, strict=True))
    ]
    last = ["C_d", *(f"{value:+.2f}" for value in found.differentiation), ""]
    headings = ["source", *(f"→ {name}" for name in found.sequences), "totipotency C_t"]
    caption = "Sequence contribution A, and imaging differentiation C_d of each target"
    text = ["A = z(PSNR) + z(SSIM) − z(LPIPS) of each source's synthesis of each target."]
    copied = sources.data.copy(path, "single_source_metrics.csv")
    return Section("single", title, text, [Table(caption, headings, [*rows, last])], files=[copied])


def training(sources: Sources) -> Section:
    title, logs, files = "Training", {}, []
    for stage, name in (("stage1", "stage 1, Seq2Seq"), ("stage2", "stage 2, TSF-Seq2Seq")):
        path = sources.inputs.file(stage, "log.csv")
        if path is not None:
            logs[name] = read_log(path)
            files.append(sources.data.copy(path, f"{stage}_log.csv"))
    if not logs:
        note = "Left out: --stage1 and --stage2 name the runs' folders, which hold log.csv."
        return Section("training", title, note=note)
    return Section("training", title, (), [training_charts(logs)], files=files)


def _identity(sources: Sources) -> list[str]:
    path = sources.inputs.file("evaluation", "evaluation.json")
    return [] if path is None else [sources.data.copy(path)]


def read_evaluation(inputs: Inputs, data: DataFolder) -> list[Score]:
    """The evaluation's scores, copied beside the page; none where there is no evaluation."""
    path = inputs.file("evaluation", "metrics.csv")
    if path is None:
        if inputs.evaluation is not None:
            raise UserError(f"{inputs.evaluation} holds no metrics.csv")
        return []
    scores = read_scores(path)
    data.copy(path)
    return scores
