//! `synecho measure fid|kid|prdc|memorisation|statistics`: what they print, and what they refuse.

use std::{fs, path::Path};

use synecho::{
    nn::{init, resnet::resnet18, tensor_file},
    picture::Picture,
    results::{Measurement, read_csv_gz},
};
use tch::{Device, Tensor, nn::VarStore};

use crate::{
    generators::{RUN, only},
    support::Place,
};

const DOMAIN: [&str; 5] = ["--extractor", "domain", "--weights", "net.safetensors", "--quiet"];

type Named = Vec<(String, Tensor)>;

/// A ResNet-18 of four classes with made-up weights; `change` may spoil them.
fn network(file: &Path, change: impl Fn(&mut Named)) {
    let vs = VarStore::new(Device::Cpu);
    resnet18(&vs.root(), 4).unwrap();
    init::fill(&vs, 3, Some(init::kaiming_normal_fan_out));
    let mut tensors: Named = vs.variables().into_iter().collect();
    change(&mut tensors);
    fs::write(file, tensor_file::to_bytes(&tensors, None).unwrap()).unwrap();
}

/// Grey noise on a ramp: image `i` of a kind of its own.
fn draw(i: usize, width: usize, height: usize) -> Picture {
    let value = |at: usize| ((at % width) * (3 + i) % 200 + ((at * 2_654_435_761) >> (7 + i % 3)) % 56) as u8;
    Picture { width, height, pixels: (0..width * height).map(value).collect() }
}

/// `real` (12 images), `made` (9), `held` (8), of several sizes, and `net.safetensors`.
fn place() -> Place {
    let place = Place::new();
    for (folder, first, n) in [("real", 0, 12), ("made", 20, 9), ("held", 40, 8)] {
        fs::create_dir(place.path(folder)).unwrap();
        for i in 0..n {
            let (width, height) = (40 + 3 * (i % 4), 36 + 5 * (i % 3));
            let file = place.path(folder).join(format!("{i}.png"));
            draw(first + i, width, height).write(&file).unwrap();
        }
    }
    network(&place.path("net.safetensors"), |_| {});
    place
}

fn words<'a>(measure: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["measure", measure, "--real", "real", "--synthetic", "made", "--cache", "cache"], &DOMAIN[..], more]
        .concat()
}

#[test]
fn each_measure_says_what_decides_it() {
    let place = place();
    let found = place.synecho(&words("fid", &["--json", "--interval", "5"])).json();
    // Not FID: the features are another network's.
    assert_eq!((&found["metric"], &found["extractor"]), (&"frechet".into(), &"domain".into()));
    assert_eq!((&found["n_real"], &found["n_synthetic"]), (&12.into(), &9.into()));
    assert!(found["value"].as_f64().unwrap() > 0.0 && found["convention"].is_string());
    assert!(found["warnings"].as_array().unwrap().iter().any(|w| w.as_str().unwrap().contains("2048")));
    let (low, high) = (found["ci95"][0].as_f64().unwrap(), found["ci95"][1].as_f64().unwrap());
    assert!(low <= found["value"].as_f64().unwrap() && found["value"].as_f64().unwrap() <= high);
    let text = place.synecho(&words("fid", &[])).well().out;
    assert!(text.contains("not FID") && text.contains("12 real, 9 synthetic images"), "{text}");

    let found = place.synecho(&words("kid", &["--json", "--subsets", "7"])).json();
    assert_eq!((&found["metric"], &found["subsets"]), (&"kid".into(), &7.into()));
    assert_eq!((&found["subset_size"], &found["seed"]), (&9.into(), &2020.into()));
    let found = place.synecho(&words("prdc", &["--json"])).json();
    assert_eq!((&found["metric"], &found["k"]), (&"prdc".into(), &5.into()));
    assert!(["precision", "recall", "density", "coverage"].iter().all(|name| found[name].is_number()));
    let found = place.synecho(&words("memorisation", &["--json", "--held-out", "held"])).json();
    assert_eq!((&found["n_training"], &found["n_held_out"]), (&12.into(), &8.into()));
    assert_eq!(found["nearest"].as_array().unwrap().len(), 5);
    assert!(found["nearest"][0]["training"].as_str().unwrap().starts_with("real"));
    for measure in ["kid", "prdc"] {
        assert!(place.synecho(&words(measure, &[])).well().out.contains("12 real, 9 synthetic images"));
    }
}

