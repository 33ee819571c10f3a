"""Files of weights: ours, the authors', portable ones, ImageNet backbones."""
