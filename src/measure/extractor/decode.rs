//! Image files to 8-bit pixels, as Pillow's `convert("RGB")` has them.

use image::DynamicImage;

/// 8-bit pixels, rows from top to bottom, channels side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedImage {
    pub width: usize,
    pub height: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `width * height * channels`
    pub values: Vec<u8>,
}

impl DecodedImage {
    /// A PNG or JPEG. Transparency is left out; grey stays in one channel, which every extractor takes as
    /// three that are alike. The error says what is wrong with the file.
    ///
    /// A PNG's pixels are Pillow's. A JPEG's are not quite, since its decoder is another: of grey ones about one
    /// pixel in 200 differed by a level, of colour ones without subsampling one value in 100 by up to 3 levels,
    /// with 4:2:0 subsampling one in 5 to 9 by up to 4 (48 JPEGs of 224 x 224, qualities 75 and 95, Pillow 13.0.0).
    ///
    /// Images of more than 8 bits are refused: Pillow cuts grey ones off at 255 and takes the upper byte of
    /// colour, so that no reading would give the other tools' numbers and be right as well.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let image = image::load_from_memory(bytes).map_err(|e| e.to_string())?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (channels, values) = match image {
            DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
            // Of grey with transparency the grey: luma of an RGB image would be another thing.
            DynamicImage::ImageLumaA8(image) => (1, image.pixels().map(|p| p.0[0]).collect()),
            DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
            image @ DynamicImage::ImageRgba8(_) => (3, image.into_rgb8().into_raw()),
            _ => return Err("more than 8 bits per channel: convert it to 8".into()),
        };
        if values.is_empty() {
            return Err("it has no pixels".into());
        }
        Ok(Self { width, height, channels, values })
    }
}
