"""TSEM of test subjects, where f_A refined the synthesis: NIfTI maps and the paper's Fig. 4."""

from tsf_seq2seq.cli.explain import map_tsem
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: map_tsem(__doc__))
