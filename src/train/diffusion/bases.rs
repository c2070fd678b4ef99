//! What training starts from: a folder's networks, space and scheduler, or new ones by the settings.

use std::path::Path;

use serde_json::json;
use tch::{Kind, nn::VarStore};

use super::{networks::Making, texts::Texts};
use crate::{
    error::{Error, Result},
    experiment::{Generator, ImageSpace},
    nn::{
        autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig},
        clip_text::{ClipTextConfig, ClipTextModel},
        config::Config,
        diffusion::config::{BlockType, TimeEmbedding},
        schedulers::SchedulerConfig,
        tokenizer::ClipTokenizer,
        unet2d_condition::UNet2DConditionConfig,
    },
    pipeline::{
        folder::{Part, PipelineFolder},
        space::{Extras, Space},
    },
    vocabulary::{Betas, Mode, Prediction},
};

/// What a text pipeline's folder gives to a training that starts from it.
pub(super) struct TextBase {
    pub folder: PipelineFolder,
    pub unet: UNet2DConditionConfig,
    pub texts: Texts,
    pub extras: Extras,
    pub space: Space,
    pub scheduler: SchedulerConfig,
    pub frozen: Vec<VarStore>,
}

impl TextBase {
    pub fn open(dir: &Path, m: &Making) -> Result<Self> {
        let folder = open_base(dir, &["StableDiffusionPipeline"], "a text model (Stable Diffusion)")?;
        let unet = UNet2DConditionConfig::read(&folder.part("unet")?.config()?)?;
        check_trainable(unet.dropout, unet.time_embedding_type)?;
        let part = folder.part("text_encoder")?;
        let mut vs = VarStore::new(m.device);
        let encoder = ClipTextModel::new(&vs.root(), &ClipTextConfig::read(&part.config()?)?)?;
        part.load_weights(&vs, None)?;
        freeze(&mut vs, m.kind);
        let tokenizer = ClipTokenizer::read(folder.part("tokenizer")?.dir())?;
        let texts = Texts::new(&encoder, &tokenizer, m)?;
        let (extras, space) = base_space(&folder, true, m)?;
        if extras.mask_channels {
            return Err(Error::input("the base takes masks already: it is no text model")
                .at(dir)
                .help("start from a text model"));
        }
        let scheduler = SchedulerConfig::read(&folder.part("scheduler")?.config()?)?;
        Ok(Self { folder, unet, texts, extras, space, scheduler, frozen: vec![vs] })
    }
}

pub(super) fn open_base(dir: &Path, classes: &[&str], what: &str) -> Result<PipelineFolder> {
    let folder = PipelineFolder::open(dir)?;
    match classes.contains(&folder.class()) {
        true => Ok(folder),
        false => Err(Error::input(format!("the base is a {}", folder.class()))
            .at(dir)
            .help(format!("this mode starts from {what}: {}", classes.join(" or ")))),
    }
}

pub(super) fn base_space(folder: &PipelineFolder, text: bool, m: &Making) -> Result<(Extras, Space)> {
    let extras = Extras::read(folder.dir())?;
    if !extras.latent(text) {
        let space = extras.space();
        return Ok((extras, space));
    }
    let part = match text {
        true => folder.part("vae")?.clone(),
        false => Part::open(&folder.dir().join("vae"))?,
    };
    Ok((extras, load_autoencoder(&part, m)?))
}

fn load_autoencoder(part: &Part, m: &Making) -> Result<Space> {
    let mut vs = VarStore::new(m.device);
    let vae = AutoencoderKL::new(&vs.root(), &AutoencoderKLConfig::read(&part.config()?)?)?;
    part.load_weights(&vs, None)?;
    freeze(&mut vs, Kind::Float);
    Ok(Space::Latent(Box::new(vae)))
}

/// The space of a model from scratch.
pub(super) fn new_space(m: &Making) -> Result<(Extras, Space)> {
    let patch = match m.settings.networks.image_space {
        ImageSpace::Pixel => 1,
        ImageSpace::SpaceToDepth => m.settings.networks.patch as i64,
        ImageSpace::Latent => {
            let dir = m.autoencoder.ok_or_else(|| Error::failure("the autoencoder is missing"))?;
            let extras =
                Extras { unconditional_latent: m.settings.mode == Mode::Unconditional, ..Extras::default() };
            return Ok((extras, load_autoencoder(&Part::open(dir)?, m)?));
        }
    };
    Ok((Extras { space_to_depth: Some(patch), ..Extras::default() }, Space::Pixels { patch }))
}

