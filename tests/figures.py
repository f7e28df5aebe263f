"""The figures of a scrape, by name and labels."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families


class Figures:
    """What a /metrics answered. `figures("mien_requests_total", status="200")` is the sum of the
    samples of that name with these labels, whatever their others; 0 where there is none."""

    def __init__(self, text: str) -> None:
        self.samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def __call__(self, name: str, **labels: str) -> float:
        return sum(value for _, value in self._of(name, labels))

    def values(self, name: str, label: str) -> set[str]:
        """The values of a label."""
        return {labels[label] for labels, _ in self._of(name, {})}

    def _of(self, name: str, asked: Mapping[str, str]) -> list[tuple[Mapping[str, str], float]]:
        return [
            (labels, value)
            for found, labels, value in self.samples
            if found == name and asked.items() <= labels.items()
        ]
