//! Networks whose features are compared, and what is measured in their features.

use super::{Metric, words};

words! {
    /// The network whose features are compared. A Fréchet distance is called FID only in those of `inception-fid`.
    Extractor {
        /// TensorFlow's Inception-v3 of 2015-12-05, 2048 features; needs its weights.
        InceptionFid = "inception-fid",
        /// torchvision's ResNet-50 of ImageNet, 2048 features; needs its weights.
        Resnet50 = "resnet50",
        /// A ResNet-18 that tells view and phase apart, trained on the real training images, 512 features. It needs
        /// no weights.
        Domain = "domain",
    }
}

impl Extractor {
    /// The Fréchet distance in this network's features.
    pub fn frechet(self) -> Metric {
        if self == Self::InceptionFid { Metric::Fid } else { Metric::Frechet }
    }
}

words! {
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

words! {
    /// What is measured of every generator, by the features of its images.
    GeneratorMeasure {
        /// The Fréchet distance of the extractor's features; FID where that is `inception-fid`.
        Fid = "fid",
        /// The kernel distance of Binkowski et al. 2018.
        Kid = "kid",
        /// Precision, recall, density, coverage.
        Prdc = "prdc",
        /// Whether synthetic images are nearer to training images than held-out real ones are.
        Memorisation = "memorisation",
        /// The Monge inception distance: squared Wasserstein distances along random directions.
        Mind = "mind",
        /// The share of the images that are no copies of training images.
        Authenticity = "authenticity",
        /// How many different images a generator seems to have made.
        Vendi = "vendi",
    }
}

impl GeneratorMeasure {
    /// What is measured unless a spec asks for other measures.
    pub const DEFAULT: [Self; 4] = [Self::Fid, Self::Kid, Self::Prdc, Self::Memorisation];

    /// The columns that it fills in the report's table of distances, in their order. `frechet` is what the Fréchet distance
    /// is called in the extractor's features ([`Extractor::frechet`]).
    pub fn columns(self, frechet: Metric) -> Vec<Metric> {
        match self {
            Self::Fid => vec![frechet],
            Self::Kid => vec![Metric::Kid],
            Self::Prdc => {
                vec![Metric::ManifoldPrecision, Metric::ManifoldRecall, Metric::Density, Metric::Coverage]
            }
            Self::Mind => vec![Metric::Mind],
            Self::Authenticity => vec![Metric::Authenticity],
            Self::Vendi => vec![Metric::Vendi],
            // It has a table of its own.
            Self::Memorisation => vec![],
        }
    }
}
