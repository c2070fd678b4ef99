//! Convolution, linear layer, norms and activations with checked construction, and sums that work in
//! place where the result is the same.

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

use super::config::Activation;
use crate::error::{Error, Result};

/// `torch.nn.Conv2d` with a bias, a square kernel and the same stride and padding both ways.
#[derive(Debug)]
pub(crate) struct Conv2d {
    pub weight: Tensor,
    pub bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    pub fn new(vs: &Path, cin: i64, cout: i64, kernel: i64, stride: i64, padding: i64) -> Result<Self> {
        Ok(Self {
            weight: vs.f_var("weight", &[cout, cin, kernel, kernel], Init::Const(0.0))?,
            bias: vs.f_var("bias", &[cout], Init::Const(0.0))?,
            stride,
            padding,
        })
    }

    /// Kernel 3, stride 1, padding 1.
    pub fn same(vs: &Path, cin: i64, cout: i64) -> Result<Self> {
        Self::new(vs, cin, cout, 3, 1, 1)
    }

    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        Ok(xs.f_conv2d(&self.weight, Some(&self.bias), stride, padding, [1, 1], 1)?)
    }
}

/// `torch.nn.Linear`.
#[derive(Debug)]
pub(crate) struct Linear {
    pub weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub fn new(vs: &Path, inputs: i64, outputs: i64, bias: bool) -> Result<Self> {
        Ok(Self {
            weight: vs.f_var("weight", &[outputs, inputs], Init::Const(0.0))?,
            bias: if bias { Some(vs.f_var("bias", &[outputs], Init::Const(0.0))?) } else { None },
        })
    }

    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(xs.f_linear(&self.weight, self.bias.as_ref())?)
    }
}

/// `torch.nn.GroupNorm` with scale and shift.
#[derive(Debug)]
pub(crate) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// # Errors
    /// The channels cannot be divided into so many groups.
    pub fn new(vs: &Path, groups: i64, channels: i64, eps: f64) -> Result<Self> {
        if groups < 1 || channels % groups != 0 {
            return Err(Error::input(format!(
                "{}: {channels} channels cannot be normalised in {groups} groups",
                vs.path("weight").trim_end_matches(".weight")
            ))
            .help("choose channels that are multiples of `norm_num_groups`"));
        }
        Ok(Self {
            weight: vs.f_var("weight", &[channels], Init::Const(1.0))?,
            bias: vs.f_var("bias", &[channels], Init::Const(0.0))?,
            groups,
            eps,
        })
    }

    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (of_type(&self.weight, xs), of_type(&self.bias, xs));
        Ok(xs.f_group_norm(self.groups, Some(weight), Some(bias), self.eps, true)?)
    }
}

/// `torch.nn.LayerNorm` over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    const EPS: f64 = 1e-5;

    pub fn new(vs: &Path, channels: i64) -> Result<Self> {
        Ok(Self {
            weight: vs.f_var("weight", &[channels], Init::Const(1.0))?,
            bias: vs.f_var("bias", &[channels], Init::Const(0.0))?,
        })
    }

    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let shape = self.weight.size();
        let (weight, bias) = (of_type(&self.weight, xs), of_type(&self.bias, xs));
        Ok(xs.f_layer_norm(&shape[..], Some(weight), Some(bias), Self::EPS, true)?)
    }
}

/// A norm's scale or shift for `xs`: in mixed precision they are f32, which libtorch's norms take beside
/// lower ones on the CPU alone.
pub(crate) fn of_type(parameter: &Tensor, xs: &Tensor) -> Tensor {
    if xs.device().is_cuda() { parameter.to_kind(xs.kind()) } else { parameter.shallow_clone() }
}

impl Activation {
    pub(crate) fn forward(self, xs: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => xs.f_silu(),
            Self::Gelu => xs.f_gelu("none"),
            Self::Relu => xs.f_relu(),
            Self::Mish => xs.f_mish(),
        }?)
    }

    /// Of a tensor that nothing else uses: in place unless a gradient needs what went in.
    pub(crate) fn consume(self, mut xs: Tensor) -> Result<Tensor> {
        if xs.requires_grad() {
            return self.forward(&xs);
        }
        Ok(match self {
            Self::Silu => xs.f_silu_(),
            Self::Gelu => xs.f_gelu_("none"),
            Self::Relu => xs.f_relu_(),
            Self::Mish => xs.f_mish_(),
        }?)
    }
}