#[test]
fn folders_can_be_given_in_their_order_and_all_measures_at_once() {
    let place = place();
    let named = place.synecho(&words("fid", &["--json"])).json();
    let in_order = |measure: &str, more: &[&str]| {
        let ask = ["measure", measure, "real", "made", "--cache", "cache", "--json"];
        place.synecho(&[&ask, &DOMAIN[..], more].concat()).json()
    };
    assert_eq!(in_order("fid", &[]), named);
    place.synecho(&["measure", "fid", "real"]).refused(&["the second folder is missing"]);
    place
        .synecho(&["measure", "fid", "real", "made", "--real", "real"])
        .refused(&["both in their order and by name"]);
    place.synecho(&["measure", "kid", "--real", "real"]).refused(&["fewer are given", "--synthetic DIR"]);

    let all = in_order("all", &["--held-out", "held"]);
    assert_eq!(all["frechet"]["value"], named["value"]);
    assert_eq!(all["kid"]["value"], in_order("kid", &[])["value"]);
    assert_eq!(all["prdc"]["coverage"], in_order("prdc", &[])["coverage"]);
    assert_eq!(all["memorisation"]["value"], in_order("memorisation", &["--held-out", "held"])["value"]);
    for (measure, value) in [("mind", "value"), ("vendi", "value"), ("authenticity", "percent")] {
        assert!(all[measure][value].as_f64().is_some_and(f64::is_finite), "{measure} in {all:#}");
    }
    // These images are not square: texture is left out, and the reason is given.
    assert!(all["texture"].is_null());
    assert_eq!(all["skipped"][0][0], "texture");
    let ask = ["measure", "all", "real", "made", "--cache", "cache"];
    let text = place.synecho(&[&ask, &DOMAIN[..]].concat()).well().out;
    assert!(
        text.starts_with("12 real and 9 synthetic images\n") && text.contains("--held-out DIR"),
        "{text}"
    );
}

#[test]
fn held_out_images_that_are_training_images_are_refused() {
    let place = place();
    let ask = |held_out: &str| {
        let ask = ["measure", "memorisation", "real", "made", "--held-out", held_out, "--no-cache"];
        place.synecho(&[&ask, &DOMAIN[..]].concat())
    };
    ask("real").refused(&["every held-out image is one of the training images", "other patients"]);
    fs::copy(place.path("real/0.png"), place.path("held/copy.png")).unwrap();
    assert!(ask("held").well().out.contains("warning: 1 of 9 held-out images are training images too"));
}

#[test]
fn weights_are_found_in_the_usual_folder() {
    let place = place();
    let ask = ["measure", "fid", "real", "made", "--extractor", "resnet50", "--no-cache", "--quiet"];
    place.synecho(&ask).refused(&["the extractor resnet50 needs weights"]);
    place.write("mine/resnet50.safetensors", "damaged");
    let told = place.command(&ask).env("SYNECHO_WEIGHTS", place.path("mine")).output().unwrap();
    let err = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.code() == Some(2) && err.contains("mine/resnet50.safetensors"), "{err}");
    place.write("data/weights/resnet50.safetensors", "damaged");
    place.synecho(&ask).refused(&["data/weights/resnet50.safetensors"]);
}

