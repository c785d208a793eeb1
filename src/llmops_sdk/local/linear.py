"""A linear map that uses all threads that torch is set to, also for a single token.

BLAS libraries multiply a matrix by one vector in one thread, and decoding is nothing else: for one token every weight is
read once, so that a second thread on a core of its own nearly doubles what memory gives.
"""

from __future__ import annotations

import math

import torch


class SplitLinear(torch.nn.Linear):
    """`torch.nn.Linear` without bias; a single vector is multiplied by parts of the rows at the same time."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name for it
        """[…, in] to […, out]."""
        parts = math.gcd(self.out_features, torch.get_num_threads())
        if parts == 1 or input.numel() != self.in_features:
            return torch.nn.functional.linear(input, self.weight)
        rows = self.weight.view(parts, self.out_features // parts, self.in_features)
        vector = input.reshape(1, 1, self.in_features).expand(parts, 1, self.in_features)
        return torch.bmm(vector, rows.transpose(1, 2)).view(*input.shape[:-1], self.out_features)


def split_linears(network: torch.nn.Module) -> None:
    """Put a `SplitLinear` of the same weights in the place of every linear map without bias."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear and child.bias is None:
                split = SplitLinear(child.in_features, child.out_features, bias=False, device="meta")
                split.weight = child.weight
                setattr(module, name, split.eval())
