//! `ControlNetModel`, what steers a text-guided network by an image (diffusers
//! models/controlnets/controlnet.py, 0.42.1).
//!
//! Variable paths are diffusers': `controlnet_cond_embedding.conv_in.weight`,
//! `controlnet_down_blocks.0.weight`, and those of the U-Net's way down.

use serde_json::{Value, json};
use tch::{
    Tensor,
    nn::{Path, VarStore},
};

use super::{
    config::Config,
    diffusion::{
        config::{
            Activation, BlockType, DIFFUSERS, MidBlockType, TimeEmbedding, check_class, check_counts,
            check_padding, number, per_level, write_levels,
        },
        layers::{Conv2d, add, check_images},
        resnet_block::ResnetConfig,
        time_embedding::{TextTimeEmbedding, TimeProjection, TimestepEmbedding, batch_timesteps},
        transformer::TransformerConfig,
        trunk::{Trunk, TrunkConfig, TrunkLevel, check_context},
    },
    unet2d_condition::{
        BLOCKS, UNet2DConditionConfig, check_text_embed, read_text_embed, refuse_other_families,
        write_text_embed,
    },
};
use crate::{
    error::{Error, Result},
    vocabulary::TimeScaleShift,
};

/// The order of a control image's channels that a network was trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelOrder {
    #[default]
    Rgb,
    Bgr,
}

/// The configuration of a [`ControlNetModel`]; the fields are the keys of `config.json`, lists from the
/// top level to the bottom.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlNetConfig {
    pub in_channels: i64,
    /// Channels of the control image.
    pub conditioning_channels: i64,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<BlockType>,
    pub mid_block_type: MidBlockType,
    pub block_out_channels: Vec<i64>,
    pub layers_per_block: i64,
    pub downsample_padding: i64,
    pub mid_block_scale_factor: f64,
    pub act_fn: Activation,
    pub norm_num_groups: i64,
    pub norm_eps: f64,
    /// Channels of the encoder's hidden states.
    pub cross_attention_dim: i64,
    pub transformer_layers_per_block: Vec<i64>,
    /// The key is `num_attention_heads`, or `attention_head_dim` where that is null.
    pub attention_heads: Vec<i64>,
    pub use_linear_projection: bool,
    /// As the U-Net's: [`UNet2DConditionConfig::text_embed_heads`].
    pub text_embed_heads: Option<i64>,
    /// Recorded only: scaled dot-product attention, here and upstream, has its own precision.
    pub upcast_attention: bool,
    pub resnet_time_scale_shift: TimeScaleShift,
    pub controlnet_conditioning_channel_order: ChannelOrder,
    /// Channels of the control image's embedding; each but the first halves its size.
    pub conditioning_embedding_out_channels: Vec<i64>,
}

impl Default for ControlNetConfig {
    /// Upstream's defaults.
    fn default() -> Self {
        use BlockType::{CrossAttention, Plain};
        Self {
            in_channels: 4,
            conditioning_channels: 3,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![CrossAttention, CrossAttention, CrossAttention, Plain],
            mid_block_type: MidBlockType::CrossAttention,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            act_fn: Activation::Silu,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 1280,
            transformer_layers_per_block: vec![1; 4],
            attention_heads: vec![8; 4],
            use_linear_projection: false,
            text_embed_heads: None,
            upcast_attention: false,
            resnet_time_scale_shift: TimeScaleShift::Default,
            controlnet_conditioning_channel_order: ChannelOrder::Rgb,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
        }
    }
}

