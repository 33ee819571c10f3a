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
from conftest import (
    REPOSITORY,
    SEQUENCES,
    TINY_PYRAMID,
    TINY_SEQ2SEQ,
    TINY_SHAPE,
    TINY_TSF,
    TINY_UNET,
    blob,
    save_nifti,
    tiny_yaml,
)

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.cli.impute import impute_sequences
from tsf_seq2seq.config import DataConfig, load_config
from tsf_seq2seq.data.nifti import read_volume
from tsf_seq2seq.imputation import Imputation
from tsf_seq2seq.models import build_network
from tsf_seq2seq.phantom import subject as phantom_module
from tsf_seq2seq.phantom.subject import PhantomSubject

LIBRARY = REPOSITORY / "src" / "tsf_seq2seq"
WITH_STEPS = "train_error_map.py", "downstream.py"  # scripts whose steps no YAML says
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
# In the order in which their commands can be run: a chapter's need what earlier pages' leave.
CHAPTERS = {
    name: (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        "data",
        "evaluate",
        "networks",
        "network",
        "table1",
        "impute",
        "adapt",
        "explanations",
        "trust",
        "safety",
        "report",
        "export",
        "speed",
        "several_gpus",
        "file_tree",
        "own_sequences",
    )
}
PAGES = [README, *CHAPTERS.values()]
OWN_SEQUENCES = CHAPTERS["own_sequences"]
OWN_CONFIG = REPOSITORY / "config" / "own_sequences.yaml"
SCRIPT = r"src/\S+\.py[^\n`]*"


def found_in(pages: list[str], pattern: str) -> list[str]:
    """What matches, once each, in order of first appearance."""
    return list(dict.fromkeys(m for page in pages for m in re.findall(pattern, page, re.MULTILINE)))


SHARED = [page for page in PAGES if page is not OWN_SEQUENCES]  # on BraTS
COMMANDS = found_in(SHARED, rf"(?<=python ){SCRIPT}")
TORCHRUN = found_in(SHARED, rf"(?<=^    )torchrun [^\n]*? ({SCRIPT})")
IMPUTE = found_in(SHARED, r"(?<=^    )tsf-impute [^\n`]*")
EXAMPLES = re.findall(r"```python\n(.*?)```", "\n".join(PAGES), re.DOTALL)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 230


def test_every_chapter_is_read_here_and_linked():
    assert {path.stem for path in (REPOSITORY / "docs").iterdir()} == set(CHAPTERS)
    for name in CHAPTERS:
        assert f"docs/{name}.md" in README, name


def test_every_script_is_named():
    scripts = {path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("src/**/*.py")}
    scripts = {path for path in scripts if not path.startswith("src/tsf_seq2seq/")}
    assert scripts == {path for path in scripts if any(path in page for page in PAGES)}


def test_no_text_stands_twice():
    paragraphs = [text for page in PAGES for text in re.split(r"\n\s*\n", page) if len(text) > 100]
    twice = {text for text in paragraphs if paragraphs.count(text) > 1}
    assert not twice


def test_what_pages_name_exists():
    files = found_in(PAGES, r"(?<![\w/.])(?:asset|benchmarks|config|docs|src|tests)/[\w./-]*\w")
    assert len(files) > 40
    for path in files:
        assert (REPOSITORY / path).exists(), path
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = found_in(PAGES, r"(?:^    |`)make ([a-z0-9-]+)")
    assert {"demo", "test", "bench", "weights", "viewer", "few-scans"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_and_pictures_lead_somewhere():
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), (page, link)
            assert (page.parent / link).stat().st_size < 1_000_000


