"""What tsf-impute leaves behind: nothing mistaken for a scan, nothing lost, nothing out of date."""

import errno
import gzip
import itertools
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import pytest
from conftest import LPS_AFFINE, blob, save_nifti, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli.data import check_dataset
from tsf_seq2seq.cli.evaluate import evaluate_tsf_seq2seq
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.cli.train import train_seq2seq
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data.discovery import FoundSubject
from tsf_seq2seq.data.namings import Naming, known_namings
from tsf_seq2seq.data.synthetic import is_marked, is_marked_file
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.files.folder import claimed
from tsf_seq2seq.imputation import batch, impute
from tsf_seq2seq.imputation.output import Output
from tsf_seq2seq.models import build_network

MARK = "synthetic image, research use"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(script, checkpoint, out):
    """run(arguments…) of tsf-impute with checkpoint and, unless it is given, output folder."""

    def run_with(*arguments: object):
        given = arguments if "-o" in arguments else (*arguments, "-o", out)
        return script(impute_sequences, *given, "-l", checkpoint)

    return run_with


@pytest.fixture
def patient(tiny_dataset: Path) -> Path:
    """A subject's folder that lacks t1ce."""
    sequence_file(tiny_dataset, 0, "t1ce").unlink()
    return tiny_dataset / "Tiny_00000"


