//! `UNet2DConditionModel`, the network of text-guided diffusion as Stable Diffusion 1.x and 2.x have it
//! (diffusers models/unets/unet_2d_condition.py, 0.42.1).
//!
//! Variable paths are diffusers': `down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight`, …

use serde_json::{Value, json};
use tch::{Tensor, nn::Path};

use super::{
    config::Config,
    diffusion::{
        config::{
            Activation, BlockType, ClassEmbed, DIFFUSERS, MidBlockType, ResampleType, TimeEmbedding,
            check_class, check_counts, check_padding, number, per_level, read_sample_size, write_levels,
            write_sample_size,
        },
        layers::{Conv2d, GroupNorm, add, check_images},
        resnet_block::ResnetConfig,
        time_embedding::{
            ClassEmbedding, TextTimeEmbedding, TimeProjection, TimestepEmbedding, batch_timesteps,
        },
        transformer::TransformerConfig,
        trunk::{Trunk, TrunkConfig, TrunkLevel, check_context},
        unet_blocks::{UpBlock, up_inputs},
    },
};
use crate::{
    error::{Error, Result},
    vocabulary::TimeScaleShift,
};

/// The configuration of a [`UNet2DConditionModel`]; the fields are the keys of `config.json`, lists
/// from the top level to the bottom.
#[derive(Debug, Clone, PartialEq)]
pub struct UNet2DConditionConfig {
    /// (height, width) of the latents that the network was trained at, if it says.
    pub sample_size: Option<[i64; 2]>,
    pub in_channels: i64,
    pub out_channels: i64,
    /// Whether samples in 0..1 are brought to -1..1 first.
    pub center_input_sample: bool,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<BlockType>,
    pub mid_block_type: Option<MidBlockType>,
    pub up_block_types: Vec<BlockType>,
    pub block_out_channels: Vec<i64>,
    pub layers_per_block: Vec<i64>,
    pub downsample_padding: i64,
    pub mid_block_scale_factor: f64,
    /// What upstream drops in training. Nothing is dropped here.
    pub dropout: f64,
    pub act_fn: Activation,
    pub norm_num_groups: i64,
    pub norm_eps: f64,
    /// Channels of the encoder's hidden states.
    pub cross_attention_dim: Vec<i64>,
    pub transformer_layers_per_block: Vec<i64>,
    /// The key is `attention_head_dim`, for historic reasons: it is the number of heads.
    pub attention_heads: Vec<i64>,
    pub use_linear_projection: bool,
    pub class_embed: Option<ClassEmbed>,
    /// Whether the class embedding is put beside the time embedding rather than added.
    pub class_embeddings_concat: bool,
    /// Heads of the attention that pools the encoder's hidden states into a summand of the time embedding
    /// (`addition_embed_type` "text", `addition_embed_type_num_heads`), if there is one.
    pub text_embed_heads: Option<i64>,
    /// Recorded only: scaled dot-product attention, here and upstream, has its own precision.
    pub upcast_attention: bool,
    pub resnet_time_scale_shift: TimeScaleShift,
    pub time_embedding_type: TimeEmbedding,
    /// Channels of the time embedding; where not given, four times the first of `block_out_channels`
    /// (two times with Fourier features).
    pub time_embedding_dim: Option<i64>,
    pub conv_in_kernel: i64,
    pub conv_out_kernel: i64,
}

impl Default for UNet2DConditionConfig {
    /// Upstream's defaults: Stable Diffusion 1.x but for the text encoder's 768 channels.
    fn default() -> Self {
        use BlockType::{CrossAttention, Plain};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![CrossAttention, CrossAttention, CrossAttention, Plain],
            mid_block_type: Some(MidBlockType::CrossAttention),
            up_block_types: vec![Plain, CrossAttention, CrossAttention, CrossAttention],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: vec![2; 4],
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: Activation::Silu,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: vec![1280; 4],
            transformer_layers_per_block: vec![1; 4],
            attention_heads: vec![8; 4],
            use_linear_projection: false,
            class_embed: None,
            class_embeddings_concat: false,
            text_embed_heads: None,
            upcast_attention: false,
            resnet_time_scale_shift: TimeScaleShift::Default,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
        }
    }
}

