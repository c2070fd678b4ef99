//! Bringing a data folder to one square size.

use std::path::Path;

use super::ImageProgress;
use super::phantom::carry_marker;
use super::staging::{ImageAndMask, size_mismatch, write_folder};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::picture::Picture;
use crate::resize::{bilinear, nearest};

/// Writes `source` into the existing, empty folder `to` with every image and mask
/// `image_size` x `image_size`: images bilinear with antialiasing, masks by nearest neighbour, pixel
/// spacing scaled along. A picture of that size already keeps its pixels; a phantom stays marked.
///
/// # Errors
/// What cannot be read, a mask of another size than its image, or an unknown class: with the file.
pub fn prepare(source: &Manifest, image_size: usize, to: &Path, progress: ImageProgress) -> Result<Manifest> {
    if image_size == 0 {
        return Err(Error::input("an image size of 0").help("256 is usual"));
    }
    let load = |i: usize, _: &crate::manifest::Row| {
        // The original row: `write_folder` gives the new ones their new paths only at the end.
        let row = source.rows.get(i).ok_or_else(|| Error::failure("a row is missing"))?;
        let image = Picture::read(&source.image_path(row))?;
        // What a generator makes is measured as it is, however dull.
        if row.generator.is_none() {
            image.check_span().map_err(|e| e.at(source.image_path(row)))?;
        }
        let mask = match source.mask_path(row) {
            None => None,
            Some(file) => {
                let mask = Picture::read_mask(&file)?;
                if (mask.width, mask.height) != (image.width, image.height) {
                    return Err(size_mismatch(&image, &mask).at(file));
                }
                Some(square(mask, image_size, nearest))
            }
        };
        let scale = |n: usize| n as f64 / image_size as f64;
        let spacing = row.spacing().map(|(x, y)| (x * scale(image.width), y * scale(image.height)));
        Ok(ImageAndMask { image: square(image, image_size, bilinear), mask, spacing })
    };
    let manifest = write_folder(to, source.rows.clone(), load, progress)?;
    carry_marker(&source.root, to)?;
    Ok(manifest)
}

/// Writes `source` into the existing, empty folder `to` as it is.
///
/// # Errors
/// As [`prepare`].
pub fn copy(source: &Manifest, to: &Path, progress: ImageProgress) -> Result<Manifest> {
    let load = |i: usize, _: &crate::manifest::Row| {
        let row = source.rows.get(i).ok_or_else(|| Error::failure("a row is missing"))?;
        let mask = source.mask_path(row).map(|file| Picture::read_mask(&file)).transpose()?;
        Ok(ImageAndMask { image: Picture::read(&source.image_path(row))?, mask, spacing: row.spacing() })
    };
    let manifest = write_folder(to, source.rows.clone(), load, progress)?;
    carry_marker(&source.root, to)?;
    Ok(manifest)
}

fn square(picture: Picture, size: usize, resize: fn(&Picture, usize, usize) -> Picture) -> Picture {
    if (picture.width, picture.height) == (size, size) { picture } else { resize(&picture, size, size) }
}