def content(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def scans(root: Path, *names: str) -> None:
    """A t1 of each subject, in a folder of its own."""
    for name in names:
        save_nifti(root / name / f"{name}_t1.nii.gz", blob(0))


# --- synthetic images say that they are


def test_images_bear_a_mark(run, patient, out, tmp_path):
    """In `descrip` and an extension; it stays when nibabel saves anew, or gzip packs anew."""
    assert run(patient).code == 0
    for kind, words in (("synth", "t1ce"), ("tsem", "TSEM of t1ce")):
        path = out / f"Tiny_00000_t1ce_{kind}.nii.gz"
        image = nib.load(path)
        assert image.header["descrip"].item().decode() == f"{words}, {MARK}"
        (extension,) = image.header.extensions
        assert extension.get_code() == 6
        assert json.loads(extension.get_content())["Content"] == words
        assert json.loads(extension.get_content())["Software"] == "TSF-Seq2Seq"
        assert image.get_fdata().shape == (24, 20, 12)
        other = tmp_path / "other.nii"
        other.write_bytes(gzip.decompress(path.read_bytes()))
        assert is_marked_file(other)
        nib.save(nib.Nifti2Image.from_image(image), tmp_path / "saved.nii.gz")
        saved = nib.load(tmp_path / "saved.nii.gz")
        for key in ("descrip", "extensions"):  # either is enough
            header = saved.header.copy()
            if key == "descrip":
                header[key] = b"FSL6.0"
            else:
                header.extensions.clear()
            assert is_marked(header)
            nib.save(nib.Nifti2Image(saved.get_fdata(), None, header), tmp_path / "less.nii.gz")
            assert is_marked_file(tmp_path / "less.nii.gz")
        assert is_marked_file(tmp_path / "saved.nii.gz")


def test_a_synthetic_image_without_its_sidecar_is_no_scan(run, patient, out):
    """In the data set, under the name that a scan would have."""
    assert run(patient, "--keep-names", "-o", patient).code == 0
    (patient / "Tiny_00000_t1ce.json").unlink()
    assert "t1ce from t1" in run(patient).out  # still missing
    record = json.loads((out / "Tiny_00000_t1ce_synth.json").read_text())
    assert record["SourceSequences"] == ["t1", "t2", "flair"]
    made = patient / "Tiny_00000_t1ce.nii.gz"
    for arguments in (["--t1ce", made], ["--t1ce", made, "--target", "t2"]):
        error = run(*arguments).error
        assert error.startswith(f"{made} is a synthetic image of this software, not a scan; --syn")
    outcome = run("--t1ce", made, "--target", "t2", "--synthetic-sources")
    assert outcome.code == 0, outcome.err
    assert "warning: source t1ce is a synthetic image itself" in outcome.out
    assert "is a synthetic image" in run("--t1ce", made, "--target", "t2").error  # though done
    outcome = run(patient, "--synthetic-sources", "--target", "t2")
    assert "t2 from t1 (" in outcome.out
    assert ", t1ce (" in outcome.out


def test_impute_refuses_synthetic_images(patient, checkpoint, tmp_path):
    found = impute({"t1": patient / "Tiny_00000_t1.nii.gz"}, checkpoint, "t1ce")
    nib.save(found.image, tmp_path / "t1ce.nii.gz")
    for source in (found.image, tmp_path / "t1ce.nii.gz", nib.load(tmp_path / "t1ce.nii.gz")):
        with pytest.raises(UserError, match=r"is a synthetic image of this software, not a scan"):
            impute({"t1ce": source}, checkpoint, "t2")
        again = impute({"t1ce": source}, checkpoint, "t2", synthetic_sources=True)
        assert again.warnings == ("source t1ce is a synthetic image itself",)


def test_marks_of_earlier_versions_count(run, patient):
    image = nib.Nifti1Image(blob(1), LPS_AFFINE)
    image.header["descrip"] = f"t1ce, {MARK}".encode()
    nib.save(image, patient / "Tiny_00000_t1ce.nii.gz")
    assert "t1ce from t1" in run(patient).out


def test_training_and_evaluation_take_no_synthetic_image(
    run, tiny_dataset, tiny_stage1, checkpoint, script, tmp_path
):
    for subject in (0, 3):
        path = sequence_file(tiny_dataset, subject, "t1ce")
        path.unlink()
        assert run(path.parent, "--keep-names", "-o", path.parent).code == 0
        path.with_name(f"Tiny_0000{subject}_t1ce.json").unlink()
    rule = "is a synthetic image of this software, not a scan"
    outcome = script(train_seq2seq, "-c", tiny_stage1)
    path = sequence_file(tiny_dataset, 0, "t1ce")
    assert outcome.error == f"subject Tiny_00000: {path} {rule}"
    outcome = script(evaluate_tsf_seq2seq, "-l", checkpoint, "-o", tmp_path / "evaluated")
    path = sequence_file(tiny_dataset, 3, "t1ce")
    assert outcome.error == f"subject Tiny_00003: {path} {rule}"
    outcome = script(check_dataset, "-c", tiny_stage1, "--folders")
    assert outcome.code == 1
    assert f"Tiny_00003: {path} {rule}" in outcome.out


def test_predictions_are_marked(checkpoint, script, tmp_path):
    outcome = script(evaluate_tsf_seq2seq, "-l", checkpoint, "-o", tmp_path / "evaluated")
    assert outcome.code == 0, outcome.err
    paths = sorted((tmp_path / "evaluated" / "predict").iterdir())
    assert len(paths) == 2
    targets = [path.name.split("_")[2] for path in paths]
    titles = [f"prediction of {target}, {MARK}" for target in targets]
    assert [nib.load(path).header["descrip"].item().decode() for path in paths] == titles
    assert all(is_marked_file(path) for path in paths)


# --- a redo that fails keeps what there was


def failing(real, fails: int, error: BaseException):
    """`real`, but for its call number `fails`, which raises."""
    count = [0]

    def call(*arguments, **options):
        count[0] += 1
        if count[0] == fails:
            raise error
        return real(*arguments, **options)

    call.count = count
    return call


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
@pytest.mark.parametrize("layout", ["--keep-names", "--bids"])
def test_failed_redo_keeps_the_earlier_result(run, patient, out, monkeypatch, error, layout):
    """Whichever write or rename fails, all files stay, bit for bit."""
    for name, owner in (("fsync", os), ("rename", Path)):
        assert run(patient, layout, "--sources", "t1").code == 0
        before = content(out)
        for fails in itertools.count(1):
            with monkeypatch.context() as patch:
                call = failing(getattr(owner, name), fails, error)
                patch.setattr(owner, name, lambda *a, call=call, **b: call(*a, **b))
                outcome = run(patient, layout, "--sources", "t2")
            if call.count[0] < fails:
                break
            assert (outcome.code, len(outcome.err)) == (2 if error is FULL else 130, 1)
            assert content(out) == before
        assert fails > 4  # image, TSEM, sidecar, journal
        assert outcome.code == 0
        assert content(out) != before


def test_a_killed_redo_is_brought_back(run, patient, out, monkeypatch):
    """The process ends between two renames: the next run brings the earlier files back."""
    assert run(patient, "--sources", "t1").code == 0
    before = content(out)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing(Path.rename, 3, KeyboardInterrupt()))
        patch.setattr("tsf_seq2seq.files.writing.roll_back", lambda _: None)  # nothing runs after
        assert run(patient, "--sources", "t2").code == 130
    assert content(out) != before
    assert "t1ce is done already" in run(patient, "--sources", "t1").out
    assert content(out) == before


