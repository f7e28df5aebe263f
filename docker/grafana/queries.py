"""What several dashboards ask: rates, quantiles and budgets, as Prometheus' expressions."""

from typing import Final

JOB: Final = 'job="mien"'
CALLS: Final = f'{JOB}, route!~"/healthz|/readyz|/metrics"'
PER: Final = "[$__rate_interval]"
ALLOWED_ERRORS: Final = 0.001  # the objectives of docker/prometheus/rules.yml
ALLOWED_SLOW: Final = 0.01
WINDOWS: Final = ("5m", "1h", "6h", "3d")


def rate(metric: str, by: str, labels: str = JOB) -> str:
    """A counter's rate, by a label."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}{PER}))"


def quantile(share: float, histogram: str, by: str = "", labels: str = JOB) -> str:
    """A quantile of a histogram, by a label where one is given."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', kept, labels)})"


def mean(histogram: str, by: str) -> str:
    """The mean of what a histogram saw, by a label."""
    return f"{rate(f'{histogram}_sum', by)} / {rate(f'{histogram}_count', by)}"


def budget_left(failures: str, calls: str, allowed: float) -> str:
    """The share of thirty days' budget that is left; below 0 it is overdrawn."""
    spent = f"sum_over_time({failures}[30d]) / sum_over_time({calls}[30d])"
    return f"1 - ({spent}) / {allowed}"


def burn(what: str, allowed: float) -> dict[str, str]:
    """How many times as fast as allowed the budget is spent, over several windows."""
    return {window: f"job:mien_{what}:ratio_{window} / {allowed}" for window in WINDOWS}
