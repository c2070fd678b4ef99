//! The weights of one part.

use std::{fs, path::Path};

use serde_json::json;
use synecho::{nn::clip_text::*, pipeline::folder::PipelinePart};
use tch::{Device, Kind, Tensor, nn::VarStore};
use tempfile::{TempDir, tempdir};

use crate::{
    support::*,
    torch_save::{self, torch_save},
};

fn load(dir: &Path, variant: Option<&str>) -> Result<VarStore, String> {
    let vs = network();
    PipelinePart::open(dir).and_then(|part| part.load_weights(&vs, variant)).map_err(|e| e.to_string())?;
    Ok(vs)
}

fn folder(files: &[(&str, Vec<(String, Tensor)>)]) -> TempDir {
    let dir = tempdir().unwrap();
    part(dir.path(), files);
    dir
}

const WHOLE: &str = "diffusion_pytorch_model.safetensors";
const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";
const SHARDS: [&str; 2] = [
    "diffusion_pytorch_model-00001-of-00002.safetensors",
    "diffusion_pytorch_model-00002-of-00002.safetensors",
];

#[test]
fn one_file_and_shards_are_read_in_every_type() {
    for of in [Kind::Float, Kind::Half, Kind::BFloat16] {
        let dir = folder(&[(WHOLE, kind(weights(), of))]);
        let vs = load(dir.path(), None).unwrap();
        assert!(has(&vs, &kind(weights(), of)));
        assert!(vs.variables().values().all(|v| v.kind() == Kind::Float && v.requires_grad()));

        let dir = tempdir().unwrap();
        sharded(dir.path(), INDEX, SHARDS, kind(weights(), of));
        assert!(has(&load(dir.path(), None).unwrap(), &kind(weights(), of)));

        // A network that computes in half precision.
        let mut half = network();
        half.set_kind(Kind::BFloat16);
        PipelinePart::open(dir.path()).unwrap().load_weights(&half, None).unwrap();
        assert!(has(&half, &kind(weights(), Kind::BFloat16)));
    }
}

/// The names are those that diffusers 0.42.1 and older versions write.
#[test]
fn a_variant_is_read_when_asked_for_or_alone() {
    let doubled: Vec<_> = weights().into_iter().map(|(name, values)| (name, values * 2.0)).collect();
    let single = |dir: &Path| {
        part(dir, &[("diffusion_pytorch_model.fp16.safetensors", kind(doubled.clone_all(), Kind::Half))])
    };
    let shards =
        |dir: &Path, index: &str, shards: [&str; 2]| sharded(dir, index, shards, doubled.clone_all());
    type Form<'a> = &'a dyn Fn(&Path);
    let forms: [Form; 3] = [
        &single,
        &|dir| {
            shards(
                dir,
                "diffusion_pytorch_model.safetensors.index.fp16.json",
                [
                    "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
                    "diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
                ],
            );
        },
        &|dir| {
            shards(
                dir,
                "diffusion_pytorch_model.safetensors.fp16.index.json",
                [
                    "diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
                    "diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
                ],
            );
        },
    ];
    for form in forms {
        let dir = tempdir().unwrap();
        form(dir.path());
        for variant in [None, Some("fp16")] {
            assert!(has(&load(dir.path(), variant).unwrap(), &doubled));
        }
        let error = load(dir.path(), Some("bf16")).unwrap_err();
        assert!(error.contains("`bf16`") && error.contains("it has: fp16"), "{error}");
        // Beside the weights proper it is read only when asked for.
        part(dir.path(), &[(WHOLE, weights())]);
        assert!(has(&load(dir.path(), None).unwrap(), &weights()));
        assert!(has(&load(dir.path(), Some("fp16")).unwrap(), &doubled));
    }
    let dir = tempdir().unwrap();
    single(dir.path());
    part(dir.path(), &[("diffusion_pytorch_model.non_ema.safetensors", weights())]);
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains("fp16, non_ema"), "{error}");
    assert!(has(&load(dir.path(), Some("non_ema")).unwrap(), &weights()));
}

trait CloneAll {
    fn clone_all(&self) -> Self;
}

impl CloneAll for Vec<(String, Tensor)> {
    fn clone_all(&self) -> Self {
        self.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect()
    }
}

#[test]
fn attention_has_its_names_of_old_and_of_now() {
    let old = |name: &str| {
        name.replace("to_q", "query")
            .replace("to_k", "key")
            .replace("to_v", "value")
            .replace("to_out.0", "proj_attn")
    };
    let names: Vec<_> = renamed(weights(), old).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"mid_block.attentions.0.proj_attn.weight".to_owned()));
    let dir = folder(&[(WHOLE, renamed(weights(), old))]);
    assert!(has(&load(dir.path(), None).unwrap(), &weights()));

    // Query is not key: the names are not merely counted.
    let swapped =
        |name: &str| old(name).replace("query", "x").replace("key", "query").replace(".x.", ".key.");
    let dir = folder(&[(WHOLE, renamed(weights(), swapped))]);
    assert!(!has(&load(dir.path(), None).unwrap(), &weights()));

    // Both at once.
    let mut both = weights();
    both.extend(renamed(weights(), old).into_iter().filter(|(name, _)| name.contains("query")));
    let error = load(folder(&[(WHOLE, both)]).path(), None).unwrap_err();
    assert!(error.contains("twice") && error.contains("query") && error.contains("to_q"), "{error}");

    // An attention weight in the form of a convolution is not one, here as in diffusers.
    let mut conv = renamed(weights(), old);
    for (name, values) in &mut conv {
        if name == "mid_block.attentions.0.query.weight" {
            *values = values.view([4, 4, 1, 1]);
        }
    }
    let error = load(folder(&[(WHOLE, conv)]).path(), None).unwrap_err();
    assert!(error.contains("to_q.weight (in the file: mid_block.attentions.0.query.weight)"), "{error}");
    assert!(error.contains("[4, 4, 1, 1]") && error.contains("needs [4, 4]"), "{error}");
}

