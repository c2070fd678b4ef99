//! Checkpoints that PyTorch wrote (tests/golden/make_checkpoints.py).

use std::{collections::BTreeMap, fs, path::Path};

use rawzip::CompressionMethod;
use synecho::nn::tensor_file::{self, TensorFile};
use tch::Kind;

use crate::{Contents, contents, fixtures, torch_save::*};

fn open(name: &str) -> TensorFile {
    TensorFile::open(&fixtures().join(name)).unwrap()
}

/// The tensors of one group, as safetensors.torch wrote them: name to type, shape and bytes.
fn expected(group: &str) -> BTreeMap<String, (Kind, Vec<i64>, Vec<u8>)> {
    let file = fs::read(fixtures().join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut found = BTreeMap::new();
    for (name, view) in file.tensors() {
        let Some(name) = name.strip_prefix(&format!("{group}/")) else { continue };
        use safetensors::Dtype as D;
        let kind = match view.dtype() {
            D::F64 => Kind::Double,
            D::F32 => Kind::Float,
            D::F16 => Kind::Half,
            D::BF16 => Kind::BFloat16,
            D::I64 => Kind::Int64,
            D::I32 => Kind::Int,
            D::I16 => Kind::Int16,
            D::I8 => Kind::Int8,
            D::U8 => Kind::Uint8,
            D::BOOL => Kind::Bool,
            other => panic!("{other:?}"),
        };
        let shape = view.shape().iter().map(|&n| n as i64).collect();
        found.insert(name.to_owned(), (kind, shape, view.data().to_vec()));
    }
    assert!(!found.is_empty());
    found
}

fn same(contents: Contents, group: &str) -> bool {
    let count = contents.len();
    let found: BTreeMap<_, _> =
        contents.into_iter().map(|(name, kind, shape, bytes)| (name, (kind, shape, bytes))).collect();
    found.len() == count && found == expected(group)
}

#[test]
fn every_type_and_every_view_is_read_bit_for_bit() {
    for name in ["views.pt", "views_legacy.pt", "views_torch_2.0.pt"] {
        let file = open(name);
        assert_eq!(file.note(), None, "{name}");
        let kinds: std::collections::HashSet<Kind> = file.entries().iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds.len(), 10, "{name}");
        assert!(same(contents(&file), "views"), "{name}");
    }
    assert_eq!(open("views.pt").format(), "PyTorch checkpoint (zip)");
    assert_eq!(open("views_legacy.pt").format(), "PyTorch checkpoint (legacy)");
}

#[test]
fn state_dicts_are_read_from_every_wrapping() {
    // Numbers of NumPy among them.
    let passed_over =
        "passed over `epoch` (3), `loss` (0.25), `best` (0.5), `worst` (-4), `amp` (true) and 13 more";
    let trained = format!("took `model_state_dict`, {passed_over}");
    for (name, note) in [
        ("state_dict.pth", None),
        ("state_dict_legacy.pth", None),
        ("python2.pth", None),
        ("training.pt", Some(trained.as_str())),
        ("training_3.pt", Some(&trained)),
        ("training_4.pt", Some(&trained)),
        ("training_5.pt", Some(&trained)),
        ("training_legacy.pt", Some(&trained)),
        ("training_legacy_4.pt", Some(&trained)),
        ("wrapped.pth", Some("removed the prefix `module._orig_mod.`")),
        (
            "lightning.ckpt",
            Some(
                "took `state_dict` of a Lightning checkpoint, removed the prefix `model.`, passed over `epoch` (1), \
                 `global_step` (9), `pytorch-lightning_version`, `loops`, `callbacks` and 2 more",
            ),
        ),
        ("average.pt", Some("removed the prefix `module.`, passed over `n_averaged`")),
    ] {
        let file = open(name);
        assert_eq!(file.note(), note, "{name}");
        assert!(same(contents(&file), "state_dict"), "{name}");
    }
    // The order is the network's.
    let names: Vec<String> = open("state_dict.pth").entries().iter().map(|e| e.name.clone()).collect();
    assert_eq!(names[..3], ["conv.weight", "conv.bias", "norm.weight"]);
    assert_eq!(names[6], "norm.num_batches_tracked");
    assert!(same(contents(&open("one.pt")), "one"));
}

