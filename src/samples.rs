//! Part of a prepared data set in memory: 8-bit images of one size, with masks or labels.

use rayon::prelude::*;

use crate::{
    error::{Error, Result},
    manifest::{Manifest, Row},
    picture::Picture,
    sector,
    vocabulary::{Label, MaskDecoding, Pairing, Phase, Split, View},
};

/// Images of one size, one after the other, with what belongs to each.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Width and height, pixels.
    pub size: usize,
    /// `rows.len() * size * size` grey values.
    pub images: Vec<u8>,
    /// Class indices in the same order; empty where masks were not asked for.
    pub masks: Vec<u8>,
    pub rows: Vec<Row>,
    /// Each row's place in the whole manifest: what randomness is derived from, so that an image is
    /// augmented alike whichever others are trained on.
    pub ids: Vec<u64>,
}

/// How masks are read; see the spec's switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskReading {
    pub pairing: Pairing,
    pub decoding: MaskDecoding,
}

impl MaskReading {
    /// By the manifest, as class indices: what every test set is read with.
    pub const RIGHT: Self = Self { pairing: Pairing::Manifest, decoding: MaskDecoding::ClassIndices };
}

impl Samples {
    /// Reads the images (and masks) of one split, of `patients` alone where given.
    ///
    /// # Errors
    /// No image is left, a file cannot be read, sizes differ, or a mask is missing or damaged.
    pub fn read(
        manifest: &Manifest,
        split: Split,
        patients: Option<&[String]>,
        masks: Option<MaskReading>,
    ) -> Result<Self> {
        let chosen: Vec<(u64, &Row)> = (0u64..)
            .zip(&manifest.rows)
            .filter(|(_, row)| row.split == Some(split))
            .filter(|(_, row)| patients.is_none_or(|p| p.contains(&row.patient)))
            .collect();
        if chosen.is_empty() {
            return Err(Error::input(format!("there are no {split} images"))
                .at(&manifest.root)
                .help("choose a split with patients in every part"));
        }
        let pictures = chosen
            .par_iter()
            .map(|(_, row)| Picture::read(&manifest.image_path(row)))
            .collect::<Result<Vec<_>>>()?;
        let size = pictures[0].width;
        let square = |picture: &Picture, row: &Row| {
            if (picture.width, picture.height) == (size, size) {
                return Ok(());
            }
            Err(Error::input(format!(
                "{} x {} pixels, expected {size} x {size}",
                picture.width, picture.height
            ))
            .at(manifest.image_path(row)))
        };
        let mut images = Vec::with_capacity(pictures.len() * size * size);
        for (picture, (_, row)) in pictures.iter().zip(&chosen) {
            square(picture, row)?;
            images.extend_from_slice(&picture.pixels);
        }
        let mut all = Vec::new();
        if let Some(reading) = masks {
            let read = chosen
                .par_iter()
                .map(|(_, row)| {
                    let path = manifest.mask_path(row).ok_or_else(|| {
                        Error::input(format!("{} has no mask", row.name()))
                            .at(manifest.root.join(crate::manifest::FILE))
                            .help("segmentation needs the mask of every image: take the others out of the manifest")
                    })?;
                    let mask = Picture::read_mask(&path)?;
                    square(&mask, row)?;
                    Ok(decode(mask.pixels, reading.decoding))
                })
                .collect::<Result<Vec<_>>>()?;
            let order = match reading.pairing {
                Pairing::Manifest => (0..read.len()).collect(),
                Pairing::SortedNames => {
                    by_sorted_names(&chosen.iter().map(|(_, row)| *row).collect::<Vec<_>>())
                }
            };
            all.reserve(images.len());
            order.into_iter().for_each(|i: usize| all.extend_from_slice(&read[i]));
        }
        Ok(Self {
            size,
            images,
            masks: all,
            rows: chosen.iter().map(|(_, row)| (*row).clone()).collect(),
            ids: chosen.iter().map(|(id, _)| *id).collect(),
        })
    }

    /// The same with the background inside the ultrasound sector marked in the masks
    /// ([`IN_SECTOR`](crate::sector::IN_SECTOR)).
    pub fn with_sectors(&self) -> Self {
        let (mut this, pixels) = (self.clone(), (self.size * self.size).max(1));
        this.masks
            .par_chunks_exact_mut(pixels)
            .zip(self.images.par_chunks_exact(pixels))
            .for_each(|(mask, image)| sector::mark(image, mask, self.size));
        this
    }

    /// Those whose row `keep` wants.
    pub fn filtered(&self, keep: impl Fn(&Row) -> bool) -> Self {
        self.chosen(&(0..self.len()).filter(|&i| keep(&self.rows[i])).collect::<Vec<_>>())
    }

