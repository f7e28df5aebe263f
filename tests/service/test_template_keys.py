"""service/guard/templates.py: no template key is lost; what they seal is test_templates.py's."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.guard.templates import add_template_key, read_template_keys


def test_keys_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "template.keys"
    with ThreadPoolExecutor(4) as threads:
        added = list(threads.map(lambda _: add_template_key(path), range(12)))
    assert set(read_template_keys(path)) == set(added)
