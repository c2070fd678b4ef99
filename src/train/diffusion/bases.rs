//! What training starts from: a folder's networks and space, or new ones by the settings.

use std::path::Path;

use tch::{Kind, nn::VarStore};

use super::{inputs::NetworkInputs, texts::Texts};
use crate::{
    error::{Error, Result},
    experiment::{Generator, GeneratorNetworks, ImageSpace},
    nn::{
        autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig},
        clip_text::{ClipTextConfig, ClipTextModel},
        diffusion::config::{BlockType, TimeEmbedding},
        schedulers::SchedulerConfig,
        tokenizer::ClipTokenizer,
        unet2d_condition::UNet2DConditionConfig,
    },
    pipeline::{
        folder::{PipelineFolder, PipelinePart},
        space::{Extras, Space},
    },
    vocabulary::Mode,
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
    pub fn open(dir: &Path, inputs: &NetworkInputs) -> Result<Self> {
        let folder = open_base_of(dir, Mode::Text)?;
        let unet = UNet2DConditionConfig::read(&folder.part("unet")?.config()?)?;
        check_trainable(unet.dropout, unet.time_embedding_type)?;
        let part = folder.part("text_encoder")?;
        let mut vs = VarStore::new(inputs.device);
        let encoder = ClipTextModel::new(&vs.root(), &ClipTextConfig::read(&part.config()?)?)?;
        part.load_weights(&vs, None)?;
        freeze(&mut vs, inputs.kind);
        let tokenizer = ClipTokenizer::read(folder.part("tokenizer")?.dir())?;
        let texts = Texts::new(&encoder, &tokenizer, inputs)?;
        let (extras, space) = base_space(&folder, true, inputs)?;
        if extras.mask_channels {
            return Err(Error::input("the base takes masks already: it is no text model")
                .at(dir)
                .help("start from a text model"));
        }
        let scheduler = SchedulerConfig::read(&folder.part("scheduler")?.config()?)?;
        Ok(Self { folder, unet, texts, extras, space, scheduler, frozen: vec![vs] })
    }
}

const TEXT_CLASSES: &[&str] = &["StableDiffusionPipeline"];
const UNCONDITIONAL_CLASSES: &[&str] = &["DDPMPipeline", "DDIMPipeline"];

/// Opens a folder that a training in this mode starts from.
///
/// # Errors
/// The folder is not a pipeline's, or one of another class.
pub fn open_base_of(dir: &Path, mode: Mode) -> Result<PipelineFolder> {
    match mode {
        Mode::Unconditional => open_base(dir, UNCONDITIONAL_CLASSES, "an unconditional model"),
        _ => open_base(dir, TEXT_CLASSES, "a text model (Stable Diffusion)"),
    }
}

fn open_base(dir: &Path, classes: &[&str], what: &str) -> Result<PipelineFolder> {
    let folder = PipelineFolder::open(dir)?;
    match classes.contains(&folder.class()) {
        true => Ok(folder),
        false => Err(Error::input(format!("the base is a {}", folder.class()))
            .at(dir)
            .help(format!("this mode starts from {what}: {}", classes.join(" or ")))),
    }
}

pub(super) fn base_space(
    folder: &PipelineFolder,
    text: bool,
    inputs: &NetworkInputs,
) -> Result<(Extras, Space)> {
    let extras = Extras::read(folder.dir())?;
    if !extras.latent(text) {
        let space = extras.space();
        return Ok((extras, space));
    }
    let part = match text {
        true => folder.part("vae")?.clone(),
        false => PipelinePart::open(&folder.dir().join("vae"))?,
    };
    Ok((extras, load_autoencoder(&part, inputs)?))
}

fn load_autoencoder(part: &PipelinePart, inputs: &NetworkInputs) -> Result<Space> {
    let mut vs = VarStore::new(inputs.device);
    let vae = AutoencoderKL::new(&vs.root(), &AutoencoderKLConfig::read(&part.config()?)?)?;
    part.load_weights(&vs, None)?;
    freeze(&mut vs, Kind::Float);
    Ok(Space::Latent(Box::new(vae)))
}

/// The space of a model from scratch.
pub(super) fn new_space(inputs: &NetworkInputs) -> Result<(Extras, Space)> {
    let patch = match inputs.settings.networks.image_space {
        ImageSpace::Pixel => 1,
        ImageSpace::SpaceToDepth => inputs.settings.networks.patch as i64,
        ImageSpace::Latent => {
            let dir = inputs.autoencoder.ok_or_else(|| Error::failure("the autoencoder is missing"))?;
            let extras = Extras {
                unconditional_latent: inputs.settings.mode == Mode::Unconditional,
                ..Extras::default()
            };
            return Ok((extras, load_autoencoder(&PipelinePart::open(dir)?, inputs)?));
        }
    };
    Ok((Extras { space_to_depth: Some(patch), ..Extras::default() }, Space::Pixels { patch }))
}

/// Channels and side of what a model from scratch denoises: the images are grey.
pub(super) fn new_latent(inputs: &NetworkInputs, space: &Space) -> (i64, i64) {
    let fold = space.factor();
    (space.latent_channels().unwrap_or(fold * fold), inputs.settings.image_size as i64 / fold)
}

pub(super) fn latent_of(channels: i64, settings: &Generator, space: &Space) -> [i64; 3] {
    let side = settings.image_size as i64 / space.factor();
    [channels, side, side]
}

/// The blocks of a U-Net from scratch, from top to bottom, or for its way up from bottom to top.
pub(super) fn blocks(networks: &GeneratorNetworks, attending: BlockType, up: bool) -> Vec<BlockType> {
    let of = |level: usize| match networks.attention_levels.contains(&level) {
        true => attending,
        false => BlockType::Plain,
    };
    let levels = networks.channels.len();
    (0..levels).map(|i| of(if up { levels - 1 - i } else { i })).collect()
}

/// The U-Net of a text model from scratch, with these numbers of channels in and out.
pub(super) fn text_unet(
    settings: &Generator,
    space: &Space,
    [channels_in, channels_out]: [i64; 2],
) -> UNet2DConditionConfig {
    let networks = &settings.networks;
    let levels = networks.channels.len();
    let side = settings.image_size as i64 / space.factor();
    let heads = |channels: &i64| (channels / networks.attention_head_dim).max(1);
    UNet2DConditionConfig {
        sample_size: Some([side, side]),
        in_channels: channels_in,
        out_channels: channels_out,
        down_block_types: blocks(networks, BlockType::CrossAttention, false),
        up_block_types: blocks(networks, BlockType::CrossAttention, true),
        block_out_channels: networks.channels.clone(),
        layers_per_block: vec![networks.layers_per_block; levels],
        norm_num_groups: networks.norm_num_groups,
        resnet_time_scale_shift: networks.resnet_time_scale_shift,
        cross_attention_dim: vec![networks.text_width; levels],
        transformer_layers_per_block: vec![1; levels],
        attention_heads: networks.channels.iter().map(heads).collect(),
        // With attention only at the lowest levels, a small network takes long to find the words of its prompts:
        // every block also gets the whole text.
        text_embed_heads: Some(networks.text_heads),
        ..UNet2DConditionConfig::default()
    }
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
