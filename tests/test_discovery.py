"""Whose a scan is: subjects of one name told apart, and what only looks like a scan."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
from conftest import SEQUENCES, sequence_file

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli.data import check_dataset, make_split
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data.discovery import discover
from tsf_seq2seq.data.names import names_of_files, subject_names
from tsf_seq2seq.data.namings import own_namings, recognise
from tsf_seq2seq.data.scan_files import other_format
from tsf_seq2seq.data.subjects import find_files, find_subjects
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.models import build_network

BRATS = DataConfig()
NESTED = 5000  # levels of JSON


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def found_in(*folders: Path, data: DataConfig = BRATS) -> dict[str, set[str]]:
    """Subject → its files, by their last two parts."""
    return {
        subject.name: {"/".join(path.parts[-2:]) for path in subject.files.values()}
        for subject in discover(folders, data)
    }


@pytest.fixture
def run(script, tiny_config, tmp_path):
    """run(arguments…) of tsf-impute with a checkpoint and the folder out."""
    config = load_config(tiny_config)
    save_checkpoint(tmp_path / "tsf.pth", build_network(config), config)
    options = ("-l", tmp_path / "tsf.pth", "-o", tmp_path / "out")
    return lambda *arguments: script(impute_sequences, *arguments, *options)


# --- the same name in several places


def test_two_sites(tmp_path):
    touch(tmp_path, "siteA/p_1/p_1_t1.nii.gz", "siteB/p_1/p_1_t2.nii.gz", "siteB/p_2/p_2_t2.nii.gz")
    apart = {"siteA/p_1": {"p_1/p_1_t1.nii.gz"}, "siteB/p_1": {"p_1/p_1_t2.nii.gz"}}
    alone = {"p_2": {"p_2/p_2_t2.nii.gz"}}
    assert found_in(tmp_path) == apart | alone
    assert found_in(tmp_path / "siteB", tmp_path / "siteA") == apart | alone
    assert found_in(tmp_path / "siteA" / "p_1", tmp_path / "siteB" / "p_1") == apart
    assert found_in(tmp_path / "siteA") == {"p_1": {"p_1/p_1_t1.nii.gz"}}
    assert [subject.short_name for subject in discover([tmp_path], BRATS)] == ["p_2", "p_1", "p_1"]


def test_two_visits_of_one_file_name(tmp_path):
    touch(tmp_path, "baseline/P1_t1.nii.gz", "followup/P1_t2.nii.gz", "P1_flair.nii.gz")
    assert {name: len(files) for name, files in found_in(tmp_path).items()} == {
        "P1": 1,
        "baseline/P1": 1,
        "followup/P1": 1,
    }
    with_folder = touch(tmp_path / "x", "P1_t1.nii.gz", "P1/P1_t2.nii.gz")
    assert set(found_in(with_folder)) == {"P1", "P1/P1"}


def test_as_few_folders_as_tell_apart(tmp_path):
    touch(tmp_path, *(f"study/{ward}/2021/sub-1/anat/sub-1_T1w.nii" for ward in ("a", "b")))
    assert set(found_in(tmp_path)) == {"a/sub-1", "b/sub-1"}
    touch(tmp_path, "study/a/2022/sub-1/anat/sub-1_T1w.nii")
    assert set(found_in(tmp_path)) == {"a/2021/sub-1", "a/2022/sub-1", "b/2021/sub-1"}


def test_names_of_subjects_and_of_their_folders(tmp_path):
    data = DataConfig(sequences={"t1": ("{name}/t1.nii",), "pd": ("{name}/pd.nii",)})
    touch(tmp_path, "a/t1.nii", "a/a/t1.nii", "b/a/t1.nii")
    assert set(found_in(tmp_path, data=data)) == {"a", "a/a", "b/a"}


def test_sessions_and_cases(tmp_path):
    for session in ("ses-1", "ses-2"):
        touch(tmp_path / "sub-1" / session / "anat", f"sub-1_{session}_T1w.nii.gz")
    assert set(found_in(tmp_path)) == {"sub-1_ses-1", "sub-1_ses-2"}
    for folder in ("imagesTr", "imagesTs"):
        touch(tmp_path / "nnunet" / folder, "c_1_0000.nii.gz", "c_1_0001.nii.gz")
    (tmp_path / "nnunet" / "dataset.json").write_text('{"channel_names": {"0": "T1", "1": "T2"}}')
    assert set(found_in(tmp_path / "nnunet")) == {"imagesTr/c_1", "imagesTs/c_1"}


def test_names_that_differ_by_case(tmp_path):
    touch(tmp_path, "P1_t1.nii.gz", "p1_t2.nii.gz")
    assert set(found_in(tmp_path)) == {"P1", "p1"}


def test_patterns_may_join_folders(tmp_path):
    """A folder for each sequence; the same names on two sites."""
    data = DataConfig(sequences={key: (f"{key}/{{name}}.nii.gz",) for key in ("t1", "pd")})
    touch(tmp_path, "a/t1/P1.nii.gz", "a/pd/P1.nii.gz", "b/t1/P1.nii.gz", "b/pd/P2.nii.gz")
    wanted = {"a/P1": {"t1/P1.nii.gz", "pd/P1.nii.gz"}, "b/P1": {"t1/P1.nii.gz"}}
    assert found_in(tmp_path, data=data) == wanted | {"P2": {"pd/P2.nii.gz"}}
    assert found_in(tmp_path / "a" / "t1", tmp_path / "a" / "pd", data=data) == {
        "P1": wanted["a/P1"]
    }
    (naming,) = own_namings(data)
    assert naming.names == {"t1": "t1/{name}.nii.gz", "pd": "pd/{name}.nii.gz"}


def test_own_patterns_beside_known_names(tmp_path):
    """What the model's patterns don't find in a subject's folder, BraTS's names may."""
    data = DataConfig(sequences={"t1": ("{name}/x.nii.gz",), "pd": ("{name}/pd.nii.gz",)})
    touch(tmp_path, "a/P1/pd.nii.gz", "a/P1/P1_t1.nii.gz", "b/P1/P1_t1.nii.gz")
    assert found_in(tmp_path, data=data) == {
        "a/P1": {"P1/pd.nii.gz", "P1/P1_t1.nii.gz"},
        "P1": {"P1/P1_t1.nii.gz"},
    }


def test_visits_deeper_than_others(tmp_path):
    data = DataConfig(sequences={"t1": ("{name}/t1.nii",), "pd": ("{name}/pd.nii",)})
    touch(tmp_path, "a/v1/t1.nii", "b/v1/pd.nii", "b/site/v2/pd.nii", "c/site/v2/t1.nii")
    assert set(found_in(tmp_path, data=data)) == {"a/v1", "b/v1", "b/v2", "c/v2"}


def test_folders_given_twice_nested_or_linked(tmp_path):
    touch(tmp_path, "set/P1/P1_t1.nii.gz", "set/P2/P2_t1.nii.gz", "elsewhere/P3/P3_t2.nii.gz")
    data, one = tmp_path / "set", {"P1": {"P1/P1_t1.nii.gz"}, "P2": {"P2/P2_t1.nii.gz"}}
    (data / "P3").symlink_to(tmp_path / "elsewhere" / "P3")
    (data / "again").symlink_to(data / "P1")
    (data / "loop").symlink_to(data)
    (data / "itself").symlink_to(data / "itself")
    one["P3"] = {"P3/P3_t2.nii.gz"}
    assert found_in(data) == found_in(data, data) == found_in(data / "P1", data) == one
    (tmp_path / "alias").symlink_to(data)
    assert found_in(tmp_path / "alias", data / "P2", data) == one
    assert found_in(data / ".." / "set") == one


def test_a_subject_in_two_forms(tmp_path):
    touch(tmp_path, "P1_t1.nii", "P1_t1.nii.gz", "other/P1_t1.nii")
    first, second = discover([tmp_path], BRATS)
    assert (first.name, first.files["t1"].name, first.doubles) == ("P1", "P1_t1.nii.gz", [])
    assert (second.name, second.files["t1"].name, second.doubles) == ("other/P1", "P1_t1.nii", [])


def test_sites_are_imputed_apart(run, tiny_dataset, tmp_path):
    """Not from one patient's t1 and another's t2."""
    sites = tmp_path / "sites"
    for site, sequence in (("siteA", "t1"), ("siteB", "t2")):
        place = sites / site / "P1" / f"P1_{sequence}.nii.gz"
        place.parent.mkdir(parents=True)
        sequence_file(tiny_dataset, 0, sequence).rename(place)
    outcome = run(sites, "--target", "flair")
    assert outcome.code == 0, outcome.err
    for site, sequence in (("siteA", "t1"), ("siteB", "t2")):
        (record,) = tmp_path.glob(f"out/{site}/*_flair_synth.json")
        assert json.loads(record.read_text())["SourceSequences"] == [sequence]


# --- what is no NIfTI file


def test_no_file_in_a_scans_place(tmp_path):
    os.mkfifo(touch(tmp_path, "P1/P1_t2.nii.gz") / "P1" / "P1_t1.nii.gz")
    (tmp_path / "P2" / "P2_t1.nii.gz").mkdir(parents=True)
    touch(tmp_path, "P2/P2_t1.nii.gz/P2_t1.nii.gz", "P4/P4_t1.nii.gz")
    (tmp_path / "P3").mkdir()
    (tmp_path / "P3" / "P3_t1.nii").symlink_to(tmp_path / "none")
    listening = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tmp_path)  # a socket's path must be short
    listening.bind("P4_t2.nii.gz")
    os.chdir(here)
    (tmp_path / "P4_t2.nii.gz").rename(tmp_path / "P4" / "P4_t2.nii.gz")
    wrong = {subject.name: subject.doubles for subject in discover([tmp_path], BRATS)}
    listening.close()
    assert wrong == {
        "P1": [f"{tmp_path}/P1/P1_t1.nii.gz is a pipe, not a file"],
        "P2": [f"{tmp_path}/P2/P2_t1.nii.gz is a folder, not a file"],
        "P3": [f"{tmp_path}/P3/P3_t1.nii is a link that leads nowhere"],
        "P4": [f"{tmp_path}/P4/P4_t2.nii.gz is a socket, not a file"],
    }
    for name, [defect] in wrong.items():
        with pytest.raises(UserError) as error:
            find_files(tmp_path, name, BRATS.sequences)
        assert str(error.value) == f"subject {name}: {defect}"


def test_a_pipe_given_as_a_scan(run, tmp_path):
    os.mkfifo(tmp_path / "t1.nii.gz")
    assert run("--t1", tmp_path / "t1.nii.gz").error.endswith("t1.nii.gz is a pipe, not a file")


def test_a_pipe_as_sidecar_or_description(tmp_path):
    touch(tmp_path, "P1_t1.nii.gz")
    os.mkfifo(tmp_path / "P1_t1.json")
    (tmp_path / "dataset.json").mkdir()
    assert set(found_in(tmp_path)) == {"P1"}


def test_json_nested_deeply(tmp_path):
    touch(tmp_path, "P1_t1.nii.gz")
    (tmp_path / "P1_t1.json").write_text("[" * NESTED + "]" * NESTED)
    assert set(found_in(tmp_path)) == {"P1"}
    (tmp_path / "dataset.json").write_text('{"channel_names": ' + "[" * NESTED + "]" * NESTED + "}")
    with pytest.raises(UserError, match=r"dataset\.json can't be read: channel_names must name"):
        discover([tmp_path], BRATS)


def test_folders_that_cannot_be_read(tmp_path, monkeypatch, capsys):
    touch(tmp_path, "P1/P1_t1.nii.gz", "P2/P2_t1.nii.gz")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith(refused):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = "P2"
    assert set(found_in(tmp_path)) == {"P1"}
    warning = (
        f"warning: {tmp_path}/P2 can't be read: Permission denied; what it holds is left out\n"
    )
    assert capsys.readouterr().err == warning
    refused = tmp_path.name
    with pytest.raises(UserError, match="can't be read: Permission denied"):
        discover([tmp_path], BRATS)


def test_names_that_no_terminal_shows(run, tiny_dataset):
    """Bytes that are no UTF-8, and what clears a screen."""
    scan = sequence_file(tiny_dataset, 0, "t1").read_bytes()
    for name in (b"P\xff1", b"P\x1b[2J"):
        place = os.fsencode(tiny_dataset) + b"/" + name
        os.mkdir(place)
        with open(place + b"/" + name + b"_t1.nii.gz", "wb") as file:
            file.write(scan[:100])  # damaged: the run goes on
    outcome = run(tiny_dataset, "--target", "t2")
    assert outcome.code == 1
    text = outcome.out + "\n".join(outcome.err)
    assert "2 of 6 subjects failed:" in text
    assert "P\\udcff1: " in text
    assert "P\\x1b[2J: " in text
    assert "\x1b" not in text


def test_a_report_of_such_names(script, tmp_path):
    touch(tmp_path, "data/P1/P1_t1.nii.gz")
    os.mkdir(os.fsencode(tmp_path) + b"/data/P\xff\x1b[2J")
    report = tmp_path / "report.json"
    outcome = script(check_dataset, "-r", tmp_path / "data", "--folders", "-o", report)
    assert "P\\udcff\\x1b[2J: no sequence has a file" in outcome.out
    assert "\x1b" not in outcome.out
    names = [subject["name"] for subject in json.loads(report.read_text())["subjects"]]
    assert names == ["P1", "P\udcff\x1b[2J"]


# --- other formats


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("P1_t1.mgz", "mri_convert {0}/P1_t1.mgz {0}/P1_t1.nii.gz"),
        ("P1_t1.mgh", "mri_convert {0}/P1_t1.mgh {0}/P1_t1.nii.gz"),
        ("a b.hdr", "n.save(n.load(sys.argv[1]), sys.argv[2])' '{0}/a b.hdr' '{0}/a b.nii.gz'"),
        (
            "P1.NRRD",
            "s.WriteImage(s.ReadImage(sys.argv[1]), sys.argv[2])' {0}/P1.NRRD {0}/P1.nii.gz",
        ),
        ("P1.mha", "s.WriteImage(s.ReadImage(sys.argv[1]), sys.argv[2])' {0}/P1.mha {0}/P1.nii.gz"),
        ("1/IM1.dcm", "dcm2niix -z y -o FOLDER {0}/1"),
    ],
)
def test_hint_where_nothing_is_found(tmp_path, file, command):
    touch(tmp_path, "notes.txt", file)
    with pytest.raises(UserError) as error:
        discover([tmp_path], BRATS)
    assert "holds no file of the sequences t1, t1ce, t2, flair under" in str(error.value)
    assert str(error.value).endswith(command.format(tmp_path))


def test_dicom_without_an_ending(tmp_path):
    (tmp_path / "1.2.840.113619").write_bytes(bytes(128) + b"DICM")
    hint = (
        f"{tmp_path}/1.2.840.113619 is DICOM, which this makes NIfTI of: dcm2niix -z y -o FOLDER "
    )
    assert other_format(tmp_path) == hint + str(tmp_path)
    assert other_format(touch(tmp_path / "none", "README")) is None


def test_sequences_in_another_format(tmp_path, capsys, script):
    touch(
        tmp_path, "P1/P1_t1.nii.gz", "P1/P1_t1.mgz", "P1/P1_t2.mgz", "P2/P2_t2.img", "P2/P2_t2.hdr"
    )
    assert found_in(tmp_path) == {"P1": {"P1/P1_t1.nii.gz"}}
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}/P1/P1_t2.mgz is no NIfTI, which this makes of it: mri_convert "
        f"{tmp_path}/P1/P1_t2.mgz {tmp_path}/P1/P1_t2.nii.gz (2 such files are left out)\n"
    )
    (tmp_path / "split.csv").write_text("P1,2\n")
    with pytest.raises(
        UserError, match=r"tried \S+, \S+\); \S+/P1_t2\.mgz is no NIfTI, which this"
    ):
        find_subjects(DataConfig(root=tmp_path), tmp_path / "split.csv")
    outcome = script(check_dataset, "-r", tmp_path, "--folders")
    assert f"P2: {tmp_path}/P2/P2_t2.hdr is no NIfTI, which this" in outcome.out


# --- patterns


@pytest.mark.parametrize(
    "pattern",
    [
        "*" * 25 + "b",
        "*a" * 25 + "b",
        "*?" * 25 + "b",
        "{name}" + "*a" * 25 + "b",
        "*/" * 8 + "*a*b",
    ],
)
def test_patterns_that_took_for_ever(pattern):
    path = "/".join(["a" * 60] * 8) + "/" + "a" * 200
    start = time.process_time()
    assert names_of_files([path, "a" * 200], {"t1": [pattern, f"{{name}}/{pattern}"]}) == []
    data = DataConfig(sequences={"t1": (f"{{name}}/{pattern}",), "t2": (f"{pattern}{{name}}",)})
    assert recognise(Path(f"/{path}.nii"), data) is None
    assert time.process_time() - start < 2


def test_patterns_of_odd_brackets(tmp_path):
    touch(
        tmp_path, "P1/[t1.nii.gz", "P2/t1.nii.gz", "P3/]t1.nii.gz", "P4/^t1.nii.gz", "P5_t1.nii.gz"
    )
    for pattern, names in (
        ("{name}/[t1.nii.gz", ["P1"]),
        ("{name}/[z-a]t1.nii.gz", []),
        ("{name}/[]]t1.nii.gz", ["P3"]),
        ("{name}/[^x]t1.nii.gz", ["P4"]),
        ("{name}[!x]t1.nii.gz", ["P5"]),
    ):
        assert subject_names(tmp_path, {"t1": [pattern]}) == names
        data = DataConfig(sequences={"t1": (pattern,), "pd": ("{name}/pd.nii.gz",)})
        found = [s.name for s in discover([tmp_path], data) if s.naming.title.startswith("the")]
        assert found == names


def test_patterns_as_they_may_be_written(tmp_path):
    """Two {name}, ./ before it, and wildcards in the ending's place."""
    touch(tmp_path, "P1/a_P1_b_P1.nii.gz", "P1/pd.nii.gz")
    sequences = {"x": ("./{name}/a_{name}_b_{name}.nii.gz",), "pd": ("{name}//pd.*",)}
    assert found_in(tmp_path, data=DataConfig(sequences=sequences)) == {
        "P1": {"P1/a_P1_b_P1.nii.gz", "P1/pd.nii.gz"}
    }