#[test]
fn a_text_encoder_has_its_keys_with_a_prefix_or_without() {
    let clip = ClipTextConfig {
        vocab_size: 9,
        hidden_size: 4,
        intermediate_size: 6,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: 5,
        hidden_act: ClipActivation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: Some(8),
    };
    let network = || {
        let vs = VarStore::new(Device::Cpu);
        ClipTextModel::new(&vs.root(), &clip).unwrap();
        vs
    };
    let vs = network();
    for (i, variable) in vs.variables().values_mut().enumerate() {
        let _ = tch::no_grad(|| variable.fill_(i as f64 + 1.0));
    }
    let mut prefixed: Vec<_> = vs.variables().into_iter().collect();
    prefixed.push((
        "text_model.embeddings.position_ids".to_owned(),
        Tensor::arange(5, (Kind::Int64, Device::Cpu)),
    ));
    let bare = renamed(prefixed.clone_all(), |name| name.strip_prefix("text_model.").unwrap().to_owned());
    for tensors in [prefixed, bare] {
        let dir = tempdir().unwrap();
        put(dir.path(), "config.json", &clip.to_json().to_string());
        synecho::nn::tensor_file::write(&dir.path().join("model.safetensors"), &tensors).unwrap();
        let part = PipelinePart::open(dir.path()).unwrap();
        assert_eq!((part.library(), part.class()), ("transformers", "CLIPTextModel"));
        assert_eq!(ClipTextConfig::read(&part.config().unwrap()).unwrap(), clip);
        let loaded = network();
        part.load_weights(&loaded, None).unwrap();
        let expected: Vec<_> = vs.variables().into_iter().collect();
        assert!(has(&loaded, &expected));
    }
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let without = |name: &str| weights().into_iter().filter(|(n, _)| n != name).collect::<Vec<_>>();
    let with = |name: &str, tensor: Tensor| {
        let mut all = without(name);
        all.push((name.to_owned(), tensor));
        all
    };
    for (tensors, says) in [
        (without("conv_in.bias"), vec!["conv_in.bias is missing"]),
        (
            with("conv_out.bias", Tensor::zeros([1], (Kind::Float, Device::Cpu))),
            vec!["conv_out.bias is no variable"],
        ),
        (
            with("conv_in.bias", Tensor::zeros([5], (Kind::Float, Device::Cpu))),
            vec!["conv_in.bias has the shape [5]", "needs [4]"],
        ),
        (
            with("conv_in.bias", Tensor::zeros([4], (Kind::Int64, Device::Cpu))),
            vec!["conv_in.bias has the type Int64"],
        ),
    ] {
        let dir = folder(&[(WHOLE, tensors.clone_all())]);
        let error = load(dir.path(), None).unwrap_err();
        assert!(
            says.iter().all(|s| error.contains(s)) && error.contains(WHOLE) && error.contains("help:"),
            "{error}"
        );
        // The same in shards.
        let dir = tempdir().unwrap();
        sharded(dir.path(), INDEX, SHARDS, tensors);
        let error = load(dir.path(), None).unwrap_err();
        assert!(says.iter().all(|s| error.contains(s)), "{error}");
    }
}

#[test]
fn damaged_and_missing_files_are_named() {
    let truncate = |path: &Path, by: usize| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - by]).unwrap();
    };
    let dir = folder(&[(WHOLE, weights())]);
    truncate(&dir.path().join(WHOLE), 3);
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains(WHOLE) && error.contains("not a whole safetensors file"), "{error}");

    let dir = tempdir().unwrap();
    sharded(dir.path(), INDEX, SHARDS, weights());
    truncate(&dir.path().join(SHARDS[1]), 1);
    let vs = network();
    let error = PipelinePart::open(dir.path()).unwrap().load_weights(&vs, None).unwrap_err().to_string();
    assert!(error.contains(SHARDS[1]), "{error}");
    assert!(
        vs.variables().values().all(|v| v.count_nonzero(None).int64_value(&[]) == 0),
        "nothing was loaded"
    );
    fs::remove_file(dir.path().join(SHARDS[1])).unwrap();
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains(INDEX) && error.contains(SHARDS[1]) && error.contains("not there"), "{error}");
    fs::remove_file(dir.path().join(INDEX)).unwrap();
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains("shards need their index"), "{error}");

    let index = |map: serde_json::Value| {
        let dir = folder(&[]);
        put(dir.path(), INDEX, &json!({"weight_map": map}).to_string());
        load(dir.path(), None).unwrap_err()
    };
    assert!(
        index(json!({"a": "../../etc/passwd.safetensors"})).contains("no .safetensors file of this folder")
    );
    assert!(index(json!({"a": "model-00001-of-00001.bin"})).contains("no .safetensors file of this folder"));
    assert!(index(json!({})).contains("names no weights"));
    assert!(index(json!(3)).contains("not an index"));

    let dir = folder(&[]);
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains("no weights") && error.contains(WHOLE), "{error}");
    fs::remove_file(dir.path().join("config.json")).unwrap();
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains("no config.json"), "{error}");
    let error = load(&dir.path().join("nowhere"), None).unwrap_err();
    assert!(error.contains("no such folder"), "{error}");
}

