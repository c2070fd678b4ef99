//! Reads a whole data folder once, to show what it holds and what is wrong with it.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;
use serde::Serialize;

use super::ImageProgress;
use super::staging::size_mismatch;
use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::{
    manifest::{Manifest, Row},
    vocabulary::MASK_CLASSES,
};

/// Problems shown in one error; the others are counted.
const SHOWN: usize = 20;

/// What a data folder holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FolderSummary {
    pub patients: usize,
    pub images: usize,
    pub masks: usize,
    /// Patients and images by split; images without a split under `""`.
    pub splits: BTreeMap<String, SplitCount>,
    /// Images by `2CH_ED` and so on.
    pub views: BTreeMap<String, usize>,
    /// Smallest and largest width and height, pixels.
    pub width: (usize, usize),
    pub height: (usize, usize),
    /// Images whose pixel size in mm is known.
    pub with_spacing: usize,
    /// Groups of images with the very same pixels, by name.
    pub duplicates: Vec<Vec<String>>,
    /// Masks in which a class is absent, by the class's name; classes absent nowhere are left out.
    pub absent: BTreeMap<String, usize>,
    /// Sentences for the user, the gravest first.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SplitCount {
    pub patients: usize,
    pub images: usize,
}

/// What the summary needs of an image.
struct CheckedImage {
    width: usize,
    height: usize,
    digest: blake3::Hash,
    /// Which classes the mask holds.
    classes: Option<[bool; MASK_CLASSES]>,
}

/// Reads every image and mask under `root`.
///
/// # Errors
/// All the problems there are (20 shown), each with its file: a missing or unreadable file, a mask
/// of another size than its image, an unknown class. A faulty manifest is an error at once.
pub fn check(root: &Path, progress: ImageProgress) -> Result<FolderSummary> {
    let manifest = Manifest::read(root)?;
    let total = manifest.rows.len();
    let done = AtomicUsize::new(0);
    progress(0, total);
    let looked: Vec<Result<CheckedImage, Vec<Error>>> = manifest
        .rows
        .par_iter()
        .map(|row| {
            let seen = look(&manifest, row);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            seen
        })
        .collect();
    let mut seen = Vec::with_capacity(total);
    let mut problems = Vec::new();
    for result in looked {
        match result {
            Ok(one) => seen.push(one),
            Err(errors) => problems.extend(errors),
        }
    }
    match &problems[..] {
        [] => Ok(summarise(&manifest, &seen)),
        [only] => Err(only.clone()),
        _ => Err(together(root, &problems)),
    }
}

fn together(root: &Path, problems: &[Error]) -> Error {
    let mut text = format!("{} problems", problems.len());
    for problem in problems.iter().take(SHOWN) {
        // The remedies are in the single errors; here the places matter.
        let line = problem.to_string();
        text.push_str("\n  ");
        text.push_str(line.lines().next().unwrap_or_default());
    }
    if problems.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", problems.len() - SHOWN));
    }
    Error::input(text)
        .at(root)
        .help("copy the damaged or missing files again, or take their rows out of the manifest")
}

fn look(manifest: &Manifest, row: &Row) -> Result<CheckedImage, Vec<Error>> {
    let image = Picture::read(&manifest.image_path(row));
    let mask = manifest.mask_path(row).map(|file| (Picture::read_mask(&file), file));
    let mut errors = Vec::new();
    if let Ok(image) = &image
        && let Err(error) = image.check_span()
    {
        errors.push(error.at(manifest.image_path(row)));
    }
    if let (Ok(image), Some((Ok(mask), file))) = (&image, &mask)
        && (image.width, image.height) != (mask.width, mask.height)
    {
        errors.push(size_mismatch(image, mask).at(file));
    }
    let classes = match mask {
        None => None,
        Some((Err(e), _)) => {
            errors.push(e);
            None
        }
        Some((Ok(mask), _)) => {
            let mut classes = [false; MASK_CLASSES];
            for &value in &mask.pixels {
                if let Some(class) = classes.get_mut(usize::from(value)) {
                    *class = true;
                }
            }
            Some(classes)
        }
    };
    match image {
        Ok(image) if errors.is_empty() => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(image.width as u64).to_le_bytes());
            hasher.update(&image.pixels);
            Ok(CheckedImage { width: image.width, height: image.height, digest: hasher.finalize(), classes })
        }
        Ok(_) => Err(errors),
        Err(e) => {
            errors.insert(0, e);
            Err(errors)
        }
    }
}