def test_file_tree_is_true():
    """Every module of the library, once, in its folder, and no other."""
    (tree,) = re.findall(r"```\n(.*?)```", CHAPTERS["file_tree"], re.DOTALL)
    folder, shown = "", []
    for indent, name in re.findall(r"^( *)([\w/.]+) +\S", tree, re.MULTILINE):
        if name.endswith("/"):
            folder = name
        else:
            shown.append((folder if indent else "") + name)
    library = [path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py")]
    assert sorted(shown) == sorted(path for path in library if not path.endswith("__init__.py"))


def test_the_rooms_exist():
    rooms = CHAPTERS["file_tree"].split("## The rooms")[1]
    names = re.findall(r"`([\w/]+\.py)`", rooms)
    assert len(names) > 15
    for name in names:
        assert (LIBRARY / name).is_file(), name


@pytest.fixture
def workplace(tmp_path: Path, tiny_dataset: Path, monkeypatch) -> Path:
    """A folder where the pages' paths lead to the tiny data set and tiny networks."""
    place = tmp_path / "clone"
    (place / "data").mkdir(parents=True)
    (place / "config").mkdir()
    tiny_dataset.rename(place / "data" / "brats")
    for name, network in (
        ("seq2seq", TINY_SEQ2SEQ),
        ("tsf_seq2seq", TINY_TSF),
        ("tsf_pyramid", TINY_PYRAMID),
        ("unet", TINY_UNET),
    ):
        path = Path("config", f"{name}_brats_2d.yaml")
        output = load_config(REPOSITORY / path).train.output
        (place / path).write_text(tiny_yaml(network, "data/brats", output))
    for number, name in enumerate(("patient7", "patient8")):
        for index, sequence in enumerate(SEQUENCES):
            path = place / "data" / "scanner" / name / f"{name}_{sequence}.nii.gz"
            save_nifti(path, blob(10 * number + index))
    lesion = np.zeros(TINY_SHAPE, np.int16)
    lesion[8:14, 8:14, 4:8] = 1
    for folder in (place / "data" / "brats").glob("Tiny_*"):
        save_nifti(folder / f"{folder.name}_seg.nii.gz", lesion)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def tiny_phantoms(monkeypatch) -> None:
    """Subjects of a few voxels, made in no time."""

    def simulate(seed, index, spacing, sequences, *scanners):
        image = blob(index).astype(np.int16)
        volumes = dict.fromkeys(sequences, image)
        return PhantomSubject(volumes, volumes, image, np.diag([-1.0, -1.0, 1.0, 1.0]))

    monkeypatch.setattr(phantom_module, "simulate_subject", simulate)


def run(command: str, monkeypatch) -> int:
    """Exit code of a script's command, on the CPU."""
    arguments = shlex.split(re.sub(r"-d cuda\S*", "-d cpu", command))
    if Path(arguments[0]).name in WITH_STEPS:
        arguments += ["--steps", "2"]
    monkeypatch.setattr("sys.argv", arguments)
    try:
        runpy.run_path(str(REPOSITORY / arguments[0]), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_commands(workplace: Path, tiny_phantoms, monkeypatch):
    """README's, then those of the chapters; torchrun's as the one process of a run."""
    published = [command for command in COMMANDS if "ckpt_best.pth" in command]
    assert len(published) == 1  # the authors' pair: test_evaluation runs its like
    assert len(TORCHRUN) == 2
    splits = workplace / "data" / "brats"
    complete = {path.name: path.read_text() for path in splits.glob("*.csv")}
    # Data and training first: README shows results before the way to them.
    first = [command for command in COMMANDS if command.startswith(("src/data/", "src/train/"))]
    for command in dict.fromkeys([*first, *COMMANDS, *TORCHRUN]):
        if command in published:
            continue
        assert run(command, monkeypatch) == 0, command
        if "make_split" in command and "data/brats" in command:
            # four subjects are too few for the split's random masks to suit every command
            for name, text in complete.items():
                assert (splits / name).read_text() != text
                (splits / name).write_text(text)
    of_sites = {path.stem: path.read_text() for path in (workplace / "data/sites").glob("*.csv")}
    assert [of_sites["test"].count(f",Site{site}\n") for site in (1, 2, 3, 4)] == [0, 0, 0, 6]
    assert [of_sites[part].count("\nSite") for part in ("train", "valid")] == [15, 3]
    runs = workplace / "runs"
    for folder, methods in {
        "table1": ["seq2seq_average", "tsf_without_attention", "tsf"],
        "comparison": ["tsf", "unet", "seq2seq_average", "tsf_without_attention"],
    }.items():
        table = (runs / folder / "table.md").read_text()
        assert all(re.search(rf"\| {method} +\|", table) for method in methods), table
    assert list((runs / "evaluation" / "predict").glob("*.nii.gz"))
    names = run_example("import onnxruntime")
    assert names["t1ce"].shape == (1, 3, 192, 192)


def run_example(part: str) -> dict[str, Any]:
    """The variables that the pages' Python example with `part` leaves."""
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
    (place / "config").mkdir()
    for path, network in (
        (OWN_CONFIG, TINY_SEQ2SEQ),
        (OWN_CONFIG.with_name("own_sequences_tsf.yaml"), TINY_TSF),
    ):
        values = yaml.safe_load(path.read_text())
        values["network"] = yaml.safe_load(network)["network"]
        if "base" not in values:
            values["perceptual"] = {"backbone": "none"}
            values["train"] |= {"steps": 4, "schedule_epochs": 4, "validation_steps": 2}
            values["data"]["workers"] = 0
        (place / "config" / path.name).write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.chdir(place)
    for command in found_in([OWN_SEQUENCES], rf"(?<=python ){SCRIPT}"):
        if "make_phantom_dataset" in command:
            continue  # test_phantom runs its like
        assert run(command, monkeypatch) == 0, command
    parts = [(place / "data" / "ms" / f"{p}.csv").read_text() for p in ("train", "valid", "test")]
    assert sum("ms01" in part for part in parts) == 1
    for picture in ("evaluation/examples", "fusion_weights/fusion_weights", "tsem/tsem"):
        assert (place / "runs" / "ms" / f"{picture}.png").exists()
    table = (place / "runs" / "ms" / "all_tasks" / "table.md").read_text()
    by_task = table.split("## By task")[1].split("\n## ")[0]
    assert len(set(re.findall(r"^\| [\w+]+ +\| \w+ +\| tsf ", by_task, re.MULTILINE))) == 28
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


@pytest.fixture
def scans(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a checkpoint and unpaired scans where the pages' paths lead."""
    config = load_config(REPOSITORY / "config" / "demo" / "tsf_seq2seq.yaml")
    for folder in ("runs/demo/tsf_seq2seq", "ckpt/seq2seq/brats/2d/stage2"):
        save_checkpoint(tmp_path / folder / "best.pth", build_network(config), config)
    for seed, name in enumerate(("t1", "flair", "t2")):
        save_nifti(tmp_path / "scans" / f"{name}.nii.gz", blob(seed))
        for patient in ("patient1", "patient2"):
            save_nifti(tmp_path / "data/new" / patient / f"{patient}_{name}.nii.gz", blob(seed))
    for seed, name in enumerate(SEQUENCES):
        save_nifti(tmp_path / "data/scanner/patient7" / f"patient7_{name}.nii.gz", blob(seed))
    (tmp_path / "config").symlink_to(REPOSITORY / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_impute_commands(scans: Path, script):
    assert len(IMPUTE) >= 3
    for command in IMPUTE:
        outcome = script(impute_sequences, *shlex.split(command.replace("cuda:0", "cpu"))[1:])
        assert outcome.code == 0, (command, outcome.err)
    made = {str(path.relative_to("runs")) for path in Path("runs").rglob("*_synth.nii.gz")}
    assert made == {
        *(
            f"{run}/patient{i}_t1ce_synth.nii.gz"
            for run in ("imputed", "like_patient7")
            for i in (1, 2)
        ),
        "t1ce/patient1_t1ce_synth.nii.gz",
        *(f"scan/t1_{target}_synth.nii.gz" for target in ("t1ce", "t2")),
    }


def test_impute_example(scans: Path):
    found: Imputation = run_example("import impute")["t1ce"]
    assert found.fusion_weights is not None
    assert sum(found.fusion_weights.values()) == pytest.approx(1)
    voxels, _ = read_volume(Path("t1ce.nii.gz"))
    assert voxels.shape == blob(0).shape
    assert voxels.max() > 0


def test_networks_example(scans: Path):
    names = run_example("load_model")
    assert (names["background"] == -1).all()
    assert names["background"].shape == names["t1ce"].shape == (1, 3, 96, 96)
    assert names["weights"].sum().item() == pytest.approx(1)
    assert names["weights"][1] == 0
    assert names["tsem"].shape == (1, 96, 96)
