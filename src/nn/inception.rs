//! The Inception-v3 of FID: TensorFlow's of 2015-12-05, as pytorch-fid 0.3.0 and torch-fidelity 0.4.0 have it.
//!
//! Variable paths are those of pytorch-fid's `FIDInceptionV3`: `Conv2d_1a_3x3.conv.weight`,
//! `Mixed_5b.branch1x1.bn.running_var`, … It differs from torchvision's Inception-v3 in its pools
//! ([`Pooling`]), in its 1008 classes and in taking its input as it is. For inference only: BatchNorm is
//! folded into the convolutions once, in f64, and what is kept is f32, channels last.

use std::collections::BTreeMap;

use tch::{
    Device, Kind, Tensor,
    nn::{Init, Path, VarStore},
};

use crate::error::{Error, Result};

/// Width and height of its images, pixels.
pub const SIZE: usize = 299;
/// Length of its pooled features.
pub const FEATURES: usize = 2048;

/// TensorFlow's, and torchvision's, BatchNorm of Inception; PyTorch's usual one is 1e-5.
const EPSILON: f64 = 1e-3;

/// What is said apart from the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pooling {
    /// Whether the average pools count the padding's zeros.
    pub counts_padding: bool,
    /// Whether the pool of Mixed_7c takes the greatest value in place of the mean.
    pub last_is_max: bool,
}

impl Pooling {
    /// That of the network which FID is defined by.
    pub const FID: Self = Self { counts_padding: false, last_is_max: true };
}