pub(crate) const BLOCKS: [BlockType; 2] = [BlockType::Plain, BlockType::CrossAttention];

/// Refuses what text-guided networks of other families have.
pub(crate) fn refuse_other_families(config: &Config, levels: usize) -> Result<()> {
    let null = &[Value::Null];
    for key in ["encoder_hid_dim", "encoder_hid_dim_type", "addition_time_embed_dim"] {
        config.only(key, null)?;
    }
    config.only("only_cross_attention", &[json!(false), json!(vec![false; levels])])?;
    Ok(())
}

/// `addition_embed_type` as the heads of a text's: see [`UNet2DConditionConfig::text_embed_heads`].
pub(crate) fn read_text_embed(config: &Config) -> Result<Option<i64>> {
    let key = "addition_embed_type";
    let heads = config.get("addition_embed_type_num_heads", 64)?;
    match config.get::<Option<String>>(key, None)?.as_deref() {
        None => Ok(None),
        Some("text") => Ok(Some(heads)),
        Some(_) => Err(config.unsupported(key, "supported: null, \"text\"")),
    }
}

/// `addition_embed_type` and `addition_embed_type_num_heads`.
pub(crate) fn write_text_embed(heads: Option<i64>) -> [Value; 2] {
    heads.map_or([Value::Null, json!(64)], |heads| [json!("text"), json!(heads)])
}

/// That a text's `channels` can be shared out among the heads that pool it.
pub(crate) fn check_text_embed(heads: Option<i64>, channels: i64) -> Result<()> {
    match heads {
        Some(heads) if heads < 1 || channels % heads != 0 => Err(Error::input(format!(
            "`addition_embed_type_num_heads` = {heads} does not divide `cross_attention_dim` = {channels}"
        ))),
        _ => Ok(()),
    }
}

impl UNet2DConditionConfig {
    /// Reads every key of `config.json`; a missing one has upstream's default.
    ///
    /// # Errors
    /// A key is unknown, or its value is not supported (by name).
    pub fn read(config: &Config) -> Result<Self> {
        check_class(config, "UNet2DConditionModel")?;
        let default = Self::default();
        let block_out_channels = config.get("block_out_channels", default.block_out_channels)?;
        let levels = block_out_channels.len();
        refuse_other_families(config, levels)?;
        let (no, null) = (&[false], &[Value::Null]);
        config.only("dual_cross_attention", no)?;
        config.only("mid_block_only_cross_attention", &[Value::Null, json!(false)])?;
        config.only("resnet_skip_time_act", no)?;
        config.only("resnet_out_scale_factor", &[1.0])?;
        config.only("attention_type", &["default"])?;
        for key in [
            // Upstream itself refuses it: `attention_head_dim` is the number of heads.
            "num_attention_heads",
            "reverse_transformer_layers_per_block",
            "time_embedding_act_fn",
            "timestep_post_act",
            "time_cond_proj_dim",
            "cross_attention_norm",
        ] {
            config.only(key, null)?;
        }
        let this = Self {
            sample_size: read_sample_size(config, None)?,
            in_channels: config.get("in_channels", default.in_channels)?,
            out_channels: config.get("out_channels", default.out_channels)?,
            center_input_sample: config.get("center_input_sample", false)?,
            flip_sin_to_cos: config.get("flip_sin_to_cos", default.flip_sin_to_cos)?,
            freq_shift: config.get("freq_shift", default.freq_shift)?,
            down_block_types: BlockType::read(
                config,
                "down_block_types",
                &default.down_block_types,
                &BLOCKS,
            )?,
            mid_block_type: MidBlockType::read(config)?,
            up_block_types: BlockType::read(config, "up_block_types", &default.up_block_types, &BLOCKS)?,
            layers_per_block: per_level(config, "layers_per_block", 2, levels)?,
            downsample_padding: config.get("downsample_padding", default.downsample_padding)?,
            mid_block_scale_factor: config.get("mid_block_scale_factor", 1.0)?,
            dropout: config.get("dropout", default.dropout)?,
            act_fn: Activation::read(config, "act_fn")?,
            norm_num_groups: config.get("norm_num_groups", default.norm_num_groups)?,
            norm_eps: config.get("norm_eps", default.norm_eps)?,
            cross_attention_dim: per_level(config, "cross_attention_dim", 1280, levels)?,
            transformer_layers_per_block: per_level(config, "transformer_layers_per_block", 1, levels)?,
            attention_heads: per_level(config, "attention_head_dim", 8, levels)?,
            use_linear_projection: config.get("use_linear_projection", false)?,
            class_embed: ClassEmbed::read(config, true)?,
            class_embeddings_concat: config.get("class_embeddings_concat", false)?,
            text_embed_heads: read_text_embed(config)?,
            upcast_attention: config.get("upcast_attention", false)?,
            resnet_time_scale_shift: TimeScaleShift::read(config)?,
            time_embedding_type: TimeEmbedding::read(config)?,
            time_embedding_dim: config.get("time_embedding_dim", None)?,
            conv_in_kernel: config.get("conv_in_kernel", 3)?,
            conv_out_kernel: config.get("conv_out_kernel", 3)?,
            block_out_channels,
        };
        config.finish()?;
        this.check().map_err(|e| e.at(config.file()))?;
        Ok(this)
    }

