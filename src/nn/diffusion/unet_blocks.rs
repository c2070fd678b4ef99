//! The levels of a U-Net on the way down, at the bottom and on the way up (diffusers
//! models/unets/unet_2d_blocks.py).

use tch::{Tensor, nn::Path};

use super::{
    attention::AttentionBlock,
    config::ResampleType,
    layers::size4,
    resnet_block::{Resample, ResnetBlock2D, ResnetConfig},
    sampling::{Downsample2D, Upsample2D},
    transformer::{Transformer2D, TransformerConfig},
};
use crate::error::{Error, Result};

/// What follows each residual block.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MixerConfig {
    Nothing,
    Attention { head_dim: i64, groups: Option<i64> },
    Transformer(TransformerConfig),
}

#[derive(Debug)]
enum Mixer {
    Nothing,
    Attention(AttentionBlock),
    Transformer(Transformer2D),
}

impl Mixer {
    fn new(vs: &Path, channels: i64, config: &MixerConfig, resnet: &ResnetConfig) -> Result<Self> {
        Ok(match config {
            MixerConfig::Nothing => Self::Nothing,
            MixerConfig::Attention { head_dim, groups } => {
                let (eps, factor) = (resnet.eps, resnet.output_scale_factor);
                Self::Attention(AttentionBlock::new(vs, channels, *head_dim, *groups, eps, factor)?)
            }
            MixerConfig::Transformer(config) => Self::Transformer(Transformer2D::new(vs, channels, config)?),
        })
    }

    fn forward(&self, xs: Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        match (self, context) {
            (Self::Nothing, _) => Ok(xs),
            (Self::Attention(attention), _) => attention.forward(&xs),
            (Self::Transformer(transformer), Some(context)) => transformer.forward(&xs, context),
            (Self::Transformer(_), None) => {
                Err(Error::failure("a transformer block got no hidden states to attend to"))
            }
        }
    }
}

/// Residual blocks `resnets.0`, …, each followed by `attentions.0`, ….
fn layers(
    vs: &Path,
    inputs: &[i64],
    cout: i64,
    resnet: &ResnetConfig,
    mixer: &MixerConfig,
) -> Result<Vec<(ResnetBlock2D, Mixer)>> {
    (0..)
        .zip(inputs)
        .map(|(i, &cin)| {
            let block = ResnetBlock2D::new(&(vs / "resnets" / i), cin, cout, resnet, Resample::Keep)?;
            Ok((block, Mixer::new(&(vs / "attentions" / i), cout, mixer, resnet)?))
        })
        .collect()
}

#[derive(Debug)]
enum Downsampler {
    Conv(Downsample2D),
    Resnet(Box<ResnetBlock2D>),
}

/// A level on the way down.
#[derive(Debug)]
pub(crate) struct DownBlock {
    layers: Vec<(ResnetBlock2D, Mixer)>,
    downsampler: Option<Downsampler>,
}

impl DownBlock {
    /// `count` residual blocks; `downsample` is the kind of the downsampler behind them, if there is
    /// one, and the padding of its convolution.
    pub fn new(
        vs: &Path,
        [cin, cout]: [i64; 2],
        count: i64,
        resnet: &ResnetConfig,
        mixer: &MixerConfig,
        downsample: Option<(ResampleType, i64)>,
    ) -> Result<Self> {
        let inputs: Vec<i64> = (0..count).map(|i| if i == 0 { cin } else { cout }).collect();
        let layers = layers(vs, &inputs, cout, resnet, mixer)?;
        let vs = vs / "downsamplers" / 0;
        let downsampler = match downsample {
            None => None,
            Some((ResampleType::Conv, padding)) => {
                Some(Downsampler::Conv(Downsample2D::new(&vs, cout, padding)?))
            }
            Some((ResampleType::Resnet, _)) => {
                let block = ResnetBlock2D::new(&vs, cout, cout, resnet, Resample::Halve)?;
                Some(Downsampler::Resnet(Box::new(block)))
            }
        };
        Ok(Self { layers, downsampler })
    }

    /// The level's output; what each of its layers gives is put on `skips`.
    pub fn forward(
        &self,
        mut xs: Tensor,
        temb: Option<&Tensor>,
        context: Option<&Tensor>,
        mut skips: Option<&mut Vec<Tensor>>,
    ) -> Result<Tensor> {
        let mut keep = |xs: &Tensor| {
            if let Some(skips) = &mut skips {
                skips.push(xs.shallow_clone());
            }
        };
        for (resnet, mixer) in &self.layers {
            xs = mixer.forward(resnet.forward(&xs, temb)?, context)?;
            keep(&xs);
        }
        if let Some(downsampler) = &self.downsampler {
            xs = match downsampler {
                Downsampler::Conv(conv) => conv.forward(&xs)?,
                Downsampler::Resnet(resnet) => resnet.forward(&xs, temb)?,
            };
            keep(&xs);
        }
        Ok(xs)
    }
}

