"""Pages show every text as it is, run no script but their own, and need no other file."""

import html.parser
import re

import numpy as np
import pytest

from coca_jax.errors import CocaError
from coca_jax.pages import blocks, images
from coca_jax.pages.page import render_page, write_page
from tests.browser import open_page

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'&{{ title }}{% x %} \u2028"
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
CHART = blocks.Chart(
    HOSTILE,
    [blocks.Curve(HOSTILE, "line-1", HOSTILE, [("line-1", "0,0 1,1")])],
    [("<b>1", 10.0)],
    [("<i>2", 90.0)],
    {"x": [0], "step": ["1"], "lines": [{"name": HOSTILE, "style": "line-1", "text": ["1"], "y": [None]}]},
)
LINE = blocks.CardLine(HOSTILE, HOSTILE, mark=True, note=HOSTILE)
BLOCKS = {
    blocks.Heading: blocks.Heading(HOSTILE, HOSTILE),
    blocks.Text: blocks.Text(HOSTILE, "warning"),
    blocks.Tiles: blocks.Tiles([blocks.Tile(HOSTILE, 0.5, HOSTILE, 0.1, HOSTILE), blocks.Tile("x", float("nan"), "y")]),
    blocks.Facts: blocks.Facts({HOSTILE: HOSTILE}, large=True),
    blocks.Table: blocks.Table([HOSTILE], [[HOSTILE], [blocks.Cell(HOSTILE, HOSTILE)]], HOSTILE, HOSTILE),
    blocks.Matrix: blocks.Matrix([HOSTILE, "b"], np.array([[3, 1], [0, 0]]), HOSTILE),
    blocks.Gallery: blocks.Gallery(
        HOSTILE,
        [blocks.Card([IMAGE, IMAGE], [LINE], HOSTILE), blocks.Card([IMAGE], [LINE], HOSTILE), blocks.Card([])],
        HOSTILE,
        "strip",
    ),
    blocks.Pixels: blocks.Pixels(IMAGE, HOSTILE, 2),
    blocks.Tokens: blocks.Tokens([(HOSTILE, 7, True)]),
    blocks.Bars: blocks.Bars(HOSTILE, [(HOSTILE, 3), ("b", 0)]),
    blocks.Chart: CHART,
    blocks.Columns: blocks.Columns([[blocks.Text(HOSTILE)], [blocks.Bars("none", [])]]),
}


class _Elements(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def render(*content: blocks.Block, **texts: str) -> str:
    return render_page(
        **{"kind": "test", "title": "Title"} | texts, sections=[blocks.Section("Section", "anchor", content)]
    )


def test_every_class_of_block_is_drawn_here():
    assert set(BLOCKS) == set(blocks.Block.__args__)


@pytest.mark.parametrize("name", BLOCKS)
def test_texts_of_every_block_are_escaped(name):
    page = render(BLOCKS[name])
    elements = _Elements(page)
    scripts = 2 if name is blocks.Chart else 1
    assert elements.tags.count("script") == page.count("</script>") == scripts
    assert not [key for key, _ in elements.attributes if key.startswith("on")]
    assert all(value.startswith(("data:image/", "#")) for key, value in elements.attributes if key in ("src", "href"))
    assert "alert(1)" in page and "{{ title }}" in page


def test_texts_of_the_page_are_escaped_and_its_sections_linked():
    sections = [blocks.Section(HOSTILE, f"a{i}", []) for i in range(2)]
    page = render_page(kind=HOSTILE, title=HOSTILE, summary=HOSTILE, sections=sections)
    elements = _Elements(page)
    assert elements.tags.count("script") == 1 and elements.tags.count("a") == 2 and "img" not in elements.tags
    assert "<nav" not in render()  # one section needs no navigation


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 500])
def test_every_block_opens_in_a_browser_and_only_the_page_s_own_script_may_run(tmp_path, width):
    write_page(
        tmp_path / "new" / "x.html", kind="x", title="x", sections=[blocks.Section("", "", list(BLOCKS.values()))]
    )
    page = open_page(tmp_path / "new" / "x.html", tmp_path, width)
    assert page.errors == "[]" and not page.console and page.images == 4
    assert page.missing_images == page.unnamed_images == 0 and page.overflow <= 0
    source = (tmp_path / "new" / "x.html").read_text(encoding="utf-8")
    (tmp_path / "new" / "y.html").write_text(source.replace("</main>", "</main><script>document.title = 1</script>"))
    assert "<title>x</title>" in open_page(tmp_path / "new" / "y.html", tmp_path).dom


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CocaError, match=r"page\.html cannot be written .*: name another file"):
        write_page(tmp_path / "file" / "page.html", kind="x", title="x", sections=[])


def test_names_that_are_not_utf_8_are_shown(tmp_path):
    write_page(tmp_path / "x.html", kind="x", title="caf\udce9", sections=[])
    assert r"caf\udce9" in (tmp_path / "x.html").read_text(encoding="utf-8")


def test_thumbnails_stay_small_and_exact_images_keep_their_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    thumbnail = images.thumbnail(noise)
    assert thumbnail.uri.startswith("data:image/jpeg;base64,") and len(thumbnail.uri) < 80_000
    assert (thumbnail.width, thumbnail.height, thumbnail.pixelated) == (224, 149, False)
    for small in (noise[:32, :32], noise[:8, :8, :1]):
        thumbnail = images.thumbnail(small)
        assert thumbnail.uri.startswith("data:image/png;") and thumbnail.pixelated
    exact = images.exact(noise[:5, :7], 3)
    assert (exact.width, exact.height, exact.pixelated) == (21, 15, True)
    page = render(blocks.Pixels(noise[:5, :7], 'a "quoted" <alt>', 3))
    assert 'alt="a &#34;quoted&#34; &lt;alt&gt;"' in page and re.search(r'width="21" height="15"', page)
