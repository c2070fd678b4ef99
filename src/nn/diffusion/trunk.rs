//! What a text-guided U-Net and its ControlNet have in common: the way down and the lowest level
//! (diffusers models/unets/unet_2d_condition.py, models/controlnets/controlnet.py).

use tch::{Tensor, nn::Path};

use super::{
    config::{BlockType, MidBlockType, ResampleType},
    resnet_block::ResnetConfig,
    transformer::TransformerConfig,
    unet_blocks::{DownBlock, MidBlock, MixerConfig},
};
use crate::error::{Error, Result};

/// A level's transformers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrunkLevel {
    pub channels: i64,
    /// Residual blocks on the way down; there is one more on the way up.
    pub layers: i64,
    pub transformer: TransformerConfig,
}

impl TrunkLevel {
    pub fn mixer(&self, block: BlockType) -> MixerConfig {
        match block {
            BlockType::CrossAttention => MixerConfig::Transformer(self.transformer),
            _ => MixerConfig::Nothing,
        }
    }
}

/// The levels of a text-guided network.
#[derive(Debug)]
pub(crate) struct TrunkConfig<'a> {
    /// From the top to the bottom, at least one.
    pub levels: Vec<TrunkLevel>,
    pub down_block_types: &'a [BlockType],
    pub mid_block_type: Option<MidBlockType>,
    pub mid_block_scale_factor: f64,
    pub downsample_padding: i64,
    pub resnet: ResnetConfig,
}

#[derive(Debug)]
pub(crate) struct Trunk {
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
}

impl Trunk {
    pub fn new(vs: &Path, config: &TrunkConfig) -> Result<Self> {
        let levels = &config.levels;
        let mut down_blocks = Vec::new();
        for (i, (&block, level)) in config.down_block_types.iter().zip(levels).enumerate() {
            let last = i + 1 == levels.len();
            down_blocks.push(DownBlock::new(
                &(vs / "down_blocks" / i),
                [levels[i.saturating_sub(1)].channels, level.channels],
                level.layers,
                &config.resnet,
                &level.mixer(block),
                (!last).then_some((ResampleType::Conv, config.downsample_padding)),
            )?);
        }
        let mid_block = match (config.mid_block_type, levels.last()) {
            (Some(kind), Some(level)) => {
                let factor = config.mid_block_scale_factor;
                let resnet = ResnetConfig { output_scale_factor: factor, ..config.resnet };
                let mixer = match kind {
                    MidBlockType::CrossAttention => Some(level.mixer(BlockType::CrossAttention)),
                    MidBlockType::Plain => None,
                };
                Some(MidBlock::new(&(vs / "mid_block"), level.channels, &resnet, mixer.as_ref())?)
            }
            _ => None,
        };
        Ok(Self { down_blocks, mid_block })
    }

    /// From the first convolution's output: the lowest level's output, and what each layer on the way
    /// down gave, the first convolution's output first.
    pub fn forward(&self, xs: Tensor, temb: &Tensor, context: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let (temb, context) = (Some(temb), Some(context));
        let mut skips = vec![xs.shallow_clone()];
        let mut xs = xs;
        for block in &self.down_blocks {
            xs = block.forward(xs, temb, context, Some(&mut skips))?;
        }
        if let Some(block) = &self.mid_block {
            xs = block.forward(&xs, temb, context)?;
        }
        Ok((xs, skips))
    }
}

/// Checks the hidden states that a network attends to, if it does.
///
/// # Errors
/// Not (batch, tokens, channels).
pub(crate) fn check_context(context: &Tensor, batch: i64, channels: Option<i64>) -> Result<()> {
    let Some(channels) = channels else { return Ok(()) };
    match context.size()[..] {
        [b, tokens, c] if b == batch && tokens > 0 && c == channels => Ok(()),
        ref size => Err(Error::input(format!(
            "the encoder's hidden states have the shape {size:?}: the network takes ({batch}, tokens, {channels})"
        ))
        .help("`cross_attention_dim` must be the text encoder's hidden size")),
    }
}
