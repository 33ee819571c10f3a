"""Phantoms of several sites: scanners that keep their protocol, at 1.5 and 3 T."""

import dataclasses
import functools
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tsf_seq2seq.cli.phantom import make_phantom_dataset
from tsf_seq2seq.errors import UserError
from tsf_seq2seq.phantom import subject as phantom_module
from tsf_seq2seq.phantom.anatomy import simulate_anatomy
from tsf_seq2seq.phantom.fields import make_grid
from tsf_seq2seq.phantom.protocols import FURTHER_SEQUENCES, SEQUENCES, Acquisition
from tsf_seq2seq.phantom.signal import (
    Patient,
    Relaxation,
    draw_patient,
    simulate_sequence,
    tissue_signal,
)
from tsf_seq2seq.phantom.sites import OF_SITES, Site, draw_any_scanner, draw_site
from tsf_seq2seq.phantom.subject import simulate_subject, write_phantom_dataset
from tsf_seq2seq.phantom.tissues import FIELD_STRENGTHS, ONE_AND_A_HALF_TESLA, THREE_TESLA

EIGHT = (*SEQUENCES, *FURTHER_SEQUENCES)
EXACT = ("tr", "te", "ti", "second_ti", "flip_angle", "blur_mm", "gadolinium")
VARYING = {"noise": 0.05, "bias": 0.05, "brain_median": 0.1}


def exact(acquisition: Acquisition) -> list[object]:
    return [getattr(acquisition, name) for name in EXACT]


@pytest.fixture
def scans(monkeypatch):
    """Simulates subjects, quickly; gives the field strength and the acquisitions of each."""

    def scan(index: int, sites: int, seed: int = 0) -> tuple[float, dict[str, Acquisition]]:
        acquired: list[Acquisition] = []
        fields: set[float] = set()

        def record(rng, grid, anatomy, patient, protocol):
            acquired.append(protocol)
            fields.add(patient.field.tesla)
            return np.ones(anatomy.mask.shape, np.float32)

        monkeypatch.setattr(phantom_module, "simulate_sequence", record)
        simulate_subject(seed, index, 2.0, EIGHT, sites)
        (field,) = fields
        return field, dict(zip(EIGHT, acquired, strict=True))

    return scan


def test_a_site_is_drawn_once(scans):
    site = draw_site(0, 1)
    assert site == draw_site(0, 1)
    for index, sites in ((1, 2), (3, 2), (1, 4)):  # index % sites = 1: however many sites there are
        field, acquired = scans(index, sites)
        assert field == site.field.tesla
        for name, acquisition in acquired.items():
            assert exact(acquisition) == exact(site.protocols[name])


def test_subjects_of_a_site_share_its_protocol_and_vary_a_little(scans):
    (_, one), (_, other) = scans(1, 3), scans(4, 3)
    usual = draw_site(0, 1).protocols
    for name in EIGHT:
        assert exact(one[name]) == exact(other[name])
        for setting, most in VARYING.items():
            values = [getattr(scan[name], setting) for scan in (one, other)]
            assert values[0] != values[1]
            for value in values:
                assert abs(value / getattr(usual[name], setting) - 1) <= most + 1e-9


def test_sites_differ():
    one, other, of_another_seed = draw_site(0, 0), draw_site(0, 1), draw_site(1, 0)
    for name in EIGHT:
        for setting in ("tr", "te", "blur_mm", "noise", "bias", "brain_median"):
            values = [
                getattr(site.protocols[name], setting) for site in (one, other, of_another_seed)
            ]
            assert len(set(values)) == 3, (name, setting)
    assert one.protocols["flair"].ti != other.protocols["flair"].ti
    assert one.protocols["t2star"].flip_angle != other.protocols["t2star"].flip_angle


def test_settings_lie_in_their_ranges():
    sites = [draw_site(0, number) for number in range(40)]
    assert {site.field.tesla for site in sites} == {1.5, 3.0}
    for name in EIGHT:
        low, high = OF_SITES.times[name].te
        echoes = [site.protocols[name].te for site in sites]
        assert low <= min(echoes) < low + 0.2 * (high - low)
        assert high >= max(echoes) > high - 0.2 * (high - low)
    for site in sites:
        flair = site.protocols["flair"]
        null = 4300 * math.log(2 / (1 + math.exp(-flair.tr / 4300)))
        assert 0.90 <= flair.ti / null <= 1.04


