"""Nets: a whole model together with its backbones' rows of the table.

    net.blocks                the blocks, from the top
    net.cut(2)                prefix | suffix, the top two blocks in the suffix
    net.base                  pixels to features, without the head

Shapes: B images in a batch, S side of the square input in pixels, F features, K classes.
"""

from dataclasses import dataclass
from functools import cached_property

import keras

from kerasft.backbones.spec import rows_of
from kerasft.backbones.table import Backbone
from kerasft.heads.trained import features_of
from kerasft.models.blocks import Block, list_blocks
from kerasft.models.cut import Cut, split


@dataclass(frozen=True, eq=False)
class Net:
    """A model, with the rows of the backbone table that name its blocks.

    Attributes:
        model: the model, pixels float32 [B,S,S,3], 0 to 255, to scores [B,K], or to features
            [B,F] if it has no head yet.
        rows: the row of its backbone, or the rows of several backbones in order.
    """

    model: keras.Model
    rows: tuple[Backbone, ...]

    @classmethod
    def of(cls, model: keras.Model, backbone: str) -> "Net":
        """Makes a net of a model and the name of its backbone.

        Args:
            model: the model, pixels to scores or features.
            backbone: name of its backbone, or several joined by "+", as in a config.
        """
        return cls(model, rows_of(backbone))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks from the top; the last one begins at the pixels."""
        return tuple(list_blocks(self.model, *self.rows))

    def cut(self, blocks: int | str) -> Cut:
        """Cuts the model below its top blocks; see `cut.split`.

        Args:
            blocks: number of blocks from the top in the suffix, 0 for the head alone, or "all".

        Raises:
            UserError: there are fewer blocks than that.
        """
        return split(self.model, blocks, *self.rows)

    def depth(self, blocks: int | str) -> int:
        """Returns a phase's `blocks` as a number; "all" is the number of all blocks."""
        return len(self.blocks) if blocks == "all" else int(blocks)

    @property
    def features(self) -> keras.KerasTensor:
        """The features that enter the head, [B,F]."""
        return features_of(self.model)

    @property
    def base(self) -> keras.Model:
        """The base, pixels to features [B,F]; it shares the model's layers."""
        return keras.Model(self.model.inputs[0], self.features)
