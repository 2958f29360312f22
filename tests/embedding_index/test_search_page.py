import html.parser

import numpy as np
from PIL import Image

from coca_jax.embedding_index.index import Hit
from coca_jax.embedding_index.search_page import write_search_page

HOSTILE = "<script>alert('x')</script>\" & “quoted”"


class _Page(html.parser.HTMLParser):
    """What a browser would see: the elements, and the text outside of scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.text, self._inside = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag

    def handle_data(self, data):
        self.text += data if self._inside not in ("script", "style") else ""


def test_the_page_is_whole_and_escaped(tmp_path):
    names = ["a&b.png", "<b>bold</b>.png".replace("/", "_"), 'x" onerror="alert(1)".png']
    for index, name in enumerate(names):
        Image.fromarray(np.full((300, 400, 3), index * 40, np.uint8)).save(tmp_path / name)
    hits = [Hit(name, 0.5 - 0.1 * i) for i, name in enumerate([*names, "gone.png"])]
    path = tmp_path / "page.html"
    write_search_page(path, tmp_path, 1_234, [HOSTILE, tmp_path / names[0]], [hits, hits[:1]])
    text = path.read_text()
    page, plain = _Page(text), _Page(path.with_name("page.html").read_text().split("<main>")[0])
    assert page.tags.count("script") == 1 and "alert('x')</script>" not in text  # the template's own
    assert page.tags.count("img") == 3 + 1 + 1 and page.tags.count("section") == 2 and plain.tags.count("a") == 2
    assert all(not name.startswith("on") for name, _ in page.attributes)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert sources and all(value.startswith(("data:image/", "#")) for value in sources)
    said = ("gone.png", "can no longer be read", "1,234 images", "like a&b.png", "0.500", "0.200")
    for words in (HOSTILE, *names, *said):
        assert words in page.text, words
    assert "$" not in page.text and len(text) < 100_000
