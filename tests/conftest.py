"""Reference arrays, small networks and small data sets that several tests share."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint
from tsf_seq2seq.checkpoints.published import load_published
from tsf_seq2seq.config import load_config
from tsf_seq2seq.data.loading import Subject, Volumes
from tsf_seq2seq.data.nifti import Geometry
from tsf_seq2seq.data.slices import Window
from tsf_seq2seq.data.statistics import TrainingStatistics
from tsf_seq2seq.errors import run_script
from tsf_seq2seq.models import TSFSeq2Seq, build_network
from tsf_seq2seq.synthesis.adaptation import Adaptation
from tsf_seq2seq.synthesis.windows import SubjectWindow

# Property-based tests: the same few cases every time; `make fuzz` looks at many others.
UNHURRIED = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("test", max_examples=30, derandomize=True, **UNHURRIED)
settings.register_profile("fuzz", max_examples=300, print_blob=False, **UNHURRIED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))
REFERENCE = Path(__file__).parent / "reference"
REPOSITORY = Path(__file__).parent.parent
SEQUENCES = ("t1", "t1ce", "t2", "flair")
LPS_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
TINY_SHAPE = (24, 20, 12)  # voxels x, y, z
TINY_SEQ2SEQ = """
network:
  name: seq2seq
  sequence_code: 8
  kernels: 2
  encoder_channels: [4, 16]
  encoder_kernels: [3, 3]
  encoder_strides: [1, 2]
  encoder_residual_blocks: 1
  lstm_channels: 16
  lstm_layers: 1
  decoder_channels: [4, 3]
  decoder_kernels: [3, 3]
  decoder_residual_blocks: 1
"""
TINY_TSF = (
    TINY_SEQ2SEQ.replace("name: seq2seq", "name: tsf_seq2seq")
    + """\
  attention_channels: [16]
  attention_kernels: [3]
  attention_mixed: 2
"""
)
TINY_UNET = """
network:
  name: unet
  channels: [4, 8]
  residual_blocks: 1
"""
TINY_PYRAMID = """
network:
  name: tsf_pyramid
  channels: [4, 8]
  residual_blocks: 1
"""
TINY_RUN = """
data:
  root: {root}
  train: {root}/train.csv
  valid: {root}/valid.csv
  test: {root}/test.csv
  slices: 12
  crop: [16, 16]
  validation_stacks: 4
  workers: 0
perceptual:
  backbone: none
train:
  output: {output}
  steps: 6
  lr: 1e-3
  schedule_epochs: 10
  crops_per_visit: 2
  log_steps: 1
  image_steps: 1000
  validation_steps: 3
  checkpoint_steps: 2
"""


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """A test's random weights are the same ones whenever it runs, alone or after others."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Two, or as many as OMP_NUM_THREADS says: more than there are cores slow each other down."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session")
def expected() -> dict[str, np.ndarray]:
    """Arrays that the authors' implementation gave for the small random model."""
    return dict(np.load(REFERENCE / "model" / "expected.npz"))


@pytest.fixture
def reference_model() -> TSFSeq2Seq:
    """The small random model, from its published-style YAML and state dicts."""
    folder = REFERENCE / "model"
    model = load_published(folder / "config.yaml", folder / "seq2seq.pth", folder / "tsf.pth")
    assert isinstance(model, TSFSeq2Seq)
    return model


def blob(seed: int, shape: tuple[int, int, int] = TINY_SHAPE) -> np.ndarray:
    """An int16 volume (x, y, z): a bright noisy ellipsoid on background 0."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = np.sqrt(sum((axis - rng.uniform(-0.2, 0.2)) ** 2 for axis in axes))
    inside = np.clip(1.1 - radius, 0, None) * rng.uniform(500, 1500)
    return (inside * rng.uniform(0.8, 1.2, shape)).astype(np.int16)


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = LPS_AFFINE) -> Path:
    """Write voxels (x, y, z) as NIfTI; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def sequence_file(root: Path, subject: int, sequence: str) -> Path:
    """File of the tiny data set's subject 0 to 3."""
    name = f"Tiny_0000{subject}"
    return root / name / f"{name}_{sequence}.nii.gz"


def made_window(images: np.ndarray, name: str = "made", height: int = 3) -> SubjectWindow:
    """A window of images (S, Z, Y, X) in [-1, 1] that fills its subject's grid."""
    subject = Subject(name, tuple(range(len(images))), {})
    box = Window(*(slice(0, size) for size in images.shape[1:]))
    geometry = Geometry(images.shape[:0:-1], LPS_AFFINE)
    return SubjectWindow(Volumes(subject, images, box, geometry, np.ones(len(images))), height)


