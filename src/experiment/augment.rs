//! Random changes of training images.

use serde::{Deserialize, Serialize};

use super::{preset::Preset, sections::layered};

/// The unit of the greatest translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TranslateUnit {
    /// Of the image size. Drawn translations are whole pixels, as by torchvision's `RandomAffine`.
    Fraction,
    /// Fault: pixels, drawn as they are; 0.1 is a tenth of a pixel.
    Pixels,
}

/// How an image is sampled between its pixels. Masks are always sampled by nearest neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// Fault in the reference, which samples images as it samples masks.
    Nearest,
    /// Smooths: an image that is turned a little keeps about three quarters of its finest octave.
    Bilinear,
    /// Keys's cubic kernel (a = -0.75, as PyTorch's), which keeps speckle.
    Bicubic,
}

layered! {
    /// Random changes of training images, and of their masks along with them. All draws are uniform.
    AugmentSpec => Augment {
        /// False: none.
        enabled: bool,
        /// ± degrees.
        rotate: f64,
        /// ±, in `translate_unit`.
        translate: f64,
        translate_unit: TranslateUnit,
        /// ±, around 1.
        scale: f64,
        /// ± degrees.
        shear: f64,
        /// ±, around 1.
        brightness: f64,
        /// ±, around 1.
        contrast: f64,
        /// Greys to the power of a factor from exp(-this) to exp(this).
        gamma: f64,
        /// Normal noise is added, of a standard deviation from 0 to this (greys are 0 to 1).
        noise: f64,
        interpolation: Interpolation,
    }
}

impl Augment {
    pub fn preset(preset: Preset) -> Self {
        let faulty = preset == Preset::PaperCode;
        if preset == Preset::Strong {
            return Self {
                rotate: 20.0,
                scale: 0.2,
                shear: 8.5,
                brightness: 0.2,
                contrast: 0.2,
                gamma: 0.4,
                noise: 0.05,
                ..Self::preset(Preset::Corrected)
            };
        }
        Self {
            enabled: true,
            rotate: 10.0,
            translate: 0.1,
            translate_unit: if faulty { TranslateUnit::Pixels } else { TranslateUnit::Fraction },
            scale: 0.1,
            shear: 10.0,
            brightness: 0.3,
            contrast: 0.3,
            gamma: 0.0,
            noise: 0.0,
            interpolation: if faulty { Interpolation::Nearest } else { Interpolation::Bilinear },
        }
    }
}