/// Channels and side of what a model from scratch denoises: the images are grey.
pub(super) fn new_latent(m: &Making, space: &Space) -> (i64, i64) {
    let fold = space.factor();
    (space.latent_channels().unwrap_or(fold * fold), m.settings.image_size as i64 / fold)
}

pub(super) fn latent_of(channels: i64, settings: &Generator, space: &Space) -> [i64; 3] {
    let side = settings.image_size as i64 / space.factor();
    [channels, side, side]
}

pub(super) fn blocks(settings: &Generator, attending: BlockType, up: bool) -> Vec<BlockType> {
    let of = |level: usize| match settings.networks.attention_levels.contains(&level) {
        true => attending,
        false => BlockType::Plain,
    };
    let levels = settings.networks.channels.len();
    (0..levels).map(|i| of(if up { levels - 1 - i } else { i })).collect()
}

pub(super) fn text_unet(m: &Making, space: &Space, inputs: i64, outputs: i64) -> UNet2DConditionConfig {
    let (settings, levels) = (m.settings, m.settings.networks.channels.len());
    let side = settings.image_size as i64 / space.factor();
    let heads = |channels: &i64| (channels / settings.networks.attention_head_dim).max(1);
    UNet2DConditionConfig {
        sample_size: Some([side, side]),
        in_channels: inputs,
        out_channels: outputs,
        down_block_types: blocks(settings, BlockType::CrossAttention, false),
        up_block_types: blocks(settings, BlockType::CrossAttention, true),
        block_out_channels: settings.networks.channels.clone(),
        layers_per_block: vec![settings.networks.layers_per_block; levels],
        norm_num_groups: settings.networks.norm_num_groups,
        resnet_time_scale_shift: settings.networks.resnet_time_scale_shift,
        cross_attention_dim: vec![settings.networks.text_width; levels],
        transformer_layers_per_block: vec![1; levels],
        attention_heads: settings.networks.channels.iter().map(heads).collect(),
        // Attention at the lowest levels alone takes long to find the words of a small network's prompts:
        // the whole text is told to every block as well.
        text_embed_heads: Some(settings.networks.text_heads),
        ..UNet2DConditionConfig::default()
    }
}

/// The noise of a model from scratch, as DDIM's configuration: sampling may choose another scheduler.
pub(super) fn new_scheduler(settings: &Generator) -> Result<SchedulerConfig> {
    let (betas, start, end) = match settings.training.betas {
        Betas::Linear => ("linear", 1e-4, 0.02),
        Betas::ScaledLinear => ("scaled_linear", 0.00085, 0.012),
        Betas::SquaredcosCapV2 => ("squaredcos_cap_v2", 1e-4, 0.02),
    };
    let pixels = settings.networks.image_space != ImageSpace::Latent;
    let value = json!({
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": betas,
        "beta_start": start,
        "beta_end": end,
        "prediction_type": match settings.training.prediction {
            Prediction::Epsilon => "epsilon",
            Prediction::VPrediction => "v_prediction",
        },
        // Pixels have a range, latents have none; and diffusers' text pipeline turns clipping off.
        "clip_sample": pixels && settings.mode == Mode::Unconditional,
        "set_alpha_to_one": true,
        "steps_offset": i64::from(settings.mode != Mode::Unconditional),
        "timestep_spacing": "trailing",
    });
    SchedulerConfig::read(&Config::parse(&value.to_string(), Path::new("scheduler"))?)
}

/// What can be read but is not trained with.
pub(super) fn check_trainable(dropout: f64, time: TimeEmbedding) -> Result<()> {
    if dropout > 0.0 {
        return Err(Error::input("networks with dropout are not trained here")
            .help("set `dropout` to 0 in the base's unet/config.json"));
    }
    match time {
        TimeEmbedding::Positional => Ok(()),
        TimeEmbedding::Fourier => {
            Err(Error::input("networks with Fourier features of time are not trained here")
                .help("start from a model with `time_embedding_type` positional"))
        }
    }
}

pub(super) fn freeze(vs: &mut VarStore, kind: Kind) {
    vs.set_kind(kind);
    vs.freeze();
}
