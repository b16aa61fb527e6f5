"""A page in a real browser, headless Chromium: what a reader would see of it, as numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from string import Template
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--enable-logging=stderr", "--virtual-time-budget=10000", "--window-size=1400,1000",
)  # fmt: skip
SECONDS = 120
MEASURED = re.compile(r'<body[^>]* data-measured="([^"]*)"')

# The page under test is in a frame, for a window cannot be as narrow as a phone. It is left as it is: the frame is of
# the same origin, so that everything is measured from outside.
AROUND = Template(
    """<!doctype html>
<html style="color-scheme: light dark"><meta charset="utf-8"><body style="margin: 0">
<iframe srcdoc="$page" style="width: ${width}px; height: 800px; border: 0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const found = measure(frame.contentDocument, frame.contentWindow);
  frame.remove();
  document.body.dataset.measured = JSON.stringify(found);
});
function measure(page, view) {
  const all = (selector) => [...page.querySelectorAll(selector)];
  all("details").forEach((details) => { details.open = true; });
  frame.style.height = page.documentElement.scrollHeight + 50 + "px";
  const box = (node) => node.getBoundingClientRect();
  const within = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1
    && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  const before = (a, b) => a.right <= b.left + 1 || a.bottom <= b.top + 1;
  const apart = (a, b) => before(a, b) || before(b, a);
  const svgs = all("svg");
  const labels = svgs.flatMap((svg) => [...svg.querySelectorAll("text")].map((text) => [svg, text]));
  return {
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    width: page.documentElement.clientWidth,
    needed: page.documentElement.scrollWidth,
    tooWide: all("body *").filter((n) => !n.closest(".scroll > *, figure > *, pre > *, svg, .aside")
      && box(n).right > box(page.body).right + 1).map((n) => n.outerHTML.slice(0, 80)),
    text: page.body.innerText,
    h1: all("h1").map((n) => n.textContent),
    h2: all("h2").map((n) => n.textContent),
    svgs: svgs.map((n) => [box(n).width, box(n).height]),
    unlabelled: all("svg, img, [role=img]").filter((n) => !(n.getAttribute("aria-label") || n.alt)).length,
    images: all("img").map((n) => n.complete && n.naturalWidth > 0),
    cutOff: labels.filter(([svg, text]) => !within(box(text), box(svg))).map(([, text]) => text.textContent),
    overlapping: labels.flatMap(([svg, a], i) => labels.slice(i + 1)
      .filter(([other, b]) => svg === other && !apart(box(a), box(b))).map(([, b]) => [a.textContent, b.textContent])),
    smallest: Math.min(...labels.map(([svg, text]) => parseFloat(view.getComputedStyle(text).fontSize)
      * box(svg).width / svg.viewBox.baseVal.width)),
    headers: all("th").filter((n) => !n.scope).length,
    tables: all("table").filter((n) => n.caption && n.tHead).length,
    ids: all("[id]").map((n) => n.id),
    scripts: all("script, iframe, object, embed, base, form").length + all("*").filter((n) =>
      n.getAttributeNames().some((name) => name.startsWith("on"))).length,
    ran: view.ran === undefined && window.ran === undefined ? 0 : 1,
    resources: view.performance.getEntriesByType("resource").map((entry) => entry.name),
    faint: [...all("body *:not(svg *)"), ...labels.map(([, text]) => text)].filter(hasText)
      .map((n) => [n.textContent.trim().slice(0, 60), contrast(n, page, view)]).filter(([, ratio]) => ratio < 4.5),
  };
}
const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
function contrast(node, page, view) {
  const style = view.getComputedStyle(node);
  const drawn = node.ownerSVGElement !== null && node.ownerSVGElement !== undefined;
  const front = rgba(drawn ? style.fill : style.color);
  const [light, dark] = [luminance(front), luminance(behind(node, drawn, page, view))].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}
function behind(node, drawn, page, view) {
  if (drawn) {
    const box = node.getBoundingClientRect();
    for (const under of page.elementsFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2)) {
      const style = view.getComputedStyle(under);
      if (under.tagName === "path" && style.fill !== "none" && +style.fillOpacity > 0.5) return rgba(style.fill);
    }
    node = node.ownerSVGElement;
  }
  for (; node; node = node.parentElement) {
    const colour = rgba(view.getComputedStyle(node).backgroundColor);
    if (colour[3] > 0.5) return colour;
  }
  return [255, 255, 255, 1];
}
const rgba = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
const luminance = (colour) => colour.slice(0, 3).map((c) => c / 255)
  .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
</script></body></html>
"""
)


def find_browser() -> str | None:
    """The program, where there is one."""
    named = os.environ.get("MULTILEVEL_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def measure(page: Path, *, width: int, dark: bool, folder: Path) -> dict[str, Any]:
    """Lay a page out and measure it.

    Args:
        page: The file.
        width: Of the screen, in pixels.
        dark: Whether the reader's system is dark.
        folder: For files on the way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    around = folder / "around.html"
    around.write_text(AROUND.substitute(page=escape(page.read_text(encoding="utf-8")), width=width), encoding="utf-8")
    document, _ = load(around, folder, *(["--force-dark-mode"] if dark else []))
    found = MEASURED.search(document)
    assert found, f"nothing was measured in:\n{document[-2000:]}"
    return dict(json.loads(unescape(found[1])))


def load(page: Path, folder: Path, *flags: str) -> tuple[str, list[str]]:
    """Open a page; return the document as it is then, and what was written to the console."""
    program = find_browser()
    assert program is not None
    command = [program, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
