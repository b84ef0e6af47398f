"""The vision half of RadFM: a volume in, a few tokens of the language half's width out.

Written from the published description. Modules and parameters have the names of the published checkpoint, so
its keys are those of the state here: the numbers among them count the steps of a sequence, some of which have
no weights. Imported late: it needs torch.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from medmllm_plugin.models.radfm.sizes import VisionSizes


class FrontEnd(nn.Module):
    """The embedding of words, and what makes tokens of volumes; `embedding_layer` of the checkpoint."""

    def __init__(self, sizes: VisionSizes, *, vocabulary: int, width: int) -> None:
        """Take the sizes.

        Args:
            sizes: Of the vision half.
            vocabulary: Tokens of the language half.
            width: Of its embeddings.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, width))
        self.figure_token_weight = nn.Parameter(torch.empty(2, width))
        self.vision_encoder = VisionEncoder(sizes)
        self.perceiver = Perceiver(sizes)
        self.fc = nn.Linear(sizes.hidden, width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings of words and of the marks around images, shape (..., width).

        Args:
            ids: Token ids, shape (...); what is beyond the marks stands for an image and gets zeros.
        """
        words, marks = self.weight.shape[0], self.figure_token_weight.shape[0]
        ids = ids.to(self.weight.device)
        found = self.weight[ids.clamp(max=words - 1)]
        mark = self.figure_token_weight[(ids - words).clamp(0, marks - 1)].to(found.dtype)
        beyond = (ids >= words)[..., None]
        found = torch.where(beyond, mark, found)
        return found.masked_fill((ids >= words + marks)[..., None], 0)

    def encode(self, volumes: torch.Tensor) -> torch.Tensor:
        """The tokens of volumes, shape (volumes, latents, width).

        Args:
            volumes: Shape (volumes, 3, rows, columns, depth), from 0 to 1; sides multiples of a patch's.
        """
        tokens: torch.Tensor = self.fc(self.perceiver(self.vision_encoder(volumes)))
        return tokens


class VisionEncoder(nn.Module):
    """A transformer over the patches of a volume, without class token and without a last norm."""

    def __init__(self, sizes: VisionSizes) -> None:
        """Take the sizes."""
        super().__init__()
        self._sizes = sizes
        self.to_patch_embedding = nn.Sequential(
            nn.Identity(),  # where patches are cut
            nn.LayerNorm(sizes.patch_numbers),
            nn.Linear(sizes.patch_numbers, sizes.hidden),
            nn.LayerNorm(sizes.hidden),
        )
        self.pos_embedding = Positions(sizes)
        self.transformer = Transformer(sizes)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """Shape (volumes, patches, hidden); patches run over rows, then columns, then depth."""
        cut = patches(volumes, side=self._sizes.patch, depth=self._sizes.patch_depth)
        kind = self.pos_embedding.row_embed.weight.dtype
        embedded = self.to_patch_embedding(cut.flatten(1, 3).to(kind)) + self.pos_embedding(*cut.shape[1:4])
        found: torch.Tensor = self.transformer(embedded)
        return found


class Transformer(nn.Module):
    """Steps of attention and of a small network, each behind a norm and added to what came in."""

    def __init__(self, sizes: VisionSizes) -> None:
        """Take the sizes."""
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    AfterNorm(sizes.hidden, SelfAttention(sizes)),
                    AfterNorm(sizes.hidden, Mlp(sizes.hidden, sizes.mlp)),
                ]
            )
            for _ in range(sizes.layers)
        )

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        """Of the shape of the input."""
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            for step in layer:
                found = found + step(found)
        return found


def patches(volumes: torch.Tensor, *, side: int, depth: int) -> torch.Tensor:
    """Volumes cut into patches, shape (volumes, rows, columns, slices of patches, numbers of a patch).

    Args:
        volumes: Shape (volumes, 3, rows, columns, depth).
        side: Rows and columns of a patch.
        depth: Slices of a patch.

    Returns:
        In each patch the channel runs fastest, then depth, column, row.

    Raises:
        ValueError: If the sides are no multiples of a patch's.
    """
    count, channels, rows, columns, slices = volumes.shape
    if rows % side or columns % side or slices % depth:
        raise ValueError(
            f"found a volume of {rows} x {columns} x {slices}, expected multiples of {side}, {side}, {depth}"
        )
    split = volumes.reshape(
        count, channels, rows // side, side, columns // side, side, slices // depth, depth
    )
    return split.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)


class Positions(nn.Module):
    """Learned positions: a third of the width for the row, a third for the column, a third for the depth."""

    def __init__(self, sizes: VisionSizes) -> None:
        """Take the sizes."""
        super().__init__()
        third = sizes.hidden // 3
        self.row_embed = nn.Embedding(sizes.rows, third)
        self.col_embed = nn.Embedding(sizes.rows, third)
        self.dep_embed = nn.Embedding(sizes.depths, third)

    def forward(self, rows: int, columns: int, slices: int) -> torch.Tensor:
        """Shape (rows · columns · slices, hidden); a smaller grid has places spread over the tables.

        Raises:
            ValueError: If the grid is larger than a table.
        """
        parts = []
        for table, number in (
            (self.row_embed, rows),
            (self.col_embed, columns),
            (self.dep_embed, slices),
        ):
            if number > table.num_embeddings:
                raise ValueError(f"found {number} patches in a line, expected {table.num_embeddings} at most")
            step = table.num_embeddings // number
            parts.append(table.weight[(torch.arange(number, device=table.weight.device) + 1) * step - 1])
        grid = (rows, columns, slices, -1)
        row, column, depth = parts
        return torch.cat(
            [row[:, None, None].expand(grid), column[None, :, None].expand(grid), depth.expand(grid)], dim=-1
        ).flatten(0, 2)


class AfterNorm(nn.Module):
    """A step behind a norm."""

    def __init__(self, width: int, step: nn.Module) -> None:
        """Take the width and the step."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = step

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        """Of the shape of the input."""
        stepped: torch.Tensor = self.fn(self.norm(found))
        return stepped


class SelfAttention(nn.Module):
    """Every patch looks at all patches of its volume."""

    def __init__(self, sizes: VisionSizes) -> None:
        """Take the sizes."""
        super().__init__()
        self._heads = sizes.heads
        self.to_qkv = nn.Linear(sizes.hidden, 3 * sizes.inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(sizes.inner, sizes.hidden))

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        """Shape (volumes, patches, hidden), as the input."""
        query, key, value = self.to_qkv(found).chunk(3, dim=-1)
        seen: torch.Tensor = self.to_out(attend(query, key, value, heads=self._heads))
        return seen


class Mlp(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, width: int, inner: int) -> None:
        """Take the widths."""
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Identity(), nn.Linear(inner, width))

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        """Of the shape of the input."""
        mixed: torch.Tensor = self.net(found)
        return mixed


