//! `UNet2DModel`, the network of unconditional diffusion (diffusers models/unets/unet_2d.py, 0.42.1).
//!
//! Variable paths are diffusers': `conv_in.weight`, `down_blocks.0.resnets.0.norm1.weight`, …

use serde_json::{Value, json};
use tch::{Tensor, nn::Path};

use super::{
    config::Config,
    diffusion::{
        config::{
            Activation, BlockType, ClassEmbed, DIFFUSERS, ResampleType, TimeEmbedding, check_class,
            check_counts, check_padding, number, read_sample_size, write_sample_size,
        },
        layers::{Conv2d, GroupNorm, add, check_images},
        resnet_block::ResnetConfig,
        time_embedding::{ClassEmbedding, TimeProjection, TimestepEmbedding, batch_timesteps},
        unet_blocks::{DownBlock, MidBlock, MixerConfig, UpBlock, up_inputs},
    },
};
use crate::{
    error::{Error, Result},
    vocabulary::TimeScaleShift,
};

/// The configuration of a [`UNet2DModel`]; the fields are the keys of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct UNet2DConfig {
    /// (height, width) that the network was trained at, if it says.
    pub sample_size: Option<[i64; 2]>,
    pub in_channels: i64,
    pub out_channels: i64,
    /// Whether samples in 0..1 are brought to -1..1 first.
    pub center_input_sample: bool,
    pub time_embedding_type: TimeEmbedding,
    /// Channels of the time embedding; four times the first of `block_out_channels` where not given.
    pub time_embedding_dim: Option<i64>,
    pub freq_shift: f64,
    pub flip_sin_to_cos: bool,
    pub down_block_types: Vec<BlockType>,
    /// Whether there is a lowest level (`UNetMidBlock2D`).
    pub mid_block: bool,
    pub up_block_types: Vec<BlockType>,
    /// Channels of each level, from the top to the bottom.
    pub block_out_channels: Vec<i64>,
    pub layers_per_block: i64,
    pub mid_block_scale_factor: f64,
    pub downsample_padding: i64,
    /// Of the levels with attention; the others have their own.
    pub downsample_type: ResampleType,
    pub upsample_type: ResampleType,
    /// What upstream drops in training. Nothing is dropped here.
    pub dropout: f64,
    pub act_fn: Activation,
    /// Channels of a head; one head for all channels where not given.
    pub attention_head_dim: Option<i64>,
    pub norm_num_groups: i64,
    /// Groups of the norm before the lowest level's attention; where not given, there is such a norm
    /// with `norm_num_groups` only if `resnet_time_scale_shift` is `default`.
    pub attn_norm_num_groups: Option<i64>,
    pub norm_eps: f64,
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Whether the lowest level has attention.
    pub add_attention: bool,
    pub class_embed: Option<ClassEmbed>,
}

impl Default for UNet2DConfig {
    /// Upstream's defaults.
    fn default() -> Self {
        use BlockType::{Attention, Plain};
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: vec![Plain, Attention, Attention, Attention],
            mid_block: true,
            up_block_types: vec![Attention, Attention, Attention, Plain],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: ResampleType::Conv,
            upsample_type: ResampleType::Conv,
            dropout: 0.0,
            act_fn: Activation::Silu,
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
            class_embed: None,
        }
    }
}

const BLOCKS: [BlockType; 3] = [BlockType::Plain, BlockType::Resnet, BlockType::Attention];

