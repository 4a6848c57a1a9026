import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.domain.entities import InputImage, InputSet
from analysis.domain.errors import InputImagesError
from runner.inputs import inputs
from runner.inputs.inputs import (
    CATEGORY_RULE,
    FEW_PAGES,
    MAX_PIXELS,
    categorise,
    check_unchanged,
    discover,
    open_image,
    sample_set,
)
from runner.inputs.sample_pages import PAGE_SIZE, SAMPLE_PAGES, draw_page


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> InputSet:
    return sample_set(tmp_path_factory.mktemp("samples") / "pages")


def plain(path: Path, size: tuple[int, int] = (60, 40), **options: object) -> Path:
    Image.new("RGB", size, "white").save(path, **options)  # type: ignore[arg-type]
    return path


def test_sample_pages_are_categorised_by_what_is_on_them(samples: InputSet) -> None:
    assert [image.category for image in samples.images] == [category for _, category, _ in SAMPLE_PAGES]
    counts = {category: [one.category for one in samples.images].count(category) for _, category, _ in SAMPLE_PAGES}
    assert counts == {"text_heavy": 4, "mixed_layout": 4, "image_rich": 4}
    assert {(image.width, image.height) for image in samples.images} == {PAGE_SIZE}


def test_sample_pages_are_the_same_each_time(samples: InputSet, tmp_path: Path) -> None:
    again = sample_set(tmp_path)
    assert [one.sha256 for one in again.images] == [one.sha256 for one in samples.images]
    assert len({one.sha256 for one in again.images}) == 12


def test_the_file_name_plays_no_part(samples: InputSet, tmp_path: Path) -> None:
    for image, name in zip(samples.images, reversed([f"{name}.png" for name, _, _ in SAMPLE_PAGES]), strict=True):
        shutil.copy(image.path, tmp_path / name)
    found = discover(tmp_path)
    by_hash = {one.sha256: one.category for one in samples.images}
    assert all(one.category == by_hash[one.sha256] for one in found.images)


@pytest.mark.parametrize("index", [0, 4, 9])
def test_category_survives_a_scan(index: int) -> None:
    """Grey paper, less contrast, sensor noise, another resolution."""
    page = np.asarray(draw_page(index).resize((1654, 2339))).astype(float)
    page = page * 0.8 + 30 + np.random.default_rng(1).normal(0, 4, page.shape)
    scan = Image.fromarray(page.clip(0, 255).astype(np.uint8))
    assert categorise(scan) == SAMPLE_PAGES[index][1]


def test_white_on_black_is_still_text() -> None:
    page = Image.fromarray(255 - np.asarray(draw_page(1)))
    assert categorise(page) == "text_heavy"


def test_too_little_evidence_is_unknown() -> None:
    assert categorise(Image.new("RGB", PAGE_SIZE, "white")) == "unknown"
    assert categorise(draw_page(0).resize((64, 90))) == "unknown"
    one_line = Image.new("RGB", PAGE_SIZE, "white")
    one_line.paste(draw_page(0).crop((0, 0, PAGE_SIZE[0], 160)), (0, 0))
    assert categorise(one_line) == "unknown"


def test_the_rule_states_its_numbers() -> None:
    for said in ("1024 pixels", "16 × 16", "at least 50% of the cells are picture", "unknown"):
        assert said in CATEGORY_RULE


def test_a_folder_is_sorted_and_described(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "d.webp", "c.tiff"):
        plain(tmp_path / name)
    found = discover(tmp_path)
    assert [Path(one.path).name for one in found.images] == ["a.JPG", "b.png", "c.tiff", "d.webp"]
    assert found.count == 4
    assert found.root_dir == str(tmp_path)
    assert all(Path(one.path).is_absolute() and (one.width, one.height) == (60, 40) for one in found.images)
    assert found.images[1].sha256 == hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()


def test_one_file_and_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path / "page.png")
    monkeypatch.chdir(tmp_path)
    found = discover(Path("page.png"))
    assert [one.path for one in found.images] == [str(tmp_path / "page.png")]
    assert found.root_dir == str(tmp_path)