def test_another_networks_tsem_goes(script, run, patient, out, tiny_stage1, tmp_path):
    """A TSEM beside an image that isn't of its network would be taken for that image's."""
    config = load_config(tiny_stage1)
    save_checkpoint(tmp_path / "one.pth", build_network(config), config)
    for layout, files in (([], 3), (["--bids"], 5)):
        assert run(patient, *layout).code == 0
        assert len(content(out)) == files
        plain = [patient, *layout, "-l", tmp_path / "one.pth", "-o", out]
        assert script(impute_sequences, *plain).code == 0
        assert not list(out.rglob("*tsem*"))
        for path in out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_ctrl_c_is_one_line(run, tiny_dataset, out, monkeypatch):
    for subject in range(4):
        sequence_file(tiny_dataset, subject, "t1ce").unlink()
    call = failing(batch.impute_targets, 3, KeyboardInterrupt())
    monkeypatch.setattr(batch, "impute_targets", call)
    outcome = run(tiny_dataset)
    assert (outcome.code, outcome.err) == (130, ["interrupted"])
    assert {name[:10] for name in content(out)} == {"Tiny_00000", "Tiny_00001"}


# --- names that collide, and places of others


@pytest.mark.parametrize(
    ("names", "option", "part"),
    [
        (("pat_1", "pat1"), "--bids", "t1ce of subject pat1 and t1ce of subject pat_1 would"),
        (("pat1", "Pat1"), "--bids", "of subject Pat1 and t1ce of subject pat1 would share"),
        (("pat1", "Pat1"), "--keep-names", "of subject Pat1 and t1ce of subject pat1 would share"),
        (("é", "e\u0301"), "--keep-names", "would share"),
    ],
)
def test_names_that_collide(run, tmp_path, out, names, option, part):
    scans(tmp_path / "set", *names)
    error = run(tmp_path / "set", option).error
    assert part in error
    assert all(name in error for name in names)
    assert not out.exists()


def test_labels_collide_whatever_is_missing(run, tmp_path, out):
    """Two patients never become one, though their files would have different names."""
    scans(tmp_path / "set", "pat_1", "pat1")
    for sequence in ("t1ce", "flair", "t2"):
        save_nifti(tmp_path / "set" / "pat1" / f"pat1_{sequence}.nii.gz", blob(1))
    (tmp_path / "set" / "pat1" / "pat1_t1.nii.gz").unlink()
    error = run(tmp_path / "set", "--bids").error
    assert "subjects pat1 and pat_1 would both be sub-pat1 in BIDS" in error
    assert not out.exists()


