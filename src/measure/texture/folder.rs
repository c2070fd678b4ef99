//! `synecho measure texture`: two folders of images against each other.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::Serialize;

use super::{Class, GOOD, OCTAVES, Octaves, Power, SMALLEST, Set, compare};
use crate::{
    error::{AtPath, Error, Result},
    manifest::{self, Manifest},
    picture::Picture,
    resize,
    text_file::read_text,
    vocabulary::Split,
};

/// An octave, in both of its units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Octave {
    pub name: &'static str,
    /// Wavelengths, pixels: from (included), to (left out).
    pub wavelength_px: [usize; 2],
    /// Frequencies, cycles per image: from (left out), to (included).
    pub cycles_per_image: [f64; 2],
}

/// One class, or all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// `2CH ED`, …, or `all`.
    pub class: String,
    pub n_real: usize,
    pub n_synthetic: usize,
    /// Synthetic over real, in the order of the octaves.
    pub ratios: Octaves,
    /// Mean power, grey levels squared.
    pub power_real: Octaves,
    pub power_synthetic: Octaves,
}

/// What the command prints, as JSON or (through `Display`) as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextureReport {
    /// `texture`.
    pub metric: &'static str,
    /// Of the ratios over all classes the one that is farthest from 1, as a factor.
    pub value: f64,
    /// Over all classes, in the order of the octaves.
    pub ratios: Octaves,
    pub n_real: usize,
    pub n_synthetic: usize,
    /// Width and height at which the images were compared, pixels.
    pub image_size: usize,
    /// How many images were larger, and resized to that.
    pub resized_real: usize,
    pub resized_synthetic: usize,
    pub octaves: Vec<Octave>,
    /// Each class, then (where there are several) all.
    pub classes: Vec<Entry>,
}

/// Compares the images of two folders: by class where both have a `manifest.csv` with view and phase,
/// otherwise all with all. `split` picks the real images of one split. Images larger than the smallest of
/// both folders are resized to it ([`resize::bilinear`]).
///
/// # Errors
/// A folder has no images (of the split), or a class that the other has not; an image cannot be read, is
/// not square or too small; and as [`compare`].
pub fn compare_folders(real: &Path, synthetic: &Path, split: Option<Split>) -> Result<TextureReport> {
    let mut files = [(real, Files::of(real, split)?), (synthetic, Files::of(synthetic, None)?)];
    if !files.iter().all(|(_, f)| f.has_classes) {
        let all = files.iter_mut().flat_map(|(_, f)| &mut f.images);
        all.for_each(|(class, _)| *class = Class(None));
    }
    let mut pictures = [files[0].1.read()?, files[1].1.read()?];
    let size = pictures.iter().flatten().map(|p| p.width).min().unwrap_or(0);
    let resized = pictures.each_mut().map(|set| {
        let larger: Vec<&mut Picture> = set.iter_mut().filter(|p| p.width > size).collect();
        let n = larger.len();
        larger.into_par_iter().for_each(|picture| *picture = resize::bilinear(picture, size, size));
        n
    });
    let set = |i: usize| {
        let (folder, files) = &files[i];
        let classes = files.images.iter().map(|(class, _)| *class);
        Set::new(folder.display().to_string(), classes.zip(pictures[i].iter().map(|p| p.pixels.as_slice())))
    };
    let found = compare(&set(0), &set(1), size)?;
    let entry = |class: Class, power: &Power| Entry {
        class: class.to_string(),
        n_real: power.n_real,
        n_synthetic: power.n_synthetic,
        ratios: power.ratios(),
        power_real: power.real,
        power_synthetic: power.synthetic,
    };
    let all = Power::pooled(found.values());
    let mut classes: Vec<Entry> = found.iter().map(|(class, power)| entry(*class, power)).collect();
    if classes.len() > 1 {
        classes.push(entry(Class(None), &all));
    }
    let octave = |(i, name)| Octave {
        name,
        wavelength_px: [2usize << i, 4usize << i],
        cycles_per_image: [size as f64 / f64::from(4 << i), size as f64 / f64::from(2 << i)],
    };
    let ratios = all.ratios();
    let far = |ratio: &f64| ratio.ln().abs();
    Ok(TextureReport {
        metric: "texture",
        value: ratios.into_iter().max_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or(f64::NAN),
        ratios,
        n_real: all.n_real,
        n_synthetic: all.n_synthetic,
        image_size: size,
        resized_real: resized[0],
        resized_synthetic: resized[1],
        octaves: OCTAVES.into_iter().enumerate().map(octave).collect(),
        classes,
    })
}

