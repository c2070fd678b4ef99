//! What the golden tests do not see: refusals, wrong shapes, a ControlNet made from a U-Net.

use std::path::Path;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn::VarStore};

use super::config::{BlockType, ClassEmbed, MidBlockType};
use crate::{
    error::Result,
    nn::{
        autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig, Posterior},
        config::Config,
        controlnet::{self, ControlNetConfig, ControlNetModel},
        init,
        unet2d::{UNet2DConfig, UNet2DModel},
        unet2d_condition::{UNet2DConditionConfig, UNet2DConditionModel},
    },
};

fn parse(value: &Value) -> Config {
    Config::parse(&value.to_string(), Path::new("unet/config.json")).unwrap()
}

fn store() -> VarStore {
    VarStore::new(Device::Cpu)
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, Device::Cpu))
}

fn small_unet2d() -> UNet2DConfig {
    UNet2DConfig {
        down_block_types: vec![BlockType::Plain, BlockType::Attention],
        up_block_types: vec![BlockType::Attention, BlockType::Plain],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        ..UNet2DConfig::default()
    }
}

fn small_condition() -> UNet2DConditionConfig {
    UNet2DConditionConfig {
        down_block_types: vec![BlockType::CrossAttention, BlockType::Plain],
        up_block_types: vec![BlockType::Plain, BlockType::CrossAttention],
        block_out_channels: vec![8, 16],
        layers_per_block: vec![1; 2],
        norm_num_groups: 4,
        cross_attention_dim: vec![6; 2],
        transformer_layers_per_block: vec![1; 2],
        attention_heads: vec![2; 2],
        ..UNet2DConditionConfig::default()
    }
}

fn small_controlnet() -> ControlNetConfig {
    let config = ControlNetConfig::from_unet(&small_condition()).unwrap();
    ControlNetConfig { conditioning_embedding_out_channels: vec![4, 6, 8], ..config }
}

fn refused<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert_eq!(error.exit_code(), 2, "{text}");
}

#[test]
fn defaults_are_upstreams_and_are_read_from_an_empty_file() {
    let empty = || parse(&json!({}));
    assert_eq!(UNet2DConfig::read(&empty()).unwrap(), UNet2DConfig::default());
    assert_eq!(UNet2DConditionConfig::read(&empty()).unwrap(), UNet2DConditionConfig::default());
    assert_eq!(ControlNetConfig::read(&empty()).unwrap(), ControlNetConfig::default());
    assert_eq!(AutoencoderKLConfig::read(&empty()).unwrap(), AutoencoderKLConfig::default());
}

/// As diffusers' training scripts leave `unet_ema/`.
#[test]
fn the_bookkeeping_of_an_averaged_network_is_passed_over_and_nothing_else_is() {
    let averaged = json!({
        "decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 7, "power": 0.75,
        "update_after_step": 0, "use_ema_warmup": false
    });
    assert_eq!(UNet2DConfig::read(&parse(&averaged)).unwrap(), UNet2DConfig::default());
    assert_eq!(UNet2DConditionConfig::read(&parse(&averaged)).unwrap(), UNet2DConditionConfig::default());
    assert_eq!(ControlNetConfig::read(&parse(&averaged)).unwrap(), ControlNetConfig::default());
    assert_eq!(AutoencoderKLConfig::read(&parse(&averaged)).unwrap(), AutoencoderKLConfig::default());
    let mut other = averaged;
    other["decay_rate"] = json!(0.9);
    refused(UNet2DConfig::read(&parse(&other)), &["`decay_rate` = 0.9"]);
    refused(AutoencoderKLConfig::read(&parse(&other)), &["`decay_rate` = 0.9"]);
}

#[test]
fn what_is_written_is_read_again() {
    let unet2d = UNet2DConfig {
        sample_size: Some([32, 48]),
        attention_head_dim: None,
        mid_block: false,
        freq_shift: 0.5,
        class_embed: Some(ClassEmbed::Table { classes: 4 }),
        ..small_unet2d()
    };
    assert_eq!(UNet2DConfig::read(&parse(&unet2d.to_json())).unwrap(), unet2d);
    let condition = UNet2DConditionConfig {
        mid_block_type: Some(MidBlockType::Plain),
        attention_heads: vec![2, 4],
        class_embed: Some(ClassEmbed::SimpleProjection { inputs: 3 }),
        ..small_condition()
    };
    assert_eq!(UNet2DConditionConfig::read(&parse(&condition.to_json())).unwrap(), condition);
    let controlnet = small_controlnet();
    assert_eq!(ControlNetConfig::read(&parse(&controlnet.to_json())).unwrap(), controlnet);
    let vae = AutoencoderKLConfig { sample_size: None, ..AutoencoderKLConfig::default() };
    assert_eq!(AutoencoderKLConfig::read(&parse(&vae.to_json())).unwrap(), vae);
}