/// A convolution's name below its block, and its weight's shape: out, in, kernel height, kernel width.
type NamedShape = (&'static str, [i64; 4]);

const STEM: [NamedShape; 5] = [
    ("Conv2d_1a_3x3", [32, 3, 3, 3]),
    ("Conv2d_2a_3x3", [32, 32, 3, 3]),
    ("Conv2d_2b_3x3", [64, 32, 3, 3]),
    ("Conv2d_3b_1x1", [80, 64, 1, 1]),
    ("Conv2d_4a_3x3", [192, 80, 3, 3]),
];

/// The blocks, lettered as torchvision letters them.
#[derive(Debug, Clone, Copy)]
enum Letter {
    /// `pool`: channels of its pool branch.
    A {
        pool: i64,
    },
    B,
    /// `width` of its 7x7 branches.
    C {
        width: i64,
    },
    D,
    E {
        last: bool,
    },
}

/// Name, input channels, letter.
const MIXED: [(&str, i64, Letter); 11] = [
    ("Mixed_5b", 192, Letter::A { pool: 32 }),
    ("Mixed_5c", 256, Letter::A { pool: 64 }),
    ("Mixed_5d", 288, Letter::A { pool: 64 }),
    ("Mixed_6a", 288, Letter::B),
    ("Mixed_6b", 768, Letter::C { width: 128 }),
    ("Mixed_6c", 768, Letter::C { width: 160 }),
    ("Mixed_6d", 768, Letter::C { width: 160 }),
    ("Mixed_6e", 768, Letter::C { width: 192 }),
    ("Mixed_7a", 768, Letter::D),
    ("Mixed_7b", 1280, Letter::E { last: false }),
    ("Mixed_7c", 2048, Letter::E { last: true }),
];

impl Letter {
    fn shapes(self, cin: i64) -> Vec<NamedShape> {
        match self {
            Self::A { pool } => vec![
                ("branch1x1", [64, cin, 1, 1]),
                ("branch5x5_1", [48, cin, 1, 1]),
                ("branch5x5_2", [64, 48, 5, 5]),
                ("branch3x3dbl_1", [64, cin, 1, 1]),
                ("branch3x3dbl_2", [96, 64, 3, 3]),
                ("branch3x3dbl_3", [96, 96, 3, 3]),
                ("branch_pool", [pool, cin, 1, 1]),
            ],
            Self::B => vec![
                ("branch3x3", [384, cin, 3, 3]),
                ("branch3x3dbl_1", [64, cin, 1, 1]),
                ("branch3x3dbl_2", [96, 64, 3, 3]),
                ("branch3x3dbl_3", [96, 96, 3, 3]),
            ],
            Self::C { width } => vec![
                ("branch1x1", [192, cin, 1, 1]),
                ("branch7x7_1", [width, cin, 1, 1]),
                ("branch7x7_2", [width, width, 1, 7]),
                ("branch7x7_3", [192, width, 7, 1]),
                ("branch7x7dbl_1", [width, cin, 1, 1]),
                ("branch7x7dbl_2", [width, width, 7, 1]),
                ("branch7x7dbl_3", [width, width, 1, 7]),
                ("branch7x7dbl_4", [width, width, 7, 1]),
                ("branch7x7dbl_5", [192, width, 1, 7]),
                ("branch_pool", [192, cin, 1, 1]),
            ],
            Self::D => vec![
                ("branch3x3_1", [192, cin, 1, 1]),
                ("branch3x3_2", [320, 192, 3, 3]),
                ("branch7x7x3_1", [192, cin, 1, 1]),
                ("branch7x7x3_2", [192, 192, 1, 7]),
                ("branch7x7x3_3", [192, 192, 7, 1]),
                ("branch7x7x3_4", [192, 192, 3, 3]),
            ],
            Self::E { .. } => vec![
                ("branch1x1", [320, cin, 1, 1]),
                ("branch3x3_1", [384, cin, 1, 1]),
                ("branch3x3_2a", [384, 384, 1, 3]),
                ("branch3x3_2b", [384, 384, 3, 1]),
                ("branch3x3dbl_1", [448, cin, 1, 1]),
                ("branch3x3dbl_2", [384, 448, 3, 3]),
                ("branch3x3dbl_3a", [384, 384, 1, 3]),
                ("branch3x3dbl_3b", [384, 384, 3, 1]),
                ("branch_pool", [192, cin, 1, 1]),
            ],
        }
    }
}

/// Makes the variables of all convolutions and their BatchNorms. The classifier `fc`, which features do
/// not need, is not among them.
pub fn declare(vs: &Path) -> Result<()> {
    // The variables live in the store.
    let one = |vs: &Path, (name, shape): NamedShape| -> Result<()> {
        let (conv, bn) = (vs / name / "conv", vs / name / "bn");
        let _ = conv.f_var("weight", &shape, Init::Const(0.0))?;
        let channels = [shape[0]];
        let _ = bn.f_var("weight", &channels, Init::Const(1.0))?;
        let _ = bn.f_var("bias", &channels, Init::Const(0.0))?;
        let _ = bn.f_zeros_no_train("running_mean", &channels)?;
        let _ = bn.f_ones_no_train("running_var", &channels)?;
        Ok(())
    };
    STEM.into_iter().try_for_each(|shape| one(vs, shape))?;
    for (block, cin, letter) in MIXED {
        letter.shapes(cin).into_iter().try_for_each(|shape| one(&(vs / block), shape))?;
    }
    Ok(())
}

/// Variables of a checkpoint that [`declare`] does not make and that may be there all the same.
pub fn optional(name: &str) -> bool {
    name.starts_with("fc.") || name.starts_with("AuxLogits.")
}

/// A convolution with its BatchNorm folded in.
#[derive(Debug)]
struct FoldedConvolution {
    weight: Tensor,
    bias: Tensor,
}

impl FoldedConvolution {
    /// Without the ReLU. Stride 1 keeps width and height.
    fn linear(&self, xs: &Tensor) -> Tensor {
        let [h, w] = self.kernel();
        xs.conv2d(&self.weight, Some(&self.bias), [1, 1], [(h - 1) / 2, (w - 1) / 2], [1, 1], 1)
    }

    fn same(&self, xs: &Tensor) -> Tensor {
        self.linear(xs).relu_()
    }

    /// Without padding.
    fn valid(&self, xs: &Tensor, stride: i64) -> Tensor {
        xs.conv2d(&self.weight, Some(&self.bias), [stride; 2], [0, 0], [1, 1], 1).relu_()
    }

    fn kernel(&self) -> [i64; 2] {
        let size = self.weight.size();
        [size[2], size[3]]
    }
}

/// A block's convolutions in the order of [`Letter::shapes`].
#[derive(Debug)]
struct MixedBlock {
    letter: Letter,
    convolutions: Vec<FoldedConvolution>,
}

/// Images (n, 3, 299, 299), f32 in -1..1, to pooled features (n, 2048), f32.
#[derive(Debug)]
pub struct Inception {
    stem: Vec<FoldedConvolution>,
    blocks: Vec<MixedBlock>,
    pooling: Pooling,
}

fn max_pool(xs: &Tensor) -> Tensor {
    xs.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false)
}

fn chain(xs: &Tensor, convolutions: &[FoldedConvolution]) -> Tensor {
    let mut ys = xs.shallow_clone();
    for convolution in convolutions {
        ys = convolution.same(&ys);
    }
    ys
}

