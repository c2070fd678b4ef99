//! Embeddings of timesteps and classes (diffusers models/embeddings.py).

use tch::{
    Device, Kind, Tensor,
    nn::{Init, Path},
};

use super::{
    config::{Activation, ClassEmbed},
    layers::{LayerNorm, Linear},
};
use crate::error::{Error, Result};

/// What turns a timestep into the input of the first linear layer.
#[derive(Debug)]
pub(crate) enum TimeProjection {
    /// `Timesteps`: sine and cosine of geometric frequencies.
    Positional { channels: i64, flip_sin_to_cos: bool, freq_shift: f64 },
    /// `GaussianFourierProjection`: sine and cosine of fixed random frequencies.
    Fourier { weight: Tensor, log: bool, flip_sin_to_cos: bool },
}

impl TimeProjection {
    /// `frequencies` random frequencies, which a checkpoint holds and nothing trains.
    pub fn fourier(vs: &Path, frequencies: i64, log: bool, flip_sin_to_cos: bool) -> Result<Self> {
        Ok(Self::Fourier { weight: vs.f_zeros_no_train("weight", &[frequencies])?, log, flip_sin_to_cos })
    }

    /// (batch,) of any type to (batch, channels) of f32.
    pub fn forward(&self, timesteps: &Tensor) -> Result<Tensor> {
        let (angles, flip, channels) = match self {
            Self::Positional { channels, flip_sin_to_cos, freq_shift } => {
                let half = channels / 2;
                // The order of the operations is upstream's: in f32 another one gives other angles.
                let exponent = Tensor::f_arange(half, (Kind::Float, timesteps.device()))?
                    .f_mul_scalar(-(1e4f64.ln()))?
                    .f_div_scalar(half as f64 - freq_shift)?;
                let timesteps = timesteps.f_totype(Kind::Float)?.f_unsqueeze(1)?;
                (timesteps.f_mul(&exponent.f_exp()?.f_unsqueeze(0)?)?, *flip_sin_to_cos, *channels)
            }
            Self::Fourier { weight, log, flip_sin_to_cos } => {
                let timesteps = if *log { timesteps.f_log()? } else { timesteps.shallow_clone() };
                let angles = timesteps
                    .f_unsqueeze(1)?
                    .f_mul(&weight.f_unsqueeze(0)?)?
                    .f_mul_scalar(2.0)?
                    .f_mul_scalar(std::f64::consts::PI)?;
                (angles, *flip_sin_to_cos, 2 * weight.size()[0])
            }
        };
        let (sin, cos) = (angles.f_sin()?, angles.f_cos()?);
        let both = Tensor::f_cat(&if flip { [cos, sin] } else { [sin, cos] }, -1)?;
        Ok(if channels % 2 == 1 { both.f_constant_pad_nd([0, 1])? } else { both })
    }
}

/// `TimestepEmbedding`: linear layer, activation, linear layer.
#[derive(Debug)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    activation: Activation,
}

impl TimestepEmbedding {
    pub fn new(vs: &Path, inputs: i64, outputs: i64, activation: Activation) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(&(vs / "linear_1"), inputs, outputs, true)?,
            linear_2: Linear::new(&(vs / "linear_2"), outputs, outputs, true)?,
            activation,
        })
    }

    /// (batch, inputs) of any floating type to (batch, outputs) of the weights' type.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = self.linear_1.forward(&xs.f_totype(self.linear_1.weight.kind())?)?;
        self.linear_2.forward(&self.activation.consume(xs)?)
    }
}

/// What turns class labels into a summand of the time embedding.
#[derive(Debug)]
pub(crate) enum ClassEmbedding {
    Table(Tensor),
    Timestep(TimestepEmbedding),
    Identity(i64),
    Projection(TimestepEmbedding, i64),
    SimpleProjection(Linear, i64),
}

impl ClassEmbedding {
    /// `time_inputs` and `channels` are the time embedding's; `activation` is that of
    /// [`ClassEmbed::Timestep`].
    pub fn new(
        vs: &Path,
        kind: ClassEmbed,
        time_inputs: i64,
        channels: i64,
        activation: Activation,
    ) -> Result<Self> {
        Ok(match kind {
            ClassEmbed::Table { classes } => {
                Self::Table(vs.f_var("weight", &[classes, channels], Init::Const(0.0))?)
            }
            ClassEmbed::Timestep => {
                Self::Timestep(TimestepEmbedding::new(vs, time_inputs, channels, activation)?)
            }
            ClassEmbed::Identity => Self::Identity(channels),
            ClassEmbed::Projection { inputs } => {
                Self::Projection(TimestepEmbedding::new(vs, inputs, channels, Activation::Silu)?, inputs)
            }
            ClassEmbed::SimpleProjection { inputs } => {
                Self::SimpleProjection(Linear::new(vs, inputs, channels, true)?, inputs)
            }
        })
    }