#[test]
fn unsupported_values_are_refused_by_name() {
    for (key, value) in [
        ("time_embedding_type", json!("learned")),
        ("down_block_types", json!(["SkipDownBlock2D"])),
        ("up_block_types", json!(["CrossAttnUpBlock2D"])),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("class_embed_type", json!("projection")),
        ("downsample_padding", json!(2)),
        ("upsample_type", json!("fir")),
        ("act_fn", json!("elu")),
        ("norm_num_groups", json!(null)),
        ("block_out_channels", json!([0, 8, 8, 8])),
        ("block_out_channels", json!([8])),
        ("layers_per_block", json!(0)),
        ("resnet_time_scale_shift", json!("spatial")),
        ("surprise", json!(1)),
        ("_class_name", json!("UNet2DConditionModel")),
    ] {
        let name = key.trim_start_matches("_class_name");
        refused(UNet2DConfig::read(&parse(&json!({ key: value }))), &["unet/config.json", name]);
    }
    for (key, value) in [
        ("only_cross_attention", json!([true, true, true, false])),
        ("dual_cross_attention", json!(true)),
        ("encoder_hid_dim_type", json!("text_proj")),
        ("addition_embed_type", json!("text_time")),
        ("addition_embed_type_num_heads", json!("64")),
        ("num_attention_heads", json!(8)),
        ("attention_type", json!("gated")),
        ("down_block_types", json!(["AttnDownBlock2D"])),
        ("attention_head_dim", json!([5, 10])),
        ("transformer_layers_per_block", json!([[1, 1], 2, 3, 4])),
        ("reverse_transformer_layers_per_block", json!([1, 2, 3, 4])),
        ("cross_attention_dim", json!([8, 8, 16, 16])),
        ("time_cond_proj_dim", json!(256)),
        ("time_embedding_act_fn", json!("silu")),
        ("class_embed_type", json!("projection")),
        ("conv_in_kernel", json!(2)),
        ("resnet_skip_time_act", json!(true)),
    ] {
        refused(UNet2DConditionConfig::read(&parse(&json!({ key: value }))), &["config.json", key]);
    }
    for (key, value) in [
        ("global_pool_conditions", json!(true)),
        ("controlnet_conditioning_channel_order", json!("grb")),
        ("class_embed_type", json!("timestep")),
        ("num_class_embeds", json!(4)),
        ("conditioning_embedding_out_channels", json!(null)),
        ("conditioning_embedding_out_channels", json!([])),
        ("mid_block_type", json!(null)),
    ] {
        refused(ControlNetConfig::read(&parse(&json!({ key: value }))), &["config.json", key]);
    }
    for (key, value) in [
        ("shift_factor", json!(0.1159)),
        ("latents_mean", json!([0.0, 0.0, 0.0, 0.0])),
        ("down_block_types", json!(["AttnDownEncoderBlock2D"])),
        ("up_block_types", json!(["UpDecoderBlock2D", "UpDecoderBlock2D"])),
        ("latent_channels", json!(0)),
    ] {
        refused(AutoencoderKLConfig::read(&parse(&json!({ key: value }))), &["config.json", key]);
    }
}

