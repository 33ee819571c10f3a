"""Sections on the explanations: what sources contribute, and what TSEM says of the error."""

from collections.abc import Iterable

from tsf_seq2seq.explain.attention_gain import AttentionGain, attention_gain_table
from tsf_seq2seq.explain.error_estimation import CalibrationRow, ErrorRow
from tsf_seq2seq.explain.error_summary import error_tables
from tsf_seq2seq.explain.faithfulness import Agreement, Faithfulness, agreement_table
from tsf_seq2seq.explain.fusion_weights import read_fusion_csv
from tsf_seq2seq.explain.tsem import Finding, finding_table
from tsf_seq2seq.report import explanations
from tsf_seq2seq.report.blocks import Block, Chart, Group, Section
from tsf_seq2seq.report.inputs import ReportSources
from tsf_seq2seq.tables import read_rows

EXPLAIN = "src/explain/seq2seq"


def contributions(sources: ReportSources) -> Section:
    """Fusion weights, beside them Shapley values, and what f_A brings."""
    text, blocks, notes, files = [], list[Block](), [], []
    path = sources.take("fusion_weights", "fusion_weights.csv")
    if path is None:
        notes.append(f"Fusion weights are left out: {EXPLAIN}/fusion_weights.py makes them.")
    else:
        weights = read_fusion_csv(path)
        names = _ordered(sources, (n for task, to in weights for n in (to, *task.split("+"))))
        targets = [name for name in names if name in {target for _, target in weights}]
        blocks.append(Group([explanations.fusion_chart(weights, names, t) for t in targets]))
        files.append(path.name)
        text.append("ω: the weights of the fusion's average; they sum to one over a source set.")
    path = sources.take("trust", "faithfulness.csv")
    if path is None:
        notes.append(f"Shapley values are left out: {EXPLAIN}/faithfulness.py makes them.")
    else:
        rows = read_rows(path, Faithfulness)
        names = _ordered(sources, (name for row in rows for name in (row.target, row.source)))
        targets = [name for name in names if name in {row.target for row in rows}]
        blocks.append(Group([explanations.shapley_chart(rows, names, t) for t in targets]))
        files.append(path.name)
        text.append(
            "Shapley values: what a source brings to the quality of the synthesis, averaged over "
            "all orders in which sources may arrive; shares add up to one over a target's sources."
        )
    if path := sources.take("trust", "agreement.csv"):
        blocks.append(agreement_table(read_rows(path, Agreement)))
        files.append(path.name)
    if path := sources.take("trust", "attention_gain.csv"):
        blocks.append(attention_gain_table(read_rows(path, AttentionGain)))
        files.append(path.name)
    title = "What each source contributes"
    return Section("contributions", title, text, blocks, " ".join(notes), files)


def error_estimation(sources: ReportSources) -> Section:
    """TSEM as an estimate of the error."""
    title = "Does TSEM show where the error is?"
    path = sources.take("trust", "error_estimation.csv")
    if path is None:
        path = sources.take("tsem", "tsem.csv")
        note = f"Curves and rival estimates are left out: {EXPLAIN}/error_estimation.py makes them."
        if path is None:
            return Section("tsem", title, note=note)
        return Section(
            "tsem", title, (), [finding_table(read_rows(path, Finding))], note, [path.name]
        )
    tables, files, charts = error_tables(read_rows(path, ErrorRow)), [path.name], list[Chart]()
    if path := sources.take("trust", "sparsification.json"):
        charts.append(explanations.sparsification_chart(path))
        files.append(path.name)
    if path := sources.take("trust", "calibration.csv"):
        charts.append(explanations.calibration_chart(read_rows(path, CalibrationRow)))
        files.append(path.name)
    text = [
        "TSEM, the map of what the attention residual changes, beside rivals that need no target "
        "either: how well each orders a brain's voxels by their error."
    ]
    blocks: list[Block] = [Group(charts), *tables] if charts else [*tables]
    return Section("tsem", title, text, blocks, files=files)


def _ordered(sources: ReportSources, found: Iterable[str]) -> list[str]:
    """The sequences found: in the report's order, then in that of their appearance."""
    found = list(found)
    return [name for name in dict.fromkeys([*sources.sequences, *found]) if name in found]