impl UNet2DConfig {
    /// Reads every key of `config.json`; a missing one has upstream's default.
    ///
    /// # Errors
    /// A key is unknown, or its value is not supported (by name).
    pub fn read(config: &Config) -> Result<Self> {
        check_class(config, "UNet2DModel")?;
        let default = Self::default();
        // Only a learned embedding of timesteps, which is not supported, needs their number.
        config.ignore(&["num_train_timesteps"]);
        let mid_block = "UNetMidBlock2D";
        config.only("mid_block_type", &[json!(mid_block), Value::Null])?;
        let this = Self {
            sample_size: read_sample_size(config, None)?,
            in_channels: config.get("in_channels", default.in_channels)?,
            out_channels: config.get("out_channels", default.out_channels)?,
            center_input_sample: config.get("center_input_sample", false)?,
            time_embedding_type: TimeEmbedding::read(config)?,
            time_embedding_dim: config.get("time_embedding_dim", None)?,
            freq_shift: config.get("freq_shift", default.freq_shift)?,
            flip_sin_to_cos: config.get("flip_sin_to_cos", default.flip_sin_to_cos)?,
            down_block_types: BlockType::read(
                config,
                "down_block_types",
                &default.down_block_types,
                &BLOCKS,
            )?,
            mid_block: config.get("mid_block_type", Some(mid_block.to_owned()))?.is_some(),
            up_block_types: BlockType::read(config, "up_block_types", &default.up_block_types, &BLOCKS)?,
            block_out_channels: config.get("block_out_channels", default.block_out_channels)?,
            layers_per_block: config.get("layers_per_block", default.layers_per_block)?,
            mid_block_scale_factor: config.get("mid_block_scale_factor", 1.0)?,
            downsample_padding: config.get("downsample_padding", default.downsample_padding)?,
            downsample_type: ResampleType::read(config, "downsample_type")?,
            upsample_type: ResampleType::read(config, "upsample_type")?,
            dropout: config.get("dropout", default.dropout)?,
            act_fn: Activation::read(config, "act_fn")?,
            attention_head_dim: config.get("attention_head_dim", default.attention_head_dim)?,
            norm_num_groups: config.get("norm_num_groups", default.norm_num_groups)?,
            attn_norm_num_groups: config.get("attn_norm_num_groups", None)?,
            norm_eps: config.get("norm_eps", default.norm_eps)?,
            resnet_time_scale_shift: TimeScaleShift::read(config)?,
            add_attention: config.get("add_attention", true)?,
            class_embed: ClassEmbed::read(config, false)?,
        };
        config.finish()?;
        this.check().map_err(|e| e.at(config.file()))?;
        Ok(this)
    }

    /// A `config.json` that diffusers loads.
    pub fn to_json(&self) -> Value {
        let [class_embed_type, num_class_embeds, _] = ClassEmbed::values(self.class_embed);
        json!({
            "_class_name": "UNet2DModel",
            "_diffusers_version": DIFFUSERS,
            "sample_size": write_sample_size(self.sample_size),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "center_input_sample": self.center_input_sample,
            "time_embedding_type": self.time_embedding_type.name(),
            "time_embedding_dim": self.time_embedding_dim,
            "freq_shift": number(self.freq_shift),
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "down_block_types": BlockType::down_names(&self.down_block_types),
            "mid_block_type": self.mid_block.then_some("UNetMidBlock2D"),
            "up_block_types": BlockType::up_names(&self.up_block_types),
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "mid_block_scale_factor": number(self.mid_block_scale_factor),
            "downsample_padding": self.downsample_padding,
            "downsample_type": self.downsample_type.name(),
            "upsample_type": self.upsample_type.name(),
            "dropout": self.dropout,
            "act_fn": self.act_fn.name(),
            "attention_head_dim": self.attention_head_dim,
            "norm_num_groups": self.norm_num_groups,
            "attn_norm_num_groups": self.attn_norm_num_groups,
            "norm_eps": self.norm_eps,
            "resnet_time_scale_shift": self.resnet_time_scale_shift.as_str(),
            "add_attention": self.add_attention,
            "class_embed_type": class_embed_type,
            "num_class_embeds": num_class_embeds,
            "num_train_timesteps": null,
        })
    }

    /// What height and width must be a multiple of, for the skips to fit.
    pub fn size_factor(&self) -> i64 {
        1 << self.block_out_channels.len().saturating_sub(1).min(62)
    }

