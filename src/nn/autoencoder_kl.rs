//! `AutoencoderKL`, between images and the latents of text-guided diffusion (diffusers
//! models/autoencoders/autoencoder_kl.py and vae.py, 0.42.1).
//!
//! Variable paths are diffusers': `encoder.down_blocks.0.resnets.0.norm1.weight`, `quant_conv.weight`, …

use serde_json::{Value, json};
use tch::{Tensor, nn::Path};

use super::{
    config::Config,
    diffusion::{
        config::{
            Activation, DIFFUSERS, ResampleType, check_class, check_counts, read_sample_size,
            write_sample_size,
        },
        layers::{Conv2d, GroupNorm, add, check_images},
        resnet_block::ResnetConfig,
        unet_blocks::{DownBlock, MidBlock, MixerConfig, UpBlock},
    },
};
use crate::{
    error::{Error, Result},
    vocabulary::TimeScaleShift,
};

/// The configuration of an [`AutoencoderKL`]; the fields are the keys of `config.json`. All levels are
/// `DownEncoderBlock2D` and `UpDecoderBlock2D`.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoencoderKLConfig {
    pub in_channels: i64,
    pub out_channels: i64,
    /// Channels of each level, from the top to the bottom.
    pub block_out_channels: Vec<i64>,
    pub layers_per_block: i64,
    pub act_fn: Activation,
    pub latent_channels: i64,
    pub norm_num_groups: i64,
    /// (height, width) that the network was trained at; it runs at others too.
    pub sample_size: Option<[i64; 2]>,
    /// What a pipeline multiplies latents by before diffusion, and divides by before decoding. Nothing
    /// here does.
    pub scaling_factor: f64,
    /// Whether a pipeline in half precision should run this network in f32. Nothing here does.
    pub force_upcast: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKLConfig {
    /// Upstream's defaults.
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: Some([32, 32]),
            scaling_factor: 0.18215,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

const DOWN: &str = "DownEncoderBlock2D";
const UP: &str = "UpDecoderBlock2D";

impl AutoencoderKLConfig {
    /// Reads every key of `config.json`; a missing one has upstream's default.
    ///
    /// # Errors
    /// A key is unknown, or its value is not supported (by name).
    pub fn read(config: &Config) -> Result<Self> {
        check_class(config, "AutoencoderKL")?;
        let default = Self::default();
        let block_out_channels = config.get("block_out_channels", default.block_out_channels)?;
        let levels = block_out_channels.len();
        for (key, block) in [("down_block_types", DOWN), ("up_block_types", UP)] {
            let blocks = config.get(key, vec![block.to_owned()])?;
            if blocks.iter().any(|found| found != block) || blocks.len() != levels {
                let help = format!("supported: {block:?}, as many as `block_out_channels` ({levels})");
                return Err(config.unsupported(key, &help));
            }
        }
        for key in ["shift_factor", "latents_mean", "latents_std"] {
            config.only(key, &[Value::Null])?;
        }
        let this = Self {
            in_channels: config.get("in_channels", default.in_channels)?,
            out_channels: config.get("out_channels", default.out_channels)?,
            layers_per_block: config.get("layers_per_block", default.layers_per_block)?,
            act_fn: Activation::read(config, "act_fn")?,
            latent_channels: config.get("latent_channels", default.latent_channels)?,
            norm_num_groups: config.get("norm_num_groups", default.norm_num_groups)?,
            sample_size: read_sample_size(config, Some(32))?,
            scaling_factor: config.get("scaling_factor", default.scaling_factor)?,
            force_upcast: config.get("force_upcast", true)?,
            use_quant_conv: config.get("use_quant_conv", true)?,
            use_post_quant_conv: config.get("use_post_quant_conv", true)?,
            mid_block_add_attention: config.get("mid_block_add_attention", true)?,
            block_out_channels,
        };
        config.finish()?;
        this.check().map_err(|e| e.at(config.file()))?;
        Ok(this)
    }

    /// A `config.json` that diffusers loads.
    pub fn to_json(&self) -> Value {
        let levels = self.block_out_channels.len();
        json!({
            "_class_name": "AutoencoderKL",
            "_diffusers_version": DIFFUSERS,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "down_block_types": vec![DOWN; levels],
            "up_block_types": vec![UP; levels],
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "act_fn": self.act_fn.name(),
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.norm_num_groups,
            "sample_size": write_sample_size(self.sample_size),
            "scaling_factor": self.scaling_factor,
            "shift_factor": null,
            "latents_mean": null,
            "latents_std": null,
            "force_upcast": self.force_upcast,
            "use_quant_conv": self.use_quant_conv,
            "use_post_quant_conv": self.use_post_quant_conv,
            "mid_block_add_attention": self.mid_block_add_attention,
        })
    }

    /// How many times higher and wider an image is than its latents.
    pub fn size_factor(&self) -> i64 {
        1 << self.block_out_channels.len().saturating_sub(1).min(62)
    }

    fn check(&self) -> Result<()> {
        check_counts(
            &[
                ("in_channels", &[self.in_channels]),
                ("out_channels", &[self.out_channels]),
                ("block_out_channels", &self.block_out_channels),
                ("layers_per_block", &[self.layers_per_block]),
                ("latent_channels", &[self.latent_channels]),
            ],
            self.block_out_channels.len(),
            &[],
        )
    }

    fn resnet(&self) -> ResnetConfig {
        ResnetConfig {
            temb_channels: None,
            groups: self.norm_num_groups,
            eps: EPS,
            activation: self.act_fn,
            time_scale_shift: TimeScaleShift::Default,
            output_scale_factor: 1.0,
        }
    }

    /// The lowest level, the same on both sides: one attention head for all channels.
    fn mid_block(&self, vs: &Path) -> Result<MidBlock> {
        let channels = self.block_out_channels[self.block_out_channels.len() - 1];
        let mixer = match self.mid_block_add_attention {
            true => MixerConfig::Attention { head_dim: channels, groups: Some(self.norm_num_groups) },
            false => MixerConfig::Nothing,
        };
        MidBlock::new(&(vs / "mid_block"), channels, &self.resnet(), Some(&mixer))
    }
}

/// Of all of the autoencoder's norms.
const EPS: f64 = 1e-6;

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(vs: &Path, config: &AutoencoderKLConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (count, last) = (channels.len(), channels[channels.len() - 1]);
        let resnet = config.resnet();
        let level = |i: usize| {
            DownBlock::new(
                &(vs / "down_blocks" / i),
                [channels[i.saturating_sub(1)], channels[i]],
                config.layers_per_block,
                &resnet,
                &MixerConfig::Nothing,
                (i + 1 < count).then_some((ResampleType::Conv, 0)),
            )
        };
        Ok(Self {
            conv_in: Conv2d::same(&(vs / "conv_in"), config.in_channels, channels[0])?,
            down_blocks: (0..count).map(level).collect::<Result<_>>()?,
            mid_block: config.mid_block(vs)?,
            conv_norm_out: GroupNorm::new(&(vs / "conv_norm_out"), config.norm_num_groups, last, EPS)?,
            conv_out: Conv2d::same(&(vs / "conv_out"), last, 2 * config.latent_channels)?,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let mut xs = self.conv_in.forward(xs)?;
        for block in &self.down_blocks {
            xs = block.forward(xs, None, None, None)?;
        }
        let xs = self.conv_norm_out.forward(&self.mid_block.forward(&xs, None, None)?)?;
        self.conv_out.forward(&Activation::Silu.consume(xs)?)
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(vs: &Path, config: &AutoencoderKLConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (count, first) = (channels.len(), channels[0]);
        let last = channels[count - 1];
        let resnet = config.resnet();
        let level = |i: usize| {
            let at = count - 1 - i;
            let (below, own) = (channels[(at + 1).min(count - 1)], channels[at]);
            let inputs: Vec<i64> =
                (0..=config.layers_per_block).map(|i| if i == 0 { below } else { own }).collect();
            let upsample = (at > 0).then_some(ResampleType::Conv);
            let vs = vs / "up_blocks" / i;
            UpBlock::new(&vs, &inputs, own, &resnet, &MixerConfig::Nothing, upsample)
        };
        Ok(Self {
            conv_in: Conv2d::same(&(vs / "conv_in"), config.latent_channels, last)?,
            mid_block: config.mid_block(vs)?,
            up_blocks: (0..count).map(level).collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::new(&(vs / "conv_norm_out"), config.norm_num_groups, first, EPS)?,
            conv_out: Conv2d::same(&(vs / "conv_out"), first, config.out_channels)?,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let mut xs = self.mid_block.forward(&self.conv_in.forward(xs)?, None, None)?;
        for block in &self.up_blocks {
            xs = block.forward(xs, None, None, None, false)?;
        }
        let xs = self.conv_norm_out.forward(&xs)?;
        self.conv_out.forward(&Activation::Silu.consume(xs)?)
    }
}

/// What the encoder says of an image's latents: independent normal distributions
/// (`DiagonalGaussianDistribution`). Both (batch, `latent_channels`, height, width).
#[derive(Debug)]
pub struct Posterior {
    pub mean: Tensor,
    /// Clamped to -30..20.
    pub logvar: Tensor,
}

impl Posterior {
    /// The standard deviation.
    pub fn std(&self) -> Result<Tensor> {
        Ok(self.logvar.f_mul_scalar(0.5)?.f_exp()?)
    }

    /// Latents drawn by standard normal `noise` of the mean's shape.
    ///
    /// # Errors
    /// The noise has another shape.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        if noise.size() != self.mean.size() {
            return Err(Error::input(format!(
                "noise of the shape {:?} for latents of {:?}",
                noise.size(),
                self.mean.size()
            )));
        }
        add(self.std()?.f_mul(noise)?, &self.mean)
    }

    /// The most likely latents.
    pub fn mode(&self) -> Tensor {
        self.mean.shallow_clone()
    }
}

/// An encoder of images and a decoder of latents.
#[derive(Debug)]
pub struct AutoencoderKL {
    config: AutoencoderKLConfig,
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
}

impl AutoencoderKL {
    /// # Errors
    /// Channels and groups do not go together.
    pub fn new(vs: &Path, config: &AutoencoderKLConfig) -> Result<Self> {
        config.check()?;
        let conv = |name: &str, channels: i64| Conv2d::new(&(vs / name), channels, channels, 1, 1, 0);
        let latent = config.latent_channels;
        Ok(Self {
            config: config.clone(),
            encoder: Encoder::new(&(vs / "encoder"), config)?,
            decoder: Decoder::new(&(vs / "decoder"), config)?,
            quant_conv: config.use_quant_conv.then(|| conv("quant_conv", 2 * latent)).transpose()?,
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| conv("post_quant_conv", latent))
                .transpose()?,
        })
    }

    pub fn config(&self) -> &AutoencoderKLConfig {
        &self.config
    }

    /// Images (batch, `in_channels`, height, width) in -1..1 to latents of a
    /// [`AutoencoderKLConfig::size_factor`]th of the height and width, rounded down.
    ///
    /// # Errors
    /// The shape does not fit the network.
    pub fn encode(&self, images: &Tensor) -> Result<Posterior> {
        let [_, _, height, width] = check_images(images, self.config.in_channels, "the image")?;
        let factor = self.config.size_factor();
        if height < factor || width < factor {
            return Err(Error::input(format!("an image of {height} x {width} has no latents"))
                .help(format!("height and width must be at least {factor}")));
        }
        let mut moments = self.encoder.forward(images)?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        let latent = self.config.latent_channels;
        Ok(Posterior {
            mean: moments.f_narrow(1, 0, latent)?,
            logvar: moments.f_narrow(1, latent, latent)?.f_clamp(-30.0, 20.0)?,
        })
    }

    /// Latents (batch, `latent_channels`, height, width), not scaled by `scaling_factor`, to images
    /// (batch, `out_channels`) of [`AutoencoderKLConfig::size_factor`] times the height and width.
    ///
    /// # Errors
    /// The shape does not fit the network.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        check_images(latents, self.config.latent_channels, "the latents")?;
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)?),
            None => self.decoder.forward(latents),
        }
    }
}