    /// A `config.json` that diffusers loads.
    pub fn to_json(&self) -> Value {
        let [class_embed_type, num_class_embeds, class_inputs] = ClassEmbed::values(self.class_embed);
        let [addition_embed_type, addition_heads] = write_text_embed(self.text_embed_heads);
        json!({
            "_class_name": "UNet2DConditionModel",
            "_diffusers_version": DIFFUSERS,
            "sample_size": write_sample_size(self.sample_size),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "center_input_sample": self.center_input_sample,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": number(self.freq_shift),
            "down_block_types": BlockType::down_names(&self.down_block_types),
            "mid_block_type": self.mid_block_type.map(MidBlockType::name),
            "up_block_types": BlockType::up_names(&self.up_block_types),
            "only_cross_attention": false,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": write_levels(&self.layers_per_block),
            "downsample_padding": self.downsample_padding,
            "mid_block_scale_factor": number(self.mid_block_scale_factor),
            "dropout": self.dropout,
            "act_fn": self.act_fn.name(),
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": self.norm_eps,
            "cross_attention_dim": write_levels(&self.cross_attention_dim),
            "transformer_layers_per_block": write_levels(&self.transformer_layers_per_block),
            "attention_head_dim": write_levels(&self.attention_heads),
            "dual_cross_attention": false,
            "use_linear_projection": self.use_linear_projection,
            "class_embed_type": class_embed_type,
            "num_class_embeds": num_class_embeds,
            "projection_class_embeddings_input_dim": class_inputs,
            "class_embeddings_concat": self.class_embeddings_concat,
            "addition_embed_type": addition_embed_type,
            "addition_embed_type_num_heads": addition_heads,
            "upcast_attention": self.upcast_attention,
            "resnet_time_scale_shift": self.resnet_time_scale_shift.as_str(),
            "time_embedding_type": self.time_embedding_type.name(),
            "time_embedding_dim": self.time_embedding_dim,
            "conv_in_kernel": self.conv_in_kernel,
            "conv_out_kernel": self.conv_out_kernel,
        })
    }

    /// Channels of the time embedding that the blocks get.
    fn time_channels(&self) -> i64 {
        let factor = match self.time_embedding_type {
            TimeEmbedding::Positional => 4,
            TimeEmbedding::Fourier => 2,
        };
        self.time_embedding_dim.unwrap_or(factor * self.block_out_channels[0])
    }

