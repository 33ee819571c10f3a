"""The wheel: it names what it needs, holds what it reads, and works away from the checkout."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from conftest import REPOSITORY, sequence_file

from tsf_seq2seq import __version__
from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.config import load_config
from tsf_seq2seq.models import build_network

PACKAGE = REPOSITORY / "src" / "tsf_seq2seq"
INDIRECT = {"torch.utils.tensorboard": "tensorboard"}  # module → what it needs beside its own


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Standard output of a command that ends well."""
    process = subprocess.run(
        list(map(str, command)), cwd=cwd, env=os.environ | environment, capture_output=True,
        text=True, check=False
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that neither the checkout's build folders matter nor new ones come."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY / "src", folder / "src", ignore=ignored)
    options = ("-q", "--no-deps", "--no-build-isolation", "-w", "dist")
    run(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=folder)
    (path,) = (folder / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def imported_modules() -> set[str]:
    """Full names of all modules that the package's files import, at any place in them."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                assert node.level == 0, f"{path} imports relatively"
                names.add(node.module)
    return names


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_metadata_names_every_package_that_is_imported(metadata):
    distributions = importlib.metadata.packages_distributions()
    modules = imported_modules()
    packages = {name.partition(".")[0] for name in modules}
    needed = {
        normalised(distributions[package][0])
        for package in packages - set(sys.stdlib_module_names) - {"tsf_seq2seq"}
    }
    assert {"torch", "numpy", "pyyaml", "onnxscript"} <= needed  # the walk found some
    needed |= {package for module, package in INDIRECT.items() if module in modules}
    requirements = metadata.get_all("Requires-Dist")
    named = {normalised(re.match(r"[\w.-]+", text)[0]) for text in requirements}
    assert needed - named == set()
    extras = {normalised(re.match(r"[\w.-]+", text)[0]) for text in requirements if "extra" in text}
    of_extras = {"onnx-ir", "onnxscript", "onnxruntime", "monai"}
    assert needed & extras == of_extras  # all else always comes


def test_metadata(metadata):
    assert metadata["Name"] == "tsf-seq2seq"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert sorted(metadata.get_all("Provides-Extra")) == ["dev", "onnx", "segmentation"]


def test_content(wheel):
    """Every file of the package, its templates and scripts' entry included, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entries,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "tsf-impute = tsf_seq2seq.cli:tsf_impute" in archive.read(entries).decode()
    files = {
        str(path.relative_to(PACKAGE.parent))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "tsf_seq2seq/report/templates/page.html" in files
    assert {name for name in names if ".dist-info/" not in name} == files


@pytest.mark.slow
def test_it_works_away_from_the_checkout(wheel, tmp_path, tiny_config, tiny_dataset):
    """Unpacked into an empty folder, with the dependencies of this environment."""
    config = load_config(tiny_config)
    save_checkpoint(tmp_path / "model.pth", build_network(config), config)
    site = tmp_path / "site"
    install = ("-q", "--no-deps", "--no-index", "--target", site)
    run(sys.executable, "-m", "pip", "install", *install, wheel, cwd=tmp_path)
    path = {"PYTHONPATH": str(site)}
    code = "import tsf_seq2seq; print(tsf_seq2seq.__file__, tsf_seq2seq.impute.__module__)"
    found = run(sys.executable, "-c", code, cwd=tmp_path, **path).split()
    assert found == [str(site / "tsf_seq2seq" / "__init__.py"), "tsf_seq2seq.imputation.subject"]
    command = site / "bin" / "tsf-impute"
    assert "usage: tsf-impute" in run(command, "--help", cwd=tmp_path, **path)

    t2, flair = (sequence_file(tiny_dataset, 3, sequence) for sequence in ("t2", "flair"))
    task = ("--t2", t2, "--flair", flair, "--target", "t1ce")
    run(command, "-l", "model.pth", *task, "-o", "out", cwd=tmp_path, **path)
    assert len(list((tmp_path / "out").glob("*_t1ce_synth.nii.gz"))) == 1