impl ControlNetConfig {
    /// Reads every key of `config.json`; a missing one has upstream's default.
    ///
    /// # Errors
    /// A key is unknown, or its value is not supported (by name).
    pub fn read(config: &Config) -> Result<Self> {
        check_class(config, "ControlNetModel")?;
        let default = Self::default();
        let block_out_channels = config.get("block_out_channels", default.block_out_channels)?;
        let levels = block_out_channels.len();
        refuse_other_families(config, levels)?;
        let null = &[Value::Null];
        for key in ["class_embed_type", "num_class_embeds", "projection_class_embeddings_input_dim"] {
            config.only(key, null)?;
        }
        // Upstream counts the heads by `num_attention_heads` where it is given.
        let heads = match config.get("num_attention_heads", Value::Null)? {
            Value::Null => "attention_head_dim",
            _ => "num_attention_heads",
        };
        config.ignore(&["attention_head_dim"]);
        let order = "controlnet_conditioning_channel_order";
        config.only(order, &["rgb", "bgr"])?;
        config.only("global_pool_conditions", &[false])?;
        let this = Self {
            in_channels: config.get("in_channels", default.in_channels)?,
            conditioning_channels: config.get("conditioning_channels", default.conditioning_channels)?,
            flip_sin_to_cos: config.get("flip_sin_to_cos", default.flip_sin_to_cos)?,
            freq_shift: config.get("freq_shift", default.freq_shift)?,
            down_block_types: BlockType::read(
                config,
                "down_block_types",
                &default.down_block_types,
                &BLOCKS,
            )?,
            mid_block_type: MidBlockType::read(config)?
                .ok_or_else(|| config.unsupported("mid_block_type", "a ControlNet has a lowest level"))?,
            layers_per_block: config.get("layers_per_block", default.layers_per_block)?,
            downsample_padding: config.get("downsample_padding", default.downsample_padding)?,
            mid_block_scale_factor: config.get("mid_block_scale_factor", 1.0)?,
            act_fn: Activation::read(config, "act_fn")?,
            norm_num_groups: config.get("norm_num_groups", default.norm_num_groups)?,
            norm_eps: config.get("norm_eps", default.norm_eps)?,
            cross_attention_dim: config.get("cross_attention_dim", default.cross_attention_dim)?,
            transformer_layers_per_block: per_level(config, "transformer_layers_per_block", 1, levels)?,
            attention_heads: per_level(config, heads, 8, levels)?,
            use_linear_projection: config.get("use_linear_projection", false)?,
            text_embed_heads: read_text_embed(config)?,
            upcast_attention: config.get("upcast_attention", false)?,
            resnet_time_scale_shift: TimeScaleShift::read(config)?,
            controlnet_conditioning_channel_order: match config.get(order, "rgb".to_owned())?.as_str() {
                "bgr" => ChannelOrder::Bgr,
                _ => ChannelOrder::Rgb,
            },
            conditioning_embedding_out_channels: config
                .get("conditioning_embedding_out_channels", default.conditioning_embedding_out_channels)?,
            block_out_channels,
        };
        config.finish()?;
        this.check().map_err(|e| e.at(config.file()))?;
        Ok(this)
    }

    /// The ControlNet of a U-Net: its way down and its lowest level, for control images of three
    /// channels in the order red, green, blue. Upstream's `ControlNetModel.from_unet`.
    ///
    /// # Errors
    /// The U-Net has what a ControlNet here has not.
    pub fn from_unet(unet: &UNet2DConditionConfig) -> Result<Self> {
        let one = |values: &[i64], key: &str| match values {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => Ok(*first),
            _ => Err(Error::input(format!(
                "the U-Net's `{key}` differs between levels: a ControlNet has one for all"
            ))),
        };
        let refused = |what: &str| Err(Error::input(format!("no ControlNet for a U-Net with {what}")));
        if unet.class_embed.is_some() {
            return refused("classes");
        }
        let time = (unet.time_embedding_type, unet.time_embedding_dim);
        if time != (TimeEmbedding::Positional, None) || unet.conv_in_kernel != 3 {
            return refused("a time embedding or a first convolution of its own kind");
        }
        let Some(mid_block_type) = unet.mid_block_type else { return refused("no lowest level") };
        let this = Self {
            in_channels: unet.in_channels,
            flip_sin_to_cos: unet.flip_sin_to_cos,
            freq_shift: unet.freq_shift,
            down_block_types: unet.down_block_types.clone(),
            mid_block_type,
            block_out_channels: unet.block_out_channels.clone(),
            layers_per_block: one(&unet.layers_per_block, "layers_per_block")?,
            downsample_padding: unet.downsample_padding,
            mid_block_scale_factor: unet.mid_block_scale_factor,
            act_fn: unet.act_fn,
            norm_num_groups: unet.norm_num_groups,
            norm_eps: unet.norm_eps,
            cross_attention_dim: one(&unet.cross_attention_dim, "cross_attention_dim")?,
            transformer_layers_per_block: unet.transformer_layers_per_block.clone(),
            attention_heads: unet.attention_heads.clone(),
            use_linear_projection: unet.use_linear_projection,
            text_embed_heads: unet.text_embed_heads,
            upcast_attention: unet.upcast_attention,
            resnet_time_scale_shift: unet.resnet_time_scale_shift,
            ..Self::default()
        };
        this.check()?;
        Ok(this)
    }

