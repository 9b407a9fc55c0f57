"""Parts of the evidence that need no trained net, for vectors and tables."""

from skvmdls.direct.parts import DIRECT_PARTS, DirectParts, fit_direct_parts

__all__ = ["DIRECT_PARTS", "DirectParts", "fit_direct_parts"]