#[derive(Debug)]
enum Upsampler {
    Conv(Upsample2D),
    Resnet(Box<ResnetBlock2D>),
}

/// A level on the way up.
#[derive(Debug)]
pub(crate) struct UpBlock {
    layers: Vec<(ResnetBlock2D, Mixer)>,
    upsampler: Option<Upsampler>,
}

impl UpBlock {
    /// A residual block for each of `inputs`, the channels that go into it, skips included.
    pub fn new(
        vs: &Path,
        inputs: &[i64],
        cout: i64,
        resnet: &ResnetConfig,
        mixer: &MixerConfig,
        upsample: Option<ResampleType>,
    ) -> Result<Self> {
        let layers = layers(vs, inputs, cout, resnet, mixer)?;
        let vs = vs / "upsamplers" / 0;
        let upsampler = match upsample {
            None => None,
            Some(ResampleType::Conv) => Some(Upsampler::Conv(Upsample2D::new(&vs, cout)?)),
            Some(ResampleType::Resnet) => {
                let block = ResnetBlock2D::new(&vs, cout, cout, resnet, Resample::Double)?;
                Some(Upsampler::Resnet(Box::new(block)))
            }
        };
        Ok(Self { layers, upsampler })
    }

    /// The level's output. Where there are `skips`, each layer takes the last of them; and where `fit`,
    /// the output gets the size of the one that comes next, not just twice its own.
    pub fn forward(
        &self,
        mut xs: Tensor,
        temb: Option<&Tensor>,
        context: Option<&Tensor>,
        mut skips: Option<&mut Vec<Tensor>>,
        fit: bool,
    ) -> Result<Tensor> {
        for (resnet, mixer) in &self.layers {
            if let Some(skips) = &mut skips {
                let Some(skip) = skips.pop() else {
                    return Err(Error::failure("fewer layers on the way down than on the way up"));
                };
                xs = Tensor::f_cat(&[xs, skip], 1)?;
            }
            xs = mixer.forward(resnet.forward(&xs, temb)?, context)?;
        }
        let next = match &skips {
            Some(skips) if fit => skips.last().map(size4).transpose()?,
            _ => None,
        };
        match &self.upsampler {
            None => Ok(xs),
            Some(Upsampler::Conv(conv)) => conv.forward(&xs, next.map(|[_, _, h, w]| [h, w])),
            Some(Upsampler::Resnet(resnet)) => resnet.forward(&xs, temb),
        }
    }
}

/// What goes into each of a level's `count` residual blocks on the way up: the output of the level
/// below, or of the block before, with its skip; the last skip comes from the level above.
pub(crate) fn up_inputs(count: i64, below: i64, own: i64, above: i64) -> Vec<i64> {
    (0..count).map(|i| if i == 0 { below } else { own } + if i == count - 1 { above } else { own }).collect()
}

/// The lowest level: a residual block, and one more behind attention.
#[derive(Debug)]
pub(crate) struct MidBlock {
    first: ResnetBlock2D,
    then: Option<(Mixer, ResnetBlock2D)>,
}

impl MidBlock {
    /// Without a `mixer` there is one residual block only.
    pub fn new(vs: &Path, channels: i64, resnet: &ResnetConfig, mixer: Option<&MixerConfig>) -> Result<Self> {
        let block =
            |i: i64| ResnetBlock2D::new(&(vs / "resnets" / i), channels, channels, resnet, Resample::Keep);
        let then = |mixer| {
            Ok::<_, Error>((Mixer::new(&(vs / "attentions" / 0), channels, mixer, resnet)?, block(1)?))
        };
        Ok(Self { first: block(0)?, then: mixer.map(then).transpose()? })
    }

    pub fn forward(&self, xs: &Tensor, temb: Option<&Tensor>, context: Option<&Tensor>) -> Result<Tensor> {
        let xs = self.first.forward(xs, temb)?;
        match &self.then {
            None => Ok(xs),
            Some((mixer, resnet)) => resnet.forward(&mixer.forward(xs, context)?, temb),
        }
    }
}
