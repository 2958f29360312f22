"""Opens a page in headless Chromium and tells what went wrong in it."""

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--virtual-time-budget=3000",
    "--enable-logging=stderr",
    "--v=0",
]
# Goes into a copy of the page, before anything else in it runs.
_PROBE = """<script>
window.probeErrors = [];
window.addEventListener("error", event => probeErrors.push(String(event.message || event.target.outerHTML)), true);
window.addEventListener("load", () => {
  const images = [...document.images];
  const root = document.documentElement.dataset;
  root.probeErrors = JSON.stringify(probeErrors);
  root.probeImages = images.length;
  root.probeMissing = images.filter(image => !image.complete || image.naturalWidth === 0).length;
  root.probeUnnamed = images.filter(image => !image.hasAttribute("alt")).length;
  root.probeOverflow = document.documentElement.scrollWidth - window.innerWidth;
});
</script>"""


@dataclasses.dataclass(frozen=True)
class Page:
    """What the browser made of a page.

    Attributes:
      dom: its HTML after the scripts ran.
      images, missing_images, unnamed_images: all, those that did not load, those without an alt text.
      overflow: by how many pixels it is wider than the window.
      errors: of scripts and elements, as a JSON list; console: what the browser logged from the page.
    """

    dom: str
    images: int
    missing_images: int
    unnamed_images: int
    overflow: int
    errors: str
    console: list[str]


def open_page(path: str | os.PathLike, folder: Path, width: int = 1200) -> Page:
    """Opens a local HTML file; skips the test where no Chromium is installed.

    Args:
      path: of the file.
      folder: an empty one, for the browser's profile and the copy that carries the probe.
      width: of the window in pixels; Chromium has no windows below 500.
    """
    browser = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on PATH")
    copy = folder / "probed.html"
    page = Path(path).read_text(encoding="utf-8")
    copy.write_text(page.replace("<head>", "<head>" + _PROBE, 1), encoding="utf-8")
    done = subprocess.run(
        [
            browser,
            *_FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},2000",
            "--dump-dom",
            copy.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )
    found = dict(re.findall(r'data-probe-(\w+)="([^"]*)"', done.stdout[:5000]))
    return Page(
        dom=done.stdout,
        images=int(found["images"]),
        missing_images=int(found["missing"]),
        unnamed_images=int(found["unnamed"]),
        overflow=int(found["overflow"]),
        errors=found["errors"],
        console=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
    )
