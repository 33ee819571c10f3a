"""How good predictions are in tumour and healthy tissue, and from slice to slice.

Reads the predictions that evaluate_brats_tsf_seq2seq_2d.py or its stage 1 sister saved.
"""

import argparse
from pathlib import Path

from tsf_seq2seq.cli.arguments import add_config_arguments
from tsf_seq2seq.cli.loading import experiment
from tsf_seq2seq.data.subjects import find_subjects
from tsf_seq2seq.errors import UserError, run_script
from tsf_seq2seq.evaluation.tumour import RegionScore, region_means, region_table, score_regions
from tsf_seq2seq.files import write_text
from tsf_seq2seq.tables import write_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path, help="folder of an evaluation with predictions")
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "-l", "--load", type=Path, metavar="PTH", help="instead of -c: weights with their settings"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder (else that of the evaluation)")
    arguments = parser.parse_args()
    if arguments.config is None and arguments.load is None:
        raise UserError("the data set's settings are needed: give -c or -l")
    config, output = experiment(arguments), arguments.output or arguments.evaluation
    subjects = find_subjects(config.data, config.data.test)
    rows = score_regions(config, subjects, arguments.evaluation)
    text = region_table(region_means(rows)).markdown()
    write_rows(output / "tumour.csv", RegionScore, rows)
    write_text(output / "tumour.md", f"# Tumour and healthy tissue\n\n{text}\n")
    print(text)
    if not any(row.region == "whole_tumour" for row in rows):
        print("no subject has a label map: only the brain as a whole is scored")
    print(f"tumour.csv and tumour.md are in {output}")


if __name__ == "__main__":
    run_script(main)
