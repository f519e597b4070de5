"""The 78 data sets.

They are those of the YAML files in `scripts/evaluation/mmeb_v2` of the official repository (commit 8ce3aab), with what
its loaders add to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qwen3vl.evaluation.mmeb_v2 import groups
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec, Group, Ranking, Source

IMAGE_REPO = "ziyjiang/MMEB_Test_Instruct"
ANSWER_INSTRUCTION = (
    "Given a video and a question, select the most accurate answer from the provided candidates. "
    "Return only the exact text of your chosen answer."
)
DOCUMENT_INSTRUCTION = "Find a document image that matches the given query."
MOMENT_INSTRUCTIONS = (
    "Find the clip that corresponds to the given text.",
    "Select the video clip that aligns with the given text and image.",
    "Find the clip that corresponds to the given sentence and video segment.",
)
"""Of queries with only a text, with an image, and with a video."""
NUM_FRAMES = 64
_FRAMES = "video-tasks/frames/"
_PAGES = "visdoc-tasks/images/"


def _images(group: Group, loader: str, *names: str, reranked: bool = False) -> Iterator[DatasetSpec]:
    for name in names:
        source = Source(IMAGE_REPO, "test", name)
        yield DatasetSpec(name, group, loader, name, source, "image-tasks/", "local", reranked=reranked)


def _video(
    name: str,
    group: Group,
    loader: str,
    source: Source,
    media: str,
    ranking: Ranking,
    *instructions: str,
    dataset_name: str | None = None,
    reranked: bool = False,
    max_queries: int | None = None,
    num_clip_frames: int | None = None,
) -> DatasetSpec:
    return DatasetSpec(
        name,
        group,
        loader,
        dataset_name or name,
        source,
        _FRAMES + media,
        ranking,
        instructions,
        reranked,
        max_queries,
        NUM_FRAMES,
        num_clip_frames,
    )


def _video_classification(name: str, instruction: str, dataset_name: str | None = None) -> DatasetSpec:
    source = Source(f"VLM2Vec/{dataset_name or name}", "test")
    media, loader = f"video_cls/{name}", "video_classification"
    return _video(name, groups.VID_CLS, loader, source, media, "global", instruction, dataset_name=dataset_name)


def _video_answers(name: str, loader: str, source: Source, media: str | None = None) -> DatasetSpec:
    media = f"video_qa/{media or name}"
    return _video(name, groups.VID_QA, loader, source, media, "local", ANSWER_INSTRUCTION)


def _video_retrieval(name: str, loader: str, source: Source, instruction: str) -> DatasetSpec:
    media = f"video_ret/data/ziyan/video_retrieval/{name}/frames"
    return _video(name, groups.VID_RET, loader, source, media, "global", instruction, reranked=True)


def _moments(name: str, loader: str, *instructions: str, num_clip_frames: int | None = None) -> DatasetSpec:
    return _video(
        name,
        groups.VID_MRET,
        loader,
        Source(f"VLM2Vec/{name}", "test"),
        f"video_mret/{name}",
        "local",
        *instructions,
        reranked=True,
        num_clip_frames=num_clip_frames,
    )


def _documents(
    name: str, group: Group, source: Source, loader: str = "vidore", media: str | None = None
) -> DatasetSpec:
    instructions = (DOCUMENT_INSTRUCTION,)
    return DatasetSpec(
        name, group, loader, name, source, _PAGES + (media or name), "global", instructions, reranked=True
    )


def _vidore_v1(topic: str, repo: str) -> DatasetSpec:
    return _documents(f"ViDoRe_{topic}", groups.VIDORE_V1, Source(f"vidore/{repo}", "test"))


def _vidore_v2(topic: str, suffix: str = "") -> DatasetSpec:
    source, media = Source(f"vidore/{topic}", "test"), topic + suffix
    return _documents(f"ViDoRe_{media}", groups.VIDORE_V2, source, media=media)


def _visrag(topic: str) -> DatasetSpec:
    source = Source(f"openbmb/VisRAG-Ret-Test-{topic}", "train")
    return _documents(f"VisRAG_{topic}", groups.VISRAG, source, "visrag")


def _all() -> Iterator[DatasetSpec]:
    cls = ("ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397", "Place365", "ImageNet-A", "ImageNet-R")
    yield from _images(groups.IMG_CLS, "image_cls", *cls, "ObjectNet", "Country211")
    qa = ("OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA", "Visual7W", "ScienceQA", "VizWiz", "GQA")
    yield from _images(groups.IMG_QA, "image_qa", *qa, "TextVQA")
    yield from _images(groups.IMG_RET, "image_i2t", "MSCOCO_i2t", "VisualNews_i2t", reranked=True)
    t2i = ("VisDial", "MSCOCO_t2i", "VisualNews_t2i", "WebQA", "EDIS", "Wiki-SS-NQ")
    yield from _images(groups.IMG_RET, "image_t2i", *t2i, reranked=True)
    yield from _images(groups.IMG_RET, "image_i2i_vg", "CIRR", "NIGHTS", "OVEN", "FashionIQ", reranked=True)
    grounding = ("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing")
    yield from _images(groups.IMG_GRD, "image_i2i_vg", *grounding)

    yield _video(
        "SmthSmthV2",
        groups.VID_CLS,
        "ssv2",
        Source("VLM2Vec/SmthSmthV2", "test"),
        "video_cls/SSv2",
        "local",
        "What actions or object interactions are being performed by the person in the video?",
        max_queries=1000,
    )
    yield _video_classification("HMDB51", "What actions or objects interactions are the person in the video doing?")
    yield _video_classification("UCF101", "What activities or sports are being performed by the person in the video?")
    yield _video_classification("K700", "Recognize the category of the video content.", "Kinetics-700")
    yield _video_classification("Breakfast", "Recognize the breakfast type that the person is cooking in the video. ")
    yield _video_answers("Video-MME", "videomme", Source("VLM2Vec/Video-MME", "test"))
    yield _video_answers("NExTQA", "nextqa", Source("VLM2Vec/NExTQA", "test", "MC"))
    yield _video_answers("EgoSchema", "egoschema", Source("VLM2Vec/EgoSchema", "test", "Subset"), "egoschema")
    yield _video_answers("MVBench", "mvbench", Source("VLM2Vec/MVBench", "train"))
    yield _video_answers("ActivityNetQA", "activitynetqa", Source("VLM2Vec/ActivityNetQA", "test"))
    yield _video_retrieval(
        "MSR-VTT",
        "msrvtt",
        Source("VLM2Vec/MSR-VTT", "test", "test_1k"),
        "Find a video that contains the following visual content.",
    )
    yield _video_retrieval(
        "MSVD",
        "msvd",
        Source("VLM2Vec/MSVD", "test"),
        "Find the video snippet that corresponds to the given summary.",
    )
    yield _video_retrieval(
        "DiDeMo",
        "didemo",
        Source("VLM2Vec/DiDeMo", "test"),
        "Find a video that includes the following described scenes.",
    )
    yield _video_retrieval(
        "YouCook2",
        "youcook2",
        Source("lmms-lab/YouCook2", "val"),
        "Find a video that demonstrates the following action while making a recipe.",
    )
    yield _video_retrieval(
        "VATEX",
        "vatex",
        Source("VLM2Vec/VATEX", "test"),
        "Select a video that fits the description provided.",
    )
    moment = "Find the clip that corresponds to the described scene in the given video."
    yield _moments("QVHighlight", "moment_retrieval", moment, num_clip_frames=8)
    yield _moments("Charades-STA", "moment_retrieval", moment, num_clip_frames=8)
    yield _moments("MomentSeeker", "momentseeker", *MOMENT_INSTRUCTIONS)

    for topic in ("arxivqa", "docvqa", "infovqa", "tabfquad"):
        yield _vidore_v1(topic, f"{topic}_test_subsampled_beir")
    synthetic = ("artificial_intelligence", "energy", "government_reports", "healthcare_industry")
    for topic in ("tatdqa", "shiftproject", *(f"syntheticDocQA_{subject}" for subject in synthetic)):
        yield _vidore_v1(topic, f"{topic}_test_beir")
    yield _vidore_v2("esg_reports_human_labeled_v2")
    for topic in ("biomedical_lectures_v2", "economics_reports_v2", "esg_reports_v2"):
        yield _vidore_v2(topic, "_multilingual")
    for topic in ("ArxivQA", "ChartQA", "MP-DocVQA", "SlideVQA", "InfoVQA", "PlotQA"):
        yield _visrag(topic)
    yield _documents("ViDoSeek-page", groups.OOD, Source("VLM2Vec/ViDoSeek-page-fixed", "test"))
    yield _documents("ViDoSeek-doc", groups.OOD, Source("VLM2Vec/ViDoSeek", "test"))
    yield _documents("MMLongBench-doc", groups.OOD, Source("VLM2Vec/MMLongBench-doc", "test"))
    yield _documents("MMLongBench-page", groups.OOD, Source("VLM2Vec/MMLongBench-page-fixed", "test"))


DATASETS: Mapping[str, DatasetSpec] = {spec.name: spec for spec in _all()}
"""All data sets by name, in the order of the official tables."""
