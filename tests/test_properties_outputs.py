"""What tsf-impute writes, for names of any kind: a place for each file, and a mark that stays."""

import gzip
import itertools
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tsf_seq2seq.data.discovery import FoundSubject
from tsf_seq2seq.data.namings import Naming
from tsf_seq2seq.data.nifti import image_like, read_volume, voxels_and_grid
from tsf_seq2seq.data.synthetic import RESEARCH_USE, is_marked, is_marked_file, is_synthetic, mark
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.imputation.output import Output

pytestmark = pytest.mark.property
TARGETS = ("t1", "T1w", "t1-x", "t1_x", "t1x", "t2", "x")
# Names that are likely to collide, and any others.
LIKELY = st.text("aA1_-/. é\u0301\udcff", min_size=1, max_size=5)
NAMES = st.lists(st.one_of(LIKELY, st.text(max_size=8)), min_size=1, max_size=5, unique=True)
PATTERNS = st.sampled_from(
    ("{name}_{s}.nii.gz", "{name}/{s}.nii.gz", "{s}/{name}.nii", "../{name}_{s}.nii", "/{name}/{s}")
)


@given(
    names=NAMES,
    targets=st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3, unique=True),
    layout=st.sampled_from(("plain", "bids", "names")),
    pattern=PATTERNS,
)
@example(["pat_1", "pat1"], ["t2"], "bids", "{name}_{s}.nii.gz")
@example(["p_1/a", "p1/b"], ["t2"], "bids", "{name}_{s}.nii.gz")
@example(["sub-1_ses-a", "1/b"], ["t2"], "bids", "{name}_{s}.nii.gz")
@example(["a", "a_t1"], ["t1_x", "x"], "plain", "{name}_{s}.nii.gz")
@example(["a", "a_t2_synth.nii.gz/b"], ["t2"], "plain", "{name}_{s}.nii.gz")
@example(["a", "A"], ["t2"], "names", "{name}_{s}.nii.gz")
@example(["a/b", "a//b"], ["t2"], "plain", "{name}_{s}.nii.gz")
@example(["a/../b", "b"], ["t2"], "plain", "{name}_{s}.nii.gz")
@example(["1/"], ["t2"], "bids", "{name}_{s}.nii.gz")
@example(["1", "\0"], ["t2"], "plain", "{name}_{s}.nii.gz")
def test_each_file_has_a_place_of_its_own(names, targets, layout, pattern):
    """Inside the folder, on any disk; or a UserError that names whom it concerns."""
    naming = Naming("own", {}, {s: pattern.replace("{s}", s) for s in TARGETS})
    subjects = [FoundSubject(name, naming) for name in names]
    with tempfile.TemporaryDirectory() as home:
        output = Output(Path(home, "out"), layout)
        try:
            wanted = [(s, {t: output.paths(s, t) for t in targets}) for s in subjects]
            output.check(wanted)
        except UserError as error:
            told = str(error)
        else:
            told = ""
        if told:
            check_sentence(told, names, targets)
            return
        files = [f for _, places in wanted for paths in places.values() for f in paths.all]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
        assert len(files) == len(names) * len(targets) * (10 if layout == "bids" else 6)
        assert len({str(path).casefold() for path in files}) == len(files)
        below = [path for path in Path(home).rglob("*") if path.is_file()]
        assert sorted(below) == sorted(files)
        if layout == "bids":  # a label is one patient's
            folders = [output.paths(s, "t2").image.relative_to(output.folder) for s in subjects]
            firsts = [name.split("/")[0] for name in names]
            patients = set(zip((path.parts[0] for path in folders), firsts, strict=True))
            assert len(patients) == len({label for label, _ in patients})


def check_sentence(told: str, names: list[str], targets: list[str]) -> None:
    """It names both of those that collide, or the one whose name is of no use."""
    pairs = [f"{target} of subject {name}" for name in names for target in targets]
    if told.endswith("folders of their own"):
        shared = [f"{a} and {b} would share " for a, b in itertools.permutations(pairs, 2)]
        both = [f"subjects {a} and {b} would both" for a, b in itertools.permutations(names, 2)]
        assert told.startswith(tuple(shared + both))
    else:
        lost = [f"subject {name}: " for name in names]
        assert told.startswith(tuple(lost + [f"{name} gives no BIDS label" for name in names]))


AFFINES = st.sampled_from(
    (
        np.diag([-1.0, -1.0, 1.0, 1.0]),
        np.array([[0, 0, 2.0, 5], [-0.5, 0.1, 0, 3], [0, 3.0, 0.2, -70], [0, 0, 0, 1]]),
        nib.affines.from_matvec(nib.eulerangles.euler2mat(0.4, -0.3, 0.2) @ np.diag([1, 1.2, -3])),
    )
)


@given(
    affine=AFFINES,
    dtype=st.sampled_from(("u1", "i2", ">i2", "f4", "f8", ">f4")),
    kind=st.sampled_from((nib.Nifti1Image, nib.Nifti2Image)),
    content=st.text(max_size=100),
    foreign=st.binary(max_size=40),
    seed=st.integers(0, 2**32 - 1),
)
@example(np.eye(4), "i2", nib.Nifti2Image, "t1ce", b"", 0)
@example(np.eye(4), "f4", nib.Nifti1Image, "x" * 100, b"DICM", 0)
def test_a_mark_stays(affine, dtype, kind, content, foreign, seed):
    """Through packing, unpacking and nibabel; it takes neither voxels nor grid away."""
    voxels = np.random.default_rng(seed).integers(0, 200, (5, 4, 3)).astype(dtype)
    source = kind(voxels, affine)
    source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", foreign))
    assert not is_marked(source.header)
    volume, geometry = voxels_and_grid(source, "source")
    image = image_like(source, geometry.to_network(volume).astype(np.float32), geometry, content)
    mark(source.header, content)  # beside another's extension
    with tempfile.TemporaryDirectory() as home:
        for number, marked in enumerate((image, source)):
            path, packed = Path(home, f"{number}.nii"), Path(home, f"{number}.nii.gz")
            path.write_bytes(marked.to_bytes())
            packed.write_bytes(gzip.compress(path.read_bytes()))
            saved = Path(home, f"{number}_saved.nii.gz")
            nib.save(nib.load(packed), saved)
            for file in (path, packed, saved):
                assert is_marked_file(file)
                assert is_synthetic(file)
                found = nib.load(file)
                assert is_marked(found.header)
                assert found.header["descrip"].item().decode().endswith(f", {RESEARCH_USE}")
                read, grid = read_volume(file)
                np.testing.assert_array_equal(read, voxels)
                np.testing.assert_array_equal(grid.affine, found.affine)
                np.testing.assert_allclose(grid.affine, affine, atol=1e-5)


@given(content=st.binary(max_size=700))
@example(b"\x1f\x8b\x08\x00")
def test_other_files_bear_no_mark(content):
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "a.nii.gz")
        for packed in (content, gzip.compress(content)):
            path.write_bytes(packed)
            assert not is_synthetic(path)
