"""Processor, memory, files and GPU: a dashboard."""

from panels import Json, dashboard, lines
from queries import JOB, PER, rate


def board() -> Json:
    """What the service takes of the machine, and whether it gives it back."""
    memory = f"process_resident_memory_bytes{{{JOB}}}"
    calls = f"sum by (instance) (rate(mien_requests_total{{{JOB}}}[1h]))"
    return dashboard(
        "mien-machine",
        "Mien: machine",
        "Processor, memory, files, threads and GPU.",
        {
            "Processor": [
                lines(
                    "CPU",
                    "short",
                    {"{{instance}}": f"rate(process_cpu_seconds_total{{{JOB}}}{PER})"},
                    text="Cores in use, of all worker processes.",
                ),
                lines(
                    "CPU a call",
                    "s",
                    {
                        "{{instance}}": rate("process_cpu_seconds_total", "instance")
                        + f" / {rate('mien_requests_total', 'instance')}"
                    },
                    text="CPU seconds by requests of every kind.",
                ),
                lines(
                    "Threads",
                    "short",
                    {"{{instance}}": f"mien_threads{{{JOB}}}"},
                    text="Rising for days, they are not given back.",
                ),
            ],
            "Memory": [
                lines(
                    "Resident memory",
                    "bytes",
                    {
                        "{{instance}}": memory,
                        "limit: in a day, by six hours": f"predict_linear({memory}[6h], 86400)",
                    },
                    text="And where the line through the last six hours leads in a day.",
                ),
                lines(
                    "Memory's growth",
                    "bytes",
                    {"{{instance}}, bytes an hour": f"deriv({memory}[1h]) * 3600"},
                    text="The slope of an hour. It returns to zero unless something leaks.",
                ),
                lines(
                    "Growth per request",
                    "bytes",
                    {"{{instance}}": f"sum by (instance) (deriv({memory}[1h])) / {calls}"},
                    text="The slope by the rate of requests: level and above zero for hours, it "
                    "is a leak; falling as requests come, it was a pool that filled.",
                ),
                lines(
                    "Memory against requests",
                    "bytes",
                    {
                        "{{instance}}": memory,
                        "right: requests": f"sum(mien_requests_total{{{JOB}}})",
                    },
                    right="short",
                    width=12,
                    text="A leak makes the two curves parallel.",
                ),
                lines(
                    "Garbage collection",
                    "short",
                    {"generation {{generation}}": rate("mien_gc_collections_total", "generation")},
                    width=12,
                    log=True,
                    text="Runs a second of Python's collector. Generation 2 looks at everything.",
                ),
            ],
            "Files": [
                lines(
                    "Open files",
                    "short",
                    {
                        "{{instance}}": f"process_open_fds{{{JOB}}}",
                        "limit": f"process_max_fds{{{JOB}}}",
                    },
                    log=True,
                    width=12,
                    text="And how many may be.",
                ),
                lines(
                    "Disk of the data",
                    "bytes",
                    {
                        "{{instance}} free": f"mien_disk_free_bytes{{{JOB}}}",
                        "limit: size": f"mien_disk_bytes{{{JOB}}}",
                    },
                    width=12,
                    text="The disk of MIEN_DATA, whoever fills it.",
                ),
            ],
            "GPU": [
                lines(
                    "GPU in use",
                    "percentunit",
                    {"{{instance}} {{gpu}}": f"mien_gpu_use_ratio{{{JOB}}}"},
                    width=12,
                    text="Share of the last moment in which it computed, for anyone. Empty "
                    "without MIEN_DEVICE=cuda.",
                ),
                lines(
                    "GPU memory",
                    "bytes",
                    {
                        "{{instance}} {{gpu}}": f"mien_gpu_memory_used_bytes{{{JOB}}}",
                        "limit {{instance}} {{gpu}}": f"mien_gpu_memory_bytes{{{JOB}}}",
                    },
                    width=12,
                    text="In use by anyone, and what there is.",
                ),
            ],
        },
        hours=24,
    )