    fn check(&self) -> Result<()> {
        let class_counts = match self.class_embed {
            Some(ClassEmbed::Table { classes }) => classes,
            Some(ClassEmbed::Projection { inputs } | ClassEmbed::SimpleProjection { inputs }) => inputs,
            _ => 1,
        };
        check_counts(
            &[
                ("in_channels", &[self.in_channels]),
                ("out_channels", &[self.out_channels]),
                ("block_out_channels", &self.block_out_channels),
                ("layers_per_block", &self.layers_per_block),
                ("cross_attention_dim", &self.cross_attention_dim),
                ("transformer_layers_per_block", &self.transformer_layers_per_block),
                ("attention_head_dim", &self.attention_heads),
                ("num_class_embeds", &[class_counts]),
                ("time_embedding_dim", &[self.time_embedding_dim.unwrap_or(1)]),
            ],
            self.block_out_channels.len(),
            &[
                ("down_block_types", self.down_block_types.len()),
                ("up_block_types", self.up_block_types.len()),
                ("layers_per_block", self.layers_per_block.len()),
                ("cross_attention_dim", self.cross_attention_dim.len()),
                ("transformer_layers_per_block", self.transformer_layers_per_block.len()),
                ("attention_head_dim", self.attention_heads.len()),
            ],
        )?;
        for (key, kernel) in
            [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)]
        {
            if kernel < 1 || kernel % 2 == 0 {
                return Err(Error::input(format!("`{key}` = {kernel} is not supported: it must be odd")));
            }
        }
        if self.time_embedding_type == TimeEmbedding::Fourier && self.time_channels() % 2 == 1 {
            return Err(Error::input("`time_embedding_dim` must be even with Fourier features"));
        }
        if self.class_embeddings_concat && self.class_embed.is_none() {
            return Err(Error::input("`class_embeddings_concat` needs a class embedding"));
        }
        if self.text_embed_heads.is_some() && self.class_embeddings_concat {
            return Err(Error::input("`class_embeddings_concat` leaves no room for `addition_embed_type`"));
        }
        if let Some(channels) = self.context_channels()? {
            check_text_embed(self.text_embed_heads, channels)?;
        }
        check_padding(self.downsample_padding)
    }

    /// Channels of the hidden states, if anything asks for them.
    fn context_channels(&self) -> Result<Option<i64>> {
        let cross = BlockType::CrossAttention;
        let down = self.down_block_types.iter().zip(&self.cross_attention_dim);
        let up = self.up_block_types.iter().zip(self.cross_attention_dim.iter().rev());
        let mid = self.mid_block_type == Some(MidBlockType::CrossAttention);
        let mut channels = down.chain(up).filter(|(block, _)| **block == cross).map(|(_, &dim)| dim);
        let mid = self.cross_attention_dim.last().copied().filter(|_| mid);
        let pooled = self.cross_attention_dim.first().copied().filter(|_| self.text_embed_heads.is_some());
        let first = channels.next().or(mid).or(pooled);
        match channels.chain(mid).chain(pooled).find(|dim| Some(*dim) != first) {
            None => Ok(first),
            Some(_) => Err(Error::input("`cross_attention_dim` differs between levels that see the text")
                .help("there is one text encoder: give one number")),
        }
    }

    fn levels(&self) -> Vec<TrunkLevel> {
        (0..self.block_out_channels.len())
            .map(|i| TrunkLevel {
                channels: self.block_out_channels[i],
                layers: self.layers_per_block[i],
                transformer: TransformerConfig {
                    heads: self.attention_heads[i],
                    layers: self.transformer_layers_per_block[i],
                    cross_attention_dim: self.cross_attention_dim[i],
                    linear_projection: self.use_linear_projection,
                    groups: self.norm_num_groups,
                },
            })
            .collect()
    }
}

