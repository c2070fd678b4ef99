//! What came with flow matching: sampling as the run did, the ultrasound sector, the best of several images, and judges of
//! external images.

use std::{fs, path::Path};

use serde_json::Value;
use synecho::{manifest::Manifest, picture::Picture};

use crate::{
    generators::{RUN, made, only, pipeline, section},
    support::Place,
};

const CHANNELS: &str = "mode = \"text+segmentation\"\nconditioning = \"channels\"\n";
const TASK: &str = "\n[tasks.segmentation]\nimage_size = 32\nchannels = [4, 8, 16]\nepochs = 1\n";

/// Arguments of `sample` for a generator of [`made`], with one image.
fn sample<'a>(folder: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let prompt = ["--prompt", "two-chamber apical view, ed, good quality"];
    [&["sample", "--pipeline", folder, "--out", out][..], &prompt, more].concat()
}

#[test]
fn a_generator_of_a_store_is_sampled_as_its_run_did() {
    let place = Place::new();
    let folder = pipeline("text").display().to_string();
    let told = place.synecho(&sample(&folder, "as-run", &[])).well();
    let expected = "--scheduler flow-midpoint --noise-levels even --shift 0.5 --steps 6 --guidance 1";
    assert!(told.err.contains(&format!("sampling as the generator's run did: {expected}")), "{told:?}");
    // What is typed goes before it; another scheduler has its own steps.
    for (more, expected) in [
        (&["--steps", "3"][..], "flow-midpoint,3,"),
        (&["--scheduler", "flow-heun", "--steps", "2"], "flow-heun,2,"),
    ] {
        let out = format!("out-{}", more.len());
        place.synecho(&sample(&folder, &out, more)).well();
        let table = place.read(&format!("{out}/manifest.csv"));
        assert!(table.contains(expected), "{table}");
    }
    // A folder elsewhere has no run.
    let copy = place.path("copy");
    std::os::unix::fs::symlink(pipeline("text"), &copy).unwrap();
    let elsewhere = Place::new();
    copy_folder(&copy, &elsewhere.path("model"));
    let told = elsewhere.synecho(&sample("model", "plain", &["--steps", "1"])).well();
    assert!(!told.err.contains("as the generator's run did"), "{told:?}");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap().path();
        let place = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy_folder(&entry, &place),
            false => assert!(fs::copy(&entry, &place).is_ok()),
        }
    }
}

#[test]
fn an_image_of_a_run_can_be_made_again_from_its_mask_and_sector() {
    for name in ["channels", "control", "joint"] {
        let data = made().artifact("runs", &format!("24 images of {name}: ")).join("data");
        let manifest = Manifest::read(&data).unwrap();
        let row = &manifest.rows[5];
        let place = Place::new();
        let folder = pipeline(name).display().to_string();
        let mask = manifest.mask_path(row).unwrap();
        let sector = data.join("sectors").join(mask.file_name().unwrap());
        let (mask, sector) = (mask.display().to_string(), sector.display().to_string());
        let seed = row.seed.unwrap().to_string();
        let prompt = row.prompt.clone().unwrap();
        let arguments =
            ["sample", "--pipeline", &folder, "--prompt", &prompt, "--control-mask", &mask, "--seed", &seed];
        place
            .synecho(&[&arguments[..], &["--out", "without"]].concat())
            .refused(&["this model is given the ultrasound sector", "--sector PNG"]);
        place.synecho(&[&arguments[..], &["--sector", &sector, "--out", "with"]].concat()).well();
        let [again, first] = [place.path("with/000000.png"), manifest.image_path(row)];
        let [again, first] = [again, first].map(|file| Picture::read(&file).unwrap().pixels);
        let apart = again.iter().zip(&first).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(apart <= 2, "{name}: {apart}");
        assert!(first.iter().max() > first.iter().min(), "{name}");
    }
    // A model without one.
    let place = Place::new();
    let data = made().artifact("runs", "24 images of control-latent: ").join("data");
    let mask =
        fs::read_dir(data.join("masks")).unwrap().next().unwrap().unwrap().path().display().to_string();
    let folder = pipeline("control-latent").display().to_string();
    let more = ["--control-mask", mask.as_str(), "--sector", mask.as_str()];
    place
        .synecho(&sample(&folder, "out", &more))
        .refused(&["is not given the ultrasound sector", "--sector"]);
}

