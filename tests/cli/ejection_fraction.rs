//! `synecho measure ef`: what it prints, and what it refuses; and the ejection fraction in a report.

use std::fs;

use synecho::picture::Picture;

use crate::support::{Place, finished};

/// A ventricle of a width above an atrium, in a picture of 24 x 30.
fn mask(wide: usize) -> Picture {
    let mut mask = Picture::new(24, 30);
    for y in 2..26 {
        mask.pixels[y * 24 + 12 - wide / 2..y * 24 + 12 + wide / 2].fill(if y < 22 { 1 } else { 3 });
    }
    mask
}

/// Five patients with reference masks and a recorded EF, and predicted masks in `predicted`.
fn patients() -> Place {
    let place = Place::new();
    fs::create_dir_all(place.path("data/masks")).unwrap();
    fs::create_dir_all(place.path("predicted")).unwrap();
    let mut table = "patient,view,phase,image,mask,split,ef,spacing_x,spacing_y\n".to_owned();
    for p in 0..5 {
        for (view, phase) in [("2CH", "ED"), ("2CH", "ES"), ("4CH", "ED"), ("4CH", "ES")] {
            let name = format!("p{p}_{view}_{phase}.png");
            let wide = if phase == "ED" { 14 } else { 6 + p };
            mask(wide).write(&place.path(&format!("data/masks/{name}"))).unwrap();
            mask(wide + 2 * usize::from(p == 1)).write(&place.path(&format!("predicted/{name}"))).unwrap();
            let split = if p < 3 { "train" } else { "test" };
            table +=
                &format!("p{p},{view},{phase},images/{name},masks/{name},{split},{},0.5,0.5\n", 80 - 10 * p);
        }
    }
    place.write("data/manifest.csv", &table);
    place
}

#[test]
fn masks_are_compared_with_masks_and_with_the_recorded_value() {
    let place = patients();
    let found = place.synecho(&["measure", "ef", "data", "predicted", "--cases", "--json"]).json();
    assert_eq!(
        (&found["metric"], &found["n"], &found["patients"]),
        (&"ef_error".into(), &5.into(), &5.into())
    );
    let agreements = found["agreements"].as_array().unwrap();
    let of =
        |a: &serde_json::Value| format!("{} {}", a["of"].as_str().unwrap(), a["against"].as_str().unwrap());
    let names: Vec<String> = agreements.iter().map(of).collect();
    assert_eq!(names, ["predicted reference", "predicted recorded", "reference recorded"]);
    assert_eq!(found["undefined"], serde_json::json!([]));
    let cases = found["cases"].as_array().unwrap();
    for (p, case) in cases.iter().enumerate() {
        let value = |key: &str| case[key].as_f64().unwrap();
        assert_eq!(value("ef") == value("ef_reference"), p != 1, "{case}");
        assert!((100.0 * (1.0 - value("esv") / value("edv")) - value("ef")).abs() < 1e-9, "{case}");
    }
    let error = |case: &serde_json::Value| {
        (case["ef"].as_f64().unwrap() - case["ef_reference"].as_f64().unwrap()).abs()
    };
    let mean = cases.iter().map(error).sum::<f64>() / 5.0;
    assert!((found["value"].as_f64().unwrap() - mean).abs() < 1e-9 && mean > 0.0, "{found}");

    let text = place.synecho(&["measure", "ef", "data", "--split", "train"]).well().out;
    assert!(
        text.starts_with("ejection fraction of 3 patients\n\nreference masks against recorded EF\n"),
        "{text}"
    );
    assert!(text.contains("  mean absolute error  ") && !text.contains("predicted"), "{text}");
}

#[test]
fn patients_without_an_ejection_fraction_are_counted_and_named() {
    let place = patients();
    fs::remove_file(place.path("predicted/p3_4CH_ES.png")).unwrap();
    Picture::new(24, 30).write(&place.path("predicted/p0_2CH_ED.png")).unwrap();
    let table = place.read("data/manifest.csv");
    let rows: Vec<&str> = table.lines().filter(|line| !line.starts_with("p4,2CH,ED")).collect();
    place.write(
        "data/manifest.csv",
        &(rows.join("\n") + "\n").replace(
            "p2,2CH,ED,images/p2_2CH_ED.png,masks/p2_2CH_ED.png,train,60",
            "p2,2CH,ED,images/p2_2CH_ED.png,masks/p2_2CH_ED.png,train,61",
        ),
    );
    let text = place.synecho(&["measure", "ef", "data", "predicted"]).well().out;
    for part in [
        "no EF by the reference masks for 1 of 5 patients: not exactly one mask each of 2CH ED, 2CH ES, 4CH ED and 4CH ES (p4)",
        "no EF by the predicted masks for 2 of 5 patients: not exactly one mask each of 2CH ED, 2CH ES, 4CH ED and 4CH ES (p3, p4)",
        "no EF by the predicted masks for 1 of 5 patients: a mask without a left ventricle (p0)",
        "no recorded EF for 1 of 5 patients: the column `ef` is empty, or its values differ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn requests_that_cannot_be_carried_out() {
    let place = patients();
    place.synecho(&["measure", "ef", "predicted"]).refused(&["predicted/manifest.csv", "cannot read"]);
    place
        .synecho(&["measure", "ef", "data", "--split", "val"])
        .refused(&["data/manifest.csv: no row of split val has a mask"]);
    place.synecho(&["measure", "ef", "data", "nowhere"]).refused(&["nowhere: this folder does not exist"]);
    fs::create_dir(place.path("other")).unwrap();
    mask(6).write(&place.path("other/heart.png")).unwrap();
    place
        .synecho(&["measure", "ef", "data", "other"])
        .refused(&["other: no mask here belongs to a row", "PATIENT_VIEW_PHASE"]);
    Picture::new(8, 8).write(&place.path("predicted/p0_2CH_ED.png")).unwrap();
    place
        .synecho(&["measure", "ef", "data", "predicted"])
        .refused(&["predicted/p0_2CH_ED.png: 8 x 8 pixels, but", "24 x 30"]);
}

#[test]
fn a_report_has_the_ejection_fraction_per_patient_and_arm() {
    let finished = finished();
    let place = &finished.place;
    let table = place.read("out/small/tables/segmentation_ef.md");
    assert!(table.contains("| Arm | Trained on | r | Bias | Lower limit | Upper limit |"), "{table}");
    for figure in ["ef_scatter", "ef_bland_altman"] {
        assert!(place.path(&format!("out/small/figures/segmentation_{figure}.svg")).is_file(), "{figure}");
    }
    let rows = place.measurements("out/small");
    let of = |metric: &str| rows.lines().filter(|row| row.contains(&format!(",,,,{metric},"))).count();
    assert!(of("ef") >= 1 && of("ef") == of("ef_reference"), "{} {}", of("ef"), of("ef_reference"));
}
