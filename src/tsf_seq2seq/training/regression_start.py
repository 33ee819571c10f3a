"""The closed-form fit that a network starts from, and against which its errors are measured."""

from collections.abc import Sequence

from tqdm import tqdm

from tsf_seq2seq.config import Config
from tsf_seq2seq.data.loading import Subject
from tsf_seq2seq.data.slices import BACKGROUND
from tsf_seq2seq.data.statistics import SAMPLE, evenly_spaced
from tsf_seq2seq.models.regression_head import DEGREE
from tsf_seq2seq.models.tsf_pyramid import TSFPyramid
from tsf_seq2seq.synthesis.baselines import PolynomialRegression
from tsf_seq2seq.synthesis.windows import load_window
from tsf_seq2seq.tasks import all_tasks


def fit_regression(network: TSFPyramid, config: Config, subjects: Sequence[Subject]) -> None:
    """Start the network from the least-squares fit of at most 32 training subjects' brains.

    A task of which no subject has all sequences stays as it is. A network without regression learns
    its errors alone. Raises UserError where a subject can't be used.
    """
    n_sequences = len(config.data.sequences)
    model = PolynomialRegression(n_sequences, DEGREE)
    sample = [subjects[i] for i in evenly_spaced(len(subjects), SAMPLE)]
    for subject in tqdm(sample, desc="fitting the regression", unit="subject"):
        held = subject.trained_on(config.data.use_all_sequences)
        images = load_window(config, subject, held).images  # (S, Z, Y, X)
        brain = (images[list(held)] > BACKGROUND).any(axis=0)
        model.fit([images[:, brain]], held)
    for task in all_tasks(n_sequences):
        if model.covers(task):
            moments = model.moments(task)
            coefficients = moments.fit()
            if network.regression_head is not None:
                network.regression_head.set_fit(task, coefficients, moments.metric)
            network.set_regression_error(task, moments.error(coefficients))
