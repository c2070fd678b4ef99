//! Attention over tokens, and the attention block over images that unconditional networks and
//! autoencoders have (diffusers models/attention_processor.py, `AttnProcessor2_0`).

use tch::{Tensor, nn::Path};

use super::layers::{GroupNorm, Linear, add_tokens, rescale, to_tokens};
use crate::error::{Error, Result};

/// Multi-head attention: `to_q`, `to_k`, `to_v`, `to_out.0`.
#[derive(Debug)]
pub(crate) struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
    head_dim: i64,
}

impl Attention {
    /// Queries of `channels`, keys and values from tokens of `context` channels. `bias` is that of the
    /// three projections; the output always has one.
    ///
    /// # Errors
    /// No head fits.
    pub fn new(
        vs: &Path,
        channels: i64,
        context: i64,
        heads: i64,
        head_dim: i64,
        bias: bool,
    ) -> Result<Self> {
        if heads < 1 || head_dim < 1 {
            return Err(Error::input(format!(
                "{}: {channels} channels cannot be attended to in {heads} heads of {head_dim}",
                vs.path("to_q").trim_end_matches(".to_q")
            ))
            .help("choose another `attention_head_dim`"));
        }
        let inner = heads * head_dim;
        Ok(Self {
            to_q: Linear::new(&(vs / "to_q"), channels, inner, bias)?,
            to_k: Linear::new(&(vs / "to_k"), context, inner, bias)?,
            to_v: Linear::new(&(vs / "to_v"), context, inner, bias)?,
            to_out: Linear::new(&(vs / "to_out" / 0), inner, channels, true)?,
            heads,
            head_dim,
        })
    }

    /// Tokens (batch, n, channels) attend to tokens (batch, m, context).
    pub fn forward(&self, xs: &Tensor, context: &Tensor) -> Result<Tensor> {
        let split = |tokens: Tensor| -> Result<Tensor> {
            let size = tokens.size();
            Ok(tokens.f_view([size[0], size[1], self.heads, self.head_dim])?.f_transpose(1, 2)?)
        };
        let query = split(self.to_q.forward(xs)?)?;
        let key = split(self.to_k.forward(context)?)?;
        let value = split(self.to_v.forward(context)?)?;
        let mask = None::<&Tensor>;
        let ys = Tensor::f_scaled_dot_product_attention(&query, &key, &value, mask, 0.0, false, None, false)?;
        self.to_out.forward(&ys.f_transpose(1, 2)?.f_flatten(2, 3)?)
    }
}

/// Group norm, self-attention over all pixels, residual connection.
#[derive(Debug)]
pub(crate) struct AttentionBlock {
    group_norm: Option<GroupNorm>,
    attention: Attention,
    output_scale_factor: f64,
}

impl AttentionBlock {
    /// Without `groups` there is no norm.
    pub fn new(
        vs: &Path,
        channels: i64,
        head_dim: i64,
        groups: Option<i64>,
        eps: f64,
        output_scale_factor: f64,
    ) -> Result<Self> {
        let heads = if head_dim > 0 { channels / head_dim } else { 0 };
        Ok(Self {
            group_norm: groups
                .map(|groups| GroupNorm::new(&(vs / "group_norm"), groups, channels, eps))
                .transpose()?,
            attention: Attention::new(vs, channels, channels, heads, head_dim, true)?,
            output_scale_factor,
        })
    }

    /// (batch, channels, height, width) to the same.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let tokens = match &self.group_norm {
            Some(norm) => to_tokens(&norm.forward(xs)?)?,
            None => to_tokens(xs)?,
        };
        let tokens = self.attention.forward(&tokens, &tokens)?;
        rescale(add_tokens(xs, tokens)?, self.output_scale_factor)
    }
}
