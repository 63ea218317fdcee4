"""CAM (Zhou et al., CVPR 2016): global average pooling, and the classifier's weights as a score map."""

from wsolbench.method import Method

METHOD = Method
