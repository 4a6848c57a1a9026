"""Pages of PDF files; the files are made here, by Pillow and by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from analysis.domain.errors import InputImagesError
from runner.inputs.inputs import discover
from runner.inputs.pdf import split_selection

A5_AT_72 = (420, 595)
COLOURS = ("red", "lime", "blue", "white")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Four pages, each of one colour."""
    pages = [Image.new("RGB", A5_AT_72, colour) for colour in COLOURS]
    pages[0].save(tmp_path / "scan.pdf", save_all=True, append_images=pages[1:], resolution=72)
    return tmp_path / "scan.pdf"


def colour(path: str) -> tuple[int, ...]:
    with Image.open(path) as opened:
        pixel = opened.convert("RGB").getpixel((opened.width // 2, opened.height // 2))
    assert isinstance(pixel, tuple)
    return tuple(255 if value > 128 else 0 for value in pixel)


def test_every_page_becomes_an_image(scan: Path, tmp_path: Path) -> None:
    found = discover(scan, rendered_into=tmp_path / "rendered", dpi=144)
    assert (found.id, found.count, found.root_dir) == ("scan", 4, str(tmp_path))
    assert [Path(page.path).name for page in found.images] == [f"scan-p00{number}.png" for number in (1, 2, 3, 4)]
    assert {(page.width, page.height) for page in found.images} == {(840, 1190)}
    assert [colour(page.path) for page in found.images] == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def test_pages_are_rendered_through_no_link(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rendered").symlink_to(tmp_path / "elsewhere")
    found = discover(scan, rendered_into=tmp_path / "rendered", dpi=36)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert Path(found.images[0].path).parents[1] == tmp_path / f"rendered.{os.geteuid()}"


def test_pages_are_rendered_once(scan: Path, tmp_path: Path) -> None:
    first = discover(scan, rendered_into=tmp_path / "rendered", dpi=72)
    times = [Path(page.path).stat().st_mtime_ns for page in first.images]
    assert discover(scan, rendered_into=tmp_path / "rendered", dpi=72) == first
    assert [Path(page.path).stat().st_mtime_ns for page in first.images] == times
    other = discover(scan, rendered_into=tmp_path / "rendered", dpi=36)
    assert other.images[0].path != first.images[0].path


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [("#2", [2]), ("#2-3", [2, 3]), ("#3-", [3, 4]), ("#4,1-2", [1, 2, 4]), ("", [1, 2, 3, 4])],
)
def test_some_pages(scan: Path, tmp_path: Path, selection: str, numbers: list[int]) -> None:
    found = discover(Path(f"{scan}{selection}"), rendered_into=tmp_path / "rendered", dpi=36)
    assert [int(Path(page.path).stem[-3:]) for page in found.images] == numbers


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("#5", "has 4 pages, and 5 asks for others"),
        ("#0-2", "has 4 pages, and 0-2 asks for others"),
        ("#3-2", "has 4 pages, and 3-2 asks for others"),
        ("#first", "'first' names no pages; write #3"),
    ],
)
def test_pages_that_are_not_there(scan: Path, tmp_path: Path, selection: str, words: str) -> None:
    with pytest.raises(InputImagesError, match=words):
        discover(Path(f"{scan}{selection}"), rendered_into=tmp_path / "rendered")


def test_a_folder_may_hold_both(scan: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "white").save(tmp_path / "z.png")
    found = discover(tmp_path, rendered_into=tmp_path / "rendered", dpi=36)
    assert [Path(page.path).name for page in found.images] == [
        *(f"scan-p00{number}.png" for number in (1, 2, 3, 4)),
        "z.png",
    ]


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "torn.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type")
    with pytest.raises(InputImagesError, match=r"torn\.pdf: not a PDF that can be read"):
        discover(tmp_path / "torn.pdf", rendered_into=tmp_path / "rendered")
    assert not (tmp_path / "rendered").exists()


ENCRYPTED = (
    b"""%PDF-1.4
1 0 obj
<< /Type /Catalog /Pages 2 0 R >>
endobj
2 0 obj
<< /Type /Pages /Kids [3 0 R] /Count 1 >>
endobj
3 0 obj
<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>
endobj
4 0 obj
<< /Filter /Standard /V 1 /R 2 /P -4 /O <"""
    + b"41" * 32
    + b"> /U <"
    + b"42" * 32
    + b""">  >>
endobj
trailer
<< /Root 1 0 R /Encrypt 4 0 R /ID [<00> <00>] /Size 5 >>
%%EOF
"""
)
"""Its user's password is none that anybody knows."""


def test_an_encrypted_file(tmp_path: Path) -> None:
    (tmp_path / "secret.pdf").write_bytes(ENCRYPTED)
    with pytest.raises(InputImagesError, match=r"secret\.pdf: encrypted; save it without a password first"):
        discover(tmp_path / "secret.pdf", rendered_into=tmp_path / "rendered")


def test_a_page_that_would_be_too_large(scan: Path, tmp_path: Path) -> None:
    page = Image.new("RGB", (10, 10), "white")
    page.save(tmp_path / "poster.pdf", resolution=0.01)
    with pytest.raises(InputImagesError, match=r"poster\.pdf: page 1 would have .*lower --dpi"):
        discover(tmp_path / "poster.pdf", rendered_into=tmp_path / "rendered", dpi=1200)


def test_a_name_with_a_number_sign(tmp_path: Path) -> None:
    odd = tmp_path / "invoice.pdf#7"
    odd.write_bytes(b"x")
    assert split_selection(odd) == (odd, "")
    assert split_selection(tmp_path / "picture#1.png") == (tmp_path / "picture#1.png", "")
    assert split_selection(tmp_path / "scan.pdf#1-3") == (tmp_path / "scan.pdf", "1-3")


def test_without_a_place_for_pages_only_images_are_taken(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(InputImagesError, match="not a PNG, JPEG, TIFF or WebP image"):
        discover(scan)
    with pytest.raises(InputImagesError, match="no images"):
        discover(tmp_path)
