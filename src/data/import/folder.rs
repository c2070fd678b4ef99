//! A folder that has a manifest already: checked and copied.

use std::path::Path;

use super::{AcquisitionFiles, FoundAcquisition};
use crate::data::staging::{ImageAndMask, size_mismatch};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::picture::Picture;

pub fn find(src: &Path) -> Result<Vec<FoundAcquisition<'static>>> {
    let manifest = Manifest::read(src)?;
    Ok(manifest
        .rows
        .iter()
        .map(|row| {
            let (image, mask) = (manifest.image_path(row), manifest.mask_path(row));
            let files = AcquisitionFiles {
                row: row.clone(),
                image: vec![image.clone()],
                mask: mask.iter().cloned().collect(),
            };
            let spacing = row.spacing();
            let load = move || {
                let picture = Picture::read(&image)?;
                let mask = match &mask {
                    None => None,
                    Some(file) => {
                        let mask = Picture::read_mask(file)?;
                        if (mask.width, mask.height) != (picture.width, picture.height) {
                            return Err(size_mismatch(&picture, &mask).at(file));
                        }
                        Some(mask)
                    }
                };
                Ok(ImageAndMask { image: picture, mask, spacing })
            };
            FoundAcquisition { files, load: Box::new(load) }
        })
        .collect())
}