def test_a_name_without_letters_has_no_label(run, tmp_path, out):
    scans(tmp_path / "set", "---")
    assert "--- gives no BIDS label" in run(tmp_path / "set", "--bids").error
    scans(tmp_path / "set", "good")
    outcome = run(tmp_path / "set", "--bids")
    assert outcome.code == 1
    assert outcome.err[1].startswith("  ---: --- gives no BIDS label")
    assert (out / "sub-good" / "anat" / "sub-good_desc-synth_T2w.nii.gz").exists()


def test_subject_and_target_may_not_run_together():
    """t1_x of subject a, and x of subject a_t1."""
    naming = Naming("files", {}, {})
    folder = Output(Path("out"))
    subjects = [FoundSubject("a", naming), FoundSubject("a_t1", naming)]
    wanted = [(s, {t: folder.paths(s, t) for t in ("t1_x", "x")}) for s in subjects]
    with pytest.raises(UserError, match=r"t1_x of subject a and x of subject a_t1 would share .*"):
        folder.check(wanted)


def test_files_of_others_are_kept(run, patient, out):
    """Their content says whose they are, not their name."""
    for name in ("synth.nii.gz", "tsem.nii.gz", "synth.json"):
        path = out / f"Tiny_00000_t1ce_{name}"
        path.parent.mkdir(exist_ok=True)
        if name.endswith("json"):
            path.write_text('{"EchoTime": 0.1}')
        else:
            save_nifti(path, blob(7))
        before = content(out)
        error = run(patient).error
        assert error == f"{path} exists and is not of a synthetic image: choose another folder"
        assert content(out) == before
        path.unlink()
    assert run(patient).code == 0


def test_a_scan_that_came_later_is_kept(run, patient):
    """In the place of an image of ours, whose sidecar still lies there."""
    place = [patient, "--keep-names", "-o", patient]
    assert run(*place).code == 0
    scan = save_nifti(patient / "Tiny_00000_t1ce.nii.gz", blob(9))
    before = scan.read_bytes()
    assert "exists and is not of a synthetic image" in run(*place).error
    assert scan.read_bytes() == before
    scan.write_bytes(b"ruins")  # of ours, as the sidecar tells
    assert "t1ce is made again: its image has changed" in run(*place).out


def test_derivatives_have_a_folder_of_their_own(run, patient, out):
    description = out / "dataset_description.json"
    out.mkdir()
    for text in (
        '{"Name": "raw"}',
        "[",
        '{"GeneratedBy": 1}',
        '{"GeneratedBy": [{"Name": "other"}, 1]}',
    ):
        description.write_text(text)
        error = run(patient, "--bids").error
        assert error.startswith(f"{description} is of another data set: derivatives belong in a")
        assert content(out) == {"dataset_description.json": text.encode()}
    mine = '{"GeneratedBy": [{"Name": "TSF-Seq2Seq"}], "Authors": ["A"]}'
    description.write_text(mine)
    assert run(patient, "--bids").code == 0
    assert description.read_text() == mine


# --- nothing outside of -o


@pytest.mark.parametrize("place", ["{root}/away/{{name}}/t1ce.nii.gz", "../away/{{name}}/c.nii.gz"])
def test_nothing_is_written_outside(script, tiny_config, tmp_path, out, place):
    """The patterns may be a stranger's, in a checkpoint."""
    pattern = place.format(root=tmp_path)
    names = f"data.sequences={{t1: '{{name}}_t1.nii.gz', t1ce: '{pattern}'}}"
    config = load_config(tiny_config, [names])
    save_checkpoint(tmp_path / "own.pth", build_network(config), config)
    scans(tmp_path / "set", "a")
    before = content(tmp_path)
    arguments = [tmp_path / "set", "-l", tmp_path / "own.pth", "-o", out, "--keep-names"]
    assert f"lies outside of {out}" in script(impute_sequences, *arguments).error
    assert content(tmp_path) == before


