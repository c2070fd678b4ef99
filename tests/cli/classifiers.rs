//! Several classification networks in one spec, from weights of their own, parts of them frozen.

use std::fs;

use synecho::{
    nn::tensor_file::{self, TensorFile},
    vocabulary::Backbone,
};
use tch::{Device, nn::VarStore};

use crate::{
    support::{Place, RUN, SMALL},
    torch_save::torch_save,
};

const MODELS: [Backbone; 2] = [Backbone::Resnet18, Backbone::EfficientnetB0];

/// ImageNet's checkpoints in the folder `nets`, but for what is in them.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("nets")).unwrap();
    for backbone in MODELS {
        let vs = VarStore::new(Device::Cpu);
        backbone.build(&vs.root(), 1000).unwrap();
        backbone.init(&vs, 1);
        let variables: Vec<_> = vs.variables().into_iter().collect();
        let bytes = tensor_file::to_bytes(&variables, None).unwrap();
        fs::write(place.path(&format!("nets/{}.safetensors", backbone.as_str())), bytes).unwrap();
    }
    let spec = SMALL.replace(
        "label = \"view\"",
        "label = \"view\"\nmodels = [\"resnet18\", \"efficientnet_b0\"]\nweights = \"nets\"\ntrainable_parameters = 2_000_000",
    );
    place.write("small.toml", &spec);
    place
}

#[test]
fn each_is_trained_and_measured_and_the_report_counts_what_was_trained() {
    let place = place();
    assert_eq!(place.synecho(&RUN).well().stages_done(), (10, 10));
    let measurements = place.measurements("out/small");
    for backbone in MODELS {
        let start = format!("small,classification,real,{},0,test,,,,,accuracy,", backbone.as_str());
        assert!(measurements.lines().any(|line| line.starts_with(&start)), "{start}");
    }
    let page = place.read("out/small/index.html").replace('\u{a0}', ",");
    for words in [
        "resnet18, 11,177,538 parameters (2,361,346 trained)",
        "efficientnet_b0, 4,010,110 parameters (2,053,266 trained)",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // Other weights of one model train that model again.
    fs::copy(place.path("nets/efficientnet_b0.safetensors"), place.path("kept")).unwrap();
    let vs = VarStore::new(Device::Cpu);
    MODELS[1].build(&vs.root(), 1000).unwrap();
    MODELS[1].init(&vs, 2);
    let variables: Vec<_> = vs.variables().into_iter().collect();
    fs::write(
        place.path("nets/efficientnet_b0.safetensors"),
        tensor_file::to_bytes(&variables, None).unwrap(),
    )
    .unwrap();
    assert_eq!(place.synecho(&RUN).well().stages_done(), (3, 10));
    fs::rename(place.path("kept"), place.path("nets/efficientnet_b0.safetensors")).unwrap();
    assert_eq!(place.synecho(&RUN).well().stages_done().0, 0);
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let place = place();
    let with = |set: &str| place.synecho(&[&RUN[..], &["--set", set]].concat());
    with("tasks.classification.weights=nets/resnet18.safetensors").refused(&[
        "is one file for 2 models",
        "name a folder that holds resnet18.safetensors, efficientnet",
    ]);
    with("tasks.classification.models=[\"resnet18\", \"vgg16\"]")
        .refused(&["small.toml:", "nets/vgg16.safetensors does not exist"]);
    assert!(!place.path("runs").exists());
    fs::copy(place.path("nets/resnet18.safetensors"), place.path("nets/resnet50.safetensors")).unwrap();
    with("tasks.classification.models=[\"resnet50\"]")
        .refused(&["error: nets/resnet50.safetensors: ", "the file holds another network"]);
    assert!(!place.path("runs").exists());
}

/// torchvision's downloads, under the names that they come with.
#[test]
fn downloads_of_torchvision_are_read_as_they_are() {
    let place = place();
    assert_eq!(place.synecho(&RUN).well().stages_done().0, 10);
    let summary = |place: &Place| place.measurements("out/small");
    let before = summary(&place);
    for (backbone, file) in MODELS.into_iter().zip(["resnet18-20240131.pth", "efficientnet_b0_rwightman.pth"])
    {
        let safetensors = place.path(&format!("nets/{}.safetensors", backbone.as_str()));
        let opened = TensorFile::open(&safetensors).unwrap();
        let state: Vec<_> =
            opened.entries().iter().map(|e| (e.name.clone(), opened.read(e).unwrap())).collect();
        fs::remove_file(&safetensors).unwrap();
        place.write_bytes(&format!("nets/{file}"), &torch_save(&state));
    }
    // The second has no name of torchvision's.
    place.synecho(&RUN).refused(&["nets/efficientnet_b0.safetensors does not exist", ".pth as downloaded"]);
    let download = "nets/efficientnet_b0_rwightman-20240131.pth";
    fs::rename(place.path("nets/efficientnet_b0_rwightman.pth"), place.path(download)).unwrap();
    // Other files, so that both are trained again, with the same result.
    place.synecho(&RUN).well();
    assert_eq!(summary(&place), before);
    fs::copy(place.path("nets/resnet18-20240131.pth"), place.path("nets/resnet18.pth")).unwrap();
    place.synecho(&RUN).refused(&[
        "several files may be resnet18's: nets/resnet18-20240131.pth, nets/resnet18.pth",
        "keep one of them",
    ]);
}
