//! Squeeze-excitation (Hu et al. 2018), as torchvision's networks have it.

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

use crate::error::Result;

/// A function of a tensor, element by element.
pub(super) type Elementwise = fn(&Tensor) -> Tensor;

/// `torchvision.ops.SqueezeExcitation`: multiplies every channel by a factor that depends on the means of all
/// channels. Two 1x1 convolutions with biases (`fc1`, `fc2`) make the factors from the means.
#[derive(Debug)]
pub(super) struct SqueezeExcitation {
    fc1: (Tensor, Tensor),
    fc2: (Tensor, Tensor),
    activation: Elementwise,
    scale: Elementwise,
}

impl SqueezeExcitation {
    /// From `channels` to `squeezed` and back; `activation` follows the first convolution, `scale` the second.
    pub fn new(
        vs: &Path,
        channels: i64,
        squeezed: i64,
        activation: Elementwise,
        scale: Elementwise,
    ) -> Result<Self> {
        let convolution = |name: &str, cin: i64, cout: i64| -> Result<(Tensor, Tensor)> {
            let vs = vs / name;
            let weight = vs.f_var("weight", &[cout, cin, 1, 1], Init::Const(0.0))?;
            Ok((weight, vs.f_var("bias", &[cout], Init::Const(0.0))?))
        };
        let fc1 = convolution("fc1", channels, squeezed)?;
        Ok(Self { fc1, fc2: convolution("fc2", squeezed, channels)?, activation, scale })
    }

    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let convolve = |xs: &Tensor, (weight, bias): &(Tensor, Tensor)| {
            xs.conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1)
        };
        let mean = xs.mean_dim([2i64, 3].as_slice(), true, None::<Kind>);
        let squeezed = (self.activation)(&convolve(&mean, &self.fc1));
        xs * (self.scale)(&convolve(&squeezed, &self.fc2))
    }
}