#[test]
fn the_best_of_several_images_is_kept() {
    let place = Place::new();
    let plain = section("plain", CHANNELS);
    let spec = only("best", &format!("{CHANNELS}candidates = 3\n")) + &plain + TASK;
    place.write("made.toml", &spec);
    place.synecho(&RUN).well();
    let of = |label: &str| Manifest::read(place.artifact("runs", label).join("data")).unwrap();
    let (all, plain) = (of("72 images of best: "), of("24 images of plain: "));
    let artifact = place.artifact("runs", "best of 3 candidates of best");
    let kept = Manifest::read(artifact.join("data")).unwrap();
    // One training for both, and the first candidates are the images without others.
    assert_eq!(fs::read_dir(place.path("runs/generator")).unwrap().filter(|e| !is_lock(e)).count(), 1);
    let seeds = |manifest: &Manifest| manifest.rows.iter().map(|row| row.seed.unwrap()).collect::<Vec<_>>();
    assert_eq!(seeds(&all).into_iter().step_by(3).collect::<Vec<_>>(), seeds(&plain));
    // One of each three.
    assert_eq!((all.rows.len(), kept.rows.len()), (72, 24));
    for (three, one) in seeds(&all).chunks(3).zip(seeds(&kept)) {
        assert!(three.contains(&one));
    }
    let text = fs::read_to_string(artifact.join("selection.json")).unwrap();
    let selection: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&selection["kept"], &selection["dropped"]), (&24.into(), &48.into()));
    let dice = |key: &str| selection[key].as_f64().unwrap();
    assert!(dice("dice_of_kept") >= dice("dice_of_all"), "{text}");
    let page = place.read("out/made/index.html");
    assert!(page.contains("best of 3"), "the page does not say that images were selected");
}

fn is_lock(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "lock")
}

#[test]
fn inpainting_keeps_the_heart_and_generates_the_rest() {
    let of = |label: &str| Manifest::read(made().artifact("runs", label).join("data")).unwrap();
    let (real, inpainted) = (of("prepare at 32 px"), of("24 images of inpaint: "));
    for row in &inpainted.rows {
        let source = row.source_mask.as_ref().unwrap();
        let source = real.rows.iter().find(|row| row.name() == *source).unwrap();
        assert_eq!((row.view, row.phase, &row.prompt), (source.view, source.phase, &None));
        let pixels = |manifest: &Manifest, row| Picture::read(&manifest.image_path(row)).unwrap().pixels;
        let (made, image) = (pixels(&inpainted, row), pixels(&real, source));
        let mask = Picture::read_mask(&inpainted.mask_path(row).unwrap()).unwrap().pixels;
        assert_eq!(mask, Picture::read_mask(&real.mask_path(source).unwrap()).unwrap().pixels);
        let (mut heart, mut rest) = (0, 0.0);
        for ((made, image), class) in made.iter().zip(&image).zip(mask) {
            match class {
                0 => rest += f64::from(made.abs_diff(*image)),
                _ => heart = heart.max(made.abs_diff(*image)),
            }
        }
        assert!(heart <= 1, "the heart changed by {heart}");
        assert!(rest / (32.0 * 32.0) > 2.0, "the rest is as it was: {rest}");
    }
    let images: std::collections::BTreeSet<Vec<u8>> =
        inpainted.rows.iter().map(|row| fs::read(inpainted.image_path(row)).unwrap()).collect();
    assert_eq!(images.len(), 24);
}

#[test]
fn external_images_with_masks_are_judged_by_segmentation() {
    let place = Place::new();
    let data = made().artifact("runs", "24 images of channels: ").join("data");
    copy_folder(&data, &place.path("mine"));
    // One of them has no mask.
    let table = place.read("mine/manifest.csv");
    let rows: Vec<&str> = table.lines().collect();
    let (header, first) = (rows[0], rows[1]);
    let place_of_mask = header.split(',').position(|column| column == "mask").unwrap();
    let mut cells: Vec<&str> = first.split(',').collect();
    cells[place_of_mask] = "";
    place.write("mine/manifest.csv", &table.replacen(first, &cells.join(","), 1));
    let spec = only("unused", CHANNELS);
    let head = &spec[..spec.find("\n[generators").unwrap()];
    let external = "\n[generators.mine]\nmode = \"external\"\nfolder = \"mine\"\nimage_size = 32\n";
    let text = format!("{head}{external}{TASK}");
    place.write("made.toml", &text);
    place.synecho(&RUN).well();
    let judged = place.artifact("runs", "judge images of mine: segmentation");
    let rows = fs::read_to_string(judged.join("measurements.csv")).unwrap();
    let images = rows.lines().filter(|line| line.contains(",endo,dice,")).count();
    assert_eq!(images, 23, "{rows}");
    let told = place.read("out/made/tables/generators_judged.md");
    assert!(told.contains("| 23 |"), "{told}");
}
