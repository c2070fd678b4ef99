#!/usr/bin/env python3
"""Proves that check_page.py finds planted faults, and none in a page without: python3 tests/page/test_check_page.py"""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import check_page  # noqa: E402

SVG = """<svg role="img" aria-label="Plot" width="300" height="100" viewBox="0 0 300 100" font-size="12">
<text x="10" y="20">first</text><text x="100" y="20">second</text>{more}</svg>"""

PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>t</title>
<style>body {{ margin: 10px; font: 16px/1.4 sans-serif }} {style}</style>
<body><section id="verdict"><p>No: worse.</p></section>
<main><figure id="first-figure">{svg}</figure>{body}
<details><summary>More</summary><div>{folded}</div></details></main></body></html>"""


class PlantedFaults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = check_page.Browser(check_page.find_browser())
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.folder.cleanup()

    def faults(self, style="", body="<p>Some words.</p>", folded="<p>Folded words.</p>", more="", figures=()):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder.name))
        page = folder / "index.html"
        page.write_text(PAGE.format(style=style, body=body, folded=folded, svg=SVG.format(more=more)))
        (folder / "figures").mkdir()
        for i, figure in enumerate(figures):
            (folder / "figures" / f"plot{i}.svg").write_text(figure)
        return check_page.check(self.browser, page)

    def assert_found(self, faults, words, *screens):
        for screen in screens:
            self.assertTrue(any(f.startswith(screen) and words in f for f in faults), (screen, words, faults))

    def test_a_clean_page_has_no_faults(self):
        table = "<div style='overflow-x: auto'><table><tr>" + "<td>wide cell</td>" * 60 + "</tr></table></div>"
        self.assertEqual(self.faults(body="<p>Words.</p>" + table, figures=[SVG.format(more="")]), [])

    def test_overlapping_text(self):
        body = "<p>Lower words.</p><p style='margin-top: -2.2em'>Upper words.</p>"
        self.assert_found(self.faults(body=body), "text overlaps", "desktop", "phone")
        # In a folded part it is found as well.
        self.assert_found(self.faults(folded=body), "text overlaps", "desktop", "phone")

    def test_cut_text(self):
        body = "<p style='width: 80px; overflow: hidden; white-space: nowrap'>Words that are cut.</p>"
        self.assert_found(self.faults(body=body), "text is cut", "desktop", "phone")

    def test_text_that_leaves_the_window(self):
        body = "<p style='width: 500px; white-space: nowrap'>" + "Words. " * 10 + "</p>"
        faults = self.faults(body=body)
        self.assert_found(faults, "px wide, the window 390", "phone")
        self.assertFalse(any(fault.startswith("desktop") for fault in faults), faults)

    def test_an_answer_below_the_screen(self):
        faults = self.faults(style="#verdict { margin-top: 1000px }")
        self.assert_found(faults, "the answer ends at", "desktop", "phone")
        self.assert_found(faults, "the first figure", "desktop", "phone")

    def test_a_figure_below_the_screen(self):
        faults = self.faults(style="#first-figure { margin-top: 760px }")
        self.assert_found(faults, "the first figure starts at", "phone")
        faults = self.faults(style="#first-figure { margin-top: 780px }")
        self.assert_found(faults, "the first figure ends at", "desktop")
        self.assert_found(self.faults(style="#first-figure svg { display: none }"), "none in its head", "desktop")

    def test_text_in_a_figure(self):
        self.assert_found(self.faults(more="<text x='20' y='22'>other</text>"), "Plot: ", "desktop", "phone")
        self.assert_found(self.faults(more="<text x='280' y='60'>too long for it</text>"), "leaves the drawing",
                          "desktop", "phone")
        turned = "<text x='0' y='50' transform='rotate(-90 0 50)'>upright</text>"
        self.assert_found(self.faults(more=turned), "leaves the drawing", "desktop", "phone")

    def test_figures_that_only_lie_beside_the_page(self):
        faults = self.faults(figures=[SVG.format(more="<text x='12' y='22'>other</text>")])
        self.assert_found(faults, "plot0.svg", "figures")


if __name__ == "__main__":
    unittest.main()
