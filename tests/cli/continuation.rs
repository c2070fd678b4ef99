//! Killed and started again, a run ends with the very bytes of an undisturbed one.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::Rng;

use crate::support::{Place, RUN, SMALL};

/// When to kill.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// A little after a checkpoint of this task was written.
    Checkpoint(&'static str),
    /// Anywhere: some changes in the store after the start, then a little later.
    Any,
}

const MOMENTS: [Moment; 10] = {
    use Moment::{Any, Checkpoint};
    [
        Any,
        Checkpoint("segmentation"),
        Any,
        Checkpoint("segmentation"),
        Any,
        Checkpoint("segmentation"),
        Checkpoint("classification"),
        Any,
        Checkpoint("classification"),
        Any,
    ]
};
/// How long the tasks train, and the rounds that this is. The second one's end in the middle of epochs.
const LENGTHS: [(&str, &str, u64); 2] = [
    // With weights that are averaged, which is a further state to continue from.
    ("segmentation", "preset = \"strong\"\nprecision = \"f32\"\ndeep_supervision = 2\nepochs = 40", 40),
    ("classification", "budget = { steps = 23, validate_every = 2 }", 12),
];

/// Inode of each checkpoint in the store (every write makes a new file), by the training's folder.
fn checkpoints(store: &Path) -> BTreeMap<String, u64> {
    let Ok(entries) = fs::read_dir(store.join("train")) else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let file = entry.path().join("checkpoint/last.safetensors");
            Some((entry.file_name().to_string_lossy().into_owned(), fs::metadata(file).ok()?.ino()))
        })
        .collect()
}

/// What is under way in the store: partial artifacts, and the inodes of their checkpoints.
fn partial(store: &Path) -> BTreeMap<String, u64> {
    let mut found = checkpoints(store);
    for kind in ["prepare", "train", "measure", "report"] {
        let Ok(entries) = fs::read_dir(store.join(kind)) else { continue };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".partial")).for_each(|name| {
            found.entry(name).or_insert(0);
        });
    }
    found
}

/// Rounds done according to a checkpoint.
fn round(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let standing = header["__metadata__"]["standing"].as_str().unwrap();
    serde_json::from_str::<serde_json::Value>(standing).unwrap()["round"].as_u64().unwrap()
}

#[test]
fn killed_at_ten_moments_a_run_ends_with_the_same_bytes() {
    let place = Place::new();
    let long = |spec: String, (task, length, _): (&str, &str, u64)| {
        let head = format!("[tasks.{task}]\n");
        assert!(spec.contains(&head));
        spec.replace(&head, &format!("{head}{length}\n"))
    };
    let plain = SMALL.replace("epochs = 3\n", "").replace("epochs = 1\n", "");
    place.write("small.toml", &LENGTHS.into_iter().fold(plain, long));
    place.synecho(&[&RUN[..], &["--store", "calm", "--reports", "calm-reports"]].concat()).well();

    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("moments drawn with seed {seed}");
    let mut random = synecho::random::rng(seed, "moments", &[]);
    let stormy =
        [&RUN[..], &["--store", "stormy", "--reports", "stormy-reports", "--checkpoint-every", "0"]].concat();
    let store = place.path("stormy");
    // Which training a folder in the store is of.
    let tasks: BTreeMap<String, String> = place.synecho(&["plan", "small.toml", "--json"]).json()["stages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|stage| stage["kind"] == "train")
        .map(|stage| {
            let word = stage["label"].as_str().unwrap().split(' ').nth(1).unwrap();
            (format!("{}.partial", stage["key"].as_str().unwrap()), word.to_owned())
        })
        .collect();
    let mut in_training = BTreeMap::new();
    for moment in MOMENTS {
        let before = checkpoints(&store);
        let mut child = quiet(place.command(&stormy)).spawn().unwrap();
        let start = Instant::now();
        let changes: u32 = random.random_range(0..3);
        let mut seen = (0, partial(&store));
        loop {
            let come = match moment {
                Moment::Checkpoint(task) => checkpoints(&store)
                    .iter()
                    .any(|(name, inode)| tasks[name] == task && before.get(name) != Some(inode)),
                Moment::Any => {
                    let now = partial(&store);
                    if now != seen.1 {
                        seen = (seen.0 + 1, now);
                    }
                    seen.0 >= changes
                }
            };
            if come {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "{moment:?} did not come");
            assert_eq!(child.try_wait().unwrap(), None, "the run ended before {moment:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        // A kill at no change at all falls into the program's start.
        let most = if moment == Moment::Any && changes == 0 { 400 } else { 40 };
        std::thread::sleep(Duration::from_millis(random.random_range(0..most)));
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before {moment:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        for name in checkpoints(&store).keys() {
            let task = tasks[name].as_str();
            let at = round(&store.join("train").join(name).join("checkpoint/last.safetensors"));
            println!("{moment:?} after {:?}: {task} stands at round {at}", start.elapsed());
            let all = LENGTHS.iter().find(|(known, ..)| *known == task).unwrap().2;
            if 0 < at && at < all {
                *in_training.entry(task.to_owned()).or_insert(0) += 1;
            }
        }
    }
    // In the middle of a training, so that there was something to go on from.
    assert_eq!(in_training.len(), 2, "kills in the middle of a training: {in_training:?}");

    place.synecho(&stormy).well();
    assert!(
        place.files("calm-reports/small") == place.files("stormy-reports/small"),
        "the reports differ (seed {seed})"
    );
    for label in ["train segmentation", "train classification"] {
        let weights = |store| fs::read(place.artifact(store, label).join("weights.safetensors")).unwrap();
        assert!(weights("calm") == weights("stormy"), "{label}: the weights differ (seed {seed})");
    }
    let left: Vec<_> = place.files("stormy").into_keys().filter(|name| name.contains(".partial")).collect();
    assert_eq!(left, [""; 0]);
}

fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
