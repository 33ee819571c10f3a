"""What README and docs say to type, works: their commands in order, on tiny data sets."""

import dataclasses
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, TINY_SEQ2SEQ, TINY_SHAPE, TINY_TSF, blob, save_nifti, tiny_yaml

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli import impute_sequences
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data.nifti import read_volume
from tsf_seq2seq.imputation import Imputation
from tsf_seq2seq.models import build_network

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
OWN_SEQUENCES = (REPOSITORY / "docs" / "own_sequences.md").read_text(encoding="utf-8")
OWN_CONFIG = REPOSITORY / "config" / "own_sequences.yaml"
OWN_STAGE_2 = REPOSITORY / "config" / "own_sequences_tsf.yaml"


def commands_of(page: str) -> list[str]:
    return re.findall(r"(?<=python )src/\S+\.py[^\n`]*", page)


COMMANDS = commands_of(README)
IMPUTE = re.findall(r"(?<=^    )tsf-impute [^\n`]*", README, re.MULTILINE)
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_names_every_script():
    scripts = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "src").rglob("*.py")}
    scripts = {path for path in scripts if path.parts[1] != "tsf_seq2seq"}
    named = {path for path in scripts if path.name in README}
    assert named == scripts


def test_file_tree_is_true():
    tree = README.split("## File tree")[1].split("A training crop's way")[0]
    names = re.findall(r"[\w*]+\.py", tree)
    for name in names:
        assert list((REPOSITORY / "src").rglob(name)), name
    library = {path.name for path in (REPOSITORY / "src" / "tsf_seq2seq").rglob("*.py")}
    shown = {
        file for name in names for file in library if re.fullmatch(name.replace("*", r"\w*"), file)
    }
    assert library - shown == {"__init__.py"}


def test_pictures_exist():
    for path in re.findall(r"!\[[^]]*\]\((asset/[^)]+)\)", README):
        assert (REPOSITORY / path).stat().st_size < 1_000_000


@pytest.fixture
def workplace(tmp_path: Path, tiny_dataset: Path, monkeypatch) -> Path:
    """A folder where the README's paths lead to the tiny data set and a tiny network."""
    place = tmp_path / "clone"
    (place / "data").mkdir(parents=True)
    (place / "config").mkdir()
    tiny_dataset.rename(place / "data" / "brats")
    for stage, network, name in (
        (1, TINY_SEQ2SEQ, "seq2seq_brats_2d"),
        (2, TINY_TSF, "tsf_seq2seq_brats_2d"),
    ):
        settings = tiny_yaml(network, "data/brats", f"ckpt/seq2seq/brats/2d/stage{stage}")
        (place / "config" / f"{name}.yaml").write_text(settings)
    monkeypatch.chdir(place)
    return place