def test_links_lead_nowhere_else(run, patient, out, tmp_path):
    (tmp_path / "else").mkdir()
    out.mkdir()
    (out / "tsem").symlink_to(tmp_path / "else")
    assert f"lies outside of {out}" in run(patient, "--keep-names").error
    assert content(tmp_path / "else") == {}


# --- up to date


def test_what_changed_is_made_again(run, patient, out, checkpoint):
    image, sidecar = out / "Tiny_00000_t1ce_synth.nii.gz", out / "Tiny_00000_t1ce_synth.json"
    tsem = out / "Tiny_00000_t1ce_tsem.nii.gz"
    assert run(patient).code == 0
    assert "made again" not in run(patient).out

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-9])

    changes = [
        (lambda: save_nifti(patient / "Tiny_00000_t2.nii.gz", blob(8)), "source t2 has changed"),
        (lambda: cut(image), "its image has changed"),
        (lambda: cut(tsem), "its TSEM has changed"),
        (lambda: tsem.write_bytes(b""), "its TSEM has changed"),
        (tsem.unlink, "its TSEM is missing"),
        (image.unlink, "its image is missing"),
        (sidecar.unlink, "its sidecar is missing or damaged"),
        (lambda: sidecar.write_text("[" * 5000), "its sidecar is missing or damaged"),
        (lambda: version(sidecar, 1), "its sidecar is of another version of this software"),
    ]
    for change, reason in changes:
        change()
        outcome = run(patient)
        assert f"Tiny_00000: t1ce is made again: {reason}" in outcome.out.splitlines()
        assert "t1ce is done already" in run(patient).out
    for options, reason in (
        (["--precision", "bf16"], "it was made in fp32"),
        (["--precision", "bf16", "--resample"], "--resample was not given before"),
        (["--sources", "flair"], "it was made from t1, t2, flair"),
    ):
        assert f"t1ce is made again: {reason}" in run(patient, *options).out


def version(sidecar: Path, number: int) -> None:
    record = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(record | {"RecordVersion": number}))


def test_the_same_scans_elsewhere_are_done(run, patient, out):
    assert run(patient).code == 0
    moved = patient.rename(patient.parent / "moved")
    assert "t1ce is done already" in run(moved).out


def test_a_namesakes_result_is_kept(run, tmp_path, out):
    """Two sites call a patient P1, and both are imputed into one folder."""
    for number, site in enumerate(("siteA", "siteB")):
        save_nifti(tmp_path / site / "P1_t1.nii.gz", blob(number))
    assert run(tmp_path / "siteA", "--target", "t2").code == 0
    before = content(out)
    error = run(tmp_path / "siteB", "--target", "t2").error
    scan = tmp_path / "siteA" / "P1_t1.nii.gz"
    image = out / "P1_t2_synth.nii.gz"
    wanted = f"{image} is of another subject, whose t1 is {scan}: choose another folder"
    assert error == wanted
    assert content(out) == before
    save_nifti(tmp_path / "siteB" / "P1_flair.nii.gz", blob(3))
    assert run(tmp_path / "siteB", "--target", "t2", "--sources", "flair").error == wanted
    scan.unlink()  # the record tells of nobody who is there
    outcome = run(tmp_path / "siteB", "--target", "t2", "--sources", "t1")
    assert "t2 is made again: source t1 has changed" in outcome.out


# --- one folder, one run


def test_the_folder_is_claimed_before_any_work(script, patient, out):
    """The weights, which don't exist, are not looked at."""
    arguments = [patient, "-l", "none.pth", "-o", out]
    out.write_text("kept")
    error = script(impute_sequences, *arguments).error
    assert error == f"{out} is a file, but must be a folder for the results"
    assert out.read_text() == "kept"
    out.unlink()
    with claimed(out):
        assert f"{out} is in use" in script(impute_sequences, *arguments).error


# --- one bad subject