    /// A `config.json` that diffusers loads.
    pub fn to_json(&self) -> Value {
        let [addition_embed_type, addition_heads] = write_text_embed(self.text_embed_heads);
        json!({
            "_class_name": "ControlNetModel",
            "_diffusers_version": DIFFUSERS,
            "in_channels": self.in_channels,
            "conditioning_channels": self.conditioning_channels,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": number(self.freq_shift),
            "down_block_types": BlockType::down_names(&self.down_block_types),
            "mid_block_type": self.mid_block_type.name(),
            "only_cross_attention": false,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "downsample_padding": self.downsample_padding,
            "mid_block_scale_factor": number(self.mid_block_scale_factor),
            "act_fn": self.act_fn.name(),
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": self.norm_eps,
            "cross_attention_dim": self.cross_attention_dim,
            "transformer_layers_per_block": write_levels(&self.transformer_layers_per_block),
            "attention_head_dim": write_levels(&self.attention_heads),
            "use_linear_projection": self.use_linear_projection,
            "addition_embed_type": addition_embed_type,
            "addition_embed_type_num_heads": addition_heads,
            "upcast_attention": self.upcast_attention,
            "resnet_time_scale_shift": self.resnet_time_scale_shift.as_str(),
            "controlnet_conditioning_channel_order": match self.controlnet_conditioning_channel_order {
                ChannelOrder::Rgb => "rgb",
                ChannelOrder::Bgr => "bgr",
            },
            "conditioning_embedding_out_channels": self.conditioning_embedding_out_channels,
            "global_pool_conditions": false,
        })
    }

    /// How many times higher and wider the control image is than the sample.
    pub fn conditioning_factor(&self) -> i64 {
        1 << self.conditioning_embedding_out_channels.len().saturating_sub(1).min(62)
    }

    fn check(&self) -> Result<()> {
        check_counts(
            &[
                ("in_channels", &[self.in_channels]),
                ("conditioning_channels", &[self.conditioning_channels]),
                ("block_out_channels", &self.block_out_channels),
                ("layers_per_block", &[self.layers_per_block]),
                ("cross_attention_dim", &[self.cross_attention_dim]),
                ("transformer_layers_per_block", &self.transformer_layers_per_block),
                ("attention_head_dim", &self.attention_heads),
                ("conditioning_embedding_out_channels", &self.conditioning_embedding_out_channels),
                (
                    "number of conditioning_embedding_out_channels",
                    &[self.conditioning_embedding_out_channels.len() as i64],
                ),
            ],
            self.block_out_channels.len(),
            &[
                ("down_block_types", self.down_block_types.len()),
                ("transformer_layers_per_block", self.transformer_layers_per_block.len()),
                ("attention_head_dim", self.attention_heads.len()),
            ],
        )?;
        check_text_embed(self.text_embed_heads, self.cross_attention_dim)?;
        check_padding(self.downsample_padding)
    }
}

/// `ControlNetConditioningEmbedding`: the control image at the sample's size.
#[derive(Debug)]
struct ConditioningEmbedding {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl ConditioningEmbedding {
    fn new(vs: &Path, cin: i64, channels: &[i64], cout: i64) -> Result<Self> {
        let mut blocks = Vec::new();
        for pair in channels.windows(2) {
            let at = |i: usize| vs / "blocks" / i;
            blocks.push(Conv2d::same(&at(blocks.len()), pair[0], pair[0])?);
            blocks.push(Conv2d::new(&at(blocks.len()), pair[0], pair[1], 3, 2, 1)?);
        }
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        Ok(Self {
            conv_in: Conv2d::same(&(vs / "conv_in"), cin, first)?,
            blocks,
            conv_out: Conv2d::same(&(vs / "conv_out"), last, cout)?,
        })
    }

