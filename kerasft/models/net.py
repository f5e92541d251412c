"""A net: a whole model together with the table's rows of the backbones in it.

    net.blocks                what can be frozen or trained, from the top
    net.cut(2)                prefix | suffix in front of the second block from the top
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
    """A model, and what its layers are called in the table of backbones.

    Attributes:
        model: pixels float32 [B,S,S,3], 0 to 255, to scores [B,K], or to features [B,F] where
            there is no head yet.
        rows: the row of its backbone; of several backbones their rows, in order.
    """

    model: keras.Model
    rows: tuple[Backbone, ...]

    @classmethod
    def of(cls, model: keras.Model, backbone: str) -> "Net":
        """Finds the rows that go with a model.

        Args:
            model: as the attribute.
            backbone: name of its backbone, or several joined, as in `model.backbone` of a config.
        """
        return cls(model, rows_of(backbone))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks from the top; the last one begins at the pixels."""
        return tuple(list_blocks(self.model, *self.rows))

    def cut(self, blocks: int | str) -> Cut:
        """Cuts the model in front of its top blocks; see `cut.split`.

        Args:
            blocks: number of blocks from the top in the suffix, 0 for the head alone, or "all".

        Raises:
            UserError: there are fewer blocks than that.
        """
        return split(self.model, blocks, *self.rows)

    def depth(self, blocks: int | str) -> int:
        """Returns a phase's `blocks` as a number: "all" is all there are."""
        return len(self.blocks) if blocks == "all" else int(blocks)

    @property
    def features(self) -> keras.KerasTensor:
        """What enters the head, [B,F]."""
        return features_of(self.model)

    @property
    def base(self) -> keras.Model:
        """Pixels to features [B,F], sharing the model's layers."""
        return keras.Model(self.model.inputs[0], self.features)
