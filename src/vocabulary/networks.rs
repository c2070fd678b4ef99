//! Networks by the names of the libraries that they follow.

use super::words;

words! {
    /// A classification network of torchvision's that takes (batch, 3, side, side) images.
    Backbone {
        Resnet18 = "resnet18",
        Resnet50 = "resnet50",
        Vgg16 = "vgg16",
        Vgg19 = "vgg19",
        EfficientnetB0 = "efficientnet_b0",
    }
}

words! {
    /// A segmentation network that takes (batch, 1, side, side) images.
    SegmentationNetwork {
        /// MONAI's `UNet`.
        MonaiUnet = "monai-unet",
    }
}
