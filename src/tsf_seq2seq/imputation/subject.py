"""Imputation of a subject's missing sequences: from images to images on the same grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from tsf_seq2seq.checkpoints.checkpoint import Model, open_model
from tsf_seq2seq.data.loading import load_segmentation
from tsf_seq2seq.data.nifti import image_like
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.explain.contribution_maps import check_explicable
from tsf_seq2seq.imputation.contributions import Contributions, contributions_of
from tsf_seq2seq.imputation.errors import SHARE_OUTSIDE, ImputedErrors, imputed_errors
from tsf_seq2seq.imputation.mapped import AppliedMap, apply_map
from tsf_seq2seq.imputation.options import ImputeOptions
from tsf_seq2seq.imputation.places import (
    EXPECTED_ERROR,
    IMAGE,
    LOWER,
    TSEM,
    UPPER,
    contribution_kind,
)
from tsf_seq2seq.imputation.references import Like, References, find_references
from tsf_seq2seq.imputation.slices import BATCH_SIZE, Slices, synthesize_grid
from tsf_seq2seq.imputation.sources import Image, Sources, load_sources, told_synthetic
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.finish import Finish, network_finish
from tsf_seq2seq.synthesis.source_statistics import source_statistics
from tsf_seq2seq.synthesis.stacks import Progress
from tsf_seq2seq.tasks import source_sets


@dataclass(frozen=True)
class Imputation:
    """A synthesized sequence, and how it came about.

    `image`: on the first source's grid, float32, 0 in the background; `tsem`: |output with f_A −
    output without f_A| on the network's scale, whose range is 2; `mean_tsem`: its mean in the
    brain; `fusion_weights`: source → ω. These three are None for a network without.
    `intensity_maximum`: what the network's 1 became, by the rule that `intensity_scale` tells;
    `adapted`: what a contrast map made of the network's output, of which TSEM and ω go on
    speaking; None where there was none. `finish`: the steps that were done to the output;
    `contributions`: what each source added to it, where that was asked for; `error_map`: how far
    the network's output is expected to be off, of a checkpoint that knows.
    """

    target: str
    sources: dict[str, str]  # sequence → file
    image: nib.Nifti1Image
    tsem: nib.Nifti1Image | None
    mean_tsem: float | None
    fusion_weights: dict[str, float] | None
    intensity_maximum: float
    intensity_scale: str
    resampling: tuple[str, ...]
    warnings: tuple[str, ...]
    skull_stripped: bool  # as far as can be told
    model: Model
    precision: str
    adapted: AppliedMap | None = None
    finish: tuple[str, ...] = ()
    contributions: Contributions | None = None
    error_map: ImputedErrors | None = None

    @property
    def images(self) -> dict[str, nib.Nifti1Image]:
        """Kind → image of all that is written."""
        maps = {} if self.tsem is None else {TSEM: self.tsem}
        if self.error_map is not None:
            maps[EXPECTED_ERROR] = self.error_map.image
            if self.error_map.bounds is not None:
                maps |= dict(zip((LOWER, UPPER), self.error_map.bounds, strict=True))
        if self.contributions is not None:
            maps |= {contribution_kind(s): own for s, own in self.contributions.images.items()}
        return {IMAGE: self.image, **maps}


def impute(
    images: Mapping[str, Image],
    model: Model | Path | str,
    target: str,
    sources: Sequence[str] | None = None,
    *,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    resample: bool = False,
    batch_size: int = BATCH_SIZE,
    synthetic_sources: bool = False,
    like: Sequence[Like] | Like = (),
    finish: Sequence[str] | None = None,
    contributions: bool = False,
    labels: Path | str | None = None,
    interval: bool = False,
) -> Imputation:
    """Synthesize sequence `target` of a subject from its co-registered, skull-stripped images.

    `images`: sequence → NIfTI file or nibabel image; `model`: a checkpoint of ours, or what
    `open_model` made of it; `sources`: which of the images to use (default: all but the target),
    the first of which gives the grid; `precision`: fp32 or bf16; `resample`: bring sources on other
    grids to the first one's; `synthetic_sources`: take images that this software made as sources;
    `like`: complete subjects of the same scanner, to whose contrast the synthesis is adapted: their
    folders, files, or mappings from sequence to image, or one of these; `finish`: the steps that
    are done to the output, by default those of the checkpoint's `evaluation.finish`;
    `contributions`: also tell what each source adds, with `labels`, a label map on the grid, in the
    lesion, too; `interval`: with the bounds of the checkpoint's error map. Raises UserError, one
    sentence, for whatever can't be used.
    """
    options = ImputeOptions(
        *(sources, precision, resample, batch_size, synthetic_sources, finish),
        *(contributions, labels, interval),
    )
    return impute_targets(images, model, [target], options, device=device, like=like)[target]


def impute_targets(
    images: Mapping[str, Image],
    model: Model | Path | str,
    targets: Sequence[str],
    options: ImputeOptions = ImputeOptions(),  # noqa: B008 (it is frozen)
    *,
    device: str | torch.device | None = None,
    like: Sequence[Like] | Like | References = (),
    progress: Progress | None = None,
) -> dict[str, Imputation]:
    """Several targets as `impute` gives each, from the same sources, which are encoded once.

    By default these are all images but those of the targets. References that serve for several
    subjects keep what was learnt from them.
    """
    if not isinstance(model, Model):
        model = open_model(model, device or "cpu")
    elif device is not None:
        model.network.to(device)
    done = finish_for(model, options.finish, bool(like))
    chosen, notes = choose_sources(model, list(images), targets, options.sources)
    given = {name: images[name] for name in chosen}
    notes += told_synthetic(given, options.synthetic_sources)
    tasks = {target: model.task(given, target) for target in targets}
    if options.contributions:
        check_explicable(model.network, tasks.values())
    if options.interval:
        check_interval(model, bool(like) or model.adaptation is not None)
    loaded = load_sources(given, options.resample)
    lesion = None
    if options.labels is not None:
        lesion = load_segmentation(Path(options.labels), loaded.geometry) > 0
    adaptations = dict.fromkeys(targets, model.adaptation)
    told: dict[str, tuple[str, ...]] = dict.fromkeys(targets, ())
    if like:
        if isinstance(like, str | Path | Mapping):
            like = [like]
        if not isinstance(like, References):
            references = find_references(like, model)
            like = References(model, references, options, done)
        like.check_model()
        for target in targets:
            adapted = like.adaptation(chosen, target, given, targets)
            adaptations[target], told[target] = adapted
    run = model, loaded
    slices, resampling = synthesize_grid(
        *(*run, list(tasks.values()), options.precision, options.batch_size, progress),
        finish=done,
    )
    notes += loaded.not_stripped + loaded.doubts
    known = model.error_map.calibration if model.error_map else None
    statistics: dict[str, float] = {}
    if known is not None and known.statistics:
        statistics = source_statistics(loaded.images, loaded.geometry.spacing)
    found = {
        target: _imputation(
            *(*run, target, slices[task], resampling, notes + told[target], options),
            *(adaptations[target], done, statistics),
        )
        for target, task in tasks.items()
    }
    if not options.contributions:
        return found
    fewer = [own for task in tasks.values() for own in source_sets(task)[:-1]]
    if fewer:
        slices |= synthesize_grid(
            *(*run, fewer, options.precision, options.batch_size, progress),
            with_maps=False,
            finish=done,
        )[0]
    outputs = {task: own.image for task, own in slices.items()}
    return {
        target: replace(
            found[target],
            contributions=contributions_of(
                *run, task, outputs, found[target].intensity_maximum, lesion
            ),
        )
        for target, task in tasks.items()
    }


def finish_for(model: Model, finish: Sequence[str] | None, like: bool) -> Finish | None:
    """What is done to the model's outputs: the steps `finish`, else its settings' own; None for no
    step. Of maps, its own adaptation or that to references (`like`) takes the place of `map`."""
    replaced = like or model.adaptation is not None
    settings = model.config.evaluation
    return network_finish(finish, settings, model.prior, model.sequences, model.path, replaced)


def check_interval(model: Model, adapted: bool) -> None:
    """UserError where there are no bounds of an image: they need an error map that was calibrated,
    and are of the network's own output."""
    known = model.error_map.calibration if model.error_map else None
    if model.error_map is None:
        raise UserError(f"{model.path} has no error map: src/train/train_error_map.py makes one")
    if known is None or known.factors.get(SHARE_OUTSIDE) is None:
        subjects = known.subjects if known else 0
        raise UserError(
            f"the error map of {model.path} has no bounds: {subjects} subjects calibrated it, "
            f"which are too few"
        )
    if adapted:
        raise UserError("an adapted image has no bounds: the error map is of the network's output")


