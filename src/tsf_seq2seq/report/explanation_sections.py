"""Sections on the explanations: what sources contribute, and what TSEM says of the error."""

from collections.abc import Sequence

from tsf_seq2seq.explain.error_estimation import CalibrationRow, ErrorRow
from tsf_seq2seq.explain.faithfulness import Agreement, Faithfulness
from tsf_seq2seq.explain.fusion_weights import read_fusion_csv
from tsf_seq2seq.explain.tsem import Finding
from tsf_seq2seq.report import explanations
from tsf_seq2seq.report.blocks import Block, Group, Section
from tsf_seq2seq.report.inputs import Sources
from tsf_seq2seq.tables import read_rows

EXPLAIN = "src/explain/seq2seq"


def contributions(sources: Sources) -> Section:
    """Fusion weights, and beside them Shapley values."""
    parts = [_fusion_weights(sources), _shapley_values(sources)]
    return Section(
        "contributions",
        "What each source contributes",
        [paragraph for part in parts for paragraph in part.text],
        [block for part in parts for block in part.blocks],
        " ".join(part.note for part in parts).strip(),
        [file for part in parts for file in part.files],
    )


def _fusion_weights(sources: Sources) -> Section:
    path = sources.inputs.file("fusion_weights", "fusion_weights.csv")
    if path is None:
        note = f"Fusion weights are left out: {EXPLAIN}/fusion_weights.py makes them."
        return Section("", "", note=note)
    weights = read_fusion_csv(path)
    named = (name for task, target in weights for name in (target, *task.split("+")))
    names = _ordered(sources, list(named))
    targets = {target for _, target in weights}
    charts = [explanations.fusion_chart(weights, names, t) for t in names if t in targets]
    text = "ω: the weights of the fusion's average; they sum to one over a source set."
    return Section("", "", [text], [Group(charts)], files=[sources.data.copy(path)])


def _shapley_values(sources: Sources) -> Section:
    path = sources.inputs.file("trust", "faithfulness.csv")
    if path is None:
        note = f"Shapley values are left out: {EXPLAIN}/faithfulness.py makes them."
        return Section("", "", note=note)
    rows = read_rows(path, Faithfulness)
    names = _ordered(sources, [name for row in rows for name in (row.target, row.source)])
    targets = {row.target for row in rows}
    charts = [explanations.shapley_chart(rows, names, t) for t in names if t in targets]
    blocks: list[Block] = [Group(charts)]
    files = [sources.data.copy(path)]
    path = sources.inputs.file("trust", "agreement.csv")
    if path is not None:
        blocks.append(explanations.agreement_table(read_rows(path, Agreement)))
        files.append(sources.data.copy(path))
    text = (
        "Shapley values: what a source brings to the quality of the synthesis, averaged over all "
        "orders in which sources may arrive; shares add up to one over the sources of a target."
    )
    return Section("", "", [text], blocks, files=files)


def error_estimation(sources: Sources) -> Section:
    """TSEM as an estimate of the error."""
    inputs, title = sources.inputs, "Does TSEM show where the error is?"
    blocks: list[Block] = []
    files = []
    path = inputs.file("trust", "error_estimation.csv")
    if path is None:
        path = inputs.file("tsem", "tsem.csv")
        note = f"Curves and rival estimates are left out: {EXPLAIN}/error_estimation.py makes them."
        if path is None:
            return Section("tsem", title, note=note)
        blocks.append(explanations.finding_table(read_rows(path, Finding)))
        return Section("tsem", title, (), blocks, note, [sources.data.copy(path)])
    text = [
        "TSEM, the map of what the attention residual changes, beside rivals that need no target "
        "either: how well each orders a brain's voxels by their error. Spearman: 1 is a perfect "
        "order, 0 chance. AUSE: area between an estimate's sparsification curve and the error's "
        "own; relative AUSE, its share of a random order's: 0 is perfect, 1 chance.",
    ]
    files.append(sources.data.copy(path))
    tables = explanations.error_tables(read_rows(path, ErrorRow))
    curves = inputs.file("trust", "sparsification.json")
    parts = inputs.file("trust", "calibration.csv")
    charts = []
    if curves is not None:
        charts.append(explanations.sparsification_chart(curves))
        files.append(sources.data.copy(curves))
    if parts is not None:
        charts.append(explanations.calibration_chart(read_rows(parts, CalibrationRow)))
        files.append(sources.data.copy(parts))
    if charts:
        blocks.append(Group(charts))
    return Section("tsem", title, text, [*blocks, *tables], files=files)


def _ordered(sources: Sources, found: Sequence[str]) -> list[str]:
    """The sequences found: in the report's order, then in that of their appearance."""
    return [name for name in dict.fromkeys([*sources.sequences, *found]) if name in found]