def run(command: str, monkeypatch) -> int:
    """Exit code of a README command, on the CPU."""
    arguments = shlex.split(command.replace("cuda:0", "cpu"))
    monkeypatch.setattr("sys.argv", arguments)
    try:
        runpy.run_path(str(REPOSITORY / arguments[0]), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_commands(workplace: Path, monkeypatch):
    published = [command for command in COMMANDS if "ckpt_best.pth" in command]
    assert len(published) == 1  # the authors' pair: test_evaluation runs its like
    splits = workplace / "data" / "brats"
    complete = {path.name: path.read_text() for path in splits.glob("*.csv")}
    for command in COMMANDS:
        if command in published:
            continue
        assert run(command, monkeypatch) == 0, command
        if "make_split" in command:
            # four subjects are too few for the split's random masks to suit every command
            for name, text in complete.items():
                assert (splits / name).read_text() != text
                (splits / name).write_text(text)
    assert (workplace / "runs" / "table1" / "table.md").exists()
    assert list((workplace / "runs" / "evaluation" / "predict").glob("*.nii.gz"))
    names = run_example("import onnxruntime")
    assert names["t1ce"].shape == (1, 3, 192, 192)


def run_example(part: str) -> dict[str, Any]:
    """The variables that the README's Python example with `part` leaves."""
    (code,) = (code for code in EXAMPLES if part in code)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_own_sequences(tmp_path: Path, monkeypatch):
    """The page's commands, on its file names and settings with the tiny network."""
    place = tmp_path / "clone"
    for number, name in enumerate(("ms01_visit1", "ms01_visit2", "ms02_visit1", "ms03_visit1")):
        for index, sequence in enumerate(("t1", "t2", "flair", "pd")):
            path = place / "data" / "ms" / name / f"{name}_{sequence}.nii.gz"
            save_nifti(path, blob(10 * number + index), np.diag([-1.0, -1.0, 3.0, 1.0]))
    values, stage_2 = (yaml.safe_load(path.read_text()) for path in (OWN_CONFIG, OWN_STAGE_2))
    values |= yaml.safe_load(TINY_SEQ2SEQ) | {"perceptual": {"backbone": "none"}}
    values["train"] |= {"steps": 4, "schedule_epochs": 4, "validation_steps": 2, "log_steps": 1}
    values["data"]["workers"] = 0
    (place / "config").mkdir()
    for path, content in ((OWN_CONFIG, values), (OWN_STAGE_2, stage_2 | yaml.safe_load(TINY_TSF))):
        (place / "config" / path.name).write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.chdir(place)
    for command in commands_of(OWN_SEQUENCES):
        if "make_phantom_dataset" in command:
            continue  # test_phantom runs its like
        assert run(command, monkeypatch) == 0, command
    parts = [(place / "data" / "ms" / f"{p}.csv").read_text() for p in ("train", "valid", "test")]
    assert sum("ms01" in part for part in parts) == 1
    for picture in ("evaluation/examples", "fusion_weights/fusion_weights", "tsem/tsem"):
        assert (place / "runs" / "ms" / f"{picture}.png").exists()
    table = (place / "runs" / "ms" / "all_tasks" / "table.md").read_text()
    assert len(set(re.findall(r"^\| [\w+]+ +\| \w+ +\| tsf ", table, re.MULTILINE))) == 28
    (prediction, *_) = (place / "runs" / "ms" / "evaluation" / "predict").glob("*.nii.gz")
    assert nib.load(prediction).header.get_zooms() == (1, 1, 3)
    assert nib.load(prediction).shape == TINY_SHAPE


def test_the_page_shows_the_yaml():
    shown = re.search(r"```yaml\n(.*?)```", OWN_SEQUENCES, re.DOTALL)
    assert shown
    data, whole = (yaml.safe_load(text)["data"] for text in (shown[1], OWN_CONFIG.read_text()))
    assert data == {key: whole[key] for key in data}
    assert list(data["sequences"]) == list(whole["sequences"])
    assert set(whole) == {field.name for field in dataclasses.fields(DataConfig)}


def test_links_lead_somewhere():
    pages = {
        REPOSITORY / "README.md": README,
        REPOSITORY / "docs" / "own_sequences.md": OWN_SEQUENCES,
    }
    for page, text in pages.items():
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (page.parent / link).exists(), link


@pytest.fixture
def scans(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a checkpoint and unpaired scans where the README's paths lead."""
    config = load_config(REPOSITORY / "config" / "demo" / "tsf_seq2seq.yaml")
    for path in ("runs/demo/tsf_seq2seq", "ckpt/seq2seq/brats/2d/stage2"):
        save_checkpoint(tmp_path / path / "best.pth", build_network(config), config)
    for seed, name in enumerate(("t1", "flair", "t2")):
        save_nifti(tmp_path / "scans" / f"{name}.nii.gz", blob(seed))
        for patient in ("patient1", "patient2"):
            save_nifti(tmp_path / "data/new" / patient / f"{patient}_{name}.nii.gz", blob(seed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_impute_commands(scans: Path, script):
    assert len(IMPUTE) >= 3
    for command in IMPUTE:
        outcome = script(impute_sequences, *shlex.split(command.replace("cuda:0", "cpu"))[1:])
        assert outcome.code == 0, (command, outcome.err)
    made = {str(path.relative_to("runs")) for path in Path("runs").rglob("*_synth.nii.gz")}
    assert made == {
        *(f"imputed/patient{i}_t1ce_synth.nii.gz" for i in (1, 2)),
        "t1ce/patient1_t1ce_synth.nii.gz",
        *(f"scan/t1_{target}_synth.nii.gz" for target in ("t1ce", "t2")),
    }


def test_impute_example(scans: Path):
    found: Imputation = run_example("impute")["t1ce"]
    assert found.fusion_weights is not None
    assert sum(found.fusion_weights.values()) == pytest.approx(1)
    voxels, _ = read_volume(Path("t1ce.nii.gz"))
    assert voxels.shape == blob(0).shape
    assert voxels.max() > 0


def test_python_example(scans: Path):
    names = run_example("load_model")
    assert names["t1ce"].shape == (1, 3, 96, 96)
    assert names["weights"].sum().item() == pytest.approx(1)
    assert names["weights"][1] == 0
    assert names["tsem"].shape == (1, 96, 96)
