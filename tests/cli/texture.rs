//! `synecho measure texture`: what it prints, and what it refuses.

use std::fs;

use synecho::picture::Picture;

use crate::support::{Place, folder};

const TEXTURE: [&str; 6] = ["measure", "texture", "--real", "data", "--synthetic", "made"];

/// [`folder`]'s images as real ones, a copy of them (with its table) as synthetic ones.
fn two() -> Place {
    let place = folder();
    fs::create_dir_all(place.path("made/images")).unwrap();
    for i in 0..16 {
        let name = format!("images/{i}.png");
        fs::copy(place.path("data").join(&name), place.path("made").join(&name)).unwrap();
    }
    let table = place.read("data/manifest.csv").replace("masks/", "");
    let rows = table.lines().map(|line| line.split(',').take(4).collect::<Vec<_>>().join(",") + "\n");
    place.write("made/manifest.csv", &rows.collect::<String>());
    place
}

#[test]
fn a_copy_has_the_texture_of_the_original() {
    let place = two();
    let found = place.synecho(&[&TEXTURE[..], &["--json"]].concat()).json();
    assert_eq!((&found["metric"], &found["value"]), (&"texture".into(), &1.0.into()));
    assert_eq!((&found["n_real"], &found["n_synthetic"]), (&16.into(), &16.into()));
    assert_eq!(found["ratios"], serde_json::json!([1.0, 1.0, 1.0, 1.0]));
    assert_eq!(found["octaves"][0]["name"], "2-4 px");
    assert_eq!(found["octaves"][0]["cycles_per_image"], serde_json::json!([8.0, 16.0]));
    assert_eq!(found["octaves"][3]["wavelength_px"], serde_json::json!([16, 32]));
    let classes: Vec<_> = found["classes"].as_array().unwrap().iter().map(|c| &c["class"]).collect();
    assert_eq!(classes, ["2CH ED", "2CH ES", "all"]);

    let table = place.synecho(&TEXTURE).well().out;
    assert!(
        table.starts_with("class       real  synthetic    2-4 px    4-8 px   8-16 px  16-32 px\n"),
        "{table}"
    );
    assert!(
        table.contains("all           16         16     1.000     1.000     1.000     1.000\n"),
        "{table}"
    );
    assert!(table.contains("every octave is within 0.5 to 2\n"), "{table}");

    let of_val = place.synecho(&[&TEXTURE[..], &["--split", "val", "--json"]].concat()).json();
    assert_eq!((&of_val["n_real"], &of_val["n_synthetic"]), (&4.into(), &16.into()));
    let help = place.synecho(&["measure", "texture", "--help"]).well().out;
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("below 0.5 blurred, above 2 grainy") && words.contains("--split <SPLIT>"),
        "{help}"
    );
}

#[test]
fn folders_without_views_are_compared_whole_and_larger_images_resized() {
    let place = two();
    // The table of `synecho sample` has no views.
    place.write("made/manifest.csv", "image,seed,prompt\nx.png,0,\n");
    for i in 0..3 {
        let image = Picture {
            width: 48,
            height: 48,
            pixels: (0..48 * 48).map(|at| 60 + (at * (i + 3) % 97) as u8).collect(),
        };
        image.write(&place.path(&format!("made/{i}.png"))).unwrap();
    }
    let found = place.synecho(&[&TEXTURE[..], &["--json"]].concat()).json();
    assert_eq!((&found["n_real"], &found["n_synthetic"]), (&16.into(), &3.into()));
    assert_eq!(found["image_size"], 32);
    assert_eq!((&found["resized_real"], &found["resized_synthetic"]), (&0.into(), &3.into()));
    assert_eq!(found["classes"].as_array().unwrap().len(), 1);
    assert_eq!(found["classes"][0]["class"], "all");
    let table = place.synecho(&TEXTURE).well().out;
    assert!(table.contains("3 synthetic images were larger and resized"), "{table}");
}

#[test]
fn requests_that_cannot_be_carried_out() {
    let place = two();
    place
        .synecho(&[&TEXTURE[..4], &["--synthetic", "nowhere"]].concat())
        .refused(&["nowhere: cannot read the folder"]);
    fs::create_dir(place.path("empty")).unwrap();
    place
        .synecho(&[&TEXTURE[..4], &["--synthetic", "empty"]].concat())
        .refused(&["empty: the folder holds no images"]);
    place
        .synecho(&["measure", "texture", "--real", "made/images", "--synthetic", "data", "--split", "val"])
        .refused(&["made/images: --split needs a manifest.csv"]);
    place
        .synecho(&["measure", "texture", "--real", "made", "--synthetic", "data", "--split", "val"])
        .refused(&["made/manifest.csv: there are no val images", "the column `split`"]);

    let table = place.read("made/manifest.csv");
    place.write("made/manifest.csv", &table.replace(",ES,", ",ED,"));
    place.synecho(&TEXTURE).refused(&["made: no image of class 2CH ES, of which there are 8 in data"]);
    place.write("made/manifest.csv", &table.replacen("2CH,ES", "4CH,ES", 1));
    place.synecho(&TEXTURE).refused(&["data: no image of class 4CH ES, of which there are 1 in made"]);
    place.write("made/manifest.csv", &table.replacen("2CH", "3CH", 1));
    place.synecho(&TEXTURE).refused(&["made/manifest.csv:2: column `view`"]);
    place.write("made/manifest.csv", &table);

    Picture::new(40, 32).write(&place.path("made/images/7.png")).unwrap();
    place.synecho(&TEXTURE).refused(&["made/images/7.png: the image is 40 x 32 pixels", "square"]);
    Picture::new(31, 31).write(&place.path("made/images/7.png")).unwrap();
    place.synecho(&TEXTURE).refused(&["made/images/7.png: the image is 31 x 31 pixels", "32 x 32 or more"]);
    place.write("made/images/7.png", "no image");
    place.synecho(&TEXTURE).refused(&["made/images/7.png: cannot read this as an image"]);
    fs::remove_file(place.path("made/images/7.png")).unwrap();
    place.synecho(&TEXTURE).refused(&["made/images/7.png: cannot read the image"]);
}
