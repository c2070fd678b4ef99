//! The arrows between modules: which module may import which, and that no files import each other in a circle. The
//! table is that of docs/architecture.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Modules that every module may import.
const LEAVES: [&str; 9] = [
    "atomic_file",
    "error",
    "file_lock",
    "pace",
    "plain_file",
    "random",
    "sector",
    "text_file",
    "vocabulary",
];

/// What each module may import besides the leaves and itself.
const ALLOWED: [(&str, &[&str]); 37] = [
    // The leaves themselves.
    ("vocabulary", &[]),
    ("error", &[]),
    ("random", &[]),
    ("atomic_file", &["error"]),
    ("determinism", &[]),
    ("memory", &[]),
    // What was asked, and what has to be done: no files, no tensors.
    ("cell", &[]),
    ("experiment", &[]),
    ("plan", &["cell", "experiment"]),
    ("store", &["plan"]),
    // Artifacts, in which stages meet, and what reads them.
    ("manifest", &[]),
    ("picture", &[]),
    ("resize", &["picture"]),
    ("scan", &["picture"]),
    ("results", &["manifest"]),
    ("samples", &["manifest", "picture"]),
    ("observer", &["results"]),
    ("pace", &[]),
    ("sector", &["vocabulary"]),
    ("file_lock", &["error"]),
    ("plain_file", &[]),
    ("text_file", &["error", "plain_file"]),
    ("progress", &["observer", "results"]),
    ("pipeline", &["nn"]),
    // Arithmetic that several stages share.
    ("augment", &["experiment"]),
    ("dice", &[]),
    ("prompt", &["manifest"]),
    ("nn", &[]),
    // Stages.
    ("data", &["experiment", "manifest", "picture", "resize", "scan"]),
    (
        "generate",
        &[
            "augment",
            "experiment",
            "manifest",
            "nn",
            "picture",
            "pipeline",
            "progress",
            "prompt",
            "results",
            "samples",
        ],
    ),
    (
        "train",
        &[
            "augment",
            "dice",
            "experiment",
            "manifest",
            "nn",
            "observer",
            "pipeline",
            "prompt",
            "results",
            "samples",
        ],
    ),
    (
        "measure",
        &[
            "aggregate",
            "dice",
            "experiment",
            "manifest",
            "nn",
            "picture",
            "progress",
            "resize",
            "results",
            "samples",
            "scan",
        ],
    ),
    // From artifacts to a report: no tensors.
    ("aggregate", &["cell", "results"]),
    ("report", &["aggregate", "cell", "picture", "results"]),
    (
        "gather",
        &[
            "aggregate",
            "cell",
            "experiment",
            "manifest",
            "picture",
            "pipeline",
            "plan",
            "report",
            "results",
            "samples",
            "store",
        ],
    ),
    // What puts everything to work.
    (
        "execute",
        &[
            "aggregate",
            "cell",
            "data",
            "dice",
            "experiment",
            "gather",
            "generate",
            "manifest",
            "measure",
            "observer",
            "picture",
            "pipeline",
            "plan",
            "progress",
            "report",
            "results",
            "samples",
            "store",
            "train",
        ],
    ),
    ("doctor", &["determinism"]),
];

/// Modules that show a plan or redraw a report in milliseconds, on a machine without libtorch.
const WITHOUT_TENSORS: [&str; 6] = ["experiment", "plan", "store", "aggregate", "report", "error"];

/// The files of `src`, by their module path (`train::diffusion`), without comments and tests.
struct Sources {
    files: BTreeMap<String, String>,
    /// Module paths that are a folder's `mod.rs`.
    folders: BTreeSet<String>,
}

impl Sources {
    fn read(root: &Path) -> Self {
        let mut sources = Self { files: BTreeMap::new(), folders: BTreeSet::new() };
        sources.walk(root, root);
        sources
    }

