//! A folder's networks, loaded.

use tch::nn::VarStore;

use super::{
    PipelineSource,
    folder::{PipelineFolder, PipelinePart},
    space::{self, Extras, Space},
};
use crate::{
    error::{Error, Result},
    nn::{
        autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig},
        clip_text::{ClipTextConfig, ClipTextModel},
        config::Config,
        controlnet::{ControlNetConfig, ControlNetModel},
        tokenizer::ClipTokenizer,
        unet2d::{UNet2DConfig, UNet2DModel},
        unet2d_condition::{UNet2DConditionConfig, UNet2DConditionModel},
        weights,
    },
};

/// From where networks are loaded, and how much of them.
pub(super) struct Loading<'a> {
    pub source: &'a PipelineSource<'a>,
    /// Weights are compared with the networks by the headers of their files, and not read.
    pub headers_only: bool,
}

pub(super) enum PipelineNetworks {
    Unconditional(Box<UnconditionalNetworks>),
    Latent(Box<LatentNetworks>),
}

impl PipelineNetworks {
    /// Where they denoise.
    pub fn space(&self) -> &Space {
        match self {
            Self::Unconditional(networks) => &networks.space,
            Self::Latent(networks) => &networks.space,
        }
    }
}

pub(super) struct UnconditionalNetworks {
    pub unet: UNet2DModel,
    pub space: Space,
    /// The class label that means none.
    pub no_class: Option<i64>,
}

impl UnconditionalNetworks {
    pub fn load(folder: &PipelineFolder, loading: &Loading, extras: &Extras) -> Result<Self> {
        folder.only_parts(&["unet", "scheduler"])?;
        let part = folder.part("unet")?;
        let unet = load(part, loading, UNet2DConfig::read, UNet2DModel::new)?;
        let space = match extras.latent(false) {
            false => extras.space(),
            // Its pipeline knows no autoencoder: the index does not name it.
            true => autoencoder(&PipelinePart::open(&folder.dir().join("vae"))?, loading)?,
        };
        check_picture_channels(space.image_channels(unet.config().out_channels), part)?;
        let no_class = extras.no_class(unet.config().class_embed);
        Ok(Self { unet, space, no_class })
    }

    /// What height and width of an image are multiples of.
    pub fn size_factor(&self) -> i64 {
        self.unet.config().size_factor() * self.space.factor()
    }
}

pub(super) struct LatentNetworks {
    pub tokenizer: ClipTokenizer,
    pub text_encoder: ClipTextModel,
    pub unet: UNet2DConditionModel,
    pub space: Space,
    pub controlnet: Option<ControlNetModel>,
    /// Whether the U-Net takes the mask as further channels.
    pub mask_channels: bool,
    /// Whether the mask comes with the ultrasound sector.
    pub sector: bool,
    /// Whether guidance leads away from images without the mask's structures.
    pub drops_masks: bool,
    /// Share of the blurred mask in what sampling begins with.
    pub mask_start: Option<f64>,
}

impl LatentNetworks {
    /// `controlled`: with a ControlNet, the source's or the folder's own.
    pub fn load(
        folder: &PipelineFolder,
        loading: &Loading,
        controlled: bool,
        extras: &Extras,
    ) -> Result<Self> {
        folder.only_parts(&["vae", "text_encoder", "tokenizer", "unet", "scheduler", "controlnet"])?;
        let of_its_own;
        let controlnet = match (controlled, loading.source.controlnet) {
            (false, _) => None,
            (true, None) => Some(folder.part("controlnet")?),
            (true, Some(dir)) => {
                of_its_own = PipelinePart::open(dir)?;
                Some(&of_its_own)
            }
        };
        let controlnet = match controlnet {
            Some(part) => {
                part.expect_class(&["ControlNetModel"])?;
                Some(load(part, loading, ControlNetConfig::read, ControlNetModel::new)?)
            }
            None => None,
        };
        let part = |name: &str, class: &str| -> Result<&PipelinePart> {
            let part = folder.part(name)?;
            part.expect_class(&[class])?;
            Ok(part)
        };
        let tokenizer = folder.part("tokenizer")?;
        tokenizer.expect_class(&["CLIPTokenizer", "CLIPTokenizerFast"])?;
        let space = match extras.latent(true) {
            false => extras.space(),
            true => autoencoder(part("vae", "AutoencoderKL")?, loading)?,
        };
        let latent = Self {
            tokenizer: ClipTokenizer::read(tokenizer.dir())?,
            text_encoder: load(
                part("text_encoder", "CLIPTextModel")?,
                loading,
                ClipTextConfig::read,
                ClipTextModel::new,
            )?,
            unet: load(
                part("unet", "UNet2DConditionModel")?,
                loading,
                UNet2DConditionConfig::read,
                UNet2DConditionModel::new,
            )?,
            space,
            controlnet,
            mask_channels: extras.mask_channels,
            sector: extras.sector,
            drops_masks: extras.drops_masks,
            mask_start: extras.mask_start,
        };
        let unet = latent.unet.config();
        check_picture_channels(latent.space.image_channels(unet.out_channels), folder.part("unet")?)?;
        let mask = match latent.mask_channels {
            true => space::mask_channels(latent.scale(), latent.sector),
            false => 0,
        };
        let ours = latent.space.latent_channels().unwrap_or(unet.out_channels) + mask;
        if ours != unet.in_channels {
            return Err(Error::input(format!(
                "there are {ours} channels to denoise and to be seen, the U-Net takes {}",
                unet.in_channels
            ))
            .at(folder.dir())
            .help("an inpainting or image-to-image model cannot be sampled from only a text"));
        }
        Ok(latent)
    }

    /// Pixels along a latent pixel's side.
    pub fn scale(&self) -> i64 {
        self.space.factor()
    }
}

fn autoencoder(part: &PipelinePart, loading: &Loading) -> Result<Space> {
    Ok(Space::Latent(Box::new(load(part, loading, AutoencoderKLConfig::read, AutoencoderKL::new)?)))
}

/// Builds a part's network in the numeric type and on the device asked for, and loads its weights.
fn load<C, N>(
    part: &PipelinePart,
    loading: &Loading,
    read: impl Fn(&Config) -> Result<C>,
    new: impl Fn(&tch::nn::Path, &C) -> Result<N>,
) -> Result<N> {
    let config = read(&part.config()?)?;
    let source = loading.source;
    let mut vs = if loading.headers_only { weights::shapes_only() } else { VarStore::new(source.device) };
    let network = new(&vs.root(), &config).map_err(|e| e.at(part.dir()))?;
    if loading.headers_only {
        part.check_weights(&vs, source.variant)?;
        return Ok(network);
    }
    vs.set_kind(source.kind);
    part.load_weights(&vs, source.variant)?;
    vs.freeze();
    Ok(network)
}

/// PNG files hold grey or colour.
fn check_picture_channels(channels: i64, part: &PipelinePart) -> Result<()> {
    match channels {
        1 | 3 => Ok(()),
        _ => Err(Error::input(format!("images of {channels} channels cannot be written as PNG"))
            .at(part.dir())
            .help("networks with 1 or 3 output channels can be sampled")),
    }
}