#[test]
fn the_first_stable_diffusions_configuration_is_understood() {
    let config = UNet2DConditionConfig::read(&parse(&json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.2.2", "act_fn": "silu",
        "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false,
        "cross_attention_dim": 768, "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0,
        "down_block_types":
            ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05,
        "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    })))
    .unwrap();
    let expected = UNet2DConditionConfig {
        cross_attention_dim: vec![768; 4],
        sample_size: Some([64, 64]),
        ..UNet2DConditionConfig::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn levels_that_do_not_fit_are_refused() {
    let groups = UNet2DConfig { norm_num_groups: 3, ..small_unet2d() };
    refused(UNet2DModel::new(&store().root(), &groups), &["down_blocks.0.resnets.0.norm1", "8", "3"]);
    let heads = UNet2DConfig { attention_head_dim: Some(17), ..small_unet2d() };
    refused(UNet2DModel::new(&store().root(), &heads), &["down_blocks.1.attentions.0", "attention_head_dim"]);
    let heads = UNet2DConditionConfig { attention_heads: vec![9, 1], ..small_condition() };
    refused(
        UNet2DConditionModel::new(&store().root(), &heads),
        &["blocks.1.attentions.0", "9 heads", "number of heads"],
    );
    let blocks = UNet2DConfig { up_block_types: vec![], ..small_unet2d() };
    refused(UNet2DModel::new(&store().root(), &blocks), &["up_block_types"]);
    let none = AutoencoderKLConfig { block_out_channels: vec![], ..AutoencoderKLConfig::default() };
    refused(AutoencoderKL::new(&store().root(), &none), &["block_out_channels"]);
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let t = Tensor::from_slice(&[1i64]);
    let vs = store();
    let classes = UNet2DConfig { class_embed: Some(ClassEmbed::Table { classes: 3 }), ..small_unet2d() };
    let net = UNet2DModel::new(&vs.root(), &classes).unwrap();
    let label = |i: i64| Tensor::from_slice(&[i]);
    let run = |x: &Tensor, labels: Option<&Tensor>| net.forward(x, &t, labels);
    assert!(run(&zeros(&[1, 3, 4, 4]), Some(&label(2))).is_ok());
    refused(run(&zeros(&[1, 3, 4, 4]), None), &["labels"]);
    refused(run(&zeros(&[1, 3, 4, 4]), Some(&label(3))), &["class 3 does not exist"]);
    refused(run(&zeros(&[1, 3, 4, 4]), Some(&label(-1))), &["class -1 does not exist"]);
    refused(run(&zeros(&[1, 3, 4, 4]), Some(&zeros(&[1]))), &["integers"]);
    refused(run(&zeros(&[1, 3, 4, 5]), Some(&label(0))), &["4 x 5", "multiples of 2"]);
    refused(run(&zeros(&[1, 1, 4, 4]), Some(&label(0))), &["[1, 1, 4, 4]", "(batch, 3,"]);
    refused(run(&zeros(&[0, 3, 4, 4]), Some(&label(0))), &["[0, 3, 4, 4]"]);
    refused(run(&zeros(&[3, 4, 4]), Some(&label(0))), &["[3, 4, 4]"]);
    refused(run(&zeros(&[1, 3, 4, 4]).to_kind(Kind::Uint8), Some(&label(0))), &["floating point"]);
    refused(net.forward(&zeros(&[3, 3, 4, 4]), &label(1).repeat([2]), Some(&label(0))), &["timesteps"]);

    let vs = store();
    let net = UNet2DConditionModel::new(&vs.root(), &small_condition()).unwrap();
    let (x, context) = (zeros(&[2, 4, 5, 6]), zeros(&[2, 7, 6]));
    let skips: Vec<Tensor> =
        [[8, 5, 6], [8, 5, 6], [8, 3, 3], [16, 3, 3]].iter().map(|s| zeros(&[2, s[0], s[1], s[2]])).collect();
    let mid = &skips[3];
    let run = |context: &Tensor, down, mid| net.forward(&x, &t, context, None, down, mid);
    assert_eq!(run(&context, Some(&skips[..]), Some(mid)).unwrap().size(), [2, 4, 5, 6]);
    refused(run(&zeros(&[1, 7, 6]), None, None), &["[1, 7, 6]"]);
    refused(run(&zeros(&[2, 7, 5]), None, None), &["[2, 7, 5]", "cross_attention_dim"]);
    refused(run(&context, Some(&skips[..3]), Some(mid)), &["3 residuals", "4 layers"]);
    refused(run(&context, Some(&skips[..]), None), &["residuals"]);
    refused(run(&context, Some(&skips[..]), Some(&skips[0])), &["[2, 8, 5, 6]", "[2, 16, 3, 3]"]);
    refused(net.forward(&x, &t, &context, Some(&t), None, None), &["not conditioned on classes"]);

    let vs = store();
    let net = ControlNetModel::new(&vs.root(), &small_controlnet()).unwrap();
    let run = |control: &[i64]| net.forward(&x, &t, &context, &zeros(control), 1.0);
    assert_eq!(run(&[2, 3, 20, 24]).unwrap().0.len(), 4);
    refused(run(&[2, 3, 5, 6]), &["5 x 6", "20 x 24"]);
    refused(run(&[1, 3, 20, 24]), &["1 control image"]);
    refused(run(&[2, 1, 20, 24]), &["control image", "(batch, 3,"]);

    let vs = store();
    let config = AutoencoderKLConfig { block_out_channels: vec![32, 32], ..AutoencoderKLConfig::default() };
    let net = AutoencoderKL::new(&vs.root(), &config).unwrap();
    refused(net.encode(&zeros(&[1, 3, 1, 8])), &["1 x 8", "at least 2"]);
    refused(net.encode(&zeros(&[1, 1, 8, 8])), &["(batch, 3,"]);
    refused(net.decode(&zeros(&[1, 3, 8, 8])), &["latents", "(batch, 4,"]);
}

#[test]
fn a_posterior_draws_what_its_noise_says() {
    let posterior = Posterior {
        mean: Tensor::from_slice(&[1f32, -2.0]).view([1, 2, 1, 1]),
        logvar: Tensor::from_slice(&[0f32, 4f32.ln()]).view([1, 2, 1, 1]),
    };
    let noise = Tensor::from_slice(&[3f32, -0.5]).view([1, 2, 1, 1]);
    let drawn: Vec<f32> = Vec::try_from(posterior.sample(&noise).unwrap().view(-1)).unwrap();
    assert!((drawn[0] - 4.0).abs() < 1e-6 && (drawn[1] + 3.0).abs() < 1e-6, "{drawn:?}");
    refused(posterior.sample(&zeros(&[1, 2])), &["[1, 2]", "[1, 2, 1, 1]"]);
}

/// A ControlNet fresh from a U-Net changes nothing, and computes on the way what the U-Net does.
#[test]
fn a_controlnet_starts_from_its_unet() {
    let (unet_vs, net_vs) = (store(), store());
    let unet = UNet2DConditionModel::new(&unet_vs.root(), &small_condition()).unwrap();
    let net = ControlNetModel::new(&net_vs.root(), &small_controlnet()).unwrap();
    init::fill(&unet_vs, 1, None);
    init::fill(&net_vs, 2, None);
    let own = net_vs.variables()["controlnet_cond_embedding.conv_in.weight"].copy();
    controlnet::copy_from_unet(&net_vs, &unet_vs).unwrap();

    let variables = net_vs.variables();
    let source = unet_vs.variables();
    let mut shared = 0;
    for (name, variable) in &variables {
        if let Some(source) = source.get(name) {
            assert_eq!(variable, source, "{name}");
            shared += 1;
        }
    }
    assert!(shared > 60, "{shared}");
    assert_eq!(variables["controlnet_cond_embedding.conv_in.weight"], own);
    assert!(net_vs.trainable_variables().len() == net_vs.len());

    let (x, context) = (Tensor::rand([1, 4, 6, 4], (Kind::Float, Device::Cpu)), zeros(&[1, 2, 6]));
    let t = Tensor::from_slice(&[10i64]);
    let control = Tensor::ones([1, 3, 24, 16], (Kind::Float, Device::Cpu));
    let (down, mid) = net.forward(&x, &t, &context, &control, 1.0).unwrap();
    for residual in down.iter().chain([&mid]) {
        assert_eq!(f64::try_from(residual.abs().max()).unwrap(), 0.0);
    }
    let plain = unet.forward(&x, &t, &context, None, None, None).unwrap();
    let steered = unet.forward(&x, &t, &context, None, Some(&down), Some(&mid)).unwrap();
    assert_eq!(plain, steered);

    // With open convolutions it lets the U-Net's own activations through.
    let mut open = variables["controlnet_down_blocks.0.weight"].shallow_clone();
    tch::no_grad(|| open.copy_(&Tensor::eye(8, (Kind::Float, Device::Cpu)).view([8, 8, 1, 1])));
    let (down, _) = net.forward(&x, &t, &context, &control, 2.0).unwrap();
    let conv_in =
        x.conv2d(&source["conv_in.weight"], Some(&source["conv_in.bias"]), [1, 1], [1, 1], [1, 1], 1);
    assert!(f64::try_from((&down[0] - conv_in * 2.0).abs().max()).unwrap() < 1e-5);

    let wider = UNet2DConditionConfig { cross_attention_dim: vec![7; 2], ..small_condition() };
    let other = store();
    UNet2DConditionModel::new(&other.root(), &wider).unwrap();
    refused(controlnet::copy_from_unet(&net_vs, &other), &["attn2.to_k.weight", "configuration"]);
    let classes = UNet2DConditionConfig { class_embed: Some(ClassEmbed::Timestep), ..small_condition() };
    refused(ControlNetConfig::from_unet(&classes), &["classes"]);
}

/// The reference's DDPM has 28.4 million parameters.
#[test]
fn parameters_are_as_many_as_published() {
    use BlockType::{Attention, Plain};
    let vs = store();
    let config = UNet2DConfig {
        in_channels: 1,
        out_channels: 1,
        block_out_channels: vec![64, 64, 128, 128, 256, 256],
        down_block_types: vec![Plain, Plain, Plain, Plain, Attention, Plain],
        up_block_types: vec![Plain, Attention, Plain, Plain, Plain, Plain],
        ..UNet2DConfig::default()
    };
    UNet2DModel::new(&vs.root(), &config).unwrap();
    let count: usize = vs.trainable_variables().iter().map(Tensor::numel).sum();
    assert_eq!((count as f64 / 1e5).round() / 10.0, 28.4);
}
