"""Export a checkpoint: as safetensors and JSON, or one task of it as an ONNX file."""

from tsf_seq2seq.cli.convert import export_model
from tsf_seq2seq.errors import run_script

if __name__ == "__main__":
    run_script(lambda: export_model(__doc__))