def test_white_matter_is_nulled_at_each_field_strength():
    """Of dir, whose times are those at which CSF and the field's white matter give no signal."""
    sites = {site.field.tesla: site for site in (draw_site(0, number) for number in range(10))}
    for tesla, t1 in {1.5: 646.0, 3.0: 832.0}.items():
        dir_ = dataclasses.replace(sites[tesla].protocols["dir"], te=0.0)
        field = sites[tesla].field
        assert field.tissues["wm"].t1 == t1
        patient = Patient(field, {"wm": Relaxation(1.0, t1, 1.0)}, np.ones(1))
        assert tissue_signal("wm", patient, dir_) == pytest.approx(0, abs=1e-6)


def test_contrast_agent_and_uneven_field_are_those_of_the_field_strength():
    """1/T1' = 1/1430 + 0.0041·0.45, of a rim at 1.5 T; 1/T2* = 1/T2 + 0.0021 of white matter."""
    relaxation = {name: Relaxation(1.0, 1430.0, 100.0) for name in ("rim", "wm")}
    patient = Patient(ONE_AND_A_HALF_TESLA, relaxation, np.ones(1))
    t1ce = Acquisition(500.0, 0.0, True, (1, 1, 1), 0, 1, 0)
    enhanced = 1 - math.exp(-500 * (1 / 1430 + 0.0041 * 0.45))
    assert tissue_signal("rim", patient, t1ce) == pytest.approx(enhanced)
    t2star = Acquisition(1e9, 20.0, False, (1, 1, 1), 0, 1, 0, flip_angle=90.0)
    assert tissue_signal("wm", patient, t2star) == pytest.approx(math.exp(-20 * (0.01 + 0.0021)))
    stronger = dataclasses.replace(patient, field=THREE_TESLA)
    assert tissue_signal("rim", stronger, t1ce) < enhanced  # 3.7 L/mmol/s instead of 4.1
    assert tissue_signal("wm", stronger, t2star) == pytest.approx(math.exp(-20 * (0.01 + 0.0043)))


def test_tissues_relax_as_the_literature_says():
    low, high = (field.tissues for field in FIELD_STRENGTHS)
    assert list(low) == list(high)
    for name in low:
        assert low[name].pd == high[name].pd
        assert low[name].t1 <= high[name].t1
        assert low[name].r2_prime == pytest.approx(high[name].r2_prime / 2, rel=0.03)
    assert low["csf"].t1 == high["csf"].t1


def test_the_tissues_of_a_subject_are_those_of_its_sites_field(monkeypatch):
    """The same draws at both field strengths: T1 of white matter as 646 to 832."""
    times = {}
    for field in FIELD_STRENGTHS:
        monkeypatch.setattr(
            phantom_module,
            "draw_site",
            lambda *_, field=field: Site(field, draw_site(0, 0).protocols),
        )

        def record(rng, grid, anatomy, patient, protocol):
            times[patient.field.tesla] = patient.relaxation["wm"].t1
            return np.ones(anatomy.mask.shape, np.float32)

        monkeypatch.setattr(phantom_module, "simulate_sequence", record)
        simulate_subject(0, 0, 2.0, sites=1)
    assert np.median(times[1.5]) == pytest.approx(646, rel=0.1)
    np.testing.assert_allclose(times[1.5] / times[3.0], 646 / 832, rtol=1e-5)


def digests(root: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.nii.gz"))
    }


def test_the_script_writes_sites(script, tmp_path):
    options = ("-n", 3, "--spacing", 2, "--sites", 2, "--seed", 3)
    kinds = ("--sequences", "t2", "pd")
    outcome = script(make_phantom_dataset, "-o", tmp_path / "a", *options, *kinds)
    assert outcome.out.startswith(
        "Wrote 3 subjects of 2 sites (Site1_Phantom_00000 to Site1_Phantom_00002) with t2, pd, seg"
    )
    names = ["Site1_Phantom_00000", "Site1_Phantom_00002", "Site2_Phantom_00001"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir() if path.is_dir()) == names
    made = digests(tmp_path / "a")
    assert set(made) == {f"{name}_{kind}.nii.gz" for name in names for kind in ("t2", "pd", "seg")}
    assert json.loads((tmp_path / "a" / "phantom.json").read_text())["sites"] == 2

    # --- the same bytes on two processes, and after an interruption
    script(make_phantom_dataset, "-o", tmp_path / "b", *options, *kinds, "--processes", 2)
    assert digests(tmp_path / "b") == made
    (tmp_path / "a" / names[2] / f"{names[2]}_pd.nii.gz").unlink()
    script(make_phantom_dataset, "-o", tmp_path / "a", *options, *kinds)
    assert digests(tmp_path / "a") == made
    outcome = script(make_phantom_dataset, "-o", tmp_path / "a", *options, *kinds, "--sites", 3)
    assert "holds phantoms of other settings" in outcome.error

    # --- a sequence is the same whatever others are made
    alone = simulate_subject(3, 1, 2.0, ("pd",), sites=2).volumes["pd"]
    both = simulate_subject(3, 1, 2.0, ("t2", "pd"), sites=2).volumes["pd"]
    assert np.array_equal(alone, both)


