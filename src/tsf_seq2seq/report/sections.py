"""The report's sections, each from the files of one step; what is missing becomes a note."""

from collections.abc import Sequence

from tsf_seq2seq.evaluation.downstream import SegmentationScore, downstream_tables
from tsf_seq2seq.evaluation.scores import PSNR, methods_of, read_scores
from tsf_seq2seq.evaluation.statistics import (
    Comparison,
    compare,
    comparison_table,
    method_means,
    method_table,
    write_method_means,
)
from tsf_seq2seq.evaluation.tumour import RegionScore, region_means, region_table
from tsf_seq2seq.explain.contribution import contribution_of, contribution_table
from tsf_seq2seq.report import quality
from tsf_seq2seq.report.adaptation import adaptation_sections
from tsf_seq2seq.report.blocks import Block, Drawn, Section
from tsf_seq2seq.report.explanations import contributions, error_estimation
from tsf_seq2seq.report.inputs import ReportSources
from tsf_seq2seq.report.provenance import read_identity
from tsf_seq2seq.report.training_curves import training_charts
from tsf_seq2seq.synthesis.adapted_names import adapted_methods
from tsf_seq2seq.synthesis.finish import finish_line
from tsf_seq2seq.tables import read_rows, write_rows
from tsf_seq2seq.training.log import read_log

EVALUATE = "src/evaluate/seq2seq/evaluate_brats_tsf_seq2seq_2d.py"
NO_SCORES = f"Left out: no scores. {EVALUATE} --all-tasks makes them."


def all_sections(sources: ReportSources, facts: Sequence[tuple[str, str]]) -> list[Section]:
    """Every section but that of the cases, in the page's order."""
    identity = sources.take("evaluation", "evaluation.json")
    files = [] if identity is None else ["evaluation.json"]
    finished = finish_line(read_identity(identity).get("finish", {})) if identity else ""
    return [
        *quality_sections(sources, finished),
        *adaptation_sections(sources),
        contributions(sources),
        error_estimation(sources),
        tumours(sources),
        segmentation(sources),
        contribution(sources),
        training(sources),
        Section("made", "How this was made", blocks=[Drawn("facts", facts)], files=files),
    ]


def quality_sections(sources: ReportSources, finished: str = "") -> list[Section]:
    """From the evaluation's scores: summary, methods compared, task matrix.

    `finished`: a line on what is done to methods that are called so.
    """
    titles = {"summary": "Summary", "methods": "Methods compared", "tasks": "Task matrix"}
    scores = sources.scores
    if not scores:
        return [Section(name, title, note=NO_SCORES) for name, title in titles.items()]
    means = method_means(scores)
    write_method_means(sources.path("summary.csv"), means)
    text = [f"{len(scores)} synthesized volumes of {len({s.name for s in scores})} subjects."]
    if "lpips" not in means[0].metrics:
        text.append("LPIPS was not computed: AlexNet's weights (make weights) were not found.")

    told = [f"{finished[0].upper()}{finished[1:]}."] if finished else []
    adapted = [one.name for one in adapted_methods(methods_of(scores)) if one.name != one.plain]
    drawn = [row for row in means if row.key[1] not in adapted]
    blocks: list[Block] = [quality.method_charts(drawn)]
    words = ["Charts of methods as trained; adapted ones have a section of their own."]
    words = [*(words if adapted else []), *told]
    files, note = ["summary.csv"], ""
    if len(methods_of(scores)) > 1:
        comparisons = compare(scores, sources.method)
        write_rows(sources.path("comparisons.csv"), Comparison, comparisons)
        blocks.append(comparison_table(comparisons))
        files.append("comparisons.csv")
    else:
        note = f"No paired tests: only {sources.method} was scored; {EVALUATE} takes several."

    matrix = Drawn("matrix", quality.task_matrix(scores, sources.sequences))
    meaning = ["Every source set (row) and target (column): mean over subjects."]
    both = ["metrics.csv", "summary.csv"]
    return [
        Section("summary", titles["summary"], text + told, [method_table(means)], files=both),
        Section("methods", titles["methods"], words, blocks, note, files),
        Section("tasks", titles["tasks"], meaning + told, [matrix], files=["metrics.csv"]),
    ]


def tumours(sources: ReportSources) -> Section:
    """Quality inside and outside the tumour."""
    title, name = "Tumour and healthy tissue", "tumour.csv"
    path = sources.take("trust", name) or sources.take("evaluation", name)
    if path is None:
        note = "Left out: src/evaluate/seq2seq/evaluate_tumour.py makes it, where labels exist."
        return Section("tumour", title, note=note)
    means = region_means(read_rows(path, RegionScore))
    chart = quality.inputs_chart(means, "tumour-psnr", PSNR, "region")
    return Section("tumour", title, (), [chart, region_table(means)], files=[name])


def segmentation(sources: ReportSources) -> Section:
    """What synthesized sequences are worth to a segmentation."""
    title, name = "Segmentation with a synthesized sequence", "downstream.csv"
    path = sources.take("trust", name)
    if path is None:
        note = "Left out: src/evaluate/downstream.py makes it, where labels exist."
        return Section("segmentation", title, note=note)
    text = [
        "A segmenter that was trained on real sequences gets each subject with one sequence real, "
        "left out (background), replaced by the training subjects' mean image, or synthesized from "
        "all others."
    ]
    tables = downstream_tables(read_rows(path, SegmentationScore))
    return Section("segmentation", title, text, [*tables], files=[name])


def contribution(sources: ReportSources) -> Section:
    """Sequence contribution of stage 1."""
    title, copy = "Single sources (stage 1)", "single_source_metrics.csv"
    path = sources.take("single_source", "metrics.csv", copy)
    if path is None:
        note = "Left out: src/evaluate/seq2seq/evaluate_brats_seq2seq_2d.py --all-tasks makes it."
        return Section("single", title, note=note)
    table = contribution_table(contribution_of(read_scores(path)))
    return Section("single", title, (), [table], files=[copy])


def training(sources: ReportSources) -> Section:
    """Curves of both stages."""
    title, logs, files = "Training", {}, []
    for stage, name in (("stage1", "stage 1, Seq2Seq"), ("stage2", "stage 2, TSF-Seq2Seq")):
        path = sources.take(stage, "log.csv", f"{stage}_log.csv")
        if path is not None:
            logs[name] = read_log(path)
            files.append(f"{stage}_log.csv")
    if not logs:
        note = "Left out: --stage1 and --stage2 name the runs' folders, which hold log.csv."
        return Section("training", title, note=note)
    return Section("training", title, (), [training_charts(logs)], files=files)