    fn check(&self) -> Result<()> {
        let class_counts = match self.class_embed {
            Some(ClassEmbed::Table { classes }) => classes,
            Some(ClassEmbed::Projection { .. } | ClassEmbed::SimpleProjection { .. }) => {
                return Err(Error::input("a UNet2DModel has no projected class embedding"));
            }
            _ => 1,
        };
        check_counts(
            &[
                ("in_channels", &[self.in_channels]),
                ("out_channels", &[self.out_channels]),
                ("block_out_channels", &self.block_out_channels),
                ("layers_per_block", &[self.layers_per_block]),
                ("num_class_embeds", &[class_counts]),
                ("time_embedding_dim", &[self.time_embedding_dim.unwrap_or(1)]),
            ],
            self.block_out_channels.len(),
            &[
                ("down_block_types", self.down_block_types.len()),
                ("up_block_types", self.up_block_types.len()),
            ],
        )?;
        check_padding(self.downsample_padding)
    }
}

/// A U-Net over images and timesteps.
#[derive(Debug)]
pub struct UNet2DModel {
    config: UNet2DConfig,
    conv_in: Conv2d,
    time_proj: TimeProjection,
    time_embedding: TimestepEmbedding,
    class_embedding: Option<ClassEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2DModel {
    /// # Errors
    /// Channels, groups, heads or levels do not go together.
    pub fn new(vs: &Path, config: &UNet2DConfig) -> Result<Self> {
        config.check()?;
        let channels = &config.block_out_channels;
        let levels = channels.len();
        let (first, last) = (channels[0], channels[levels - 1]);
        let time_channels = config.time_embedding_dim.unwrap_or(4 * first);
        let resnet = ResnetConfig {
            temb_channels: Some(time_channels),
            groups: config.norm_num_groups,
            eps: config.norm_eps,
            activation: config.act_fn,
            time_scale_shift: config.resnet_time_scale_shift,
            output_scale_factor: 1.0,
        };
        let mixer = |block: BlockType, channels: i64| match block {
            BlockType::Attention => MixerConfig::Attention {
                head_dim: config.attention_head_dim.unwrap_or(channels),
                groups: Some(config.norm_num_groups),
            },
            _ => MixerConfig::Nothing,
        };
        let resample = |block: BlockType, attention: ResampleType| match block {
            BlockType::Attention => attention,
            BlockType::Resnet => ResampleType::Resnet,
            _ => ResampleType::Conv,
        };
        let time_inputs = match config.time_embedding_type {
            TimeEmbedding::Positional => first,
            TimeEmbedding::Fourier => 2 * first,
        };

        let conv_in = Conv2d::same(&(vs / "conv_in"), config.in_channels, first)?;
        let time_proj = match config.time_embedding_type {
            TimeEmbedding::Positional => TimeProjection::Positional {
                channels: first,
                flip_sin_to_cos: config.flip_sin_to_cos,
                freq_shift: config.freq_shift,
            },
            TimeEmbedding::Fourier => TimeProjection::fourier(&(vs / "time_proj"), first, true, false)?,
        };
        let silu = Activation::Silu;
        let time_embedding =
            TimestepEmbedding::new(&(vs / "time_embedding"), time_inputs, time_channels, silu)?;
        let class_embedding = config
            .class_embed
            .map(|kind| {
                ClassEmbedding::new(&(vs / "class_embedding"), kind, time_inputs, time_channels, silu)
            })
            .transpose()?;

        let mut down_blocks = Vec::new();
        for (i, &block) in config.down_block_types.iter().enumerate() {
            let cout = channels[i];
            let downsample = (i + 1 < levels)
                .then(|| (resample(block, config.downsample_type), config.downsample_padding));
            down_blocks.push(DownBlock::new(
                &(vs / "down_blocks" / i),
                [channels[i.saturating_sub(1)], cout],
                config.layers_per_block,
                &resnet,
                &mixer(block, cout),
                downsample,
            )?);
        }

        let mid_block = match config.mid_block {
            false => None,
            true => {
                let resnet = ResnetConfig { output_scale_factor: config.mid_block_scale_factor, ..resnet };
                let norm = (config.resnet_time_scale_shift == TimeScaleShift::Default)
                    .then_some(config.norm_num_groups);
                let mixer = match config.add_attention {
                    true => MixerConfig::Attention {
                        head_dim: config.attention_head_dim.unwrap_or(last),
                        groups: config.attn_norm_num_groups.or(norm),
                    },
                    false => MixerConfig::Nothing,
                };
                Some(MidBlock::new(&(vs / "mid_block"), last, &resnet, Some(&mixer))?)
            }
        };

        let mut up_blocks = Vec::new();
        for (i, &block) in config.up_block_types.iter().enumerate() {
            let level = levels - 1 - i;
            let cout = channels[level];
            let below = channels[(level + 1).min(levels - 1)];
            let above = channels[level.saturating_sub(1)];
            let inputs = up_inputs(config.layers_per_block + 1, below, cout, above);
            let upsample = (level > 0).then(|| resample(block, config.upsample_type));
            let vs = vs / "up_blocks" / i;
            up_blocks.push(UpBlock::new(&vs, &inputs, cout, &resnet, &mixer(block, cout), upsample)?);
        }

        Ok(Self {
            config: config.clone(),
            conv_in,
            time_proj,
            time_embedding,
            class_embedding,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(
                &(vs / "conv_norm_out"),
                config.norm_num_groups,
                first,
                config.norm_eps,
            )?,
            conv_out: Conv2d::same(&(vs / "conv_out"), first, config.out_channels)?,
        })
    }

    pub fn config(&self) -> &UNet2DConfig {
        &self.config
    }

    /// What the network predicts for noisy samples: (batch, `in_channels`, height, width) to (batch,
    /// `out_channels`, height, width). `timesteps` are (batch,), or one for all; `class_labels` as
    /// [`ClassEmbed`] says.
    ///
    /// # Errors
    /// The shapes do not fit the network, height or width is no multiple of
    /// [`UNet2DConfig::size_factor`], labels are missing, or given to a network without classes.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        class_labels: Option<&Tensor>,
    ) -> Result<Tensor> {
        let config = &self.config;
        let [batch, _, height, width] = check_images(sample, config.in_channels, "the sample")?;
        let factor = config.size_factor();
        if height % factor != 0 || width % factor != 0 {
            return Err(Error::input(format!("a sample of {height} x {width} does not fit the network"))
                .help(format!("height and width must be multiples of {factor}")));
        }
        let timesteps = batch_timesteps(timesteps, batch, sample.device())?;
        let mut temb = self.time_embedding.forward(&self.time_proj.forward(&timesteps)?)?;
        if let Some(class) =
            ClassEmbedding::embed(self.class_embedding.as_ref(), class_labels, &temb, &self.time_proj)?
        {
            temb = add(temb, &class)?;
        }
        let temb = Some(&temb);

        let mut xs = match config.center_input_sample {
            true => self.conv_in.forward(&sample.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?)?,
            false => self.conv_in.forward(sample)?,
        };
        let mut skips = vec![xs.shallow_clone()];
        for block in &self.down_blocks {
            xs = block.forward(xs, temb, None, Some(&mut skips))?;
        }
        if let Some(block) = &self.mid_block {
            xs = block.forward(&xs, temb, None)?;
        }
        for block in &self.up_blocks {
            xs = block.forward(xs, temb, None, Some(&mut skips), false)?;
        }
        let xs = self.conv_norm_out.forward(&xs)?;
        let xs = self.conv_out.forward(&Activation::Silu.consume(xs)?)?;
        match config.time_embedding_type {
            TimeEmbedding::Positional => Ok(xs),
            // With Fourier features the timestep is the noise level, and the network's output a score.
            TimeEmbedding::Fourier => Ok(xs.f_div(&timesteps.f_reshape([batch, 1, 1, 1])?)?),
        }
    }
}