#[test]
fn of_two_networks_one_has_to_be_chosen() {
    let path = fixtures().join("two.pt");
    let error = TensorFile::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("two.pt: several networks' weights: `model`, `ema`\n  help: choose one"),
        "{error}"
    );
    let of = |key| TensorFile::open_part(&path, Some(key));
    assert!(same(contents(&of("model").unwrap()), "state_dict"));
    let averaged = of("ema").unwrap();
    assert_eq!(averaged.note(), Some("took `ema`, passed over `model`, `step` (4)"));
    assert!(same(contents(&averaged), "two"));
    let error = of("net").unwrap_err().to_string();
    assert!(error.contains("no weights under `net`\n  help: it has `model`, `ema`"), "{error}");
    let safetensors = fixtures().join("expected.safetensors");
    let error = TensorFile::open_part(&safetensors, Some("ema")).unwrap_err().to_string();
    assert!(error.contains("nothing under `ema`"), "{error}");
}

fn opened(dir: &Path, bytes: &[u8]) -> TensorFile {
    let path = dir.join("made.pt");
    fs::write(&path, bytes).unwrap();
    TensorFile::open(&path).unwrap()
}

/// The comparison above is not one that passes whatever is read.
#[test]
fn one_other_bit_or_one_other_order_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(fixtures().join("views_legacy.pt")).unwrap();
    assert!(same(contents(&opened(dir.path(), &whole)), "views"));
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    assert!(!same(contents(&opened(dir.path(), &flipped)), "views"));
    // (6, 4) with the strides of (4, 6), and not transposed.
    let strides = |first: u8, second: u8| [b'K', first, b'K', second, 0x86];
    let at = whole.windows(5).position(|bytes| bytes == strides(1, 6)).unwrap();
    let mut straight = whole;
    straight[at..at + 5].copy_from_slice(&strides(4, 1));
    assert!(!same(contents(&opened(dir.path(), &straight)), "views"));
}

#[test]
fn what_is_converted_is_what_safetensors_would_write() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["views.pt", "training_legacy.pt"] {
        let (file, to) = (open(name), dir.path().join(format!("{name}.safetensors")));
        tensor_file::convert(&file, &to).unwrap();
        let mut before = contents(&file);
        let mut after = contents(&TensorFile::open(&to).unwrap());
        before.sort_by(|a, b| a.0.cmp(&b.0));
        after.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(before, after, "{name}");
        let tensors: Vec<_> =
            file.entries().iter().map(|entry| (entry.name.clone(), file.read(entry).unwrap())).collect();
        let format = [("format".to_owned(), "pt".to_owned())].into();
        assert_eq!(fs::read(&to).unwrap(), tensor_file::to_bytes(&tensors, Some(format)).unwrap(), "{name}");
    }
}

/// Nobody but a person with a zip program compresses a checkpoint; PyTorch reads that too.
#[test]
fn a_compressed_archive_is_read() {
    let values: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let object = dict(&[
        ("a", tensor(storage("FloatStorage", "0", 4), 0, &[2, 2], &[2, 1])),
        ("b", tensor(storage("FloatStorage", "0", 4), 1, &[2], &[2])),
    ]);
    let records = [("data.pkl", pickle(&object)), ("data/0", values.clone())];
    let dir = tempfile::tempdir().unwrap();
    let file = opened(dir.path(), &zip(&records, CompressionMethod::DEFLATE));
    let read = contents(&file);
    assert_eq!(read[0].3, values);
    assert_eq!(read[1].3, [2.0f32, 4.0].map(f32::to_le_bytes).concat());
}

/// The names under which torch.hub keeps its downloads.
#[test]
fn a_digest_in_the_name_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let path = dir.path().join(name);
        fs::copy(fixtures().join("state_dict.pth"), &path).unwrap();
        TensorFile::open(&path).map(|_| ()).map_err(|e| e.to_string())
    };
    let error = copy("resnet18-f37072fd.pth").unwrap_err();
    let digits = error.split("begins with ").nth(1).unwrap()[..8].to_owned();
    assert!(error.contains("resnet18-f37072fd.pth: damaged: its SHA-256 begins with"), "{error}");
    assert!(error.contains("its name says f37072fd\n  help: download it again"), "{error}");
    assert_eq!(copy(&format!("resnet18-{digits}.pth")), Ok(()));
    assert_eq!(copy("resnet18-20240131.pth"), Ok(()));
}

/// The tests of folders and of the command line have no PyTorch: what they save is what PyTorch would.
#[test]
fn what_the_tests_save_is_read_like_what_pytorch_saves() {
    let file = open("state_dict.pth");
    let tensors: Vec<_> =
        file.entries().iter().map(|entry| (entry.name.clone(), file.read(entry).unwrap())).collect();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(contents(&opened(dir.path(), &torch_save(&tensors))), contents(&file));
}
