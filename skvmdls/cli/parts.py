"""What each part of the evidence looks at, for `explain` and the page of `report`."""

from collections.abc import Sequence

__all__ = ["MEANINGS", "meanings_of"]

MEANINGS = {
    "x": "the features of the pretrained net themselves",
    "t1": "simple patterns, such as edges and textures",
    "t2": "patterns of middle size",
    "t3": "large patterns, such as parts of objects",
    "g": "what the net makes of the whole image",
    "mu": "where the image lies between the classes",
    "logit": "how clearly one class wins",
    "boundary": "how far the image is from the boundaries between classes",
    "texture": "colours, contrasts and flat areas",
    "residual": "what cannot be rebuilt from known images",
    "shared": "how far the image is from the class means",
    "relative": "how far it is from the class means, compared with the overall mean",
    "separate": "how far the image is from each class, given how that class varies",
    "neighbours": "how far the image is from the nearest training image",
    "prototype": "the angle between the image and the class means",
    "linear": "how clearly one class wins in a linear classifier",
    "trees": "how clearly one class wins in randomised trees",
}


def meanings_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the parts that a detector uses with what they look at.

    Examples
    --------
    >>> meanings_of(["logit"])
    [('logit', 'how clearly one class wins')]
    """
    return [(name, MEANINGS[name]) for name in names if name in MEANINGS]
