"""OpenImages30k (Choe et al., CVPR 2020): masks, with regions to ignore."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass

from wsolbench.annotations import data_folder
from wsolbench.dataset import Split, SplitName
from wsolbench.datasets.wsolevaluation import collection_split
from wsolbench.plugins import OPTIONS


@dataclass(frozen=True, config=OPTIONS)
class OpenImages:
    """100 classes; the truth is a mask: 1 any of the image's objects, 255 in its ignore box but no object, 0 elsewhere.

    `data` holds wsolevaluation's metadata/OpenImages/{train,val,test}/ and, in dataset/OpenImages/, the images and mask
    files. A line of localization.txt is `image,mask,ignore`, the ignore file on the first line of an image only.
    A mask file covers its image, whatever its size.
    The training split has no masks. Tested on generated data in this layout.
    """

    official: ClassVar[Mapping[SplitName, int]] = {"train": 29_819, "held_out": 2_500, "test": 5_000}

    def split(self, name: SplitName, data: Path | None) -> Split:
        """One split; held-out is its `val`. The ids are those of image_ids.txt."""
        folder = data_folder(data, "openimages", "OpenImages30k", "metadata/OpenImages", "dataset/OpenImages")
        return collection_split(folder, "OpenImages", name)


DATASET = OpenImages