@pytest.fixture
def tiny_dataset(tmp_path: Path) -> Path:
    """Four subjects in BraTS 2021 layout: 0 and 1 to train on, 2 to validate, 3 to test on."""
    root = tmp_path / "tiny"
    for subject in range(4):
        for index, sequence in enumerate(SEQUENCES):
            save_nifti(sequence_file(root, subject, sequence), blob(10 * subject + index))
    (root / "train.csv").write_text("Tiny_00000,15\nTiny_00001,15\n")
    (root / "valid.csv").write_text("Tiny_00002,11\n")
    (root / "test.csv").write_text("name,mask\nTiny_00003,10\n")
    return root


@pytest.fixture
def two_sites(tiny_dataset: Path) -> Path:
    """The same with sites to test on: subjects 0, 1 and 2 of site a, 3 to 6 of b; 6 lacks t1ce."""
    for subject in (4, 5, 6):
        for index, sequence in enumerate(SEQUENCES):
            if (subject, sequence) != (6, "t1ce"):
                save_nifti(
                    sequence_file(tiny_dataset, subject, sequence), blob(10 * subject + index)
                )
    rows = [f"Tiny_0000{i},10,{'a' if i < 3 else 'b'}" for i in range(7)]
    (tiny_dataset / "test.csv").write_text("\n".join(["name,mask,site", *rows]))
    return tiny_dataset


@pytest.fixture
def save_network(tmp_path: Path, two_sites: Path) -> Callable[..., Path]:
    """save_network(folder, network's settings, maps…): an untrained network in its folder."""

    def save(folder: str, network: str = TINY_TSF, **maps: Adaptation) -> Path:
        settings, path = tmp_path / f"{folder}.yaml", tmp_path / "runs" / folder / "best.pth"
        settings.write_text(tiny_yaml(network, two_sites, path.parent))
        config = load_config(settings)
        save_checkpoint(path, build_network(config), config, **maps)
        return path

    return save


@pytest.fixture
def only_scores(monkeypatch) -> None:
    """Evaluations without LPIPS and pictures."""
    monkeypatch.setattr("tsf_seq2seq.cli.evaluate.find_weights", lambda *_: None)
    monkeypatch.setattr("tsf_seq2seq.evaluation.protocol.plot_examples", lambda *_: None)
    monkeypatch.setattr("tsf_seq2seq.cli.like.plot_adaptation", lambda *_: None)


def tiny_yaml(network: str, root: object, output: object) -> str:
    """Settings of one of the tiny networks (TINY_TSF, …) and a run on the tiny data set."""
    return network + TINY_RUN.format(root=root, output=output)


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_dataset: Path) -> Path:
    """Settings of a tiny TSF-Seq2Seq and a run on the tiny data set."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_yaml(TINY_TSF, tiny_dataset, tmp_path / "run"))
    return path


@pytest.fixture
def tiny_stage1(tmp_path: Path, tiny_dataset: Path) -> Path:
    """The same of its Seq2Seq alone."""
    path = tmp_path / "tiny_stage1.yaml"
    path.write_text(tiny_yaml(TINY_SEQ2SEQ, tiny_dataset, tmp_path / "run"))
    return path


@pytest.fixture
def stage_2(tiny_config: Path, tmp_path: Path) -> Path:
    """A checkpoint of the tiny TSF-Seq2Seq, untrained."""
    config = load_config(tiny_config)
    save_checkpoint(tmp_path / "tsf.pth", build_network(config), config)
    return tmp_path / "tsf.pth"


@pytest.fixture
def checkpoint(tiny_config: Path, tmp_path: Path) -> Path:
    """The same with the statistics of a training, as imputation wants it."""
    config, path = load_config(tiny_config), tmp_path / "tsf.pth"
    statistics = TrainingStatistics(dict.fromkeys(SEQUENCES, 1000.0), (1, 1))
    save_checkpoint(path, build_network(config), config, statistics=statistics)
    return path


class Outcome:
    """How a script ended: exit code, standard output, and standard error without progress bars."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out = code, out
        lines = err.replace("\r", "\n").splitlines()
        self.err = [line for line in lines if line.strip() and not is_progress(line)]

    @property
    def error(self) -> str:
        """The one line of a user's mistake, without "error: "."""
        assert self.code == 2, self.err
        assert len(self.err) == 1, self.err
        assert self.err[0].startswith("error: ")
        assert "Traceback" not in self.err[0]
        return self.err[0].removeprefix("error: ")


def is_progress(line: str) -> bool:
    """A tqdm bar."""
    return re.search(r"\d+it \[|\d+/\d+ \[\d\d:\d\d", line) is not None


@pytest.fixture
def script(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Run a function of `tsf_seq2seq.cli` as its script does: script(train_seq2seq, "-c", …)."""

    def run(main: Callable[[str], None], *arguments: object) -> Outcome:
        monkeypatch.setattr("sys.argv", [main.__name__, *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            run_script(lambda: main("description"))
        except SystemExit as end:
            code = int(end.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run
