"""What the README says to type, works: its commands in their order, on the tiny data set."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPOSITORY, TINY_YAML

from tsf_seq2seq.checkpoint import save_checkpoint
from tsf_seq2seq.cli.train import new_network
from tsf_seq2seq.config import load_config

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?<=python )src/\S+\.py[^\n`]*", README)


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
    assert library - shown - {"__init__.py"} == {"common.py", "train.py", "evaluate.py"}  # cli/


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
    for stage in (1, 2):
        values = yaml.safe_load(
            TINY_YAML.format(root="data/brats", output=f"ckpt/seq2seq/brats/2d/stage{stage}")
        )
        if stage == 1:
            del values["fusion"]
        name = ("seq2seq_brats_2d", "tsf_seq2seq_brats_2d")[stage - 1]
        (place / "config" / f"{name}.yaml").write_text(yaml.safe_dump(values))
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


def test_python_example(tmp_path: Path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code
    config = load_config(REPOSITORY / "config" / "demo" / "tsf_seq2seq.yaml")
    save_checkpoint(tmp_path / "runs/demo/tsf_seq2seq/best.pth", new_network(config), config)
    monkeypatch.chdir(tmp_path)
    names: dict[str, torch.Tensor] = {}
    exec(code[1], names)
    assert names["t1ce"].shape == (1, 3, 96, 96)
    assert names["weights"].sum().item() == pytest.approx(1)
    assert names["weights"][1] == 0
    assert names["tsem"].shape == (1, 96, 96)