class Perceiver(nn.Module):
    """Learned latents look at the patches of a volume, and at themselves: any number becomes a few."""

    def __init__(self, sizes: VisionSizes) -> None:
        """Take the sizes."""
        super().__init__()
        self.latents = nn.Parameter(torch.empty(sizes.latents, sizes.hidden))
        inner = 4 * sizes.hidden
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    LatentAttention(sizes),
                    nn.Sequential(
                        nn.LayerNorm(sizes.hidden),
                        nn.Linear(sizes.hidden, inner, bias=False),
                        nn.GELU(),
                        nn.Linear(inner, sizes.hidden, bias=False),
                    ),
                ]
            )
            for _ in range(sizes.resampler_layers)
        )
        self.norm = nn.LayerNorm(sizes.hidden)

    def forward(self, media: torch.Tensor) -> torch.Tensor:
        """Shape (volumes, latents, hidden).

        Args:
            media: Shape (volumes, patches, hidden).
        """
        latents = self.latents.expand(media.shape[0], -1, -1)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            attention, mlp = layer
            latents = latents + attention(media, latents)
            latents = latents + mlp(latents)
        found: torch.Tensor = self.norm(latents)
        return found


class LatentAttention(nn.Module):
    """Latents look at media and latents."""

    def __init__(self, sizes: VisionSizes) -> None:
        """Take the sizes."""
        super().__init__()
        self._heads = sizes.heads
        self.norm_media = nn.LayerNorm(sizes.hidden)
        self.norm_latents = nn.LayerNorm(sizes.hidden)
        self.to_q = nn.Linear(sizes.hidden, sizes.inner, bias=False)
        self.to_kv = nn.Linear(sizes.hidden, 2 * sizes.inner, bias=False)
        self.to_out = nn.Linear(sizes.inner, sizes.hidden, bias=False)

    def forward(self, media: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Of the shape of the latents."""
        latents = self.norm_latents(latents)
        key, value = self.to_kv(torch.cat([self.norm_media(media), latents], dim=1)).chunk(2, dim=-1)
        seen: torch.Tensor = self.to_out(attend(self.to_q(latents), key, value, heads=self._heads))
        return seen


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Attention of several heads that lie beside each other in the last axis.

    Args:
        query: Shape (volumes, queries, heads · size).
        key: Shape (volumes, keys, heads · size).
        value: As the key.
        heads: How many.

    Returns:
        Of the shape of the query.
    """
    q, k, v = (one.reshape(*one.shape[:2], heads, -1).transpose(1, 2) for one in (query, key, value))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
