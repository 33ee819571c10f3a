"""Export a checkpoint: as safetensors and JSON, or one task of it as an ONNX file."""

from tsf_seq2seq.errors import run_command

if __name__ == "__main__":
    run_command("convert:export_model", __doc__)
