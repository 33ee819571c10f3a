"""TSEM of test subjects, where f_A refined the synthesis: NIfTI maps and the paper's Fig. 4."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("explain:map_tsem", __doc__)
