"""Requests, their times, and the budget of errors: a dashboard."""

from panels import Json, alerts, dashboard, heatmap, lines, number, table
from queries import ALLOWED_ERRORS, ALLOWED_SLOW, CALLS, JOB, budget_left, burn, quantile, rate


def board() -> Json:
    """Whether callers get what they ask for, and how long it will stay so."""
    errors = ("job:mien_call_errors:rate5m", "job:mien_calls:rate5m", ALLOWED_ERRORS)
    slow = ("job:mien_slow_calls:rate5m", "job:mien_image_calls:rate5m", ALLOWED_SLOW)
    rates = "14.4 spends 2 % of a month's budget in an hour, 1 a month's in a month."
    return dashboard(
        "mien-service",
        "Mien: service",
        "Requests, their times, and the budget of errors.",
        {
            "Now": [
                number(
                    "Ready",
                    "none",
                    f"min(mien_ready{{{JOB}}})",
                    steps=(1,),
                    width=3,
                    names={"0": "no", "1": "yes"},
                    text="What /readyz says, of all instances.",
                ),
                number(
                    "Calls a second",
                    "reqps",
                    "sum(job:mien_calls:rate5m)",
                    width=3,
                    text="Without /healthz, /readyz and /metrics, over five minutes.",
                ),
                number(
                    "Available now",
                    "percentunit",
                    "1 - job:mien_call_errors:ratio_5m",
                    width=3,
                    steps=(0.99, 0.999),
                    text="Share of five minutes' calls that were answered without 5xx.",
                ),
                number(
                    "Available, 30 days",
                    "percentunit",
                    steps=(0.998, 0.999),
                    width=4,
                    query=f"1 - sum_over_time({errors[0]}[30d]) / sum_over_time({errors[1]}[30d])",
                    text="Calls that were answered without 5xx. The objective is 99.9 %.",
                ),
                number(
                    "Budget of errors left",
                    "percentunit",
                    budget_left(*errors),
                    width=4,
                    steps=(0, 0.5),
                    text="Of the 0.1 % of thirty days' calls that may fail.",
                ),
                number(
                    "Budget of slow calls left",
                    "percentunit",
                    budget_left(*slow),
                    width=4,
                    steps=(0, 0.5),
                    text="Of the 1 % of thirty days' calls with images that may "
                    "take longer than 0.5 s.",
                ),
                number(
                    "Up since",
                    "dateTimeFromNow",
                    width=3,
                    text="When the oldest process began.",
                    query=f"min(process_start_time_seconds{{{JOB}}}) * 1000",
                ),
            ],
            "Calls": [
                lines(
                    "Calls by route",
                    "reqps",
                    {"{{route}}": rate("mien_requests_total", "route")},
                    stacked=True,
                    text="By the template of the path, probes included.",
                ),
                lines(
                    "Answers by status",
                    "reqps",
                    {"{{status}}": rate("mien_requests_total", "status")},
                    stacked=True,
                    text="499: the client had gone.",
                ),
                lines(
                    "Failed calls by route",
                    "percentunit",
                    {
                        "{{route}}": rate("mien_requests_total", "route", f'{CALLS}, status=~"5.."')
                        + f" / {rate('mien_requests_total', 'route', CALLS)}"
                    },
                    text="Share of a route's calls that were answered with 5xx.",
                ),
                lines(
                    "Refusals by reason",
                    "reqps",
                    {"{{reason}}": rate("mien_refused_total", "reason")},
                    width=12,
                    stacked=True,
                    text="Calls that were answered with a problem; docs/errors.md has them all.",
                ),
                heatmap(
                    "Request times",
                    "s",
                    f"mien_request_seconds_bucket{{{CALLS}}}",
                    width=12,
                    text="All calls but probes: two bands are two kinds of call.",
                ),
            ],
            "Times": [
                lines(
                    f"Request time by route, p{share}",
                    "s",
                    {"{{route}}": quantile(share / 100, "mien_request_seconds", "route", CALLS)},
                    limits=(0.5,),
                    text="From a request's head to the end of its answer. The line is the "
                    "objective: 99 % of the calls with images within 0.5 s.",
                )
                for share in (50, 95, 99)
            ],
            "Budget": [
                lines(
                    "Burn rate of the errors",
                    "none",
                    burn("call_errors", ALLOWED_ERRORS),
                    limits=(1, 6, 14.4),
                    text=f"Over four windows; {rates}",
                ),
                lines(
                    "Burn rate of the slow calls",
                    "none",
                    burn("slow_calls", ALLOWED_SLOW),
                    limits=(1, 6, 14.4),
                    text=f"Over four windows; {rates}",
                ),
                alerts("Alerts", text="Pending and firing; docs/alerts.md says what to do."),
            ],
            "What runs": [
                table(
                    "Networks",
                    f"mien_model_info{{{JOB}}}",
                    width=12,
                    columns=("instance", "model", "space", "provider", "threads"),
                    text="The networks that are served, and what they run on.",
                ),
                table(
                    "Build",
                    f"mien_build_info{{{JOB}}}",
                    width=12,
                    columns=("instance", "version", "python", "onnxruntime"),
                    text="What the program is made of.",
                ),
            ],
        },
        hours=6,
    )
