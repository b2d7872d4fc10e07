"""Stage one: frozen encoders run once over the pairs and their augmented variants."""

from typing import TYPE_CHECKING

from mmsa_cache.lazy import lazy_exports

if TYPE_CHECKING:
    from .encoders.image import resolve_image as resolve_image
    from .encoders.image import resolve_joint_image as resolve_joint_image
    from .encoders.options import Options as Options
    from .encoders.text import resolve_text as resolve_text
    from .inputs.augment import augment_image as augment_image
    from .inputs.augment import augment_text as augment_text
    from .plan import plan_rows as plan_rows
    from .shards import encode_rows as encode_rows

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "encode_rows": "shards",
        "resolve_image": "encoders.image",
        "resolve_joint_image": "encoders.image",
        "Options": "encoders.options",
        "resolve_text": "encoders.text",
        "augment_image": "inputs.augment",
        "augment_text": "inputs.augment",
        "plan_rows": "plan",
    },
)
