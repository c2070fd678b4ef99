//! 8-bit grey pictures: echocardiograms and masks of class indices.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use image::ImageEncoder;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::{AtPath, Error, Result},
    plain_file,
    vocabulary::MASK_CLASSES,
};

/// A grey picture, rows from top to bottom, `pixels.len() == width * height`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
}

/// As the text of a PNG file in base64, so that a report's pictures travel inside its JSON file.
impl Serialize for Picture {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let bytes = png_bytes(&self.pixels, self.width, self.height, image::ExtendedColorType::L8)
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Picture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        image::load_from_memory(&bytes).map(Self::grey).map_err(serde::de::Error::custom)
    }
}

/// Grey levels that an image spans at least.
const LEAST_SPAN: u8 = 3;

impl Picture {
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![0; width * height] }
    }

    /// Reads a PNG or JPEG as 8-bit grey (colour is turned to luma).
    ///
    /// # Errors
    /// Not such a file, or one of more than 8 bits: which of its values is white nobody says.
    pub fn read(file: &Path) -> Result<Self> {
        let decoded = decoded(&bytes_of(file)?, file)?;
        if !is_of_8_bits(&decoded) {
            return Err(Error::input(format!("a picture of {:?} values, not of 8 bits", decoded.color()))
                .at(file)
                .help("save it with 8 bits a channel, black 0 and white 255"));
        }
        Ok(Self::grey(decoded))
    }

    /// Reads a mask and checks that it holds class indices 0..=3 only. Grey masks of 16 bits hold them as they are. In a
    /// mask with a palette a pixel's index is its class, whatever colour it is shown in.
    pub fn read_mask(file: &Path) -> Result<Self> {
        let bytes = bytes_of(file)?;
        if let Some(mask) = palette_indices(&bytes).map_err(|e| e.at(file))? {
            mask.check_classes().map_err(|e| e.at(file))?;
            return Ok(mask);
        }
        let decoded = decoded(&bytes, file)?;
        let mask = match decoded {
            image::DynamicImage::ImageLuma16(values) => Self {
                width: values.width() as usize,
                height: values.height() as usize,
                pixels: values.into_raw().into_iter().map(|v| u8::try_from(v).unwrap_or(u8::MAX)).collect(),
            },
            other if is_of_8_bits(&other) => Self::grey(other),
            other => {
                return Err(Error::input(format!("a mask of {:?} values", other.color()))
                    .at(file)
                    .help("save it as grey values 0 to 3, of 8 bits"));
            }
        };
        mask.check_classes().map_err(|e| e.at(file))?;
        Ok(mask)
    }

    fn grey(decoded: image::DynamicImage) -> Self {
        let grey = decoded.into_luma8();
        Self { width: grey.width() as usize, height: grey.height() as usize, pixels: grey.into_raw() }
    }

    /// Checks that an image is one: of fractions from 0 to 1 that were stored as whole numbers nothing is left.
    ///
    /// # Errors
    /// Its grey values span less than 3.
    pub fn check_span(&self) -> Result<()> {
        let (low, high) = (self.pixels.iter().min(), self.pixels.iter().max());
        match (low, high) {
            (Some(low), Some(high)) if high - low < LEAST_SPAN => Err(Error::input(format!(
                "the image's grey values are {low} to {high}; an echocardiogram uses 0 to 255"
            ))
            .help(
                "if the values are fractions from 0 to 1, multiply them by 255; otherwise remove the image",
            )),
            _ => Ok(()),
        }
    }

    /// An error names the first pixel whose value is no class.
    pub fn check_classes(&self) -> Result<()> {
        let Some(at) = self.pixels.iter().position(|&v| usize::from(v) >= MASK_CLASSES) else {
            return Ok(());
        };
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

fn bytes_of(file: &Path) -> Result<Vec<u8>> {
    let bytes = plain_file::read(file)
        .at_path(file, "cannot read the image")
        .map_err(|e| e.help("the manifest names it; is the data folder whole?"))?;
    match bytes.is_empty() {
        false => Ok(bytes),
        true => Err(Error::input("cannot read this as an image: the file is empty")
            .at(file)
            .help("copy it again or take its row out of the manifest")),
    }
}

/// The palette indices of a PNG that has a palette; None of any other file.
fn palette_indices(bytes: &[u8]) -> Result<Option<Picture>> {
    let damaged = |e: png::DecodingError| {
        Error::input(format!("cannot read this as an image: {e}"))
            .help("the file is damaged: copy it again or take its row out of the manifest")
    };
    if !bytes.starts_with(b"\x89PNG") {
        return Ok(None);
    }
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let info = reader.info();
    if info.color_type != png::ColorType::Indexed {
        return Ok(None);
    }
    let (width, height, bits) = (info.width as usize, info.height as usize, info.bit_depth as usize);
    let size = reader.output_buffer_size().ok_or_else(|| Error::input("the image is too large"))?;
    let mut packed = vec![0; size];
    let frame = reader.next_frame(&mut packed).map_err(damaged)?;
    // Several pixels share a byte, the first in the highest bits; each row begins a new byte.
    let (per_byte, mask) = (8 / bits, (1u16 << bits) - 1);
    let pixel = |row: &[u8], x: usize| {
        let byte = row.get(x / per_byte).copied().unwrap_or_default();
        (u16::from(byte) >> (8 - bits * (x % per_byte + 1)) & mask) as u8
    };
    let rows = packed.chunks_exact(frame.line_size).take(height);
    let pixels: Vec<u8> = rows.flat_map(|row| (0..width).map(move |x| pixel(row, x))).collect();
    Ok(Some(Picture { width, height, pixels }))
}

fn decoded(bytes: &[u8], file: &Path) -> Result<image::DynamicImage> {
    image::load_from_memory(bytes).map_err(|e| {
        Error::input(format!("cannot read this as an image: {e}")).at(file).help(
            "the file is damaged or is not a PNG or JPEG: copy it again or take its row out of the manifest",
        )
    })
}

fn is_of_8_bits(picture: &image::DynamicImage) -> bool {
    let color = picture.color();
    color.bytes_per_pixel() == color.channel_count()
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
    let bytes = png_bytes(pixels, width, height, colour)
        .map_err(|e| Error::failure(format!("cannot write the image: {e}")).at(file))?;
    std::fs::write(file, bytes).at_path(file, "cannot write the image")
}

fn png_bytes(
    pixels: &[u8],
    width: usize,
    height: usize,
    colour: image::ExtendedColorType,
) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(
        pixels,
        width as u32,
        height as u32,
        colour,
    )?;
    Ok(bytes)
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

    #[test]
    fn sixteen_bits_are_indices_in_masks_and_refused_in_images() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.png");
        let write = |values: [u16; 4]| {
            image::ImageBuffer::<image::Luma<u16>, _>::from_raw(2, 2, values.to_vec())
                .unwrap()
                .save(&file)
                .unwrap();
        };
        write([0, 1, 2, 3]);
        assert_eq!(Picture::read_mask(&file).unwrap().pixels, [0, 1, 2, 3]);
        let message = Picture::read(&file).unwrap_err().to_string();
        assert!(
            message.contains("m.png: a picture of L16 values") && message.contains("8 bits a channel"),
            "{message}"
        );
        write([0, 1, 2, 771]);
        assert!(Picture::read_mask(&file).unwrap_err().to_string().contains("holds 255 at x 1, y 1"));
    }

    #[test]
    fn the_classes_of_a_palette_mask_are_its_indices() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.png");
        let (width, height) = (5, 2);
        let classes = [0u8, 1, 2, 3, 0, 3, 2, 1, 0, 1];
        // The colours of other classes, and none of the greys.
        for palette in [[0u8, 0, 0, 1, 1, 1, 3, 3, 3, 2, 2, 2], [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]]
        {
            for bits in [2usize, 4, 8] {
                let mut packed = Vec::new();
                for row in classes.chunks(width) {
                    for pixels in row.chunks(8 / bits) {
                        let shift = |(i, class): (usize, &u8)| class << (8 - bits * (i + 1));
                        packed.push(pixels.iter().enumerate().map(shift).sum::<u8>());
                    }
                }
                let mut bytes = Vec::new();
                let mut encoder = png::Encoder::new(&mut bytes, width as u32, height);
                encoder.set_color(png::ColorType::Indexed);
                encoder.set_depth(png::BitDepth::from_u8(bits as u8).unwrap());
                encoder.set_palette(palette.to_vec());
                encoder.write_header().unwrap().write_image_data(&packed).unwrap();
                std::fs::write(&file, &bytes).unwrap();
                assert_eq!(Picture::read_mask(&file).unwrap().pixels, classes, "{bits} bits");
                std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
                assert!(Picture::read_mask(&file).unwrap_err().to_string().contains("m.png"));
            }
        }
    }

    #[test]
    fn an_image_of_fractions_is_not_an_image() {
        let image = |pixels: &[u8]| Picture { width: pixels.len(), height: 1, pixels: pixels.to_vec() };
        for nothing in [&[0u8, 1, 0][..], &[7, 7], &[253, 255]] {
            let message = image(nothing).check_span().unwrap_err().to_string();
            assert!(message.contains("multiply them by 255"), "{message}");
        }
        image(&[0, 3]).check_span().unwrap();
    }
}
