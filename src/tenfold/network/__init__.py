"""The model that joins the parts: encoders, pooling, fusion, a shared layer, heads.

It must not know patients, training or files.
"""

from __future__ import annotations

from tenfold.network.fusion import present
from tenfold.network.heads import HeadSpec, mirror
from tenfold.network.network import Network

__all__ = ["HeadSpec", "Network", "mirror", "present"]