#[test]
fn a_folder_against_itself_is_at_no_distance_and_copies_are_found() {
    let place = place();
    let same = |measure: &str, more: &[&str]| {
        let ask = ["measure", measure, "--real", "real", "--synthetic", "real", "--no-cache", "--json"];
        place.synecho(&[&ask, &DOMAIN[..], more].concat()).json()
    };
    assert!(same("fid", &[])["value"].as_f64().unwrap() < 1e-6);
    let prdc = same("prdc", &[]);
    assert_eq!((&prdc["precision"], &prdc["coverage"]), (&1.0.into(), &1.0.into()));
    let copies = same("memorisation", &["--held-out", "held"]);
    assert_eq!((&copies["copies"], &copies["value"]), (&12.into(), &1.0.into()));
    assert!(copies["p"].as_f64().unwrap() < 0.001);
}

#[test]
fn saved_statistics_and_kept_features_give_the_same_distance() {
    let place = place();
    let first = place.synecho(&words("fid", &["--json"])).json();
    assert_eq!(fs::read_dir(place.path("cache")).unwrap().count(), 2);
    assert_eq!(place.synecho(&words("fid", &["--json"])).json(), first);
    let one = ["measure", "fid", "--real", "real", "--synthetic", "made", "--no-cache", "--json"];
    let all = place.synecho(&[&one, &DOMAIN[..], &["--batch-size", "1"]].concat()).json();
    let near = |a: &serde_json::Value, b: &serde_json::Value| {
        let (a, b) = (a["value"].as_f64().unwrap(), b["value"].as_f64().unwrap());
        assert!((a - b).abs() <= 1e-4 * b.abs(), "{a} {b}");
    };
    near(&all, &first);

    let save = ["measure", "statistics", "--images", "real", "--out", "real.npz", "--no-cache"];
    assert!(place.synecho(&[&save, &DOMAIN[..]].concat()).well().out.contains("12 images are in real.npz"));
    let ask = ["measure", "fid", "--real", "real.npz", "--synthetic", "made", "--no-cache", "--json"];
    let found = place.synecho(&[&ask, &DOMAIN[..]].concat()).json();
    near(&found, &first);
    assert_eq!((&found["n_real"], &found["n_synthetic"]), (&12.into(), &9.into()));
    place
        .synecho(&[&ask, &DOMAIN[..], &["--interval", "5"]].concat())
        .refused(&["an interval or an extrapolation needs the images themselves"]);
    let whole = fs::read(place.path("real.npz")).unwrap();
    fs::write(place.path("real.npz"), &whole[..whole.len() / 2]).unwrap();
    place.synecho(&[&ask, &DOMAIN[..]].concat()).refused(&["real.npz"]);
}

#[test]
fn requests_that_cannot_be_carried_out() {
    let place = place();
    fs::create_dir(place.path("empty")).unwrap();
    fs::create_dir(place.path("one")).unwrap();
    fs::copy(place.path("real/0.png"), place.path("one/0.png")).unwrap();
    let against = |folder: &str| {
        let ask = ["measure", "fid", "--real", "real", "--synthetic", folder, "--no-cache"];
        place.synecho(&[&ask, &DOMAIN[..]].concat())
    };
    against("nowhere").refused(&["nowhere"]);
    against("empty").refused(&["empty: ", "no images"]);
    against("one").refused(&["one: ", "one image"]);

    let plain = |more: &[&str]| {
        let ask = ["measure", "fid", "--real", "real", "--synthetic", "made", "--no-cache"];
        place.synecho(&[&ask, more].concat())
    };
    plain(&[]).refused(&["inception-fid needs weights", "6726825d", "name it as it is"]);
    plain(&["--weights", "none.safetensors"]).refused(&["none.safetensors", "6726825d"]);
    plain(&["--weights", "net.safetensors"]).refused(&["net.safetensors: ", "is missing"]);
    plain(&[&DOMAIN[..], &["--convention", "clean-fid"]].concat()).refused(&["--convention is not for"]);

    let spoiled = |file: &str, change: &dyn Fn(&mut Named)| {
        network(&place.path(file), |tensors| change(tensors));
        plain(&["--extractor", "domain", "--weights", file])
    };
    spoiled("cut.safetensors", &|t| t.retain(|(name, _)| name != "layer2.0.conv1.weight"))
        .refused(&["cut.safetensors: layer2.0.conv1.weight is missing"]);
    spoiled("shape.safetensors", &|t| {
        let weight = t.iter_mut().find(|(name, _)| name == "layer1.0.conv1.weight").unwrap();
        weight.1 = weight.1.narrow(0, 0, 32);
    })
    .refused(&["layer1.0.conv1.weight has the shape [32, 64, 3, 3]"]);
    spoiled("headless.safetensors", &|t| t.retain(|(name, _)| !name.starts_with("fc.")))
        .refused(&["headless.safetensors: fc.weight is missing"]);
    spoiled("nan.safetensors", &|t| {
        let weight = t.iter_mut().find(|(name, _)| name == "conv1.weight").unwrap();
        weight.1 = &weight.1 * f64::NAN;
    })
    .wrong(1, &["features are not finite"]);

    place
        .synecho(&words("kid", &["--subset-size", "10"]))
        .refused(&["a KID subset of 10 images, but there are 9 synthetic ones", "at most 9"]);
    place
        .synecho(&words("prdc", &["--neighbours", "9"]))
        .refused(&["the 9-th nearest neighbour among 9 synthetic images"]);
}