/// `fresh + other`, in place unless gradients are kept; nothing else may use `fresh`.
pub(crate) fn add(mut fresh: Tensor, other: &Tensor) -> Result<Tensor> {
    Ok(if in_place(&fresh, other) { fresh.f_add_(other) } else { fresh.f_add(other) }?)
}

/// `fresh * other`, in place unless gradients are kept; nothing else may use `fresh`.
pub(crate) fn mul(mut fresh: Tensor, other: &Tensor) -> Result<Tensor> {
    Ok(if in_place(&fresh, other) { fresh.f_mul_(other) } else { fresh.f_mul(other) }?)
}

/// Writing into a view, as a linear layer's output is one, costs gradients more than it saves; and
/// under autocast a result may be wider than its first term.
fn in_place(fresh: &Tensor, other: &Tensor) -> bool {
    fresh.kind() == other.kind() && !fresh.requires_grad() && !other.requires_grad()
}

/// `fresh / factor`, without a pass over the memory where the factor is 1.
pub(crate) fn rescale(fresh: Tensor, factor: f64) -> Result<Tensor> {
    Ok(if factor == 1.0 { fresh } else { fresh.f_div_scalar(factor)? })
}

/// Images (batch, channels, height, width) as tokens (batch, height * width, channels): a view of
/// channels-last images, one copy of others.
pub(crate) fn to_tokens(images: &Tensor) -> Result<Tensor> {
    let [batch, channels, height, width] = size4(images)?;
    Ok(images.f_permute([0, 2, 3, 1])?.f_reshape([batch, height * width, channels])?)
}

/// Tokens (batch, height * width, any channels) as channels-last images of the height and width of
/// `like`.
pub(crate) fn to_images(tokens: &Tensor, like: &Tensor) -> Result<Tensor> {
    let [batch, _, height, width] = size4(like)?;
    Ok(tokens.f_reshape([batch, height, width, -1])?.f_permute([0, 3, 1, 2])?)
}

/// Tokens (batch, height * width, channels) laid over `images`: a sum in the images' memory format.
/// Nothing else may use `tokens`.
pub(crate) fn add_tokens(images: &Tensor, tokens: Tensor) -> Result<Tensor> {
    let tokens = to_images(&tokens, images)?;
    if is_channels_last(images) { add(tokens, images) } else { Ok(images.f_add(&tokens)?) }
}

/// Of images of one pixel both are true; either will do.
pub(crate) fn is_channels_last(images: &Tensor) -> bool {
    images.stride().get(1) == Some(&1)
}

/// # Errors
/// Not four dimensions.
pub(crate) fn size4(images: &Tensor) -> Result<[i64; 4]> {
    images.size().try_into().map_err(|size: Vec<i64>| {
        Error::input(format!("images have the shape {size:?}: not (batch, channels, height, width)"))
    })
}

/// Checks images that a network is given; `what` names them.
///
/// # Errors
/// Not four dimensions, other channels than the network has, nothing in them, or no floating point.
pub(crate) fn check_images(images: &Tensor, channels: i64, what: &str) -> Result<[i64; 4]> {
    let size = images.size();
    match size[..] {
        [b, c, h, w] if c == channels && b.min(h).min(w) > 0 => {
            check_float(images, what).map(|()| [b, c, h, w])
        }
        _ => Err(Error::input(format!(
            "{what} has the shape {size:?}: the network takes (batch, {channels}, height, width)"
        ))),
    }
}

pub(crate) fn check_float(tensor: &Tensor, what: &str) -> Result<()> {
    match tensor.kind() {
        Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 => Ok(()),
        other => Err(Error::input(format!("{what} holds {other:?}: the network takes floating point"))),
    }
}