/// The names that diffusers and transformers wrote before safetensors.
const BIN: &str = "diffusion_pytorch_model.bin";

#[test]
fn checkpoints_of_pytorch_are_read_where_there_are_no_safetensors() {
    let doubled: Vec<_> = weights().into_iter().map(|(name, values)| (name, values * 2.0)).collect();
    let save = |dir: &Path, file: &str, tensors: &[(String, Tensor)]| {
        fs::write(dir.join(file), torch_save(tensors)).unwrap();
    };
    for of in [Kind::Float, Kind::Half, Kind::BFloat16] {
        let dir = folder(&[]);
        save(dir.path(), BIN, &kind(weights(), of));
        assert!(has(&load(dir.path(), None).unwrap(), &kind(weights(), of)));
    }
    // Safetensors come first, but those of a variant only where nothing else is.
    let dir = folder(&[(WHOLE, weights())]);
    save(dir.path(), BIN, &doubled);
    assert!(has(&load(dir.path(), None).unwrap(), &weights()));
    fs::rename(dir.path().join(WHOLE), dir.path().join("diffusion_pytorch_model.fp16.safetensors")).unwrap();
    assert!(has(&load(dir.path(), None).unwrap(), &doubled));
    assert!(has(&load(dir.path(), Some("fp16")).unwrap(), &weights()));

    let dir = folder(&[]);
    save(dir.path(), "diffusion_pytorch_model.fp16.bin", &kind(weights(), Kind::Half));
    for variant in [None, Some("fp16")] {
        assert!(has(&load(dir.path(), variant).unwrap(), &weights()));
    }
    assert!(load(dir.path(), Some("bf16")).unwrap_err().contains("it has: fp16"));

    // Shards, with attention's names of old.
    let dir = folder(&[]);
    let mut first = renamed(weights(), |name| name.replace("to_q", "query").replace("to_out.0", "proj_attn"));
    let second = first.split_off(5);
    let shards = ["diffusion_pytorch_model-00001-of-00002.bin", "diffusion_pytorch_model-00002-of-00002.bin"];
    let mut map = serde_json::Map::new();
    for (shard, tensors) in shards.into_iter().zip([first, second]) {
        save(dir.path(), shard, &tensors);
        map.extend(tensors.into_iter().map(|(name, _)| (name, json!(shard))));
    }
    put(dir.path(), "diffusion_pytorch_model.bin.index.json", &json!({"weight_map": map}).to_string());
    assert!(has(&load(dir.path(), None).unwrap(), &weights()));
    fs::remove_file(dir.path().join(shards[1])).unwrap();
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains(shards[1]) && error.contains("not there"), "{error}");
}

#[test]
fn a_text_encoder_of_old_is_called_pytorch_model() {
    let dir = tempdir().unwrap();
    put(dir.path(), "config.json", r#"{"architectures": ["CLIPTextModel"]}"#);
    fs::write(dir.path().join("pytorch_model.bin"), torch_save(&weights())).unwrap();
    let files = PipelinePart::open(dir.path()).unwrap().weight_files(None).unwrap();
    assert_eq!(files, [dir.path().join("pytorch_model.bin")]);
    let read = synecho::pipeline::files_read::files_read(dir.path());
    assert!(read.contains(&files[0]), "{read:?}");
}

#[test]
fn pickles_of_other_things_and_of_other_names_are_refused() {
    let dir = folder(&[]);
    fs::write(dir.path().join(BIN), torch_save::legacy(&torch_save::global("os", "system"), &[])).unwrap();
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains(BIN) && error.contains("os.system, which is not read"), "{error}");
    // Beside safetensors it is passed over.
    part(dir.path(), &[(WHOLE, weights())]);
    assert!(has(&load(dir.path(), None).unwrap(), &weights()));

    let dir = folder(&[]);
    put(dir.path(), "net.pth", "x");
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains("no weights") && error.contains(&format!("rename it to {BIN}")), "{error}");
    put(dir.path(), "diffusion_pytorch_model-00001-of-00002.bin", "x");
    let error = load(dir.path(), None).unwrap_err();
    assert!(error.contains("shards need their index, diffusion_pytorch_model.bin.index.json"), "{error}");
}
