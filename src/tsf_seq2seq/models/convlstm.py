"""Convolutional LSTM over time steps."""

import torch
from torch import Tensor, nn


class ConvLSTMCell(nn.Module):
    """One ConvLSTM layer's step; gates i, f, o, g = conv3×3(concat(x, h)), zero padding.

    c' = σ(f)·c + σ(i)·tanh(g);  h' = σ(o)·tanh(c')
    """

    def __init__(self, c_in: int, c_hidden: int) -> None:
        super().__init__()
        self.c_in, self.c_hidden = c_in, c_hidden
        self.conv = nn.Conv2d(c_in + c_hidden, 4 * c_hidden, 3, padding=1)
        nn.init.kaiming_normal_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def first_step(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(h', c') from zero state: h = c = 0 leaves i, o, g and the kernel's input half."""
        i, o, g = nn.functional.conv2d(x, *self.first_step_conv(), padding=1).chunk(3, dim=1)
        c = torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def first_step_conv(self) -> tuple[Tensor, Tensor]:
        """What a zero state leaves: kernel (3·c_hidden, c_in, 3, 3) and bias of i, o, g."""
        n = self.c_hidden
        weight, bias = self.conv.weight[:, : self.c_in], self.conv.bias
        assert bias is not None
        return torch.cat([weight[:n], weight[2 * n :]]), torch.cat([bias[:n], bias[2 * n :]])

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """x (B, c_in, h, w) and the state (h, c), None for zeros → the next (h, c)."""
        if state is None:
            return self.first_step(x)
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvLSTM(nn.Module):
    """Stacked ConvLSTM layers: (B, T, c_in, h, w) → (B, T, c_hidden, h, w) of the last layer."""

    def __init__(self, c_in: int, c_hidden: int, n_layers: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(
            ConvLSTMCell(c_in if layer == 0 else c_hidden, c_hidden) for layer in range(n_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            state, outputs = None, []
            for step in x.unbind(dim=1):
                state = cell(step, state)
                outputs.append(state[0])
            x = torch.stack(outputs, dim=1)
        return x
