"""ResViT's generators: residual blocks, and in two of them a transformer that both share.

Dalmaz et al., "ResViT: residual vision transformers for multimodal medical image synthesis", IEEE
Transactions on Medical Imaging 41(10), 2022.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsf_seq2seq.peers.bases import AllToAll
from tsf_seq2seq.peers.blocks import check_share, with_image_statistics
from tsf_seq2seq.settings import NetworkSettings, setting

ART_BLOCKS = 9
WITH_TRANSFORMER = (0, 5)  # which of the blocks


@dataclass(frozen=True)
class ResViTConfig(NetworkSettings):
    """Architecture of ResViT."""

    name: str = setting("resvit", "which network")
    channels: int = setting(64, "channels of the full resolution; 4 times as many in the blocks", 1)
    grid: tuple[int, int] = setting(
        (12, 12), "positions that the transformer has codes for: the crop's size, by 16", 1
    )
    layers: int = setting(12, "of the transformer", 1)
    width: int = setting(768, "features of a position", 1)
    heads: int = setting(12, "of each layer's attention; they must divide the width", 1)
    hidden: int = setting(3072, "features between the two linear layers of each layer", 1)
    dropout: float = setting(0.1, "share of features left out in training, in [0, 1)", 0)
    image_statistics: bool = setting(
        True, "BatchNorm in evaluation by each image's own statistics, not by training's mean ones"
    )
    discriminator_channels: int = setting(64, "of its first layer; 8 times as many later", 1)

    def build(self, n_sequences: int, stack: int) -> "ResViT":
        check_share(self.dropout, "dropout")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width {self.width}, not {self.heads}")
        size = n_sequences * stack
        transformer = self.layers, self.width, self.heads, self.hidden, self.dropout
        generator: nn.Module = ResViTGenerator(size, size, self.channels, self.grid, *transformer)
        if self.image_statistics:
            generator = with_image_statistics(generator)
        network = ResViT(n_sequences, stack, 16, generator)
        network.judge_channels = self.discriminator_channels
        return network


class ResViT(AllToAll):
    """Its unified form, as the paper describes it: all sequences in, all out.

    `complete`: whether the transformer takes part, as it does but in the first stage of training,
    in which the rest learns as a Res-CNN.
    """

    complete: Tensor

    def __init__(self, n_sequences: int, slices: int, multiple: int, generator: nn.Module) -> None:
        super().__init__(n_sequences, slices, multiple, generator)
        self.register_buffer("complete", torch.ones((), dtype=torch.bool))

    def generate(self, x: Tensor) -> Tensor:
        # An exporter sees no values; what it exports is compared with the network's own outputs.
        return self.generator(x, torch.compiler.is_exporting() or bool(self.complete))


class TransformerLayer(nn.Module):
    """A layer of the vision transformer (Dosovitskiy et al. 2021): x + attention(norm x), and then
    x + MLP(norm x)."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) → (B, n, width)."""
        normed = self.attention_norm(x)
        query, key, value = (
            own(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for own in (self.query, self.key, self.value)
        )  # (B, heads, n, width/heads) each
        found = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """The layers that both transformer blocks share, and a norm."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, hidden, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class PatchEmbedding(nn.Module):
    """Each position a token, with a learned code of where it is; codes of another grid are drawn
    between those that were learned."""

    def __init__(self, channels: int, grid: tuple[int, int], width: int, dropout: float) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.positions = nn.Parameter(torch.zeros(1, grid[0] * grid[1], width))
        self.patches = nn.Conv2d(channels, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, h, w) → (B, h·w, width)."""
        positions: Tensor = self.positions
        if x.shape[-2:] != self.grid:
            known = positions.mT.unflatten(2, self.grid)  # (1, width, h', w')
            positions = F.interpolate(known, size=x.shape[-2:], mode="bilinear").flatten(2).mT
        return self.dropout(self.patches(x).flatten(2).mT + positions)


class TransformerPath(nn.Module):
    """What a block of features has of the transformer: a quarter of the size, one patch a position,
    and back, put beside the block's input and compressed to its channels."""

    def __init__(self, channels: int, grid: tuple[int, int], width: int, dropout: float) -> None:
        super().__init__()
        c = channels
        self.down = nn.Sequential(*_conv(c, 2 * c, 3, 2), *_conv(2 * c, 4 * c, 3, 2))
        self.embedding = PatchEmbedding(4 * c, grid, width, dropout)
        self.up = nn.Sequential(*_conv_up(width, 2 * c), *_conv_up(2 * c, c))
        self.skip = nn.Sequential(nn.Conv2d(2 * c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.compress = nn.Sequential(
            *_conv(2 * c, c, 3), nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)
        )

    def forward(self, x: Tensor, transformer: Transformer) -> Tensor:
        """(B, c, h, w) → (B, c, h, w)."""
        small = self.down(x)  # (B, 4·c, h/4, w/4)
        tokens = transformer(self.embedding(small))  # (B, n, width)
        wide = self.up(tokens.mT.unflatten(2, small.shape[2:]))  # (B, c, h, w)
        both = torch.cat([wide, x], dim=1)  # (B, 2·c, h, w)
        return F.relu(self.skip(both) + self.compress(both))


class ARTBlock(nn.Module):
    """Aggregated residual transformer block: the transformer's path, where the block has one, and
    x + conv(relu(conv x))."""

    def __init__(self, channels: int, path: TransformerPath | None) -> None:
        super().__init__()
        self.path = path
        self.residual = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_conv(channels, channels, 3, padding=0),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, transformer: Transformer | None) -> Tensor:
        if self.path is not None and transformer is not None:
            x = self.path(x, transformer)
        return x + self.residual(x)


class ResViTGenerator(nn.Module):
    """Encoder, nine blocks at a quarter of the size, decoder.

    Without a transformer it is the Res-CNN that trains first.
    Sizes are those of the `grid` of positions times 16.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        channels: int = 64,
        grid: tuple[int, int] | None = None,
        layers: int = 12,
        width: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        dropout: float = 0.1,
    ) -> None:
        """`grid`: positions of the transformer, None for a Res-CNN."""
        super().__init__()
        c = channels
        self.transformer = Transformer(layers, width, heads, hidden, dropout) if grid else None
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_conv(c_in, c, 7, padding=0),
            *_conv(c, 2 * c, 3, 2),
            *_conv(2 * c, 4 * c, 3, 2),
        )
        self.blocks = nn.ModuleList(
            ARTBlock(
                4 * c,
                TransformerPath(4 * c, grid, width, dropout)
                if grid and place in WITH_TRANSFORMER
                else None,
            )
            for place in range(ART_BLOCKS)
        )
        self.decoder = nn.Sequential(
            *_conv_up(4 * c, 2 * c),
            *_conv_up(2 * c, c),
            nn.ReflectionPad2d(3),
            nn.Conv2d(c, c_out, 7),
            nn.Tanh(),
        )

    def forward(self, x: Tensor, complete: bool = True) -> Tensor:
        """(B, c_in, H, W) → (B, c_out, H, W) in [-1, 1]; as a Res-CNN if not `complete`."""
        x = self.encoder(x)  # (B, 4·c, H/4, W/4)
        for block in self.blocks:
            x = block(x, self.transformer if complete else None)
        return self.decoder(x)


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU()]


def _conv_up(c_in: int, c_out: int) -> list[nn.Module]:
    """Twice the size."""
    conv = nn.ConvTranspose2d(c_in, c_out, 3, 2, 1, output_padding=1, bias=False)
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU()]
