"""Files below a folder that links lead round in."""

import os

from tagmask.data.walk import files_below, image_files
from tests.data.trees import write_image


def test_each_real_folder_is_visited_once(tmp_path):
    for image in ("b/c/2.jpg", "1.jpg"):
        write_image(tmp_path / image)
    for link, target in {"a": "b", "b/up": "..", "b/c/again": "../../b", "self": "self"}.items():
        (tmp_path / link).symlink_to(target)
    expected = [str(tmp_path / image) for image in ("1.jpg", "b/c/2.jpg")]
    assert image_files(tmp_path, links=True) == expected
    assert image_files(tmp_path) == expected


def test_links_are_followed_where_asked_and_hidden_folders_entered(tmp_path):
    for image in ("out/1.jpg", "in/.thumbs/2.jpg", "in/3.jpg"):
        write_image(tmp_path / image)
    (tmp_path / "in/link").symlink_to(tmp_path / "out")
    (tmp_path / "in/4.jpg").symlink_to(tmp_path / "out/1.jpg")

    def found(**options) -> list[str]:
        return [os.path.relpath(path, tmp_path / "in") for path in image_files(tmp_path / "in", **options)]

    assert found() == ["3.jpg", "4.jpg"]
    assert found(links=True) == ["3.jpg", "4.jpg", "link/1.jpg"]
    assert found(hidden=True) == [".thumbs/2.jpg", "3.jpg", "4.jpg"]


def test_pipes_and_links_to_nothing_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    assert image_files(tmp_path) == []
    assert sorted(files_below(tmp_path)) == [(str(tmp_path / name), False) for name in ("gone.jpg", "pipe.jpg")]
    assert image_files(tmp_path / "nowhere") == []
