"""Turn the authors' weights into a checkpoint of ours that needs no settings beside it."""

from tsf_seq2seq.cli.convert import import_published
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: import_published(__doc__))
