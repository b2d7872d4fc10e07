"""The report's figures and settings.

The report is "多模态情感分析" (multimodal sentiment analysis of tweets). Its encoders are BERT-base
and SwinV2-base, which its code fine-tunes. Its figures are those of the epoch that is best on the
rows that they are computed on.
"""

from __future__ import annotations

from fuse.figures.study import Value

MODALITIES = ("text", "image", "both")
FIGURES = {
    "accuracy": "accuracy",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "macro_f1": "macro-F1",
}
JUDGED_ROWS = (83, 250, 467)
"""Rows of each class in the report's validation split, the rarest first."""
# Accuracy and macro precision, recall, F1 (0–1) of the report, by fusion and modality.
REPORT: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "concat": {
        "text": (0.7025, 0.6205, 0.5742, 0.5877),
        "image": (0.6663, 0.5796, 0.5310, 0.5461),
        "both": (0.7188, 0.6185, 0.6049, 0.6066),
    },
    "combine": {
        "text": (0.6987, 0.6319, 0.5338, 0.5309),
        "image": (0.6600, 0.5743, 0.4995, 0.5152),
        "both": (0.7275, 0.6441, 0.5820, 0.5939),
    },
    "attention": {
        "text": (0.7025, 0.6148, 0.5977, 0.6038),
        "image": (0.6538, 0.5806, 0.5302, 0.5456),
        "both": (0.6450, 0.5512, 0.5409, 0.5455),
    },
    "attention_concat": {
        "text": (0.7050, 0.6399, 0.5884, 0.5942),
        "image": (0.6650, 0.5911, 0.5243, 0.5411),
        "both": (0.7550, 0.6938, 0.6512, 0.6713),
    },
    "attention_combine": {
        "text": (0.7087, 0.6425, 0.5927, 0.6168),
        "image": (0.6650, 0.5921, 0.5227, 0.5553),
        "both": (0.7538, 0.6889, 0.6526, 0.6703),
    },
    "encoder": {
        "text": (0.7087, 0.6417, 0.5935, 0.6167),
        "image": (0.6412, 0.5552, 0.5227, 0.5385),
        "both": (0.7525, 0.6912, 0.6498, 0.6698),
    },
}
TRAINING: dict[str, Value] = {"norm": "none", "metric": "accuracy"}
"""Values of the report's training that differ from the defaults of a setting. The report reads the
first position of either sequence; which pool that is depends on the encoders."""
# The settings that the report found best for each fusion.
BEST: dict[str, dict[str, Value]] = {
    fusion: dict(zip(("text_dim", "image_dim", "dropout", "learning_rate"), values, strict=True))
    for fusion, values in {
        "concat": (256, 128, 0.25, 1e-4),
        "combine": (256, 256, 0.25, 1e-4),
        "attention": (512, 512, 0.2, 2e-5),
        "attention_concat": (128, 128, 0.15, 8e-5),
        "attention_combine": (128, 128, 0.15, 8e-5),
        "encoder": (256, 256, 0.15, 5e-6),
    }.items()
}
# Accuracy with cross-entropy and with ACB, if the report or its logs give both.
FIGURE_3: dict[str, tuple[float, float]] = {
    "attention": (0.6700, 0.6663),
    "attention_concat": (0.7462, 0.7412),
    "attention_combine": (0.7325, 0.7450),
    "encoder": (0.7250, 0.7350),
}
FIGURE_3_NEUTRAL: dict[str, tuple[float, float]] = {"attention_concat": (0.3133, 0.4337)}
"""Recall of the class neutral with cross-entropy and with ACB."""
LOSSES = ("ce", "acb")
