"""The photographs that `predict` finds in a folder of links, pipes and names that are no text."""

import os

import pytest

from tagmask.api.predict import find_images
from tagmask.errors import TagmaskError
from tests.data.trees import write_image


def test_links_that_lead_round_and_pipes(tmp_path):
    """One link gave 41 masks of one image, two had no end, and a pipe hung."""
    write_image(tmp_path / "in/a/1.jpg")
    (tmp_path / "in/a/round").symlink_to("..")
    (tmp_path / "in/a/again").symlink_to("../a")
    os.mkfifo(tmp_path / "in/pipe.jpg")
    (item,) = find_images(tmp_path / "in", tmp_path / "out")
    assert (item.name, item.path) == ("a/1", tmp_path / "in/a/1.jpg")


def test_bad_input_a_name_that_is_not_utf8(tmp_path):
    """The whole prediction ended in a UnicodeEncodeError."""
    write_image(tmp_path / "1.jpg")
    os.rename(tmp_path / "1.jpg", os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    with pytest.raises(TagmaskError, match=r"image name 'caf\\udce9' is not UTF-8 .*; rename it"):
        find_images(tmp_path, tmp_path / "out")
