//! `[measure]`: how the images of generators are compared with real ones, beside texture and the judges.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    Preset,
    tasks::{Classification, Label, Schedule, layered},
};

/// What is measured of every generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorMeasure {
    /// The Frechet distance of the extractor's features; FID where that is `inception-fid`.
    Fid,
    /// The kernel distance of Binkowski et al. 2018.
    Kid,
    /// Precision, recall, density, coverage.
    Prdc,
    /// Whether synthetic images are nearer to training images than held-out real ones are.
    Memorisation,
}

impl GeneratorMeasure {
    pub const ALL: [Self; 4] = [Self::Fid, Self::Kid, Self::Prdc, Self::Memorisation];
}

/// Declares names that a spec and the command line share.
macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $( $(#[$doc])* #[serde(rename = $word)] $variant, )*
        }

        impl $name {
            pub const ALL: &[Self] = &[$( Self::$variant ),*];

            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| {
                    format!("expected one of {}", [$( $word ),*].join(", "))
                })
            }
        }
    };
}

names! {
    /// The network whose features are compared. A Frechet distance is FID in those of `inception-fid` alone.
    Space {
        /// TensorFlow's Inception-v3 of 2015-12-05, 2048 features; needs its weights.
        InceptionFid = "inception-fid",
        /// torchvision's ResNet-50 of ImageNet, 2048 features; needs its weights.
        Resnet50 = "resnet50",
        /// A ResNet-18 that tells view and phase apart, trained on the real training images, 512 features:
        /// always there.
        Domain = "domain",
    }
}

names! {
    /// How images are brought to Inception's 299 x 299 pixels: FID's tools differ.
    Convention {
        /// pytorch-fid 0.3.0: v / 255, PyTorch's bilinear (half-pixel centres, no antialiasing), 2v - 1.
        PytorchFid = "pytorch-fid",
        /// clean-fid 0.1.35: Pillow's bicubic with antialiasing on floats, cut off at 0 and 255 and not
        /// rounded, (v - 128) / 128.
        CleanFid = "clean-fid",
        /// torch-fidelity 0.4.0: TensorFlow 1's bilinear (sampled from the corner, no antialiasing),
        /// (v - 128) / 128.
        TorchFidelity = "torch-fidelity",
    }
}

layered! {
    /// The network whose features are compared.
    ExtractorSpec => Extractor {
        name: Space,
        /// Safetensors, for `inception-fid` and `resnet50`.
        weights: PathBuf,
        /// Of `inception-fid`.
        convention: Convention,
        /// Of `domain`: the side of its images in pixels, and how long it is trained.
        image_size: usize,
        epochs: usize,
        learning_rate: f64,
    }
}

layered! {
    /// How the images of generators are compared with real ones.
    MeasureSpec => Measure {
        generators: Vec<GeneratorMeasure>,
        /// Nearest neighbours of precision, recall, density and coverage.
        neighbours: usize,
        /// Subsets of KID, and images in each (fewer where there are fewer images).
        kid_subsets: usize,
        kid_subset_size: usize,
        /// Random halves of the images behind the interval of the Frechet distance; 0: no interval.
        replicates: usize,
        /// Of subsets and replicates.
        seed: u64,
    } tables {
        extractor: ExtractorSpec => Extractor,
    }
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            generators: GeneratorMeasure::ALL.to_vec(),
            neighbours: 5,
            kid_subsets: 100,
            kid_subset_size: 1000,
            replicates: 100,
            // torch-fidelity's.
            seed: 2020,
            extractor: Extractor {
                name: Space::Domain,
                weights: PathBuf::new(),
                convention: Convention::PytorchFid,
                image_size: 128,
                epochs: 8,
                learning_rate: 0.01,
            },
        }
    }
}

impl Extractor {
    /// How the `domain` network is trained.
    pub fn domain_training(&self) -> Classification {
        Classification {
            label: Label::ViewPhase,
            image_size: self.image_size,
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            final_learning_rate: self.learning_rate * 0.01,
            schedule: Schedule::CosinePerStep,
            ..Classification::preset(Preset::Corrected)
        }
    }
}
