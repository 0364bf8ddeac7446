"""The photographs that `predict` finds in a folder of links, pipes and names that are no text."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tagmask.api.predict import find_images
from tagmask.data.ledger import LEDGER
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


def test_masks_that_tagmask_wrote_are_no_photographs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("photos/a.png", "masks/deep/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "masks" / LEDGER).write_text("")
    assert [item.name for item in find_images(tmp_path, tmp_path / "out")] == ["photos/a"]
    assert f"{tmp_path / 'masks'}: masks that tagmask wrote, left out: 1 images" in caplog.text
    with pytest.raises(TagmaskError, match=r"holds masks that tagmask wrote .*; name a folder of photographs"):
        find_images(tmp_path / "masks", tmp_path / "out")
    # A folder of photographs below one that holds a stranger's masks stays whole.
    assert [item.name for item in find_images(tmp_path / "photos", tmp_path / "out")] == ["a"]
