"""Score points: Gaussians of the classes, and the evidence that they give."""

from skvmdls.scoring.evidence import Evidence, View
from skvmdls.scoring.expected_images import ExpectedImages
from skvmdls.scoring.gaussians import ClassGaussians

__all__ = ["ClassGaussians", "Evidence", "ExpectedImages", "View"]
