#!/usr/bin/env python3
"""Checks the project's prose. Python's standard library only.

    tests/prose.py                  reads every text of the project
    tests/prose.py FILE...          reads these files
    tests/prose.py --self-test      proves that each check can fail

It reports, as FILE:LINE, sentences of more than 40 words, a README.md of more than 150 lines, turns of phrase that
read as translated, paths of one machine, links and anchors that lead nowhere, and files that are named and missing.
Code blocks are skipped. A table cell, a list item, a heading and a picture's description are texts of their own. The
exit code is 1 if anything was found.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TEXTS = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**/*.md", "bench/README.md", "data/README.md",
    "reports/README.md",
]
MOST_WORDS = 40
MOST_LINES = {"README.md": 150}

# A pattern, and what to write in its place.
HABITS = [
    (r"\b(is|are|was|were) no\b(?! (longer|more than|better|worse|larger|smaller|faster))", '"is not a", "does not exist"'),
    (r"\banew\b", '"again", "re-"'),
    (r"\b(drawn|made|computed|done|built|trained) (once )?again\b", '"redrawn", "recomputed"'),
    (r"\balone\b", '"only"'),
    (r"\ball the same(?=[.,;:)]|$)", '"still", "anyway"'),
    (r"\b(a|one|an own) (row|file|folder|model|image|line|value) an? (row|file|class|image|mask|generator|patient|seed|step)\b", '"one row per image"'),
    (r"\b(what|whatever) (is|was) left out\b", '"omitted keys", "the rest"'),
    (r"\bleft out takes\b", '"defaults to"'),
    (r"\bwhom\b", "name the thing: \"training patients\""),
    (r"\b(what|which) decides\b|\bdecides? nothing\b", '"depends on", "has no effect"'),
    (r"\bthe very\b", '"exactly the", "the same"'),
    (r"\bmerit of\b", '"benefit of"'),
    (r"\b(told|tells|tell (of|you|us))\b", '"prints", "reports", "shows", "given"'),
    (r"\bwithout end\b", '"infinitely many"'),
    (r"\bso many\b", '"as many", "that many"'),
    (r"\bgo(es)? on where\b", '"resumes"'),
    (r"\bno more is known\b|\bof which no\b", "say it in a sentence of its own"),
    (r"\bnot there yet\b", '"does not exist yet"'),
    (r"\bmaking of\b|\bof ours\b", "a plain possessive"),
    (r"\bup to now\b|\bmeanwhile\b", '"so far", "at the same time"'),
]
# Where such a turn is right, or is wanted by something else.
ALLOWED = [
    "unconditional, told the class",  # a heading of docs/diffusers.md, by which tests/cli/diffusers.rs finds the code
    "stock: pixels, one model a class",  # likewise
]
MACHINE_PATH = re.compile(r"(?<![\w.~/:])/(?:work|root|home|tmp|mnt|Users)/")
# Files that the tree holds, so that a name of one can be checked.
NAMED_FILE = re.compile(r"(?:docs|experiments|bench|tests|setup|src)/[a-z0-9_./-]+\.(?:md|py|toml|csv|svg|txt)|[a-z0-9_./-]+/[a-z0-9_-]+\.rs")
# Pictures that somebody else draws; remove the line when the file is there.
PENDING = set()

CODE, GONE = "\x01", "\x00"
ABBREVIATION = re.compile(r"(?:^|[\s(])(?:e\.g|i\.e|et al|al|vs|cf|etc|ca|no|fig|n\. ?s|[A-Za-z])\.$", re.I)
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
HEADING = re.compile(r"^\s{0,3}#{1,6}\s+")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(\s*<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\s*\)")
ATTRIBUTE = re.compile(r"\b(src|href|alt)\s*=\s*\"([^\"]*)\"")


class Unit:
    """A paragraph, cell, item or heading: its characters, each with its line, and what it refers to."""

    def __init__(self, pieces):
        raw, lines = "", []
        for line, text in pieces:
            text = (" " if raw else "") + text
            raw += text
            lines += [line] * len(text)
        self.links, self.code, self.alts = [], [], []

        def blank(match, kept=None):
            """The match with only its group `kept`, at the same length."""
            if kept is None:
                return CODE + GONE * (len(match[0]) - 1)
            start, end = match.start(kept) - match.start(), match.end(kept) - match.start()
            return GONE * start + match[0][start:end] + GONE * (len(match[0]) - end)

        def code(match):
            self.code.append((lines[match.start()], match[2]))
            return blank(match)

        def link(match):
            self.links.append((lines[match.start()], match[3]))
            if match[1]:
                self.alts.append((lines[match.start()], match[2]))
                return GONE * len(match[0])
            return blank(match, 2)

        def tag(match):
            for name, value in ATTRIBUTE.findall(match[0]):
                (self.alts if name == "alt" else self.links).append((lines[match.start()], value))
            return GONE * len(match[0])

        text = re.sub(r"(`+)(.+?)(?<!`)\1(?!`)", code, raw, flags=re.S)
        text = LINK.sub(link, text)
        text = re.sub(r"<(?:https?|mailto):[^>]*>", blank, text)
        text = re.sub(r"</?[a-zA-Z][^>]*>", tag, text)
        text = re.sub(r"\*+", lambda m: GONE * len(m[0]), text)
        kept = [(c, line) for c, line in zip(text, lines) if c != GONE]
        self.text = "".join(c for c, _ in kept)
        self.lines = [line for _, line in kept]

    def sentences(self):
        """(line, text) of each."""
        start = 0
        for end in [*re.finditer(r"[.!?][\"”’)\]]*(?=\s)", self.text), None]:
            stop = len(self.text) if end is None else end.end()
            if end is not None and self.text[end.start()] == "." and ABBREVIATION.search(self.text[start : end.start() + 1]):
                continue
            text = self.text[start:stop]
            if words(text):
                first = start + len(text) - len(text.lstrip())
                yield self.lines[first], " ".join(text.split())
            start = stop


def words(text):
    return sum(any(c.isalnum() or c == CODE for c in word) for word in text.split())


def cells(line):
    """The cells of a table's row; a bar in code or behind a backslash parts nothing."""
    line = re.sub(r"`[^`]*`", lambda m: m[0].replace("|", "\x02"), line.strip().replace("\\|", "\x02"))
    return [cell.replace("\x02", "|").strip() for cell in line.strip("|").split("|")]