impl Inception {
    /// Folds the variables that [`declare`] made; the network is on `device`.
    ///
    /// # Errors
    /// `vs` lacks a variable.
    pub fn new(vs: &VarStore, pooling: Pooling, device: Device) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
        let fold = |name: String| -> Result<FoldedConvolution> {
            let get = |part: &str| -> Result<Tensor> {
                let name = format!("{name}.{part}");
                let found =
                    variables.get(&name).ok_or_else(|| Error::failure(format!("no variable {name}")))?;
                Ok(found.f_to_device(Device::Cpu)?.to_kind(Kind::Double))
            };
            let scale = get("bn.weight")? / (get("bn.running_var")? + EPSILON).sqrt();
            let weight = get("conv.weight")? * scale.view([-1, 1, 1, 1]);
            let bias = get("bn.bias")? - get("bn.running_mean")? * scale;
            let last = weight.to_kind(Kind::Float).permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
            Ok(FoldedConvolution {
                weight: last.f_to_device(device)?,
                bias: bias.to_kind(Kind::Float).f_to_device(device)?,
            })
        };
        let stem = STEM.iter().map(|(name, _)| fold((*name).into())).collect::<Result<_>>()?;
        let block = |(block, cin, letter): (&str, i64, Letter)| -> Result<MixedBlock> {
            let names = letter.shapes(cin).into_iter().map(|(name, _)| format!("{block}.{name}"));
            Ok(MixedBlock { letter, convolutions: names.map(fold).collect::<Result<_>>()? })
        };
        let blocks = MIXED.into_iter().map(block).collect::<Result<_>>()?;
        Ok(Self { stem, blocks, pooling })
    }

    /// # Errors
    /// `images` has another shape.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        let size = SIZE as i64;
        if images.size().get(1..) != Some(&[3, size, size]) {
            return Err(Error::failure(format!(
                "Inception takes images of the shape (n, 3, {size}, {size}), not {:?}",
                images.size()
            )));
        }
        let _guard = tch::no_grad_guard();
        let [a1, a2, b2, b3, a4] = &self.stem[..] else { return Err(Error::failure("a stem of five")) };
        let mut xs = max_pool(&b2.same(&a2.valid(&a1.valid(images, 2), 1)));
        xs = max_pool(&a4.valid(&b3.same(&xs), 1));
        for block in &self.blocks {
            xs = block.forward(&xs, self.pooling)?;
        }
        Ok(xs.f_adaptive_avg_pool2d([1, 1])?.flatten(1, -1))
    }
}

impl MixedBlock {
    fn forward(&self, xs: &Tensor, pooling: Pooling) -> Result<Tensor> {
        let c = &self.convolutions[..];
        // The mean over real pixels and a 1x1 convolution can change places: the pool then has fewer channels
        // to go through. With zeros counted it would shrink the bias as well.
        let average = |convolution: &FoldedConvolution| {
            if pooling.counts_padding {
                convolution.same(&xs.avg_pool2d([3, 3], [1, 1], [1, 1], false, true, None::<i64>))
            } else {
                let ys = convolution.linear(xs);
                ys.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None::<i64>).relu_()
            }
        };
        let branches = match (self.letter, c) {
            (Letter::A { .. }, [one, five @ .., a, b, d, pool]) => {
                vec![one.same(xs), chain(xs, five), d.same(&b.same(&a.same(xs))), average(pool)]
            }
            (Letter::B, [three, a, b, d]) => {
                vec![three.valid(xs, 2), d.valid(&b.same(&a.same(xs)), 2), max_pool(xs)]
            }
            (Letter::C { .. }, [one, a, b, d, double @ .., pool]) => {
                vec![one.same(xs), d.same(&b.same(&a.same(xs))), chain(xs, double), average(pool)]
            }
            (Letter::D, [a, b, sevens @ .., last]) => {
                vec![b.valid(&a.same(xs), 2), last.valid(&chain(xs, sevens), 2), max_pool(xs)]
            }
            (Letter::E { last }, [one, three, wide, high, a, b, wide2, high2, pool]) => {
                let (ys, zs) = (three.same(xs), b.same(&a.same(xs)));
                let pool = if last && pooling.last_is_max {
                    pool.same(&xs.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false))
                } else {
                    average(pool)
                };
                vec![one.same(xs), wide.same(&ys), high.same(&ys), wide2.same(&zs), high2.same(&zs), pool]
            }
            _ => return Err(Error::failure("a block lacks a convolution")),
        };
        Ok(Tensor::f_cat(&branches, 1)?)
    }
}