    /// The embedding of `labels` in the shape and type of the time embedding `temb`, if the network
    /// (that is, `this`) has classes.
    pub fn embed(
        this: Option<&Self>,
        labels: Option<&Tensor>,
        temb: &Tensor,
        time: &TimeProjection,
    ) -> Result<Option<Tensor>> {
        match (this, labels) {
            (None, None) => Ok(None),
            (Some(this), Some(labels)) => {
                let embedded = this.forward(&labels.f_to(temb.device())?, temb.size()[0], time)?;
                Ok(Some(embedded.f_totype(temb.kind())?))
            }
            (Some(_), None) => Err(Error::input("the network is conditioned on classes: it needs labels")),
            (None, Some(_)) => Err(Error::input("the network is not conditioned on classes: no labels")),
        }
    }

    /// Labels, (batch,) or (batch, inputs) by kind, to (batch, channels).
    fn forward(&self, labels: &Tensor, batch: i64, time: &TimeProjection) -> Result<Tensor> {
        let expected = match self {
            Self::Table(_) | Self::Timestep(_) => vec![batch],
            Self::Identity(inputs) | Self::Projection(_, inputs) | Self::SimpleProjection(_, inputs) => {
                vec![batch, *inputs]
            }
        };
        if labels.size() != expected {
            return Err(Error::input(format!(
                "the class labels have the shape {:?}: the network takes {expected:?}",
                labels.size()
            )));
        }
        match self {
            Self::Table(weight) => {
                check_classes(labels, weight.size()[0])?;
                Ok(Tensor::f_embedding(weight, labels, -1, false, false)?)
            }
            Self::Timestep(embedding) => embedding.forward(&time.forward(labels)?),
            Self::Identity(_) => Ok(labels.shallow_clone()),
            Self::Projection(embedding, _) => embedding.forward(labels),
            Self::SimpleProjection(linear, _) => linear.forward(&labels.f_totype(linear.weight.kind())?),
        }
    }
}

/// `TextTimeEmbedding`: an encoder's hidden states, pooled by attention, as a summand of the time
/// embedding.
#[derive(Debug)]
pub(crate) struct TextTimeEmbedding {
    norm1: LayerNorm,
    positional_embedding: Tensor,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    heads: i64,
    proj: Linear,
    norm2: LayerNorm,
}

impl TextTimeEmbedding {
    /// `inputs` are the hidden states' channels, `outputs` the time embedding's.
    pub fn new(vs: &Path, inputs: i64, outputs: i64, heads: i64) -> Result<Self> {
        let pool = vs / "pool";
        let linear = |name: &str| Linear::new(&(&pool / name), inputs, inputs, true);
        Ok(Self {
            norm1: LayerNorm::new(&(vs / "norm1"), inputs)?,
            positional_embedding: pool.f_var("positional_embedding", &[1, inputs], Init::Const(0.0))?,
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            heads,
            proj: Linear::new(&(vs / "proj"), inputs, outputs, true)?,
            norm2: LayerNorm::new(&(vs / "norm2"), outputs)?,
        })
    }

    /// (batch, tokens, inputs) of any floating type to (batch, outputs) of the weights' type.
    pub fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let xs = self.norm1.forward(&hidden_states.f_totype(self.q_proj.weight.kind())?)?;
        // The mean of all tokens asks; it is also one of those that answer.
        let mean = xs.f_mean_dim(1i64, true, None::<Kind>)?;
        let asking = mean.f_add(&self.positional_embedding.f_totype(mean.kind())?)?;
        let xs = Tensor::f_cat(&[&asking, &xs], 1)?;
        let split = |xs: Tensor| -> Result<Tensor> {
            let size = xs.size();
            let shape = [size[0], size[1], self.heads, size[2] / self.heads];
            Ok(xs.f_view(shape)?.f_transpose(1, 2)?)
        };
        let query = split(self.q_proj.forward(&asking)?)?;
        let (key, value) = (split(self.k_proj.forward(&xs)?)?, split(self.v_proj.forward(&xs)?)?);
        let mask = None::<&Tensor>;
        let pooled =
            Tensor::f_scaled_dot_product_attention(&query, &key, &value, mask, 0.0, false, None, false)?;
        self.norm2.forward(&self.proj.forward(&pooled.f_flatten(1, 3)?)?)
    }
}

/// A label out of range stops a CUDA device for good, so it is looked for first.
fn check_classes(labels: &Tensor, classes: i64) -> Result<()> {
    if !matches!(labels.kind(), Kind::Int64 | Kind::Int) {
        return Err(Error::input(format!("class labels are {:?}: they must be integers", labels.kind())));
    }
    for label in [labels.f_min()?, labels.f_max()?] {
        let label = label.f_int64_value(&[])?;
        if !(0..classes).contains(&label) {
            return Err(Error::input(format!("class {label} does not exist"))
                .help(format!("the network knows the classes 0 to {}", classes - 1)));
        }
    }
    Ok(())
}

/// Timesteps as (batch,) on the network's device: one for all images, or one each.
pub(crate) fn batch_timesteps(timesteps: &Tensor, batch: i64, device: Device) -> Result<Tensor> {
    match timesteps.size()[..] {
        [] | [1] => Ok(timesteps.f_to(device)?.f_reshape([1])?.f_expand([batch], false)?),
        [n] if n == batch => Ok(timesteps.f_to(device)?),
        ref size => Err(Error::input(format!("timesteps of shape {size:?} for a batch of {batch}"))),
    }
}