def choose_sources(
    model: Model, given: Sequence[str], targets: Sequence[str], sources: Sequence[str] | None
) -> tuple[list[str], tuple[str, ...]]:
    """The sources of a task, the first of which gives the grid, and what is to be said of them.

    Of a network that takes one source, the first. Raises UserError for names that the model doesn't
    know, sources without an image, and where there is none.
    """
    for role, names in (("target", targets), ("source", given), ("source", sources or ())):
        if unknown := [name for name in names if name not in model.sequences]:
            raise UserError(
                f"{role} {unknown[0]} is unknown to {model.path}, which knows "
                f"{', '.join(model.sequences)}"
            )
    if absent := [name for name in sources or () if name not in given]:
        raise UserError(f"source {absent[0]} has no image; there are {', '.join(given) or 'none'}")
    in_order = [name for name in model.sequences if name in given and name not in targets]
    chosen = in_order if sources is None else list(dict.fromkeys(sources))
    if not chosen:
        raise UserError(f"there is no source to make {', '.join(targets)} from")
    if all(model.network.accepts(model.task(chosen, target)) for target in targets):
        return chosen, ()
    network = model.config.network.name
    if sources is not None:
        raise UserError(
            f"{model.path} is a {network} checkpoint, which takes one source, not {len(chosen)} "
            f"({', '.join(chosen)})"
        )
    note = f"a {network} checkpoint takes one source: {chosen[0]} was used, of {', '.join(chosen)}"
    return chosen[:1], (note,)