/// A U-Net over latents, timesteps and an encoder's hidden states.
#[derive(Debug)]
pub struct UNet2DConditionModel {
    config: UNet2DConditionConfig,
    conv_in: Conv2d,
    time_proj: TimeProjection,
    time_embedding: TimestepEmbedding,
    class_embedding: Option<ClassEmbedding>,
    add_embedding: Option<TextTimeEmbedding>,
    trunk: Trunk,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2DConditionModel {
    /// # Errors
    /// Channels, groups, heads or levels do not go together.
    pub fn new(vs: &Path, config: &UNet2DConditionConfig) -> Result<Self> {
        config.check()?;
        let levels = config.levels();
        let (first, count) = (levels[0].channels, levels.len());
        let time_channels = config.time_channels();
        let concat = if config.class_embeddings_concat { 2 } else { 1 };
        let resnet = ResnetConfig {
            temb_channels: Some(concat * time_channels),
            groups: config.norm_num_groups,
            eps: config.norm_eps,
            activation: config.act_fn,
            time_scale_shift: config.resnet_time_scale_shift,
            output_scale_factor: 1.0,
        };
        let (time_proj, time_inputs) = match config.time_embedding_type {
            TimeEmbedding::Positional => {
                let (flip_sin_to_cos, freq_shift) = (config.flip_sin_to_cos, config.freq_shift);
                (TimeProjection::Positional { channels: first, flip_sin_to_cos, freq_shift }, first)
            }
            TimeEmbedding::Fourier => {
                let (vs, flip) = (vs / "time_proj", config.flip_sin_to_cos);
                (TimeProjection::fourier(&vs, time_channels / 2, false, flip)?, time_channels)
            }
        };
        let act = config.act_fn;
        let conv_in = |kernel: i64| {
            Conv2d::new(&(vs / "conv_in"), config.in_channels, first, kernel, 1, (kernel - 1) / 2)
        };
        let conv_out = |kernel: i64| {
            Conv2d::new(&(vs / "conv_out"), first, config.out_channels, kernel, 1, (kernel - 1) / 2)
        };
        let trunk = TrunkConfig {
            levels: config.levels(),
            down_block_types: &config.down_block_types,
            mid_block_type: config.mid_block_type,
            mid_block_scale_factor: config.mid_block_scale_factor,
            downsample_padding: config.downsample_padding,
            resnet,
        };

        let mut up_blocks = Vec::new();
        for (i, &block) in config.up_block_types.iter().enumerate() {
            let at = count - 1 - i;
            let level = levels[at];
            let below = levels[(at + 1).min(count - 1)].channels;
            let above = levels[at.saturating_sub(1)].channels;
            let inputs = up_inputs(level.layers + 1, below, level.channels, above);
            let upsample = (at > 0).then_some(ResampleType::Conv);
            let (vs, mixer) = (vs / "up_blocks" / i, level.mixer(block));
            up_blocks.push(UpBlock::new(&vs, &inputs, level.channels, &resnet, &mixer, upsample)?);
        }

        Ok(Self {
            config: config.clone(),
            conv_in: conv_in(config.conv_in_kernel)?,
            time_proj,
            time_embedding: TimestepEmbedding::new(
                &(vs / "time_embedding"),
                time_inputs,
                time_channels,
                act,
            )?,
            class_embedding: config
                .class_embed
                .map(|kind| {
                    ClassEmbedding::new(&(vs / "class_embedding"), kind, time_inputs, time_channels, act)
                })
                .transpose()?,
            add_embedding: config
                .text_embed_heads
                .zip(config.context_channels()?)
                .map(|(heads, context)| {
                    TextTimeEmbedding::new(&(vs / "add_embedding"), context, time_channels, heads)
                })
                .transpose()?,
            trunk: Trunk::new(vs, &trunk)?,
            up_blocks,
            conv_norm_out: GroupNorm::new(
                &(vs / "conv_norm_out"),
                config.norm_num_groups,
                first,
                config.norm_eps,
            )?,
            conv_out: conv_out(config.conv_out_kernel)?,
        })
    }

    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// What is added to the time embedding for texts (batch, tokens, `cross_attention_dim`), if anything is:
    /// (batch, channels of the time embedding).
    ///
    /// # Errors
    /// The texts do not fit the network.
    pub fn embed_texts(&self, encoder_hidden_states: &Tensor) -> Result<Option<Tensor>> {
        self.add_embedding.as_ref().map(|text| text.forward(encoder_hidden_states)).transpose()
    }

    /// What the network predicts for noisy samples: (batch, `in_channels`, height, width) of any size to
    /// (batch, `out_channels`, height, width).
    ///
    /// `timesteps` are (batch,), or one for all; `encoder_hidden_states` (batch, tokens,
    /// `cross_attention_dim`); `class_labels` as [`ClassEmbed`] says. The additional residuals are a
    /// ControlNet's, both or neither: one for each layer on the way down (the first convolution first),
    /// and one for the lowest level.
    ///
    /// # Errors
    /// The shapes do not fit the network, or labels or one of the residuals are missing or too many.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        encoder_hidden_states: &Tensor,
        class_labels: Option<&Tensor>,
        down_block_additional_residuals: Option<&[Tensor]>,
        mid_block_additional_residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let config = &self.config;
        let [batch, _, height, width] = check_images(sample, config.in_channels, "the sample")?;
        check_context(encoder_hidden_states, batch, config.context_channels()?)?;
        let timesteps = batch_timesteps(timesteps, batch, sample.device())?;
        let mut temb = self.time_embedding.forward(&self.time_proj.forward(&timesteps)?)?;
        let class = self.class_embedding.as_ref();
        if let Some(class) = ClassEmbedding::embed(class, class_labels, &temb, &self.time_proj)? {
            temb = match config.class_embeddings_concat {
                true => Tensor::f_cat(&[temb, class], -1)?,
                false => add(temb, &class)?,
            };
        }

        if let Some(text) = self.embed_texts(encoder_hidden_states)? {
            let text = text.f_totype(temb.kind())?;
            temb = add(temb, &text)?;
        }

        let xs = match config.center_input_sample {
            true => self.conv_in.forward(&sample.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?)?,
            false => self.conv_in.forward(sample)?,
        };
        let (mut xs, mut skips) = self.trunk.forward(xs, &temb, encoder_hidden_states)?;
        match (down_block_additional_residuals, mid_block_additional_residual) {
            (None, None) => {}
            (Some(down), Some(mid)) if down.len() == skips.len() => {
                for (skip, residual) in skips.iter_mut().zip(down) {
                    *skip = add_residual(skip, residual)?;
                }
                xs = add_residual(&xs, mid)?;
            }
            (Some(down), Some(_)) => {
                return Err(Error::input(format!(
                    "{} residuals of a ControlNet for {} layers: it is another network's",
                    down.len(),
                    skips.len()
                )));
            }
            _ => return Err(Error::input("a ControlNet's residuals are for the levels and the lowest one")),
        }
        let factor = 1i64 << (config.block_out_channels.len() - 1).min(62);
        let fit = height % factor != 0 || width % factor != 0;
        for block in &self.up_blocks {
            let (temb, context) = (Some(&temb), Some(encoder_hidden_states));
            xs = block.forward(xs, temb, context, Some(&mut skips), fit)?;
        }
        let xs = self.conv_norm_out.forward(&xs)?;
        self.conv_out.forward(&config.act_fn.consume(xs)?)
    }
}

fn add_residual(xs: &Tensor, residual: &Tensor) -> Result<Tensor> {
    if xs.size() != residual.size() {
        return Err(Error::input(format!(
            "a ControlNet's residual has the shape {:?}, the layer gives {:?}: it is another network's",
            residual.size(),
            xs.size()
        )));
    }
    Ok(xs.f_add(residual)?)
}
