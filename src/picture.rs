//! 8-bit grey pictures: echocardiograms and masks of class indices.

use std::path::Path;

use image::ImageEncoder;

use crate::error::{AtPath, Error, Result};
use crate::manifest::CLASSES;

/// A grey picture, rows from top to bottom, `pixels.len() == width * height`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
}

impl Picture {
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![0; width * height] }
    }

    /// Reads a PNG or JPEG as 8-bit grey (colour is turned to luma).
    pub fn read(file: &Path) -> Result<Self> {
        let bytes = std::fs::read(file)
            .at_path(file, "cannot read the image")
            .map_err(|e| e.help("the manifest names it; is the data folder whole?"))?;
        let decoded = image::load_from_memory(&bytes).map_err(|e| {
            Error::input(format!("cannot read this as an image: {e}"))
                .at(file)
                .help("the file is damaged or is not a PNG or JPEG: copy it again or take its row out of the manifest")
        })?;
        let grey = decoded.into_luma8();
        Ok(Self { width: grey.width() as usize, height: grey.height() as usize, pixels: grey.into_raw() })
    }

    /// Reads a mask and checks that it holds class indices 0..=3 only.
    pub fn read_mask(file: &Path) -> Result<Self> {
        let mask = Self::read(file)?;
        mask.check_classes().map_err(|e| e.at(file))?;
        Ok(mask)
    }

    /// An error names the first pixel whose value is no class.
    pub fn check_classes(&self) -> Result<()> {
        let Some(at) = self.pixels.iter().position(|&v| usize::from(v) >= CLASSES) else { return Ok(()) };
        Err(Error::input(format!(
            "the mask holds {} at x {}, y {}; a mask holds class indices 0 to 3",
            self.pixels[at],
            at % self.width,
            at / self.width
        ))
        .help("0 background, 1 endocardium, 2 myocardium, 3 atrium; grey masks (0/85/170/255) are converted by `synecho data import --from diffecho`"))
    }

    /// Writes an 8-bit grey PNG.
    pub fn write(&self, file: &Path) -> Result<()> {
        write_png(file, &self.pixels, self.width, self.height, image::ExtendedColorType::L8)
    }
}

/// Writes 8-bit pixels as PNG, from memory: image's own writer to a file does not hear of a disk that is
/// full.
pub fn write_png(
    file: &Path,
    pixels: &[u8],
    width: usize,
    height: usize,
    colour: image::ExtendedColorType,
) -> Result<()> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(pixels, width as u32, height as u32, colour)
        .map_err(|e| Error::failure(format!("cannot write the image: {e}")).at(file))?;
    std::fs::write(file, bytes).at_path(file, "cannot write the image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_with_an_unknown_value_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.png");
        let mut picture = Picture::new(4, 3);
        picture.pixels[6] = 85;
        picture.write(&file).unwrap();
        assert_eq!(Picture::read(&file).unwrap(), picture);
        let message = Picture::read_mask(&file).unwrap_err().to_string();
        assert!(message.contains("holds 85 at x 2, y 1"), "{message}");
        std::fs::write(&file, &std::fs::read(&file).unwrap()[..40]).unwrap();
        assert!(Picture::read(&file).unwrap_err().to_string().contains("cannot read this as an image"));
    }
}
