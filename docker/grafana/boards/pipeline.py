"""Stages, queues and batches: a dashboard."""

from panels import Json, dashboard, heatmap, lines
from queries import JOB, PER, mean, quantile, rate


def board() -> Json:
    """Where a photograph's time goes, and what waits."""
    return dashboard(
        "mien-pipeline",
        "Mien: pipeline",
        "Stages, queues and batches, on the way of a photograph.",
        {
            "Stages": [
                lines(
                    "Time by stage, p50",
                    "s",
                    {"{{stage}}": quantile(0.5, "mien_stage_seconds", "stage")},
                    log=True,
                    text="For one image, or one call where a stage runs once a call. embed, "
                    "expression and attributes include the wait for the network.",
                ),
                lines(
                    "Time by stage, p95",
                    "s",
                    {"{{stage}}": quantile(0.95, "mien_stage_seconds", "stage")},
                    log=True,
                    text="The slowest one in twenty.",
                ),
                lines(
                    "Work by stage",
                    "s",
                    {"{{stage}}": rate("mien_stage_seconds_sum", "stage")},
                    stacked=True,
                    text="Seconds of each stage a second: where the time goes. "
                    "Images are in work side by side, so it may exceed one.",
                ),
            ],
            "Queues": [
                lines(
                    "Crops in line",
                    "short",
                    {"{{model}}": f"sum by (model) (mien_queue_depth{{{JOB}}})"},
                    text="Crops that wait for a network at the moment of the scrape.",
                ),
                lines(
                    "Wait for a network, p50",
                    "s",
                    {"{{model}}": quantile(0.5, "mien_queue_wait_seconds", "model")},
                    log=True,
                    text="From when faces came in line until the first of them ran.",
                ),
                lines(
                    "Wait for a network, p95",
                    "s",
                    {"{{model}}": quantile(0.95, "mien_queue_wait_seconds", "model")},
                    limits=(0.25,),
                    log=True,
                    text="MienQueueFilling fires above the line.",
                ),
            ],
            "Batches": [
                lines(
                    "Crops a batch",
                    "short",
                    {"{{model}}": mean("mien_batch_size", "model")},
                    text="The mean. A CPU runs one crop at a time, a GPU up to MIEN_BATCH.",
                ),
                heatmap(
                    "Batch sizes",
                    "short",
                    f"mien_batch_size_bucket{{{JOB}}}",
                    text="Of all networks together.",
                ),
                lines(
                    "Crops a second",
                    "cps",
                    {"{{model}}": rate("mien_batch_size_sum", "model")},
                    text="What a network gets through.",
                ),
            ],
            "Photographs": [
                lines(
                    "Images and faces",
                    "short",
                    {
                        "images a second": f"sum(rate(mien_faces_per_image_count{{{JOB}}}{PER}))",
                        "faces a second": f"sum(rate(mien_faces_per_image_sum{{{JOB}}}{PER}))",
                    },
                    text="Images that could be read, and faces that were found in them.",
                ),
                heatmap(
                    "Faces per image",
                    "short",
                    f"mien_faces_per_image_bucket{{{JOB}}}",
                    text="A crowd costs more than a portrait: embeddings are one a face.",
                ),
                lines(
                    "Images without a face",
                    "percentunit",
                    {
                        "share": "sum(rate("
                        f'mien_faces_per_image_bucket{{{JOB}, le="0.0"}}{PER})) / '
                        f"sum(rate(mien_faces_per_image_count{{{JOB}}}{PER}))"
                    },
                    text="A jump is a camera that looks elsewhere.",
                ),
            ],
        },
        hours=6,
    )
