//! A folder that has a manifest already: checked and copied.

use std::path::Path;

use super::Item;
use crate::data::stage::{Loaded, size_mismatch};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::picture::Picture;

pub fn find(src: &Path) -> Result<Vec<Item<'static>>> {
    let manifest = Manifest::read(src)?;
    Ok(manifest
        .rows
        .iter()
        .map(|row| {
            let (image, mask) = (manifest.image_path(row), manifest.mask_path(row));
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
                Ok(Loaded { image: picture, mask, spacing })
            };
            Item { row: row.clone(), load: Box::new(load) }
        })
        .collect())
}