# --- arguments


def test_sources_are_trimmed(run, tiny_dataset, tmp_path):
    folder = tiny_dataset / "Tiny_00000"
    assert run(folder, "--target", "flair", "--sources", " t1, t2 ").code == 0
    record = json.loads((tmp_path / "out" / "Tiny_00000_flair_synth.json").read_text())
    assert record["SourceSequences"] == ["t1", "t2"]
    for sources in ("", " ", "t1,,t2", "t1,"):
        error = run(folder, "--target", "flair", f"--sources={sources}").error
        assert error == f"--sources '{sources}' names an empty sequence: list them as in t1,t2"


# --- data sets by split


def test_a_number_goes_on_in_another_subject(tmp_path):
    patterns = {"t1": ["{name}*t1.nii.gz"], "t2": ["*{name}_t2.nii.gz"]}
    touch(tmp_path, "P10_t1.nii.gz", "P10_t2.nii.gz", "21_t2.nii.gz")
    assert find_files(tmp_path, "P1", patterns) == {}
    assert find_files(tmp_path, "1", patterns) == {}
    assert find_files(tmp_path, "P10", patterns) == {
        0: tmp_path / "P10_t1.nii.gz",
        1: tmp_path / "P10_t2.nii.gz",
    }
    touch(tmp_path, "P1_x_t1.nii.gz")
    assert find_files(tmp_path, "P1", patterns) == {0: tmp_path / "P1_x_t1.nii.gz"}


