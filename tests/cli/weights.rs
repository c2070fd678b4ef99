//! `synecho weights`.

use std::{fs, path::Path};

use synecho::nn::tensor_file::TensorFile;

use crate::{
    support::Place,
    torch_save::{checkpoint, dict, global, storage, tensor},
};

/// With one of the checkpoints that PyTorch wrote.
fn place(name: &str) -> Place {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fixtures/checkpoints");
    let place = Place::new();
    fs::copy(fixtures.join(name), place.path(name)).unwrap();
    place
}

#[test]
fn a_checkpoint_is_shown() {
    let place = place("lightning.ckpt");
    let told = place.synecho(&["weights", "show", "lightning.ckpt"]).well();
    let lines: Vec<&str> = told.out.lines().collect();
    assert_eq!(
        lines[0],
        "lightning.ckpt: PyTorch checkpoint (zip), 9 tensors, 51 parameters (buffers included)"
    );
    assert!(lines[1].starts_with("took `state_dict` of a Lightning checkpoint, removed the prefix `model.`"));
    assert_eq!(lines[2], "  f32   [3, 1, 3, 3]  conv.weight");
    assert_eq!(lines[8], "  i64   []  norm.num_batches_tracked");
    assert_eq!(lines.len(), 11);
    let shown = place.synecho(&["weights", "show", "lightning.ckpt", "--json"]).json();
    assert_eq!((&shown["format"], &shown["parameters"]), (&"PyTorch checkpoint (zip)".into(), &51.into()));
    assert_eq!(
        shown["tensors"][0],
        serde_json::json!({"name": "conv.weight", "type": "f32", "shape": [3, 1, 3, 3]})
    );
    assert!(shown["note"].as_str().unwrap().contains("passed over `epoch` (1)"));
}

#[test]
fn a_checkpoint_is_converted_once() {
    let place = place("two.pt");
    let convert = ["weights", "convert", "two.pt", "--to", "out.safetensors"];
    place.synecho(&convert).refused(&["two.pt: several networks' weights: `model`, `ema`", "--key"]);
    let told = place.synecho(&[&convert[..], &["--key", "ema"]].concat()).well();
    assert!(told.out.contains("took `ema`, passed over `model`, `step` (4)"), "{told:#?}");
    assert!(told.out.ends_with("the same tensors are in out.safetensors\n"), "{told:#?}");
    let (file, original) = (place.path("out.safetensors"), place.path("two.pt"));
    let (file, original) =
        (TensorFile::open(&file).unwrap(), TensorFile::open_part(&original, Some("ema")).unwrap());
    assert_eq!((file.format(), file.entries().len()), ("safetensors", 9));
    for entry in file.entries() {
        let same = original.entries().iter().find(|other| other.name == entry.name).unwrap();
        assert_eq!(file.read(entry).unwrap(), original.read(same).unwrap(), "{}", entry.name);
    }
    // Safetensors are shown too. Nothing is written over, and nothing half written is left.
    let told = place.synecho(&["weights", "show", "out.safetensors"]).well();
    assert!(told.out.starts_with("out.safetensors: safetensors, 9 tensors, 51 parameters"), "{told:#?}");
    place
        .synecho(&[&convert[..], &["--key", "ema"]].concat())
        .refused(&["out.safetensors: the file is there already"]);
    let nowhere = ["weights", "convert", "two.pt", "--key", "ema", "--to", "nowhere/out.safetensors"];
    assert_eq!(place.synecho(&nowhere).code, Some(2));
    assert_eq!(place.files(".").keys().collect::<Vec<_>>(), ["out.safetensors", "two.pt"]);
}

#[test]
fn what_a_file_says_does_not_steer_the_terminal() {
    let place = Place::new();
    let evil = dict(&[("w\u{1b}[2J", tensor(storage("FloatStorage", "0", 1), 0, &[1], &[1]))]);
    place.write_bytes("evil.pt", &checkpoint(&evil, &[("0", vec![0; 4])]));
    let told = place.synecho(&["weights", "show", "evil.pt"]).well();
    assert!(told.out.contains("w\\u{1b}[2J") && !told.out.contains('\u{1b}'), "{told:#?}");
    place.write_bytes("call.pt", &checkpoint(&global("os", "system"), &[]));
    place.synecho(&["weights", "show", "call.pt"]).refused(&[
        "call.pt: the pickle names os.system, which is not read",
        "nothing in the file is executed",
    ]);
}
