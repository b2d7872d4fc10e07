"""Families of transformers models that are supported, by their ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping

_BIDIRECTIONAL = (
    "albert bert bert-generation big_bird camembert convbert data2vec-text deberta deberta-v2 "
    "distilbert electra ernie esm eurobert flaubert fnet ibert jina_embeddings_v3 layoutlm "
    "longformer luke megatron-bert mobilebert modernbert mpnet mra nomic_bert nystromformer "
    "rembert roberta roberta-prelayernorm roc_bert roformer splinter squeezebert xlm xlm-roberta "
    "xlm-roberta-xl xlnet xmod yoso"
)
_CAUSAL = (
    "biogpt bloom codegen cohere cohere2 falcon gemma gemma2 gemma3_text glm glm4 gpt2 "
    "gpt_bigcode gpt_neo gpt_neox gptj granite helium llama ministral mistral modernbert-decoder "
    "nemotron olmo olmo2 olmo3 openai-gpt opt phi phi3 qwen2 qwen3 smollm3 stablelm "
    "starcoder2 xglm"
)
CAUSAL_TYPES = frozenset(_CAUSAL.split())
"""Decoders: the features of a token depend on the tokens before it only."""
PADDING_SENSITIVE_TYPES = frozenset(("convbert", "fnet", "nystromformer", "yoso"))
"""Families that do not mask padding everywhere: their features depend on it."""
TEXT_TYPES = frozenset(_BIDIRECTIONAL.split()) | CAUSAL_TYPES
JOINT_TYPES = frozenset(("altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip"))
JOINT_SIDES = frozenset(
    f"{name}_{side}_model" for name in JOINT_TYPES for side in ("text", "vision")
)
"""``model_type`` of the two sides of joint models."""


def is_causal(config: Mapping[str, object]) -> bool:
    """Whether a text model attends to earlier tokens only, by its configuration."""
    causal_family = str(config.get("model_type")) in CAUSAL_TYPES
    return bool(config.get("is_decoder")) or (
        causal_family and not config.get("use_bidirectional_attention")
    )
