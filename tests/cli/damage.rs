//! Damaged artifacts are found by their digests and made again.

use std::fs;

use crate::support::{Place, RUN, STAGES};

#[test]
fn damage_is_found_and_mended_to_the_same_bytes() {
    let place = Place::finished();
    let report = place.files("out/small");
    let weights = place.artifact("runs", "train segmentation").join("weights.safetensors");
    let whole = fs::read(&weights).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let plan = place.synecho(&["plan", "small.toml", "--json"]).json();
    assert_eq!(plan["to_do"], 1, "a plan sees it too");
    let told = place.synecho(&RUN).well();
    for part in [
        "recomputed, because the stored copy is damaged: train segmentation",
        "weights.safetensors: the file is not what the stage wrote",
    ] {
        assert!(told.err.contains(part), "{told:#?}");
    }
    assert_eq!(told.stages_done(), (1, STAGES), "what was made from the same bytes stays");
    assert!(fs::read(&weights).unwrap() == whole);
    assert!(place.files("out/small") == report);

    let at = |label: &str, file: &str| place.artifact("runs", label).join(file);
    let (curves, record) =
        (at("train segmentation", "curves.csv"), at("measure segmentation", "record.json"));
    let (prepared, page) = (at("prepare", "record.json"), at("report", "report.json"));
    fs::remove_file(curves).unwrap();
    let text = fs::read(&record).unwrap();
    fs::write(&record, &text[..text.len() / 2]).unwrap();
    fs::remove_file(prepared).unwrap();
    fs::write(page, "").unwrap();
    let told = place.synecho(&RUN).well();
    for part in [
        "stored copy is damaged: train segmentation",
        "stored copy is damaged: measure segmentation",
        "record.json: the record is damaged",
        "stored copy is damaged: prepare at 40 px",
        "the artifact has no record",
        "stored copy is damaged: report",
    ] {
        assert!(told.err.contains(part), "no {part:?} in {told:#?}");
    }
    assert_eq!(told.stages_done(), (4, STAGES));
    assert!(place.files("out/small") == report);
}
