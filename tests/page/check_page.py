#!/usr/bin/env python3
"""Checks the layout of a report's page in headless Chromium, on a desktop (1280 x 900) and on a phone (390 x 844).

    python3 tests/page/check_page.py out/quickstart/index.html [more pages]

Fails on text that overlaps other text, is cut off or leaves the window; on an answer or a first figure below the first
screen; and on text of a figure that leaves the drawing or overlaps other text in it. Figures in `figures/` that the page
does not show are checked too. Needs Chromium (apt-get install chromium) and nothing besides Python's standard library.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 30

# Runs in the page; `window.audit(options)` gives the faults as strings.
AUDIT = r"""
window.audit = (options) => {
  const faults = [];
  const name = (text) => "\u201c" + text.trim().replace(/\s+/g, " ").slice(0, 50) + "\u201d";
  const visible = (element) => element.checkVisibility({ visibilityProperty: true });
  const overlap = (a, b) => ({
    w: Math.min(a.right, b.right) - Math.max(a.left, b.left),
    h: Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top),
  });
  // Two boxes of text overlap where letters meet: boxes are a little higher than letters.
  const meet = (a, b) => {
    const { w, h } = overlap(a, b);
    return w > 1.5 && h > 0.3 * Math.min(a.bottom - a.top, b.bottom - b.top);
  };
  const pairs = (boxes, found) => {
    boxes.sort((a, b) => a.top - b.top);
    for (let i = 0; i < boxes.length; i++) {
      for (let j = i + 1; j < boxes.length && boxes[j].top < boxes[i].bottom; j++) {
        if (boxes[i].owner !== boxes[j].owner && meet(boxes[i], boxes[j])) found(boxes[i], boxes[j]);
      }
    }
  };
  // The part of a box that its ancestors show, and the ancestors' names for cutting.
  const clip = (element, box) => {
    let shown = { left: box.left, right: box.right, top: box.top, bottom: box.bottom };
    let scrolls = false;
    for (let at = element; at && at !== document.documentElement; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.overflowX === "visible" && style.overflowY === "visible") continue;
      const edge = at.getBoundingClientRect();
      shown = {
        left: Math.max(shown.left, edge.left), right: Math.min(shown.right, edge.right),
        top: Math.max(shown.top, edge.top), bottom: Math.min(shown.bottom, edge.bottom),
      };
      scrolls ||= ["auto", "scroll"].includes(style.overflowX);
    }
    return { ...shown, scrolls };
  };

  // Text of the page.
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("svg, script, style") || !visible(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      if (box.width < 1 || box.height < 1) continue;
      const shown = clip(parent, box);
      if (!shown.scrolls && (box.right > options.width + 1 || box.left < -1)) {
        faults.push(`text leaves the window: ${name(node.data)}`);
      }
      if (shown.right - shown.left < 1 || shown.bottom - shown.top < 1) continue;
      texts.push({ ...shown, owner: node, words: node.data });
    }
  }
  pairs(texts, (a, b) => faults.push(`text overlaps: ${name(a.words)} and ${name(b.words)}`));
  if (document.documentElement.scrollWidth > options.width + 1) {
    faults.push(`the page is ${document.documentElement.scrollWidth} px wide, the window ${options.width}`);
  }
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest("svg") || !element.textContent.trim() || !visible(element)) continue;
    const style = getComputedStyle(element);
    const cuts = (overflow) => overflow === "hidden" || overflow === "clip";
    if ((cuts(style.overflowX) && element.scrollWidth > element.clientWidth + 1)
        || (cuts(style.overflowY) && element.scrollHeight > element.clientHeight + 1)) {
      faults.push(`text is cut: ${name(element.textContent)}`);
    }
  }

  // Text of figures.
  for (const svg of document.querySelectorAll("svg")) {
    if (!visible(svg)) continue;
    const label = svg.getAttribute("aria-label") || "a figure";
    const frame = svg.getBoundingClientRect();
    // The drawing may be smaller than its element.
    const view = svg.viewBox.baseVal;
    const matrix = svg.getScreenCTM();
    const drawing = view.width === 0 ? frame : {
      left: matrix.e + view.x * matrix.a, top: matrix.f + view.y * matrix.d,
      right: matrix.e + (view.x + view.width) * matrix.a, bottom: matrix.f + (view.y + view.height) * matrix.d,
    };
    const boxes = [];
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      if (!text.textContent.trim()) continue;
      const out = Math.max(drawing.left - box.left, box.right - drawing.right, 0);
      const over = Math.max(drawing.top - box.top, box.bottom - drawing.bottom, 0);
      if (out > 1 || over > 0.3 * box.height) {
        faults.push(`${label}: ${name(text.textContent)} leaves the drawing`);
      }
      // Only letters, not the space above and below them.
      const upright = (text.getAttribute("transform") || "").includes("rotate");
      const [dx, dy] = upright ? [0.12 * box.width, 0] : [0, 0.12 * box.height];
      boxes.push({
        left: box.left + dx, right: box.right - dx, top: box.top + dy, bottom: box.bottom - dy,
        owner: text, words: text.textContent,
      });
    }
    pairs(boxes, (a, b) => faults.push(`${label}: ${name(a.words)} overlaps ${name(b.words)}`));
  }

  // The first screen.
  if (options.first) {
    const answer = document.getElementById("verdict");
    if (!answer) {
      faults.push("the page has no answer (id verdict)");
    } else if (answer.getBoundingClientRect().bottom > options.height) {
      faults.push(`the answer ends at ${Math.round(answer.getBoundingClientRect().bottom)} px, below the screen`);
    }
    const figure = document.querySelector("#first-figure svg:not([hidden])")
      && [...document.querySelectorAll("#first-figure svg")].find(visible);
    if (figure) {
      const box = figure.getBoundingClientRect();
      const [end, what] = options.whole ? [box.bottom, "ends"] : [box.top + 60, "starts"];
      if (end > options.height) faults.push(`the first figure ${what} at ${Math.round(end)} px, below the screen`);
    } else if (document.querySelector("main figure")) {
      faults.push("the page has figures, but none in its head (id first-figure)");
    }
  }
  return [...new Set(faults)];
};
window.openAll = () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
"""


class Browser:
    """Chromium, driven through two pipes by the DevTools protocol."""

    def __init__(self, program):
        self.home = tempfile.TemporaryDirectory(prefix="check-page-")
        to_browser, self.commands = os.pipe()
        self.answers, from_browser = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4.
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        command = ["/bin/sh", "-c", shell, "sh", program, "--headless", "--no-sandbox", "--disable-gpu",
                   "--no-first-run", "--disable-background-networking", "--disable-component-update",
                   "--disable-sync", "--hide-scrollbars", "--allow-file-access-from-files",
                   f"--user-data-dir={self.home.name}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=(to_browser, from_browser),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        os.set_blocking(self.answers, False)
        self.next, self.rest, self.events = 0, b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def call(self, method, **params):
        self.next += 1
        message = {"id": self.next, "method": method, "params": params}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data):]
        answer = self.wait(lambda message: message.get("id") == self.next, method)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait(self, wanted, what):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for i, message in enumerate(self.events):
                if wanted(message):
                    return self.events.pop(i)
            try:
                data = os.read(self.answers, 1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            if not data:
                raise RuntimeError(f"Chromium ended during {what}")
            *messages, self.rest = (self.rest + data).split(b"\0")
            self.events.extend(json.loads(message) for message in messages)
        raise RuntimeError(f"Chromium did not answer {what} in {SECONDS} s")

    def screen(self, width, height, is_phone):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if is_phone else 1, mobile=is_phone)

    def open(self, page):
        self.events.clear()
        self.call("Page.navigate", url=pathlib.Path(page).resolve().as_uri())
        self.wait(lambda message: message.get("method") == "Page.loadEventFired", "loading")

    def run(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "failed"))
        return answer["result"].get("value")

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
        except (RuntimeError, OSError):
            pass
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.commands)
        os.close(self.answers)
        self.home.cleanup()


def find_browser(wanted=None):
    for name in [wanted] if wanted else BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    sys.exit("Chromium is missing: apt-get install chromium")


def check(browser, page):
    """The faults of a page and of the figures beside it."""
    faults = []
    for screen, (width, height, is_phone) in SCREENS.items():
        browser.screen(width, height, is_phone)
        browser.open(page)
        browser.run(AUDIT)
        # A phone zooms out where a page is too wide, so the window's own size would not do.
        options = {"width": width, "height": height, "first": True, "whole": not is_phone}
        found = browser.run(f"audit({json.dumps(options)})")
        browser.run("openAll()")
        found += browser.run(f"audit({json.dumps(options | {'first': False})})")
        faults += [f"{screen}: {fault}" for fault in dict.fromkeys(found)]
    return faults + check_figures(browser, page)


def check_figures(browser, page):
    """The faults of SVG files beside a page, which it may not show."""
    files = sorted((pathlib.Path(page).parent / "figures").glob("*.svg"))
    if not files:
        return []
    # Text is what is checked: pictures only take time.
    cut = lambda text: "".join(line for line in text.splitlines(True) if not line.startswith("<image"))
    drawings = "".join(
        f"<div>{cut(file.read_text()).replace('<svg ', f'<svg aria-label={json.dumps(file.name)} ', 1)}</div>"
        for file in files)
    with tempfile.TemporaryDirectory() as folder:
        together = pathlib.Path(folder) / "figures.html"
        together.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{drawings}</body>")
        browser.screen(*SCREENS["desktop"])
        browser.open(together)
        browser.run(AUDIT)
        return [f"figures: {fault}" for fault in browser.run("audit({width: 1280})")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="+", help="index.html of a report")
    parser.add_argument("--browser", help="the program to use (default: the first of %s)" % ", ".join(BROWSERS))
    options = parser.parse_args()
    browser = Browser(find_browser(options.browser))
    failed = 0
    try:
        for page in options.pages:
            start = time.monotonic()
            faults = check(browser, page)
            for fault in faults:
                print(f"{page}: {fault}")
            state = f"{len(faults)} faults" if faults else "no faults"
            print(f"{page}: {state} ({time.monotonic() - start:.1f} s)")
            failed += bool(faults)
    finally:
        browser.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