def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (60, 40), "white")
    image.paste("black", (0, 0, 60, 10))
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    found = discover(tmp_path).images[0]
    opened = open_image(found)
    assert (found.width, found.height) == opened.size == (40, 60)
    edge = opened.getpixel((37, 30))
    assert isinstance(edge, tuple)
    assert edge < (60, 60, 60)  # the black edge came from the top to the right


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(InputImagesError, match=r"none: no such file or folder; name a PDF file, or a folder of PNG"):
        discover(tmp_path / "none")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputImagesError, match=r"no images \(it is empty\); put PNG"):
        discover(tmp_path)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "more.png").mkdir()
    with pytest.raises(InputImagesError, match=r"no images \(it holds 2 other entries\)"):
        discover(tmp_path)


def test_other_files_are_skipped_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain(tmp_path / "a.png")
    (tmp_path / "b.pdf").write_bytes(b"%PDF")
    (tmp_path / "c.txt").write_text("x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert discover(tmp_path).count == 1
    assert caplog.messages == [f"{tmp_path}: skipped 2 that are no PNG, JPEG, TIFF or WebP file: b.pdf, c.txt"]


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "cut.tiff", "cut.webp"])
def test_a_truncated_image_is_named(tmp_path: Path, name: str) -> None:
    plain(tmp_path / "good.png")
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputImagesError, match=rf"{name}: .*(repair|remove)") as raised:
        discover(tmp_path)
    assert "\n" not in str(raised.value)


def test_several_bad_images_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(InputImagesError, match=r"a\.png: not a PNG.*\(and 2 more such images\)"):
        discover(tmp_path)


def test_a_foreign_format_under_our_suffix_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png", format="BMP")
    with pytest.raises(InputImagesError, match=r"x\.png: not a PNG, JPEG, TIFF or WebP"):
        discover(tmp_path)


