"""Stage one: frozen encoders run once over the pairs and their augmented variants."""

from typing import TYPE_CHECKING

from mmsa_cache.lazy import public

if TYPE_CHECKING:
    from .augment import augment_image as augment_image
    from .augment import augment_text as augment_text
    from .encoder import Options as Options
    from .engine import encode_rows as encode_rows
    from .engine import plan_rows as plan_rows
    from .image import resolve_image as resolve_image
    from .image import resolve_joint_image as resolve_joint_image
    from .text import resolve_text as resolve_text

__getattr__, __all__ = public(
    __name__,
    {
        "augment_image": "augment",
        "augment_text": "augment",
        "Options": "encoder",
        "encode_rows": "engine",
        "plan_rows": "engine",
        "resolve_image": "image",
        "resolve_joint_image": "image",
        "resolve_text": "text",
    },
)