def _imputation(
    model: Model,
    sources: Sources,
    target: str,
    slices: Slices,
    resampling: tuple[str, ...],
    warnings: tuple[str, ...],
    options: ImputeOptions,
    adaptation: Adaptation | None,
    finish: Finish | None,
    statistics: Mapping[str, float],
) -> Imputation:
    maximum, scale = intensity_scale(model, target, sources, adaptation)
    output, adapted, errors = slices.image, None, None
    if slices.scale is not None and model.error_map is not None:
        errors = imputed_errors(
            *(model, model.error_map, sources, target, slices, maximum, statistics),
            options.interval,
        )
        if errors.verdict is not None and errors.verdict.outside:
            warnings += (f"don't trust {target}: {'; '.join(map(str, errors.verdict.reasons))}",)
    if adaptation is not None:
        mapped = apply_map(model, adaptation, sources, target, output)
        if mapped is None:
            warnings += (f"the checkpoint has no contrast map for {target} from these sources",)
        else:
            output, adapted = mapped
            warnings += adapted.warnings
    volume = (output + 1) / 2 * np.float32(maximum)
    image = image_like(sources.template, volume, sources.geometry, target)
    tsem = mean = None
    if slices.tsem is not None:
        tsem = image_like(sources.template, slices.tsem, sources.geometry, f"TSEM of {target}")
        mean = float(slices.tsem[sources.brain].mean())
    return Imputation(
        target=target,
        sources=sources.origins,
        image=image,
        tsem=tsem,
        mean_tsem=mean,
        fusion_weights=source_weights(model, list(sources.images), target),
        intensity_maximum=maximum,
        intensity_scale=scale,
        resampling=resampling,
        warnings=warnings,
        skull_stripped=not sources.not_stripped,
        model=model,
        precision=options.precision,
        adapted=adapted,
        finish=finish.steps if finish else (),
        error_map=errors,
    )


def source_weights(model: Model, sources: Sequence[str], target: str) -> dict[str, float] | None:
    """Source → ω, which sum to one; None for a network without."""
    names = list(model.sequences)
    with torch.inference_mode():
        available = [name in sources for name in names]
        weights = model.network.fusion_weights(available, names.index(target))
    if weights is None:
        return None
    return {name: weights[names.index(name)].item() for name in sources}


def intensity_scale(
    model: Model, target: str, sources: Sources, adaptation: Adaptation | None = None
) -> tuple[float, str]:
    """The intensity that the network's 1 becomes, and where it is from."""
    if adaptation is not None and target in adaptation.maxima:
        return adaptation.maxima[target], f"median of {target} in the references"
    if model.statistics is not None and target in model.statistics.maxima:
        return model.statistics.maxima[target], f"median of {target} in the training data"
    median = float(np.median(list(sources.maxima.values())))
    return median, f"median of the sources' own: the checkpoint has no statistics of {target}"
