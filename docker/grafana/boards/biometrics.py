"""Galleries, decisions, similarity and quality: a dashboard."""

from panels import Json, dashboard, heatmap, lines, table
from queries import JOB, PER, quantile, rate


def board() -> Json:
    """Whether faces are what the calibration was measured on, and galleries what they were."""
    top1 = f"mien_top1_similarity_bucket{{{JOB}, decision="
    promised = f"mien_calibration_similarity{{{JOB}, pairs="

    def seen(decision: str) -> dict[str, str]:
        labels = f'{JOB}, decision="{decision}"'
        return {
            f"p{round(share * 100)}": quantile(share, "mien_top1_similarity", labels=labels)
            for share in (0.05, 0.5, 0.95)
        }

    def calibrated(pairs: str, *percent: int) -> dict[str, str]:
        return {
            f"calibration p{p}": f'max({promised}"{pairs}", fraction="{p / 100}"}})'
            for p in percent
        }

    against = "Dashed: the calibration of the network that is served."
    return dashboard(
        "mien-biometrics",
        "Mien: biometrics",
        "Galleries, decisions, and similarity and quality against what was calibrated.",
        {
            "Galleries": [
                lines(
                    "Faces by gallery",
                    "short",
                    {"{{gallery}}": f"max by (gallery) (mien_gallery_faces{{{JOB}}})"},
                    text="The twenty largest, and all others together.",
                ),
                lines(
                    "Changes of galleries",
                    "short",
                    {"changes so far": f"max(mien_gallery_revision{{{JOB}}})"},
                    text="The sum of the galleries' revisions: flat while nobody enrols or "
                    "deletes. It falls only when a gallery is deleted.",
                ),
                table(
                    "What the calibration asks",
                    f"max by (fmr) (mien_calibration_threshold{{{JOB}}})",
                    columns=("fmr", "Value"),
                    text="The similarity for each false match rate. "
                    "/identify asks, among F faces, for a rate of 1 % / F.",
                ),
            ],
            "Decisions": [
                lines(
                    "Decisions by kind",
                    "cps",
                    {"{{decision}}": rate("mien_decisions_total", "decision")},
                    stacked=True,
                    width=12,
                    text="Of each face of /identify and /analyze, and each pair of /verify.",
                ),
                lines(
                    "Share of decisions",
                    "percentunit",
                    {
                        "{{decision}}": rate("mien_decisions_total", "decision")
                        + f" / on () group_left () sum(rate(mien_decisions_total{{{JOB}}}{PER}))"
                    },
                    width=12,
                    text="A growing share of uncertain is the first sign of drift.",
                ),
            ],
            "Similarity of the best candidate": [
                *(
                    heatmap(f"Similarity of {name}", "none", f'{top1}"{decision}"}}', text=text)
                    for name, decision, text in (
                        ("matches", "match", "Of faces that were taken for somebody."),
                        (
                            "uncertain ones",
                            "uncertain",
                            "Between the threshold and its lower bound: a person should look.",
                        ),
                        ("strangers", "no_match", "Of faces that were taken for nobody."),
                    )
                ),
                lines(
                    "Matches against the calibration",
                    "none",
                    width=12,
                    queries={**seen("match"), **calibrated("mated", 5, 50, 95)},
                    text=f"{against} Pairs of one person. A match is the best of a person's faces "
                    "and above a threshold: it lies rather higher.",
                ),
                lines(
                    "Strangers against the calibration",
                    "none",
                    width=12,
                    queries={
                        **seen("no_match"),
                        **calibrated("non_mated", 50, 95, 99),
                        "calibration at FMR 1e-4": "max(mien_calibration_threshold"
                        f'{{{JOB}, fmr="0.0001"}})',
                    },
                    text=f"{against} Pairs of strangers. The best of many candidates lies higher, "
                    "and the more so the larger the gallery.",
                ),
                lines(
                    "Similarity, six hours and a week",
                    "none",
                    width=12,
                    queries={
                        "{{decision}}": f"job:mien_top1_similarity:median_6h{{{JOB}}}",
                        "week: {{decision}}": f"job:mien_top1_similarity:median_1w{{{JOB}}}",
                        "calibration: mated": f'max({promised}"mated", fraction="0.5"}})',
                    },
                    text="Medians. MienSimilarityDrift and MienSimilarityShift watch them.",
                ),
                lines(
                    "Faces with candidates",
                    "cps",
                    {"{{decision}}": rate("mien_top1_similarity_count", "decision")},
                    width=12,
                    text="How many the medians stand on.",
                ),
            ],
            "Quality": [
                heatmap(
                    "Quality score",
                    "none",
                    f"mien_quality_score_bucket{{{JOB}}}",
                    text="What a face's picture leaves of true matches, by its worst component.",
                ),
                lines(
                    "Quality, quantiles",
                    "none",
                    {
                        f"p{round(share * 100)}": quantile(share, "mien_quality_score")
                        for share in (0.05, 0.25, 0.5, 0.75)
                    },
                    text="Of the faces that were found.",
                ),
                lines(
                    "Quality, six hours and a week",
                    "none",
                    {
                        "six hours": f"job:mien_quality_score:median_6h{{{JOB}}}",
                        "week": f"job:mien_quality_score:median_1w{{{JOB}}}",
                    },
                    text="Medians. MienQualityDrift watches them; the week is the baseline, "
                    "since a calibration knows no quality.",
                ),
            ],
        },
        hours=24,
    )