def test_fifty_megapixels_are_taken_and_reduced(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    scan = Image.new("L", (7072, 7072), 255)
    scan.paste(0, (0, 0, 7072, 700))
    scan.save(tmp_path / "scan.jpg")
    scan.save(tmp_path / "scan.png", compress_level=1)
    for found in discover(tmp_path).images:
        opened = open_image(found)
        assert (found.width, found.height) == (7072, 7072)
        assert opened.size == (3536, 3536)
        assert opened.mode == "RGB"
        assert opened.getpixel((9, 9)) == (0, 0, 0)
        assert opened.getpixel((9, 3000)) == (255, 255, 255)
    assert not recwarn.list


@pytest.mark.parametrize("size", [(10_000, 10_001), (16_000, 16_000)])
def test_above_the_limit_is_refused_before_decoding(
    tmp_path: Path, size: tuple[int, int], recwarn: pytest.WarningsRecorder
) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    Image.new("1", size).save(tmp_path / "huge.png", compress_level=1)
    with pytest.raises(InputImagesError, match=r"huge\.png: .* pixels, but at most 100 megapixels"):
        discover(tmp_path)
    assert not recwarn.list


def test_the_first_page_of_a_tiff(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pages = [Image.new("RGB", (30, 20), color) for color in ("red", "blue", "green")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    found = discover(tmp_path)
    assert caplog.messages == [f"{tmp_path / 'pages.tif'}: has 3 pages or frames; only the first is used"]
    assert open_image(found.images[0]).getpixel((5, 5)) == (255, 0, 0)


def test_an_animated_webp(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "film.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert open_image(discover(tmp_path).images[0]).getpixel((5, 5)) == (255, 0, 0)
    assert "has 2 pages or frames" in caplog.text


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30), 0x8080, dtype=np.uint16)).save(tmp_path / "sixteen.png")
    Image.new("RGBA", (30, 20), (255, 0, 0, 0)).save(tmp_path / "transparent.png")
    Image.new("CMYK", (30, 20), (0, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    Image.new("1", (30, 20), 1).save(tmp_path / "bilevel.tiff")
    Image.new("P", (30, 20), 0).save(tmp_path / "palette.png")
    seen = {Path(one.path).stem: open_image(one) for one in discover(tmp_path).images}
    assert {one.mode for one in seen.values()} == {"RGB"}
    assert seen["sixteen"].getpixel((3, 3)) == (128, 128, 128)
    assert {seen[name].getpixel((3, 3)) for name in ("transparent", "cmyk", "bilevel")} == {(255, 255, 255)}


def test_a_file_that_changed_after_discovery(tmp_path: Path) -> None:
    found = discover(plain(tmp_path / "a.png")).images[0]
    Path(found.path).unlink()
    with pytest.raises(InputImagesError, match=r"a\.png: cannot be read \(No such file"):
        open_image(found)


def test_samples_into_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("x")
    with pytest.raises(InputImagesError, match="the sample pages cannot be written"):
        sample_set(tmp_path / "here")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as other users")
@pytest.mark.parametrize("as_link", [False, True])
def test_samples_are_not_drawn_where_another_user_leads_them(tmp_path: Path, as_link: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    there = tmp_path / "samples"
    if as_link:
        there.symlink_to(elsewhere)
        os.chown(there, 65531, 65531, follow_symlinks=False)
    else:
        there.mkdir()
        os.chown(there, 65531, 65531)
    drawn = sample_set(there, (0,))
    assert list(elsewhere.iterdir()) == []
    assert Path(drawn.images[0].path).parent == tmp_path / f"samples.{os.geteuid()}"
    os.chown(tmp_path / f"samples.{os.geteuid()}", 65531, 65531)
    with pytest.raises(InputImagesError, match="belongs to another user, or is a link; choose another --out"):
        sample_set(there, (0,))


def test_samples_are_drawn_through_no_link(tmp_path: Path) -> None:
    """Of one's own either: one that was made for another purpose may have been put there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "samples").symlink_to(elsewhere)
    drawn = sample_set(tmp_path / "samples", (0,))
    beside = tmp_path / f"samples.{os.geteuid()}"
    assert Path(drawn.images[0].path).parent == beside
    assert list(elsewhere.iterdir()) == []
    shutil.rmtree(beside)
    beside.symlink_to(tmp_path / "not there")
    with pytest.raises(InputImagesError, match="is a link; choose another --out"):
        sample_set(tmp_path / "samples", (0,))


def test_everything_of_an_image_is_known(samples: InputSet) -> None:
    assert all(isinstance(one, InputImage) and one.sha256 and one.category != "unknown" for one in samples.images)
    assert inputs.SUFFIXES == (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


def test_pages_that_were_drawn_are_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sample_set(tmp_path, FEW_PAGES)
    assert [Path(page.path).name for page in first.images] == ["00-report.png", "04-article.png", "08-photograph.png"]
    assert [page.category for page in first.images] == ["text_heavy", "mixed_layout", "image_rich"]

    drawn: list[int] = []

    def note(index: int) -> Image.Image:
        drawn.append(index)
        return draw_page(index)

    monkeypatch.setattr(inputs, "draw_page", note)
    assert sample_set(tmp_path, FEW_PAGES) == first
    assert drawn == []
    Path(first.images[1].path).write_bytes(b"something else")
    assert sample_set(tmp_path, FEW_PAGES) == first
    assert drawn == list(FEW_PAGES)


def test_a_folder_that_was_moved_is_drawn_anew(tmp_path: Path) -> None:
    first = sample_set(tmp_path / "here", (3,))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = sample_set(tmp_path / "there", (3,))
    assert moved.images[0].path == str(tmp_path / "there" / "03-letter.png")
    assert moved.images[0].sha256 == first.images[0].sha256


def test_pages_that_changed_after_planning_are_refused(tmp_path: Path) -> None:
    found = discover(plain(tmp_path / "a.png"))
    check_unchanged(found)
    plain(tmp_path / "a.png", (61, 40))
    with pytest.raises(InputImagesError, match=r"a\.png: changed since the run was planned"):
        check_unchanged(found)


@pytest.mark.parametrize("name", ["page.png", "page.pdf"])
@pytest.mark.parametrize("kind", ["FIFO", "device", "1 TiB"])
def test_what_is_no_page_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    (folder := tmp_path / "pages").mkdir()
    path = folder / name
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    for named in (folder, path):
        with pytest.raises(
            InputImagesError, match=rf"^\S*{name}: (is no regular file|larger than [0-9,]+ bytes)[^\n]*; check"
        ):
            discover(named, rendered_into=tmp_path / "rendered")