def test_one_site_and_no_sites(tmp_path):
    (name,) = write_phantom_dataset(tmp_path / "one", 1, spacing=2, sequences=["t1"], sites=1)
    assert name == "Site1_Phantom_00000"
    (name,) = write_phantom_dataset(tmp_path / "none", 1, spacing=2, sequences=["t1"])
    assert name == "Phantom_00000"
    assert (tmp_path / "none" / "phantom.json").read_text() == (
        '{"seed": 0, "spacing_mm": 2, "sequences": ["t1"], "noise_free": false}\n'
    )
    one, none = digests(tmp_path / "one"), digests(tmp_path / "none")
    assert one["Site1_Phantom_00000_seg.nii.gz"] == none["Phantom_00000_seg.nii.gz"]
    assert one["Site1_Phantom_00000_t1.nii.gz"] != none["Phantom_00000_t1.nii.gz"]


def test_no_site_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"there must be 1 site or more, got 0\."):
        write_phantom_dataset(tmp_path / "new", 1, spacing=2, sites=0)
    assert not (tmp_path / "new").exists()


def test_scanners_of_any_contrast_go_beyond_those_of_sites():
    scanners = [draw_any_scanner(0, index) for index in range(40)]
    assert scanners[3] == draw_any_scanner(0, 3)
    assert len({scanner.protocols["t2"].te for scanner in scanners}) == 40
    low, high = OF_SITES.times["t2"].te
    echoes = [scanner.protocols["t2"].te for scanner in scanners]
    assert min(echoes) < low
    assert max(echoes) > high
    inverted = [scanner.protocols["t1"].ti is not None for scanner in scanners]
    assert 8 <= sum(inverted) <= 24  # 0.4 of them: a binomial's 99.8 %
    curves = np.log([[p.curve for p in scanner.protocols.values()] for scanner in scanners])
    assert np.std(curves) == pytest.approx(0.25, rel=0.15)
    for scanner in scanners:
        usual = next(field for field in FIELD_STRENGTHS if field.tesla == scanner.field.tesla)
        for name, tissue in scanner.field.tissues.items():
            assert tissue.subject_cv == 2 * usual.tissues[name].subject_cv


def test_any_contrast_has_the_anatomy_of_the_usual_one(tmp_path):
    make = functools.partial(write_phantom_dataset, subjects=1, spacing=2, sequences=["t2"])
    (name,) = make(tmp_path / "any", any_contrast=True)
    make(tmp_path / "usual")
    one, usual = digests(tmp_path / "any"), digests(tmp_path / "usual")
    assert one[f"{name}_seg.nii.gz"] == usual[f"{name}_seg.nii.gz"]
    assert one[f"{name}_t2.nii.gz"] != usual[f"{name}_t2.nii.gz"]
    settings = json.loads((tmp_path / "any/phantom.json").read_text())
    assert settings["any_contrast"] is True
    with pytest.raises(UserError, match=r"ask for sites or for any contrast, not both\."):
        make(tmp_path / "both", sites=2, any_contrast=True)


def test_a_curve_leaves_the_brains_median():
    grid = make_grid((120, 120, 78), 2.0)
    anatomy = simulate_anatomy(np.random.default_rng([0, 0]), grid)
    patient = draw_patient(np.random.default_rng(1), grid, anatomy)
    straight = draw_site(0, 0).protocols["t2"]
    curved = dataclasses.replace(straight, curve=1.5)
    one, other = (
        simulate_sequence(np.random.default_rng(2), grid, anatomy, patient, protocol)[anatomy.mask]
        for protocol in (straight, curved)
    )
    level = straight.brain_median
    assert np.median(other) == pytest.approx(level, rel=1e-4)
    np.testing.assert_allclose(other, level * (one / level) ** 1.5, rtol=1e-4)
