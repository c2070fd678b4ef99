//! Folders to work in, the program, and what it said.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use synecho::picture::Picture;
use tempfile::TempDir;

/// Both tasks on a phantom, in seconds: what every stage does, with as little work as it can have.
pub const SMALL: &str = r#"[experiment]
name = "small"

[data]
source = "phantom"
image_size = 40

[data.phantom]
patients = 10
size = 64

[tasks.segmentation]
channels = [4, 8, 16]
epochs = 3

[tasks.classification]
label = "view"
epochs = 1
batch_size = 8
"#;

/// phantom, import, prepare, two of train and measure, report.
pub const STAGES: usize = 8;

/// A run in one process with one thread: tests run side by side.
pub const RUN: [&str; 6] = ["run", "small.toml", "--jobs", "1", "--threads", "1"];

/// A folder to run the program in.
pub struct Place {
    root: PathBuf,
    _temporary: Option<TempDir>,
}

impl Place {
    pub fn new() -> Self {
        let temporary = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { root: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    /// A folder for a static: it keeps its name and is emptied at the start, for statics are not dropped.
    /// No other process of tests has it while the lock is held.
    pub fn standing(name: &str) -> (Self, fs::File) {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let lock = fs::File::create(root.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        (Self { root, _temporary: None }, lock)
    }

    /// With [`SMALL`] as `small.toml`.
    pub fn small() -> Self {
        let place = Self::new();
        place.write("small.toml", SMALL);
        place
    }

    /// With a store that holds all of `small.toml`, and its report.
    pub fn finished() -> Self {
        finished().place.copied()
    }

    /// A copy of all that lies in this folder.
    pub fn copied(&self) -> Self {
        let place = Self::new();
        copy(&self.root, &place.root);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn write_bytes(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The measurements of a report, as CSV.
    pub fn measurements(&self, report: &str) -> String {
        self.unpacked(&format!("{report}/measurements.csv.gz"))
    }

    /// The text of a gzipped file.
    pub fn unpacked(&self, name: &str) -> String {
        let path = self.path(name);
        let packed = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut text = String::new();
        GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
        text
    }

    /// The program in this folder, without what cargo puts into the environment of a test.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synecho"));
        command.args(args).current_dir(&self.root);
        // `SYNECHO_TEST_DEVICE=cuda cargo test` tries the same on a GPU.
        let works = args.first().is_some_and(|verb| ["run", "sample"].contains(verb));
        if let Some(device) =
            std::env::var_os("SYNECHO_TEST_DEVICE").filter(|_| works && !args.contains(&"--device"))
        {
            command.arg("--device").arg(device);
        }
        for name in [
            "LIBTORCH",
            "LD_LIBRARY_PATH",
            "RUST_BACKTRACE",
            "SYNECHO_STORE",
            "SYNECHO_DEVICE",
            "SYNECHO_WEIGHTS",
        ] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn synecho(&self, args: &[&str]) -> Told {
        Told::from(args, self.command(args).output().unwrap())
    }

    /// Relative path and bytes of every file below a folder.
    pub fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let base = self.path(folder);
        walk(&base, &mut |path| {
            let name = path.strip_prefix(&base).unwrap().display().to_string();
            files.insert(name, fs::read(path).unwrap());
        });
        assert!(!files.is_empty(), "{} holds nothing", base.display());
        files
    }

    /// The artifact folder of the stage whose label starts with `label`.
    pub fn artifact(&self, store: &str, label: &str) -> PathBuf {
        let mut found = Vec::new();
        walk(&self.path(store), &mut |path| {
            // What was put aside as damaged is no artifact any more.
            let aside = path.parent().and_then(Path::extension).is_some_and(|e| e == "damaged");
            if path.ends_with("record.json") && !aside {
                let record: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
                if record["label"].as_str().unwrap().starts_with(label) {
                    found.push(path.parent().unwrap().to_owned());
                }
            }
        });
        assert_eq!(found.len(), 1, "artifacts of {label}: {found:?}");
        found.remove(0)
    }
}

/// What a process answered.
#[derive(Debug)]
pub struct Told {
    /// Shown when an assertion fails.
    #[allow(dead_code)]
    pub asked: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Told {
    pub fn from(args: &[&str], output: std::process::Output) -> Self {
        Self {
            asked: args.join(" "),
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Exit code 0.
    #[track_caller]
    pub fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// This exit code, every part on standard error, a remedy, nothing on standard output, and no
    /// trace of a panic.
    #[track_caller]
    pub fn wrong(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.out, "", "{self:#?}");
        for trace in ["panicked", "backtrace", "RUST_", "src/", "C++", "frame #"] {
            assert!(!self.err.contains(trace), "{trace} in {self:#?}");
        }
        for part in parts.iter().chain(&["error: ", "help: "]) {
            assert!(self.err.contains(part), "no {part:?} in {self:#?}");
        }
        self
    }

    /// Exit code 2, as [`Told::wrong`].
    #[track_caller]
    pub fn refused(self, parts: &[&str]) -> Self {
        self.wrong(2, parts)
    }

    /// Exactly one JSON document on standard output.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let told = self.well();
        serde_json::from_str(&told.out).unwrap_or_else(|e| panic!("{e}: {told:#?}"))
    }

    /// `3 of 8 stages were computed now`: (3, 8).
    #[track_caller]
    pub fn stages_done(&self) -> (usize, usize) {
        let words: Vec<&str> = self.out.lines().last().unwrap_or_default().split(' ').collect();
        match words[..] {
            [done, "of", all, "stages", "were", "computed", "now,", ..] => {
                (done.parse().unwrap(), all.parse().unwrap())
            }
            _ => panic!("{self:#?}"),
        }
    }
}

/// [`SMALL`], run once for all tests.
pub struct Finished {
    pub place: Place,
    pub told: Told,
    _lock: fs::File,
}

pub fn finished() -> &'static Finished {
    static FINISHED: OnceLock<Finished> = OnceLock::new();
    FINISHED.get_or_init(|| {
        let (place, lock) = Place::standing("cli-finished");
        place.write("small.toml", SMALL);
        let told = place.synecho(&RUN).well();
        Finished { place, told, _lock: lock }
    })
}

fn walk(dir: &Path, see: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, see) } else { see(&path) }
    }
}

fn copy(from: &Path, to: &Path) {
    walk(from, &mut |path| {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    });
}

/// Fails unless one of five tries is within the limit: other tests take the cores meanwhile.
#[track_caller]
pub fn quick(release: f64, dev: f64, what: impl Fn()) {
    let limit = Duration::from_secs_f64(if cfg!(debug_assertions) { dev } else { release });
    let mut tries = Vec::new();
    while tries.len() < 5 && tries.last().is_none_or(|time| *time > limit) {
        let start = Instant::now();
        what();
        tries.push(start.elapsed());
    }
    assert!(tries.last().is_some_and(|time| *time <= limit), "took {tries:?}, allowed is {limit:?}");
}

/// `small.toml` on a manifest folder `data` of eight patients with two images of 32 x 32 each.
pub fn folder() -> Place {
    let place = Place::new();
    for part in ["data/images", "data/masks"] {
        fs::create_dir_all(place.path(part)).unwrap();
    }
    let mut table = "patient,view,phase,image,mask,split\n".to_owned();
    for i in 0..16 {
        let (patient, phase) = (i / 2 + 1, ["ED", "ES"][i % 2]);
        let split = ["train", "train", "train", "train", "val", "val", "test", "test"][i / 2];
        let (image, mask) = (format!("images/{i}.png"), format!("masks/{i}.png"));
        table.push_str(&format!("p{patient},2CH,{phase},{image},{mask},{split}\n"));
        let draw = |value: &dyn Fn(usize) -> u8| Picture {
            width: 32,
            height: 32,
            pixels: (0..32 * 32).map(value).collect(),
        };
        draw(&|at| (at * (i + 3) % 251) as u8).write(&place.path("data").join(image)).unwrap();
        draw(&|at| (at / 256) as u8).write(&place.path("data").join(mask)).unwrap();
    }
    place.write("data/manifest.csv", &table);
    place.write(
        "small.toml",
        &SMALL
            .replace("\"phantom\"", "\"folder\"\nroot = \"data\"")
            .replace("[data.phantom]\npatients = 10\nsize = 64\n", ""),
    );
    place
}