fn summarise(manifest: &Manifest, seen: &[CheckedImage]) -> FolderSummary {
    let rows = &manifest.rows;
    let mut splits: BTreeMap<String, SplitCount> = BTreeMap::new();
    let split_name = |row: &Row| row.split.map(|s| s.to_string()).unwrap_or_default();
    let patients = manifest.patients();
    for (_, own) in &patients {
        if let Some(row) = own.first().and_then(|&i| rows.get(i)) {
            let count = splits.entry(split_name(row)).or_default();
            count.patients += 1;
            count.images += own.len();
        }
    }
    let mut views: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        *views.entry(format!("{}_{}", row.view, row.phase)).or_default() += 1;
    }

    let mut by_digest: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
    for (i, one) in seen.iter().enumerate() {
        by_digest.entry(*one.digest.as_bytes()).or_default().push(i);
    }
    let mut groups: Vec<Vec<usize>> = by_digest.into_values().filter(|group| group.len() > 1).collect();
    groups.sort();

    let names = ["background", "endocardium", "myocardium", "atrium"];
    let mut absent: BTreeMap<String, usize> = BTreeMap::new();
    for classes in seen.iter().filter_map(|one| one.classes) {
        for (name, held) in names.iter().zip(classes) {
            if !held {
                *absent.entry((*name).to_owned()).or_default() += 1;
            }
        }
    }

    let mut warnings = Vec::new();
    let mut plain = Vec::new();
    for group in &groups {
        let own: Vec<&Row> = group.iter().filter_map(|&i| rows.get(i)).collect();
        let list = own.iter().map(|row| row.name()).collect::<Vec<_>>().join(" = ");
        let mut parts: Vec<String> = own.iter().map(|row| split_name(row)).collect();
        parts.sort();
        parts.dedup();
        if parts.len() > 1 {
            warnings
                .push(format!("LEAKAGE: the same picture is in the splits {}: {list}", parts.join(" and ")));
        } else {
            plain.push(format!("the same picture is listed as {list}"));
        }
    }
    warnings.append(&mut plain);
    for (name, count) in &absent {
        warnings.push(format!("{count} masks hold no {name}"));
    }
    let with_spacing = rows.iter().filter(|row| row.spacing().is_some()).count();
    if with_spacing > 0 && with_spacing < rows.len() {
        warnings.push(format!("the pixel size is known for {with_spacing} of {} images only", rows.len()));
    }

    let range = |side: fn(&CheckedImage) -> usize| {
        let sides = || seen.iter().map(side);
        (sides().min().unwrap_or(0), sides().max().unwrap_or(0))
    };
    FolderSummary {
        patients: patients.len(),
        images: rows.len(),
        masks: rows.iter().filter(|row| row.mask.is_some()).count(),
        splits,
        views,
        width: range(|one| one.width),
        height: range(|one| one.height),
        with_spacing,
        duplicates: groups
            .iter()
            .map(|group| group.iter().filter_map(|&i| rows.get(i)).map(Row::name).collect())
            .collect(),
        absent,
        warnings,
    }
}

impl fmt::Display for FolderSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |(low, high): (usize, usize)| {
            if low == high { low.to_string() } else { format!("{low}-{high}") }
        };
        writeln!(f, "patients  {}", self.patients)?;
        writeln!(f, "images    {} ({} with a mask)", self.images, self.masks)?;
        for (name, count) in &self.splits {
            let name = if name.is_empty() { "no split" } else { name };
            writeln!(f, "  {name:<9} {} patients, {} images", count.patients, count.images)?;
        }
        for (name, count) in &self.views {
            writeln!(f, "  {name:<9} {count} images")?;
        }
        writeln!(f, "size      {} x {} pixels", range(self.width), range(self.height))?;
        let spacing = match self.with_spacing {
            0 => "not known: distances will be in pixels".to_owned(),
            n if n == self.images => "known for every image: distances will be in mm".to_owned(),
            n => format!("known for {n} of {} images", self.images),
        };
        write!(f, "spacing   {spacing}")?;
        for warning in &self.warnings {
            write!(f, "\nwarning   {warning}")?;
        }
        Ok(())
    }
}