    /// Those at `indices`, in that order.
    pub fn chosen(&self, indices: &[usize]) -> Self {
        Self {
            size: self.size,
            images: indices.iter().flat_map(|&i| self.image(i)).copied().collect(),
            masks: indices.iter().flat_map(|&i| self.mask(i)).copied().collect(),
            rows: indices.iter().map(|&i| self.rows[i].clone()).collect(),
            ids: indices.iter().map(|&i| self.ids[i]).collect(),
        }
    }

    /// These and then `others`, whose ids follow on.
    ///
    /// # Errors
    /// Another size, or masks on one side alone.
    pub fn followed_by(mut self, others: &Self) -> Result<Self> {
        if self.size != others.size || self.masks.is_empty() != others.masks.is_empty() {
            return Err(Error::failure("images of two kinds cannot be mixed"));
        }
        let next = self.ids.iter().max().map_or(0, |id| id + 1);
        self.images.extend_from_slice(&others.images);
        self.masks.extend_from_slice(&others.masks);
        self.rows.extend_from_slice(&others.rows);
        self.ids.extend(others.ids.iter().map(|id| next + id));
        Ok(self)
    }

    /// Those at `indices` as images of their own, which nothing that is drawn treats like the first ones.
    pub fn copies(&self, indices: &[usize]) -> Self {
        Self { ids: (0..indices.len() as u64).collect(), ..self.chosen(indices) }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn image(&self, i: usize) -> &[u8] {
        &self.images[i * self.size * self.size..][..self.size * self.size]
    }

    /// Empty where masks were not read.
    pub fn mask(&self, i: usize) -> &[u8] {
        self.masks.get(i * self.size * self.size..(i + 1) * self.size * self.size).unwrap_or_default()
    }

    /// Number of different patients. Synthetic images are nobody's.
    pub fn patients(&self) -> usize {
        let real = self.rows.iter().filter(|row| row.generator.is_none());
        real.map(|row| &row.patient).collect::<std::collections::HashSet<_>>().len()
    }

    /// Images that a generator made.
    pub fn synthetic(&self) -> usize {
        self.rows.iter().filter(|row| row.generator.is_some()).count()
    }

    /// Class index of each image.
    pub fn labels(&self, label: Label) -> Vec<usize> {
        self.rows.iter().map(|row| class_of(row, label)).collect()
    }
}

/// Index into [`Label::classes`].
pub fn class_of(row: &Row, label: Label) -> usize {
    let view = usize::from(row.view == View::FourChamber);
    let phase = usize::from(row.phase == Phase::Es);
    match label {
        Label::Phase => phase,
        Label::View => view,
        Label::ViewPhase => 2 * view + phase,
    }
}

/// `2ch_ed` for a class of view and phase: the paper's name for it, and for the folder of its model.
pub fn class_folder(class: usize) -> String {
    Label::ViewPhase.classes()[class].to_lowercase().replace(' ', "_")
}

/// For image i in the manifest's order, which mask a pairing by sorted names gives it.
fn by_sorted_names(rows: &[&Row]) -> Vec<usize> {
    let sorted = |name: &dyn Fn(&Row) -> String| {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| name(rows[i]));
        order
    };
    let images = sorted(&|row| row.image.display().to_string());
    let masks = sorted(&|row| row.mask.as_ref().map(|m| m.display().to_string()).unwrap_or_default());
    let mut pairs = vec![0; rows.len()];
    for (image, mask) in images.into_iter().zip(masks) {
        pairs[image] = mask;
    }
    pairs
}

/// The reference's way through grey: scaled by the mask's own maximum, read as grey / 85, truncated.
fn decode(mut mask: Vec<u8>, decoding: MaskDecoding) -> Vec<u8> {
    if decoding == MaskDecoding::GreyPerImage {
        let greatest = u32::from(mask.iter().copied().max().unwrap_or(0)).max(1);
        mask.iter_mut().for_each(|v| *v = ((u32::from(*v) * 255 / greatest) / 85) as u8);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_image_grey_turns_myocardium_into_atrium_only_where_there_is_no_atrium() {
        let grey = MaskDecoding::GreyPerImage;
        assert_eq!(decode(vec![0, 1, 2, 3], grey), [0, 1, 2, 3]);
        assert_eq!(decode(vec![0, 1, 2, 2], grey), [0, 1, 3, 3]);
        assert_eq!(decode(vec![0, 1, 2, 2], MaskDecoding::ClassIndices), [0, 1, 2, 2]);
    }

    #[test]
    fn sorted_names_pair_wrongly_where_images_and_masks_sort_differently() {
        let row = |image: &str, mask: &str| Row {
            mask: Some(mask.into()),
            ..Row::new(image, View::TwoChamber, Phase::Ed, image)
        };
        let (a, b) = (row("img_10", "mask_b"), row("img_9", "mask_c"));
        assert_eq!(by_sorted_names(&[&a, &b]), [0, 1]);
        let (a, b) = (row("img_10", "mask_10"), row("img_9", "mask_09"));
        assert_eq!(by_sorted_names(&[&a, &b]), [1, 0]);
    }
}
