//! `Transformer2DModel` over images and its `BasicTransformerBlock` (diffusers
//! models/transformers/transformer_2d.py, models/attention.py).

use tch::{Tensor, nn::Path};

use super::{
    attention::Attention,
    config::Activation,
    layers::{
        Conv2d, GroupNorm, LayerNorm, Linear, add, add_tokens, is_channels_last, mul, to_images, to_tokens,
    },
};
use crate::error::{Error, Result};

/// `FeedForward` with `GEGLU`.
#[derive(Debug)]
struct FeedForward {
    project: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(vs: &Path, channels: i64) -> Result<Self> {
        let (vs, inner) = (vs / "net", 4 * channels);
        Ok(Self {
            project: Linear::new(&(&vs / 0 / "proj"), channels, 2 * inner, true)?,
            out: Linear::new(&(&vs / 2), inner, channels, true)?,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let both = self.project.forward(xs)?;
        let inner = both.size()[2] / 2;
        let gate = Activation::Gelu.forward(&both.f_narrow(2, inner, inner)?)?;
        self.out.forward(&mul(gate, &both.f_narrow(2, 0, inner)?)?)
    }
}

/// Self-attention, cross-attention, feed-forward, each behind a norm and with a residual connection.
#[derive(Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    fn new(vs: &Path, heads: i64, head_dim: i64, context: i64) -> Result<Self> {
        let channels = heads * head_dim;
        Ok(Self {
            norm1: LayerNorm::new(&(vs / "norm1"), channels)?,
            attn1: Attention::new(&(vs / "attn1"), channels, channels, heads, head_dim, false)?,
            norm2: LayerNorm::new(&(vs / "norm2"), channels)?,
            attn2: Attention::new(&(vs / "attn2"), channels, context, heads, head_dim, false)?,
            norm3: LayerNorm::new(&(vs / "norm3"), channels)?,
            ff: FeedForward::new(&(vs / "ff"), channels)?,
        })
    }

    fn forward(&self, xs: &Tensor, context: &Tensor) -> Result<Tensor> {
        let normed = self.norm1.forward(xs)?;
        let xs = add(self.attn1.forward(&normed, &normed)?, xs)?;
        let xs = add(self.attn2.forward(&self.norm2.forward(&xs)?, context)?, &xs)?;
        add(self.ff.forward(&self.norm3.forward(&xs)?)?, &xs)
    }
}

/// Into and out of the tokens: a linear layer over tokens, or a convolution of kernel 1 over images.
/// The two are the same but for the last bits, and upstream's bits are wanted.
#[derive(Debug)]
enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Projection {
    fn new(vs: &Path, inputs: i64, outputs: i64, linear: bool) -> Result<Self> {
        Ok(match linear {
            true => Self::Linear(Linear::new(vs, inputs, outputs, true)?),
            false => Self::Conv(Conv2d::new(vs, inputs, outputs, 1, 1, 0)?),
        })
    }
}

/// What a transformer over images is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransformerConfig {
    pub heads: i64,
    pub layers: i64,
    /// Channels of the tokens that are attended to.
    pub cross_attention_dim: i64,
    pub linear_projection: bool,
    pub groups: i64,
}

#[derive(Debug)]
pub(crate) struct Transformer2D {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2D {
    const EPS: f64 = 1e-6;

    pub fn new(vs: &Path, channels: i64, config: &TransformerConfig) -> Result<Self> {
        let heads = config.heads;
        if heads < 1 || heads > channels {
            return Err(Error::input(format!(
                "{}: {channels} channels cannot be attended to in {heads} heads",
                vs.path("norm").trim_end_matches(".norm")
            ))
            .help("`attention_head_dim` is the number of heads, not their size, in this network"));
        }
        let head_dim = channels / heads;
        let (inner, linear) = (heads * head_dim, config.linear_projection);
        Ok(Self {
            norm: GroupNorm::new(&(vs / "norm"), config.groups, channels, Self::EPS)?,
            proj_in: Projection::new(&(vs / "proj_in"), channels, inner, linear)?,
            transformer_blocks: (0..config.layers)
                .map(|i| {
                    let vs = vs / "transformer_blocks" / i;
                    BasicTransformerBlock::new(&vs, heads, head_dim, config.cross_attention_dim)
                })
                .collect::<Result<_>>()?,
            proj_out: Projection::new(&(vs / "proj_out"), inner, channels, linear)?,
        })
    }

    /// (batch, channels, height, width), attending to (batch, tokens, `cross_attention_dim`), to the
    /// images' shape.
    pub fn forward(&self, xs: &Tensor, context: &Tensor) -> Result<Tensor> {
        let normed = self.norm.forward(xs)?;
        let mut tokens = match &self.proj_in {
            Projection::Linear(linear) => linear.forward(&to_tokens(&normed)?)?,
            Projection::Conv(conv) => to_tokens(&conv.forward(&normed)?)?,
        };
        drop(normed);
        for block in &self.transformer_blocks {
            tokens = block.forward(&tokens, context)?;
        }
        match &self.proj_out {
            Projection::Linear(linear) => add_tokens(xs, linear.forward(&tokens)?),
            Projection::Conv(conv) => {
                let images = to_images(&tokens, xs)?;
                let images = if is_channels_last(xs) { images } else { images.f_contiguous()? };
                add(conv.forward(&images)?, xs)
            }
        }
    }
}
