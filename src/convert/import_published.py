"""Turn the authors' weights into a checkpoint of ours that needs no settings beside it."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("convert:import_published", __doc__)