#[test]
fn unreadable_images_are_named_and_left_out_only_where_that_is_asked_for() {
    let place = place();
    place.write("made/8.png", "no image");
    place.write("made/9.jpg", "none either");
    let told = place.synecho(&words("fid", &[]));
    told.refused(&["2 of 10 images", "8.png", "9.jpg", "--skip-unreadable"]);
    let found = place.synecho(&words("fid", &["--skip-unreadable", "--json"])).json();
    assert_eq!((&found["n_synthetic"], found["unreadable"].as_array().unwrap().len()), (&8.into(), 2));
    let text = place.synecho(&words("fid", &["--skip-unreadable"])).well().out;
    assert!(text.contains("2 unreadable images were left out"), "{text}");
}

#[test]
fn a_spec_measures_its_generators_beside_what_tells_the_scale() {
    let place = Place::new();
    let measure =
        "\n[measure]\nkid_subsets = 5\nreplicates = 4\n\n[measure.extractor]\nimage_size = 40\nepochs = 1\n";
    place.write("made.toml", &(only("told", "mode = \"unconditional\"\n") + measure));
    place.synecho(&RUN).well();
    let table = place.read("out/made/tables/generators_distances.md");
    let images = ["real against real (two halves)", "held-out real", "blurred real", "noise", "told"];
    let place_of =
        |name: &str| table.find(&format!("\n| {name} |")).unwrap_or_else(|| panic!("{name}: {table}"));
    assert!(images.windows(2).all(|pair| place_of(pair[0]) < place_of(pair[1])), "{table}");
    assert!(
        table.contains("Fréchet distance") && table.contains("domain") && !table.contains("| FID |"),
        "{table}"
    );
    let rows: Vec<Measurement> = read_csv_gz(&place.path("out/made/measurements.csv.gz")).unwrap();
    let value = |arm: &str, metric: &str| {
        let fits = |r: &&Measurement| r.arm == arm && r.metric == metric && r.view.is_empty();
        let found: Vec<&Measurement> = rows.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{arm} {metric}");
        assert_eq!(found[0].structure, "domain");
        found[0].value
    };
    assert!(value(images[0], "frechet") < value("noise", "frechet"));
    assert!(value("told", "kid").is_finite() && value("told", "coverage") <= 1.0);
    assert!(
        place
            .read("out/made/tables/generators_memorisation.md")
            .contains("| told | unconditional | pixels |")
    );
    assert!(place.path("out/made/figures/generators_nearest_told.png").is_file());
    assert!(fs::read_dir(place.path("runs/features")).unwrap().count() > 0);
    assert_eq!(place.synecho(&RUN).well().stages_done().0, 0);
    // Another number of neighbours trains nothing, and takes the features that were kept.
    let again = place.synecho(&[&RUN[..], &["--set", "measure.neighbours=3"]].concat()).well();
    assert_eq!(again.stages_done().0, 3, "two measures and the report");
}
