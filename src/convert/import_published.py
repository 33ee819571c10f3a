"""Turn the authors' weights into a checkpoint of ours that needs no settings beside it."""

import argparse
from pathlib import Path

from tsf_seq2seq.checkpoints.checkpoint import save_checkpoint, stage1_config
from tsf_seq2seq.checkpoints.published import load_published, published_architecture
from tsf_seq2seq.config import Config, DataConfig
from tsf_seq2seq.errors import UserError, run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True, help="the authors' YAML")
    parser.add_argument("-m", "--seq2seq", type=Path, required=True, help="Seq2Seq weights (.pth)")
    parser.add_argument("-l", "--tsf", type=Path, help="TSF weights (.pth) that belong to them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    arguments = parser.parse_args()
    network = load_published(arguments.config, arguments.seq2seq, arguments.tsf)
    settings, stack, n_sequences = published_architecture(arguments.config)
    config = Config(network=settings, data=DataConfig(stack=stack))
    if not arguments.tsf:
        config = stage1_config(config)
    if n_sequences != len(config.data.sequences):
        raise UserError(
            f"{arguments.config}: these weights know {n_sequences} sequences, but only BraTS's "
            f"{len(config.data.sequences)} can be imported without their names"
        )
    save_checkpoint(arguments.output, network, config)
    print(f"{arguments.output} holds the imported {type(network).__name__}")


if __name__ == "__main__":
    run_script(main)