    fn walk(&mut self, root: &Path, dir: &Path) {
        let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                self.walk(root, &path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let relative = path.strip_prefix(root).unwrap().with_extension("");
                let mut parts: Vec<String> =
                    relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                let last = parts.last().unwrap().clone();
                if ["tests", "fake", "main", "lib"].contains(&last.as_str()) {
                    continue;
                }
                if last == "mod" {
                    parts.pop();
                    self.folders.insert(parts.join("::"));
                }
                self.files.insert(parts.join("::"), without_tests(&fs::read_to_string(&path).unwrap()));
            }
        }
    }

    /// Everything that a file names by a path from the crate or from its own or its parent module, as paths from the
    /// crate.
    fn named_by(&self, module: &str) -> Vec<String> {
        let text = &self.files[module];
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let own = if self.folders.contains(module) { module } else { parent };
        let above = own.rsplit_once("::").map_or("", |(above, _)| above);
        let mut named = Vec::new();
        for tree in imports(text) {
            expand(&tree, "", &mut named);
        }
        // `crate::module::name` outside of imports.
        for (at, word) in text.match_indices("crate::") {
            let rest = &text[at + word.len()..];
            let path: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
            named.push(format!("crate::{}", path.trim_end_matches(':')));
        }
        let base = if self.folders.contains(module) { above } else { parent };
        named
            .into_iter()
            .filter_map(|path| {
                let (head, rest) = path.split_once("::").unwrap_or((&path, ""));
                match head {
                    "crate" => Some(rest.to_owned()),
                    "super" => Some(joined(base, rest)),
                    "self" => Some(joined(module, rest)),
                    // A child of this module.
                    _ if self.files.contains_key(&joined(own, head)) => Some(joined(own, &path)),
                    _ => None,
                }
            })
            .collect()
    }

    /// The file that a path leads to, through the names that modules export again.
    fn file_of(&self, path: &str) -> Option<String> {
        let mut path = path.to_owned();
        for _ in 0..8 {
            let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
            let deepest =
                (1..=parts.len()).rev().find(|n| self.files.contains_key(&parts[..*n].join("::")))?;
            let module = parts[..deepest].join("::");
            let Some(name) = parts.get(deepest) else { return Some(module) };
            match self.exported(&module, name) {
                Some(further) => path = further,
                None => return Some(module),
            }
        }
        None
    }

    /// Where `module` has `name` from, if it imports it from somewhere.
    fn exported(&self, module: &str, name: &str) -> Option<String> {
        let text = &self.files[module];
        for tree in imports(text) {
            let mut names = Vec::new();
            expand(&tree, "", &mut names);
            let found = names.into_iter().find(|path| path.rsplit("::").next() == Some(name));
            if let Some(found) = found {
                let found = found.strip_prefix("self::").unwrap_or(&found).to_owned();
                let own = joined(module, &found);
                return Some(found.strip_prefix("crate::").map_or(own, str::to_owned));
            }
        }
        None
    }

    /// Arrows between top modules that the table does not have: (from, to, file).
    fn forbidden(&self) -> Vec<(String, String, String)> {
        let tops: BTreeSet<&str> = self.files.keys().map(|module| top(module)).collect();
        let mut found = BTreeSet::new();
        for module in self.files.keys() {
            let from = top(module);
            // The command line may call everything.
            if from == "cli" {
                continue;
            }
            let allowed = ALLOWED.iter().find(|(name, _)| *name == from).map(|(_, to)| *to);
            for path in self.named_by(module) {
                let to = top(&path);
                let is_module = tops.contains(to) && to != from;
                let is_leaf = LEAVES.contains(&to) && !LEAVES.contains(&from);
                if is_module && !is_leaf && !allowed.is_some_and(|allowed| allowed.contains(&to)) {
                    found.insert((from.to_owned(), to.to_owned(), module.clone()));
                }
            }
        }
        found.into_iter().collect()
    }

    /// Files that reach each other by their imports. A module's `mod.rs` and the files in its folder are one module, whose
    /// parts may name what the whole has.
    fn cycles(&self) -> Vec<BTreeSet<String>> {
        let is_parent = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with("::"));
        let arrows: BTreeMap<&str, BTreeSet<String>> = self
            .files
            .keys()
            .map(|module| {
                let to = self.named_by(module).into_iter().filter_map(|path| self.file_of(&path));
                let other = |to: &String| to != module && !is_parent(module, to) && !is_parent(to, module);
                (module.as_str(), to.filter(other).collect())
            })
            .collect();
        let reached = |from: &str| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
            while let Some(module) = next.pop() {
                for to in arrows.get(module.as_str()).into_iter().flatten() {
                    if seen.insert(to.clone()) {
                        next.push(to.clone());
                    }
                }
            }
            seen
        };
        let all: BTreeMap<&str, BTreeSet<String>> =
            self.files.keys().map(|module| (module.as_str(), reached(module))).collect();
        let mut cycles: Vec<BTreeSet<String>> = Vec::new();
        for (module, there) in &all {
            if there.contains(*module) && !cycles.iter().any(|cycle| cycle.contains(*module)) {
                let back = |other: &&String| all[other.as_str()].contains(*module);
                cycles.push(there.iter().filter(back).cloned().collect());
            }
        }
        cycles
    }
}