    fn forward(&self, control: &Tensor) -> Result<Tensor> {
        let mut xs = Activation::Silu.consume(self.conv_in.forward(control)?)?;
        for conv in &self.blocks {
            xs = Activation::Silu.consume(conv.forward(&xs)?)?;
        }
        self.conv_out.forward(&xs)
    }
}

/// A copy of a U-Net's way down that sees a control image, with convolutions that let its outputs
/// through; these are zero before any training.
#[derive(Debug)]
pub struct ControlNetModel {
    config: ControlNetConfig,
    conv_in: Conv2d,
    time_proj: TimeProjection,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TextTimeEmbedding>,
    controlnet_cond_embedding: ConditioningEmbedding,
    trunk: Trunk,
    controlnet_down_blocks: Vec<Conv2d>,
    controlnet_mid_block: Conv2d,
}

impl ControlNetModel {
    /// # Errors
    /// Channels, groups, heads or levels do not go together.
    pub fn new(vs: &Path, config: &ControlNetConfig) -> Result<Self> {
        config.check()?;
        let channels = &config.block_out_channels;
        let (first, count) = (channels[0], channels.len());
        let time_channels = 4 * first;
        let resnet = ResnetConfig {
            temb_channels: Some(time_channels),
            groups: config.norm_num_groups,
            eps: config.norm_eps,
            activation: config.act_fn,
            time_scale_shift: config.resnet_time_scale_shift,
            output_scale_factor: 1.0,
        };
        let level = |i: usize| TrunkLevel {
            channels: channels[i],
            layers: config.layers_per_block,
            transformer: TransformerConfig {
                heads: config.attention_heads[i],
                layers: config.transformer_layers_per_block[i],
                cross_attention_dim: config.cross_attention_dim,
                linear_projection: config.use_linear_projection,
                groups: config.norm_num_groups,
            },
        };
        let trunk = TrunkConfig {
            levels: (0..count).map(level).collect(),
            down_block_types: &config.down_block_types,
            mid_block_type: Some(config.mid_block_type),
            mid_block_scale_factor: config.mid_block_scale_factor,
            downsample_padding: config.downsample_padding,
            resnet,
        };

        let mut controlnet_down_blocks = Vec::new();
        let mut outputs = vec![first];
        for (i, &channels) in channels.iter().enumerate() {
            let downsampled = i64::from(i + 1 < count);
            outputs.extend((0..config.layers_per_block + downsampled).map(|_| channels));
        }
        for (i, &channels) in outputs.iter().enumerate() {
            let vs = vs / "controlnet_down_blocks" / i;
            controlnet_down_blocks.push(Conv2d::new(&vs, channels, channels, 1, 1, 0)?);
        }
        let last = channels[count - 1];
        Ok(Self {
            config: config.clone(),
            conv_in: Conv2d::same(&(vs / "conv_in"), config.in_channels, first)?,
            time_proj: TimeProjection::Positional {
                channels: first,
                flip_sin_to_cos: config.flip_sin_to_cos,
                freq_shift: config.freq_shift,
            },
            time_embedding: TimestepEmbedding::new(
                &(vs / "time_embedding"),
                first,
                time_channels,
                config.act_fn,
            )?,
            add_embedding: config
                .text_embed_heads
                .map(|heads| {
                    let context = config.cross_attention_dim;
                    TextTimeEmbedding::new(&(vs / "add_embedding"), context, time_channels, heads)
                })
                .transpose()?,
            controlnet_cond_embedding: ConditioningEmbedding::new(
                &(vs / "controlnet_cond_embedding"),
                config.conditioning_channels,
                &config.conditioning_embedding_out_channels,
                first,
            )?,
            trunk: Trunk::new(vs, &trunk)?,
            controlnet_down_blocks,
            controlnet_mid_block: Conv2d::new(&(vs / "controlnet_mid_block"), last, last, 1, 1, 0)?,
        })
    }

    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// The residuals for a U-Net, times `conditioning_scale`: one for each layer on its way down (the
    /// first convolution first), and one for its lowest level.
    ///
    /// `sample` (batch, `in_channels`, height, width), `timesteps` (batch,) or one for all,
    /// `encoder_hidden_states` (batch, tokens, `cross_attention_dim`), `controlnet_cond` (batch,
    /// `conditioning_channels`, and [`ControlNetConfig::conditioning_factor`] times the sample's height
    /// and width) in 0..1, its channels red, green, blue whatever the network's own order. Guess mode is
    /// not supported.
    ///
    /// # Errors
    /// The shapes do not fit the network or each other.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        encoder_hidden_states: &Tensor,
        controlnet_cond: &Tensor,
        conditioning_scale: f64,
    ) -> Result<(Vec<Tensor>, Tensor)> {
        let config = &self.config;
        let [batch, _, height, width] = check_images(sample, config.in_channels, "the sample")?;
        let attends = config.text_embed_heads.is_some()
            || config.mid_block_type == MidBlockType::CrossAttention
            || config.down_block_types.contains(&BlockType::CrossAttention);
        check_context(encoder_hidden_states, batch, attends.then_some(config.cross_attention_dim))?;
        let [control_batch, _, control_height, control_width] =
            check_images(controlnet_cond, config.conditioning_channels, "the control image")?;
        let factor = config.conditioning_factor();
        let (needed_height, needed_width) = (height * factor, width * factor);
        // Each halving rounds up, so a few pixels fewer fit as well.
        let fits = |n: i64, control: i64| (control + factor - 1) / factor == n;
        if control_batch != batch || !fits(height, control_height) || !fits(width, control_width) {
            return Err(Error::input(format!(
                "{control_batch} control image(s) of {control_height} x {control_width} for {batch} sample(s) of {height} x {width}"
            ))
            .help(format!("they must be {batch} of {needed_height} x {needed_width}")));
        }

        let timesteps = batch_timesteps(timesteps, batch, sample.device())?;
        let mut temb = self.time_embedding.forward(&self.time_proj.forward(&timesteps)?)?;
        if let Some(text) = &self.add_embedding {
            let text = text.forward(encoder_hidden_states)?.f_totype(temb.kind())?;
            temb = add(temb, &text)?;
        }
        let control = match config.controlnet_conditioning_channel_order {
            ChannelOrder::Rgb => self.controlnet_cond_embedding.forward(controlnet_cond)?,
            ChannelOrder::Bgr => self.controlnet_cond_embedding.forward(&controlnet_cond.f_flip([1])?)?,
        };
        let xs = add(self.conv_in.forward(sample)?, &control)?;
        let (xs, skips) = self.trunk.forward(xs, &temb, encoder_hidden_states)?;

        let scaled = |conv: &Conv2d, xs: &Tensor| -> Result<Tensor> {
            let ys = conv.forward(xs)?;
            Ok(if conditioning_scale == 1.0 { ys } else { ys.f_mul_scalar(conditioning_scale)? })
        };
        let down = self
            .controlnet_down_blocks
            .iter()
            .zip(&skips)
            .map(|(conv, skip)| scaled(conv, skip))
            .collect::<Result<_>>()?;
        Ok((down, scaled(&self.controlnet_mid_block, &xs)?))
    }
}