def test_a_file_of_two_subjects(tmp_path):
    touch(tmp_path, "PA_t1.nii.gz", "PAB_t1.nii.gz", "PA_t2.nii.gz")
    (tmp_path / "PA_t1.nii.gz").unlink()
    (tmp_path / "split.csv").write_text("PA,2\nPAB,2\n")
    data = DataConfig(root=tmp_path, sequences={"t1": ("{name}*t1.nii.gz",), "t2": ("x.nii.gz",)})
    with pytest.raises(UserError) as error:
        find_subjects(data, tmp_path / "split.csv")
    assert str(error.value) == (
        f"subjects PA and PAB have the same file {tmp_path}/PAB_t1.nii.gz: the patterns of "
        "data.sequences must find the files of one subject alone"
    )


def test_a_file_of_two_sequences(tmp_path):
    touch(tmp_path, "P1/P1_t1ce.nii.gz")
    patterns = {"t1": ["{name}/*t1*.nii.gz"], "t1ce": ["{name}/*t1ce.nii.gz"]}
    with pytest.raises(
        UserError, match=r"subject P1: t1 and t1ce have the same file \S+_t1ce\.nii"
    ):
        find_files(tmp_path, "P1", patterns)


def test_names_that_a_split_cannot_hold(tmp_path, script):
    for name in (b"P\xff", b"P\n1", b" P1"):
        root = os.fsencode(tmp_path) + b"/data"
        os.makedirs(root + b"/" + name)
        for sequence in SEQUENCES[:2]:
            place = root + b"/" + name + b"/" + name + b"_" + sequence.encode() + b".nii.gz"
            open(place, "w").close()
        error = script(make_split, "-r", tmp_path / "data", "--shares", "1", "0", "0").error
        assert f"{tmp_path}/data holds a subject called '" in error
        os.rename(root, root + b"_" + str(hash(name)).encode())
    assert not list(tmp_path.rglob("*.csv"))
