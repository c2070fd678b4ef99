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
        /// Fault when true: images are sampled by nearest neighbour, as masks are.
        nearest_images: bool,
    }
}

impl Augment {
    pub fn preset(preset: Preset) -> Self {
        let faulty = preset == Preset::PaperCode;
        Self {
            enabled: true,
            rotate: 10.0,
            translate: 0.1,
            translate_unit: if faulty { TranslateUnit::Pixels } else { TranslateUnit::Fraction },
            scale: 0.1,
            shear: 10.0,
            brightness: 0.3,
            contrast: 0.3,
            nearest_images: faulty,
        }
    }
}
