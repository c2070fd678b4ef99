//! Networks by the names of the libraries that they follow.

use super::words;

/// The endings of PyTorch's checkpoints. They say where to look; what a file is, its content says.
pub const CHECKPOINT_ENDINGS: [&str; 4] = ["pth", "pt", "bin", "ckpt"];

words! {
    /// A classification network of torchvision's that takes (batch, 3, side, side) images.
    Backbone {
        Resnet18 = "resnet18",
        Resnet50 = "resnet50",
        Vgg16 = "vgg16",
        Vgg19 = "vgg19",
        EfficientnetB0 = "efficientnet_b0",
        MobilenetV3Small = "mobilenet_v3_small",
    }
}

impl Backbone {
    /// The layer that maps features to classes. It is replaced where the classes differ.
    pub fn last_layer(self) -> &'static str {
        match self {
            Self::Resnet18 | Self::Resnet50 => "fc",
            Self::Vgg16 | Self::Vgg19 => "classifier.6",
            Self::EfficientnetB0 => "classifier.1",
            Self::MobilenetV3Small => "classifier.3",
        }
    }

    /// Length of the features, which the last layer takes.
    pub fn features(self) -> usize {
        match self {
            Self::Resnet18 => 512,
            Self::Resnet50 => 2048,
            Self::Vgg16 | Self::Vgg19 => 4096,
            Self::EfficientnetB0 => 1280,
            Self::MobilenetV3Small => 1024,
        }
    }

    /// The least width and height of images, in pixels.
    pub fn smallest_side(self) -> usize {
        match self {
            // Halved five times.
            Self::Vgg16 | Self::Vgg19 => 32,
            // At 32 one pixel is left for the last batch norms: a batch of one image has no variance.
            Self::Resnet18 | Self::Resnet50 | Self::EfficientnetB0 | Self::MobilenetV3Small => 40,
        }
    }
}

words! {
    /// A segmentation network that takes (batch, 1, side, side) images.
    SegmentationNetwork {
        /// MONAI's `UNet`.
        MonaiUnet = "monai-unet",
        /// nnU-Net's `PlainConvUNet`.
        PlainUnet = "plain-unet",
    }
}

impl SegmentationNetwork {
    /// As a report names it.
    pub fn label(self) -> &'static str {
        match self {
            Self::MonaiUnet => "MONAI's U-Net",
            Self::PlainUnet => "nnU-Net's plain U-Net",
        }
    }

    /// The side of images is a multiple of this, for a network of so many levels.
    pub fn size_factor(self, levels: usize) -> usize {
        match self {
            // Halved between each two levels.
            Self::MonaiUnet | Self::PlainUnet => {
                1usize.checked_shl((levels as u32).saturating_sub(1)).unwrap_or(usize::MAX)
            }
        }
    }

    /// At how many resolutions a network of so many levels can be supervised.
    pub fn resolutions(self, levels: usize) -> usize {
        match self {
            Self::MonaiUnet => 1,
            Self::PlainUnet => levels.saturating_sub(1),
        }
    }

    /// Channels where the user names none. nnU-Net's own plan for images of `side` pixels: 32, doubled up to 512, halved
    /// while the lowest level keeps 4 pixels or more and the side is even.
    pub fn planned_channels(self, side: usize) -> Vec<i64> {
        match self {
            Self::MonaiUnet => vec![2, 4, 8, 16, 32, 64, 128, 256],
            Self::PlainUnet => {
                let (mut channels, mut side) = (vec![32], side);
                while side >= 8 && side.is_multiple_of(2) {
                    side /= 2;
                    channels.push((32i64 << channels.len()).min(512));
                }
                channels
            }
        }
    }
}