def test_bad_subjects_end_no_batch(run, tiny_dataset, out, monkeypatch):
    """A folder in an image's place; what a library throws; the others are imputed."""
    for subject in range(4):
        sequence_file(tiny_dataset, subject, "t1ce").unlink()
    (out / "Tiny_00000_t1ce_synth.nii.gz").mkdir(parents=True)
    call = failing(batch.impute_targets, 1, RecursionError("too\ndeep"))
    monkeypatch.setattr(batch, "impute_targets", call)
    outcome = run(tiny_dataset)
    assert outcome.code == 1
    place = out / "Tiny_00000_t1ce_synth.nii.gz"
    assert outcome.err == [
        "2 of 4 subjects failed:",
        f"  Tiny_00000: {place} exists and is not of a synthetic image: choose another folder",
        "  Tiny_00001: subject Tiny_00001: RecursionError: too deep",
    ]
    assert {name[:10] for name in content(out)} == {"Tiny_00002", "Tiny_00003"}
    assert place.is_dir()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_ends_the_batch(run, tiny_dataset, out, monkeypatch, number):
    for subject in range(4):
        sequence_file(tiny_dataset, subject, "t1ce").unlink()
    call = failing(os.fsync, 5, OSError(number, os.strerror(number)))  # of the second subject
    monkeypatch.setattr(os, "fsync", call)
    assert os.strerror(number) in run(tiny_dataset).error
    assert {name[:10] for name in content(out)} == {"Tiny_00000"}


def test_names_that_are_no_text(run, tmp_path, out):
    """Bytes that are no UTF-8, and signs that a terminal would obey."""
    (tmp_path / "set").mkdir()
    for name in (b"a\xff", b"b\x1b[31m\n"):
        place = os.fsencode(tmp_path / "set") + b"/" + name + b"_t1.nii.gz"
        os.rename(save_nifti(tmp_path / "x.nii.gz", blob(0)), place)
    outcome = run(tmp_path / "set", "--target", "t2")
    assert (outcome.code, outcome.err) == (0, [])
    assert "\x1b" not in outcome.out
    assert "b\\x1b[31m : t2 from t1" in outcome.out
    record = json.loads(content(out)["a\udcff_t2_synth.json"])
    assert record["Sources"] == [f"{tmp_path}/set/a\udcff_t1.nii.gz"]
    assert "is done already" in run(tmp_path / "set", "--target", "t2").out


def test_names_that_are_too_long(run, tmp_path, out):
    scans(tmp_path / "set", "a" * 240, "b")
    outcome = run(tmp_path / "set", "--target", "t2")
    assert outcome.code == 1
    assert "OSError: [Errno 36] File name too long" in outcome.err[1]
    assert {name[0] for name in content(out)} == {"b"}


def test_a_pipe_is_not_waited_for(run, tmp_path):
    os.mkfifo(tmp_path / "t1.nii.gz")
    assert (
        f"{tmp_path / 't1.nii.gz'} is a pipe, not a file"
        in run("--t1", tmp_path / "t1.nii.gz").error
    )


@pytest.mark.parametrize(
    ("layout", "image"),
    [
        ("plain", "siteA/p_1_t2_synth.nii.gz"),
        ("names", "siteA/p_1_t2.nii.gz"),
        ("bids", "sub-siteAp1/anat/sub-siteAp1_desc-synth_T2w.nii.gz"),
    ],
)
def test_subjects_of_one_name_in_two_places(tmp_path, layout, image):
    """The folders that tell them apart are no patient of which they would be sessions."""
    naming = known_namings(DataConfig())[0]
    subjects = [
        FoundSubject(f"{site}/p_1", naming, short_name="p_1") for site in ("siteA", "siteB")
    ]
    output = Output(tmp_path / "out", layout)
    wanted = [(subject, {"t2": output.paths(subject, "t2")}) for subject in subjects]
    output.check(wanted)
    first, second = (places["t2"].image.relative_to(output.folder) for _, places in wanted)
    assert first.as_posix() == image
    assert second.as_posix() == image.replace("siteA", "siteB")