fn top(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

fn joined(module: &str, rest: &str) -> String {
    [module, rest].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("::")
}

/// The trees of all `use` statements, each on one line.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        let words = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
        if let Some(word) = words.into_iter().find(|word| start.starts_with(word)) {
            let from = at + (line.len() - start.len()) + word.len();
            if let Some(end) = text[from..].find(';') {
                found.push(text[from..from + end].split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        at += line.len();
    }
    found
}

/// The paths in a tree of imports: `a::{b, c::{self, D as E}}` is `a::b`, `a::c` and `a::c::D`.
fn expand(tree: &str, before: &str, into: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        let path = path.strip_suffix("::self").unwrap_or(if path == "self" { "" } else { path });
        let whole = joined(before, path);
        if !whole.is_empty() {
            into.push(whole);
        }
        return;
    };
    let head = joined(before, tree[..open].trim_end_matches("::").trim());
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    expand(&inner[start..at], &head, into);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The text without comments, and without the modules of tests.
fn without_tests(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut kept = String::new();
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let is_test_module = line.trim() == "#[cfg(test)]"
            && lines.peek().is_some_and(|next| next.contains("mod ") && next.trim_end().ends_with('{'));
        if !is_test_module {
            kept += line;
            kept.push('\n');
            continue;
        }
        // rustfmt closes a module at its own indentation.
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        for line in lines.by_ref() {
            if line == end {
                break;
            }
        }
    }
    kept
}

fn sources() -> Sources {
    Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let sources = sources();
    assert!(sources.files.len() > 150, "{}", sources.files.len());
    let tops: BTreeSet<&str> = sources.files.keys().map(|module| top(module)).collect();
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).chain(["cli"]).collect();
    assert_eq!(tops, known, "every module has a line in the table");
    assert_eq!(sources.forbidden(), [], "(from, to, file): see docs/architecture.md");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    assert_eq!(sources().cycles(), Vec::<BTreeSet<String>>::new());
}

#[test]
fn plans_and_reports_do_without_libtorch() {
    let sources = sources();
    // `tch` as a word of code, in the module and in all that it imports.
    let names_tch = |text: &str| {
        text.match_indices("tch").any(|(at, _)| {
            let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            edge(text[..at].chars().next_back()) && text[at + 3..].starts_with("::")
                || edge(text[..at].chars().next_back()) && text[at + 3..].starts_with(';')
        })
    };
    let mut reached: BTreeSet<&str> = WITHOUT_TENSORS.into();
    let mut next: Vec<&str> = WITHOUT_TENSORS.into();
    while let Some(module) = next.pop() {
        let (_, imports) = ALLOWED.iter().find(|(name, _)| *name == module).unwrap();
        next.extend(imports.iter().chain(&LEAVES).filter(|to| reached.insert(to)));
    }
    for (module, text) in sources.files.iter().filter(|(module, _)| reached.contains(top(module))) {
        assert!(!names_tch(text), "{module} names tch");
    }
    assert!(sources.files.iter().any(|(module, text)| top(module) == "nn" && names_tch(text)));
}

/// A source tree with these files.
fn planted(files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let sources = Sources::read(dir.path());
    (dir, sources)
}

#[test]
fn a_planted_arrow_is_found() {
    let clean = "use crate::{\n    cell::Cell,\n    results::{self, Measurement},\n};\n";
    let hidden = "#[cfg(test)]\nmod tests {\n    use crate::train::fit;\n}\n// use crate::train::fit;\n";
    let files = |aggregate: &str| {
        planted(&[
            ("aggregate/mod.rs", &format!("{clean}{aggregate}{hidden}")),
            ("cell.rs", ""),
            ("results.rs", ""),
            ("train/mod.rs", ""),
        ])
    };
    assert_eq!(files("").1.forbidden(), []);
    for arrow in
        ["use crate::train::fit;", "use crate::{results, train::{self}};", "fn f() { crate::train::fit() }"]
    {
        let arrow = format!("{arrow}\n");
        let found = files(&arrow).1.forbidden();
        assert_eq!(found, [("aggregate".to_owned(), "train".to_owned(), "aggregate".to_owned())], "{arrow}");
    }
}

#[test]
fn a_planted_circle_is_found() {
    let files = |b: &str| {
        planted(&[
            ("nn/mod.rs", "mod a;\nmod b;\nmod c;\npub use c::Third;\npub const WIDTH: usize = 1;\n"),
            ("nn/a.rs", "use super::{WIDTH, b::Second};\npub struct First;\n"),
            ("nn/b.rs", b),
            ("nn/c.rs", "use super::a::First;\npub struct Third;\n"),
        ])
    };
    assert!(files("use super::WIDTH;\npub struct Second;\n").1.cycles().is_empty());
    // Directly, and through a name that the parent exports again.
    for (b, members) in [
        ("use crate::nn::a::First;\npub struct Second;\n", vec!["nn::a", "nn::b"]),
        ("use super::Third;\npub struct Second;\n", vec!["nn::a", "nn::b", "nn::c"]),
    ] {
        let members: BTreeSet<String> = members.into_iter().map(str::to_owned).collect();
        assert_eq!(files(b).1.cycles(), [members], "{b}");
    }
}