/// Gives a ControlNet what training starts from (upstream's `ControlNetModel.from_unet`): the U-Net's
/// weights wherever both have them, and zero for every convolution that lets an output through. The
/// control image's own embedding, but for its last convolution, keeps what it has.
///
/// Both variable stores must hold their network at the root.
///
/// # Errors
/// The U-Net lacks one of the ControlNet's variables, or has it in another shape.
pub fn copy_from_unet(controlnet: &VarStore, unet: &VarStore) -> Result<()> {
    let source = unet.variables();
    let target = controlnet.variables();
    let mut names: Vec<_> = target.keys().collect();
    names.sort();
    for name in names {
        let mut variable = target[name].shallow_clone();
        let zero =
            ["controlnet_down_blocks.", "controlnet_mid_block.", "controlnet_cond_embedding.conv_out."];
        if zero.iter().any(|prefix| name.starts_with(prefix)) {
            let _ = tch::no_grad(|| variable.f_zero_())?;
            continue;
        }
        if name.starts_with("controlnet_cond_embedding.") {
            continue;
        }
        match source.get(name) {
            Some(found) if found.size() == variable.size() => tch::no_grad(|| variable.f_copy_(found))?,
            found => {
                let found = found.map_or("nothing".to_owned(), |found| format!("{:?}", found.size()));
                return Err(Error::input(format!(
                    "{name} of the ControlNet has the shape {:?}, the U-Net has {found}",
                    variable.size()
                ))
                .help("give the ControlNet the U-Net's configuration"));
            }
        }
    }
    Ok(())
}
