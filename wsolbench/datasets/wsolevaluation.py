"""The data sets of wsolevaluation (Choe et al., CVPR 2020), in its own files."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from pydantic.dataclasses import dataclass

from wsolbench.annotations import (
    Problems,
    as_split,
    data_folder,
    located,
    metadata_listing,
    need,
    read_tables,
    refuse,
    whole_number,
)
from wsolbench.dataset import Split, SplitName
from wsolbench.errors import InputError
from wsolbench.plugins import OPTIONS

FOLDERS: Mapping[SplitName, str] = {"train": "train", "held_out": "val", "test": "test"}
OFFICIAL: Mapping[str, tuple[int, int, int]] = {
    "CUB": (5_994, 1_000, 5_794),
    "ILSVRC": (1_281_167, 10_000, 50_000),
    "OpenImages": (29_819, 2_500, 5_000),
}


@dataclass(frozen=True, config=OPTIONS)
class WsolEvaluation:
    """Any data set in metadata/<collection>/{train,val,test}/ with its images in dataset/<collection>/.

    `data` holds metadata/ and dataset/, as a checkout of wsolevaluation does; the held-out split is its `val`.
    Boxes are x0,y0,x1,y1 as its files have them, ends neither added to nor taken from. Masks are as in `openimages`.
    Tested on generated data in this layout; its own files were read without their images.
    """

    collection: str  # the folder of metadata/, such as CUB, ILSVRC or OpenImages
    proxy: bool = False  # train on the images of image_ids_proxy.txt only

    @property
    def official(self) -> Mapping[SplitName, int]:
        """How many images the splits have."""
        counts = OFFICIAL.get(self.collection, ())
        return dict(zip(FOLDERS, counts, strict=False)) if not self.proxy else {}

    def split(self, name: SplitName, data: Path | None) -> Split:
        """One split; the ids are those of image_ids.txt."""
        folder = data_folder(data, "wsolevaluation", "files of wsolevaluation", "metadata", "dataset")
        chosen = "image_ids_proxy.txt" if self.proxy and name == "train" else "image_ids.txt"
        return collection_split(folder, self.collection, name, chosen)


def collection_split(folder: Path, collection: str, name: SplitName, chosen: str = "image_ids.txt") -> Split:
    """A split of a folder that holds metadata/<collection>/ and dataset/<collection>/."""
    metadata, images = (folder / top / collection for top in ("metadata", "dataset"))
    if not metadata.is_dir():
        there = ", ".join(sorted(entry.name for entry in metadata.parent.iterdir() if entry.is_dir())) or "nothing"
        raise InputError(f"no collection {collection!r} in {str(metadata.parent)!r}; there are: {there}")
    if not images.is_dir():
        raise InputError(f"no images of {collection} in {str(images)!r}; dataset/{collection} must hold them")
    need(metadata / FOLDERS[name], chosen, f"{name} split of {collection}")
    listing = metadata_listing(metadata / FOLDERS[name], images, _classes(metadata), chosen)
    return as_split(listing if name == "train" else located(listing))


def _classes(metadata: Path) -> tuple[str, ...]:
    """A name for each label of any split: the folder of its training images if it has its own, else the number."""
    problems = Problems(list)
    folders: dict[int, set[str]] = defaultdict(set)
    for name, split in FOLDERS.items():
        (rows,) = read_tables(metadata / split, {"class_labels.txt": [2]}, ",", ["class_labels.txt"])
        for row in rows:
            folder = {row.values[0].split("/")[-2:-1][0]} if name == "train" and "/" in row.values[0] else set()
            folders[whole_number(row, 1, problems)] |= folder
    refuse(problems)
    names = ["/".join(folders[label]) for label in range(max(folders, default=-1) + 1)]
    apart = len(set(names)) == len(names) and all(len(found) == 1 for found in folders.values())
    return tuple(names) if apart else tuple(str(label) for label in range(len(names)))


DATASET = WsolEvaluation