def units(text):
    """The pieces of prose, without code blocks and comments."""
    text = re.sub(r"<!--.*?-->", lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
    found, piece, fence = [], [], None

    def close():
        if piece:
            found.append(Unit(piece))
            piece.clear()

    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = None
            continue
        if mark:
            close()
            fence = mark[1]
            continue
        line = re.sub(r"^\s*>\s?", "", line)
        if not line.strip() or re.fullmatch(r"\s*([-*_])(\s*\1){2,}\s*", line):
            close()
        elif line.lstrip().startswith("|"):
            close()
            if not re.fullmatch(r"[\s|:-]+", line):
                found.extend(Unit([(number, cell)]) for cell in cells(line) if cell)
        elif HEADING.match(line):
            close()
            found.append(Unit([(number, HEADING.sub("", line))]))
        elif ITEM.match(line):
            close()
            piece.append((number, ITEM.sub("", line)))
        else:
            piece.append((number, line.strip()))
    close()
    return found + [Unit([alt]) for unit in found for alt in unit.alts if alt[1]]


def anchors(text):
    """The names by which GitHub links to the headings."""
    found = set()
    fenced = re.sub(r"^(\s*)(`{3,}|~{3,}).*?^\s*\2", "", text, flags=re.M | re.S)
    for heading in re.findall(r"^#{1,6}\s+(.*)$", fenced, re.M):
        heading = LINK.sub(lambda m: m[2], heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")
        same = sum(1 for other in found if re.fullmatch(re.escape(name) + r"(-\d+)?", other))
        found.add(f"{name}-{same}" if same else name)
    return found


def check_link(file, url, root):
    """What is wrong with a link, or None."""
    if re.match(r"[a-z][a-z0-9+.-]*:", url, re.I):
        return None
    path, _, anchor = url.partition("#")
    target = (file.parent / path).resolve() if path else file
    if not target.exists():
        pending = target.is_relative_to(root) and target.relative_to(root).as_posix() in PENDING
        return None if pending else f"the link {url} leads nowhere"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
        return f"{path or file.name} has no heading #{anchor}"
    return None


def check(file, root=PROJECT):
    """(sentences, the words of those that end with a full stop, [(line, problem)]) of a file."""
    file = file.resolve()
    text = file.read_text(encoding="utf-8")
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    problems, count, full = [], 0, []
    lines = len(text.splitlines())
    if lines > MOST_LINES.get(name, lines):
        problems.append((MOST_LINES[name] + 1, f"{lines} lines, at most {MOST_LINES[name]}: move something to docs/"))
    for unit in units(text):
        for line, sentence in unit.sentences():
            count += 1
            # Cells and headings would make sentences look shorter than they are.
            if re.search(r"[.!?][\"”’)\]]*$", sentence):
                full.append(words(sentence))
            shown = sentence.replace(CODE, "`…`")
            if words(sentence) > MOST_WORDS:
                problems.append((line, f"{words(sentence)} words, at most {MOST_WORDS}: {shown}"))
            read = sentence.lower()
            for allowed in ALLOWED:
                read = read.replace(allowed, "")
            for pattern, advice in HABITS:
                found = re.search(pattern, read, re.I)
                if found:
                    problems.append((line, f'"{found[0]}", better {advice}: {shown}'))
            if MACHINE_PATH.search(sentence):
                problems.append((line, f"a path of one machine: {shown}"))
        for line, url in unit.links:
            wrong = check_link(file, url, root)
            problems += [(line, wrong)] if wrong else []
        for line, code in unit.code:
            if MACHINE_PATH.search(code):
                problems.append((line, f"a path of one machine: {code}"))
            if NAMED_FILE.fullmatch(code) and not any((top / code).exists() for top in (root, root / "src")):
                problems.append((line, f"{code} does not exist"))
    return count, full, sorted(problems)


def self_test():
    """Each check on a text that breaks it, and on one that does not."""
    long = " ".join(["word"] * 41)
    cases = [
        (f"{long}.", "41 words"),
        (f"| cell | {long} |", "41 words"),
        (f"Fine.\n\n- {long}", "41 words"),
        (f"![{long}](x.md)", "41 words"),
        ("There is no such file.", "is no"),
        ("The report is made\nanew.", "anew"),
        ("It is drawn again.", "drawn again"),
        ("Trained on real images alone.", "alone"),
        ("It runs all the same.", "all the same"),
        ("A table with one row an image.", "one row an image"),
        ("What is left out takes its default.", "left out"),
        ("The patients whom it saw.", "whom"),
        ("This key decides nothing.", "decides nothing"),
        ("The very same bytes.", "the very"),
        ("It looks like a merit of the images.", "merit of"),
        ("The report tells the n.", "tells"),
        ("Images without end.", "without end"),
        ("For each so many copies.", "so many"),
        ("Training goes on where it stopped.", "goes on where"),
        ("It lies in /home/me/data.", "one machine"),
        ("It lies in `/tmp/data`.", "one machine"),
        ("A [link](nowhere.md).", "leads nowhere"),
        ('<img src="nowhere.png" alt="x">', "leads nowhere"),
        ("A [link](x.md#no).", "no heading #no"),
        ("A [link](#no).", "no heading #no"),
        ("See `docs/nowhere.md`.", "does not exist"),
        ("See `report/nowhere.rs`.", "does not exist"),
        ("\n" * 151, "151 lines"),
    ]
    clean = (
        "# A heading\n\nA sentence with `code. More code` and a [link](x.md#one-heading), e.g. this one. "
        + " ".join(["word"] * 30) + ". The same again: fig. 1, S. Leclerc et al. wrote it.\n\n"
        + f"```sh\n{long} alone /tmp/x is no\n```\n\n<!-- {long} alone -->\n\n"
        + "| `a|b` | " + " ".join(["word"] * 39) + " |\n|---|---|\n\nIt is no longer than [this](https://example.org).\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / "x.md").write_text("## One heading\n", encoding="utf-8")
        file = root / "README.md"
        for text, expected in cases:
            file.write_text(text, encoding="utf-8")
            _, _, problems = check(file, root)
            if not any(expected in problem for _, problem in problems):
                sys.exit(f"error: {text!r} should report {expected!r}, but reports {problems}")
        file.write_text(clean, encoding="utf-8")
        count, _, problems = check(file, root)
        # The heading, three sentences, two cells, the last line.
        if problems or count != 7:
            sys.exit(f"error: the clean text has {count} sentences and reports {problems}")
    print(f"self-test: {len(cases)} faulty texts were reported, and the clean one was not")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="Markdown files (default: every text of the project)")
    parser.add_argument("--self-test", action="store_true", help="prove that each check can fail, and end")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        return
    files = arguments.files or sorted(file for pattern in TEXTS for file in PROJECT.glob(pattern))
    sentences, full, found = 0, [], 0
    for file in files:
        count, of_file, problems = check(file)
        sentences, found = sentences + count, found + len(problems)
        full += of_file
        shown = file.resolve()
        shown = shown.relative_to(PROJECT) if shown.is_relative_to(PROJECT) else file
        for line, problem in problems:
            print(f"{shown}:{line}: {problem}")
    average = sum(full) / max(len(full), 1)
    print(f"{sentences} sentences and cells in {len(files)} files: {found} problems")
    print(f"{len(full)} end with a full stop and have {average:.1f} words on average")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
