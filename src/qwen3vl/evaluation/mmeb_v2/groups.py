"""The groups of data sets, in the order of the official tables."""

from __future__ import annotations

from qwen3vl.evaluation.mmeb_v2.specs import Group

IMAGE_METRIC = VIDEO_METRIC = "hit@1"
DOCUMENT_METRIC = "ndcg_linear@5"

IMG_CLS = Group("IMG_CLS", "Image CLS", "image", IMAGE_METRIC)
IMG_QA = Group("IMG_QA", "Image QA", "image", IMAGE_METRIC)
IMG_RET = Group("IMG_RET", "Image RET", "image", IMAGE_METRIC)
IMG_GRD = Group("IMG_GRD", "Image GD", "image", IMAGE_METRIC)
VID_CLS = Group("VID_CLS", "Video CLS", "video", VIDEO_METRIC)
VID_QA = Group("VID_QA", "Video QA", "video", VIDEO_METRIC)
VID_RET = Group("VID_RET", "Video RET", "video", VIDEO_METRIC)
VID_MRET = Group("VID_MRET", "Video MRET", "video", VIDEO_METRIC)
VIDORE_V1 = Group("ViDoRe_v1", "VisDoc VDRv1", "visdoc", DOCUMENT_METRIC)
VIDORE_V2 = Group("ViDoRe_v2", "VisDoc VDRv2", "visdoc", DOCUMENT_METRIC)
VISRAG = Group("VisRag", "VisDoc VR", "visdoc", DOCUMENT_METRIC)
OOD = Group("OOD", "VisDoc OOD", "visdoc", DOCUMENT_METRIC)

GROUPS = (
    IMG_CLS,
    IMG_QA,
    IMG_RET,
    IMG_GRD,
    VID_CLS,
    VID_QA,
    VID_RET,
    VID_MRET,
    VIDORE_V1,
    VIDORE_V2,
    VISRAG,
    OOD,
)
