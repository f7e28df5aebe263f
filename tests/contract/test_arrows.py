"""Who may know whom: the imports of the tree, read with ast and held to the plan of the house."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"

# What of the service each part of it may import: packages, or single modules of one.
STEPS = ("vision", "imagefile", "inference", "gallery", "decision")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "settings": ("errors", "cgroup"),
    "cgroup": (),
    "memory": ("errors",),
    "people_folder": (),
    "drain": (),
    "turns": (),
    "connections": ("errors", "settings", "observe", "api.envelope", "api.problems"),
    "workers": ("drain", "observe"),
    "vision": ("errors",),
    "imagefile": ("errors", "memory", "vision"),
    "inference": ("errors", "memory", "turns"),
    "gallery": ("errors",),
    "backup": ("errors", "gallery"),
    "imports": ("errors", "gallery"),
    "decision": ("errors",),
    "calibration": ("errors", "decision"),
    "observe": ("errors",),
    "guard": ("errors",),
    "retention": ("errors", "observe", "guard", "gallery.contract"),
    "writers": ("errors",),
    "readiness": ("errors", "observe"),
    "look": ("errors", "memory", "writers", "observe", "calibration.kept", *STEPS),
    "enrollment_warnings": (
        "decision",
        "calibration.doubts",
        "gallery.contract",
        "inference.artefact",
    ),
    "recognition": ("errors", "observe", "look", "enrollment_warnings", *STEPS),
    "analysis": ("errors", "observe", "look", "recognition", *STEPS),
    # The wire needs the records of what it answers, and never the steps themselves.
    "api": (
        "errors",
        "observe",
        "drain",
        "memory",
        "readiness",
        "turns",
        "guard",
        "look",
        "recognition",
        "enrollment_warnings",
        "analysis",
        "decision",
        "calibration.kept",
        "gallery.contract",
        "inference.artefact",
    ),
}
KNOWS_ALL = ("app", "server", "cli")

# The one home of each foreign library inside the service.
HOMES: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("inference/session.py",),
    "faiss": ("gallery/index.py",),
    "sqlite3": ("gallery/sqlite.py", "guard/limits.py"),
    "limits": ("guard/limits.py",),
    "psycopg": ("gallery/postgres.py",),
    "cryptography": ("gallery/sealed.py",),
    "prometheus_client": ("observe/metrics.py", "observe/exposition.py"),
    "structlog": ("observe/logs.py",),
    "opentelemetry": ("observe/spans.py",),
    "pynvml": ("observe/gpu.py",),
    "PIL": ("imagefile/",),
    "pillow_heif": ("imagefile/",),
    "cv2": ("vision/", "decision.py"),
    "pydantic_settings": ("settings.py",),
    "fastapi": ("api/", "app.py"),
    "starlette": ("api/", "app.py"),
    "python_multipart": ("api/",),
    "uvicorn": ("server.py", "connections.py", "workers.py"),
    "h11": ("connections.py",),
    "typer": ("cli/",),
    "rich": ("cli/",),
}
NEVER_IN_SERVICE = {"torch", "onnx", "safetensors", "training", "export", "benchmarks", "tests"}


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere in it, by their full names."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else str(node.module)


def is_module(name: str) -> bool:
    where = ROOT / name.replace(".", "/")
    return where.is_dir() or where.with_suffix(".py").is_file()


def part_of(path: Path) -> str:
    """The part of the service that a file is: a package, or a module at the top."""
    inside = path.relative_to(SERVICE)
    return inside.parts[0].removesuffix(".py")


def within(module: str, allowed: str) -> bool:
    return module == f"service.{allowed}" or module.startswith(f"service.{allowed}.")


@pytest.mark.parametrize("path", files("service"), ids=str)
def test_each_part_of_the_service_knows_only_whom_it_may(path: Path) -> None:
    part = part_of(path)
    if part in (*KNOWS_ALL, "__init__"):
        return
    assert part in MAY_IMPORT, f"{part} is new: say in MAY_IMPORT whom it may know"
    for module in imports(path):
        if module.startswith("service."):
            allowed = (part, *MAY_IMPORT[part])
            assert any(within(module, name) for name in allowed), f"{path} imports {module}"


@pytest.mark.parametrize("path", files("service"), ids=str)
def test_foreign_libraries_stay_at_home(path: Path) -> None:
    inside = path.relative_to(SERVICE).as_posix()
    for module in imports(path):
        library = module.split(".")[0]
        assert library not in NEVER_IN_SERVICE, f"{path} imports {module}"
        homes = HOMES.get(library, ("",))
        assert any(inside.startswith(home) for home in homes), f"{path} imports {module}"


@pytest.mark.parametrize(
    "path",
    [*files("service/vision"), *files("service/calibration"), SERVICE / "decision.py"],
    ids=str,
)
def test_what_training_shares_imports_numpy_and_opencv_at_most(path: Path) -> None:
    foreign = {module.split(".")[0] for module in imports(path)} - set(sys.stdlib_module_names)
    assert foreign <= {"numpy", "cv2", "service"}


@pytest.mark.parametrize("path", files("service"), ids=str)
def test_nothing_but_the_settings_reads_the_environment(path: Path) -> None:
    if path == SERVICE / "settings.py":
        return
    for node in ast.walk(ast.parse(path.read_bytes())):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        assert name not in ("environ", "getenv", "environb"), f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", files("training"), ids=str)
def test_training_uses_of_the_service_what_makes_its_crops_and_judges_them(path: Path) -> None:
    for module in imports(path):
        assert module.split(".")[0] not in ("export", "benchmarks", "tests")
        if module.startswith("service."):
            allowed = (
                *("vision", "imagefile", "people_folder"),
                *("errors", "decision", "calibration.measure"),
            )
            assert any(within(module, name) for name in allowed), f"{path} imports {module}"


@pytest.mark.parametrize("path", files("export"), ids=str)
def test_export_uses_of_the_service_the_artefacts_alone(path: Path) -> None:
    for module in imports(path):
        assert module.split(".")[0] not in ("benchmarks", "tests")
        if module.startswith("service."):
            allowed = ("inference", "decision", "vision", "errors")
            assert any(within(module, name) for name in allowed), f"{path} imports {module}"


def test_the_arrows_are_seen_in_every_way_of_writing_an_import(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        "import torch.nn as nn\nfrom service.gallery import open_gallery\n"
        "def f():\n    import cv2\n    from service import decision\n"
    )
    found = set(imports(file))
    assert {"torch.nn", "service.gallery", "cv2", "service.decision"} <= found