/// The images of a folder, by path.
struct Files {
    images: Vec<(Class, PathBuf)>,
    /// Whether the folder says which class an image is of.
    has_classes: bool,
}

impl Files {
    fn of(folder: &Path, split: Option<Split>) -> Result<Self> {
        let file = folder.join(manifest::FILE);
        if file.is_file() && tells_classes(&file)? {
            let table = Manifest::read(folder)?;
            let rows = table.rows.iter().filter(|row| split.is_none() || row.split == split);
            let images: Vec<_> =
                rows.map(|row| (Class(Some((row.view, row.phase))), table.image_path(row))).collect();
            if let (true, Some(split)) = (images.is_empty(), split) {
                return Err(Error::input(format!("there are no {split} images"))
                    .at(&file)
                    .help("the column `split` says train, val or test; without --split all rows are taken"));
            }
            return Ok(Self { images, has_classes: true });
        }
        if split.is_some() {
            return Err(Error::input("--split needs a manifest.csv with view, phase and split")
                .at(folder)
                .help("leave --split out, or make such a folder with `synecho data import`"));
        }
        let mut images = Vec::new();
        for entry in std::fs::read_dir(folder)
            .at_path(folder, "cannot read the folder")
            .map_err(|e| e.help("give a folder with manifest.csv, or one of PNG or JPEG files"))?
        {
            let path = entry.at_path(folder, "cannot read the folder")?.path();
            let is_image = (path.extension())
                .is_some_and(|e| ["png", "jpg", "jpeg"].iter().any(|name| e.eq_ignore_ascii_case(name)));
            // `._NAME` is what macOS writes beside a file on other systems' disks.
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if is_image && !hidden && path.is_file() {
                images.push((Class(None), path));
            }
        }
        if images.is_empty() {
            return Err(Error::input("the folder holds no images")
                .at(folder)
                .help("give a folder with manifest.csv, or one with PNG or JPEG files directly in it"));
        }
        // The order of a folder is the file system's; that of a sum decides its last digits.
        images.sort();
        Ok(Self { images, has_classes: false })
    }

    /// All images, each of them square.
    fn read(&self) -> Result<Vec<Picture>> {
        let read = |(_, path): &(Class, PathBuf)| {
            let picture = Picture::read(path)?;
            let (width, height) = (picture.width, picture.height);
            let wrong = |help: String| {
                Err(Error::input(format!("the image is {width} x {height} pixels")).at(path).help(help))
            };
            match width {
                _ if width != height => wrong(
                    "texture compares square images: `synecho run` prepares them, or crop them alike".into(),
                ),
                _ if width < SMALLEST => wrong(format!("texture needs {SMALLEST} x {SMALLEST} or more")),
                _ => Ok(picture),
            }
        };
        self.images.par_iter().map(read).collect()
    }
}

/// Whether the table has views and phases: that of `synecho sample` has not, and is then as good as none.
fn tells_classes(file: &Path) -> Result<bool> {
    let text = read_text(file, "cannot read the manifest")?;
    let header = text.lines().next().unwrap_or_default();
    Ok(header.split(',').any(|name| ["view", "phase"].contains(&name.trim())))
}

impl fmt::Display for TextureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8}  {:>6}  {:>9}", "class", "real", "synthetic")?;
        self.octaves.iter().try_for_each(|octave| write!(f, "  {:>8}", octave.name))?;
        for entry in &self.classes {
            write!(f, "\n{:<8}  {:>6}  {:>9}", entry.class, entry.n_real, entry.n_synthetic)?;
            entry.ratios.iter().try_for_each(|ratio| write!(f, "  {ratio:>8.3}"))?;
        }
        let size = self.image_size;
        write!(
            f,
            "\npower of the synthetic images over that of the real ones, by wavelength, at {size} x {size} pixels; 1: the same"
        )?;
        let (low, high) = GOOD;
        let outside: Vec<String> = (self.octaves.iter().zip(&self.ratios))
            .filter(|(_, ratio)| !(low..=high).contains(*ratio))
            .map(|(octave, ratio)| {
                let how = if *ratio < low { "too little: blurred" } else { "too much: grainy" };
                format!("{} ({how})", octave.name)
            })
            .collect();
        match outside.is_empty() {
            true => write!(f, "\nover all, every octave is within {low} to {high}")?,
            false => write!(f, "\nover all, not within {low} to {high}: {}", outside.join(", "))?,
        }
        for (n, which) in [(self.resized_real, "real"), (self.resized_synthetic, "synthetic")] {
            if n > 0 {
                write!(
                    f,
                    "\n{n} {which} images were larger and resized: this weakens their shortest wavelengths; a ratio there says less"
                )?;
            }
        }
        Ok(())
    }
}
