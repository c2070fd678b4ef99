//! `synecho measure all`: every measure of two folders of images, from one set of features.

use std::{fmt, path::Path};

use serde::Serialize;

use super::folders::{FeatureProvenance, FolderExtraction, MemorisationReport, memorisation_report};
use crate::{
    error::Result,
    measure::{
        arrays::SYNTHETIC,
        authenticity::{Authenticity, authenticity},
        frechet::{Frechet, frechet},
        kid::{Kid, Subsets, kid},
        mind::{Directions, Mind, mind},
        prdc::{Prdc, prdc},
        texture::{self, folder::TextureReport},
        vendi::{Vendi, vendi},
    },
    vocabulary::{GeneratorMeasure, Metric},
};

/// What is compared with the real images.
#[derive(Debug, Clone, Copy)]
pub struct ComparedFolders<'a> {
    pub real: &'a Path,
    pub synthetic: &'a Path,
    /// Real images of other patients, for the test of memorisation.
    pub held_out: Option<&'a Path>,
}

/// Every measure; one that cannot be taken is `null`, and `skipped` says why.
#[derive(Debug, Clone, Serialize)]
pub struct AllMeasures {
    #[serde(flatten)]
    pub provenance: FeatureProvenance,
    pub n_real: usize,
    pub n_synthetic: usize,
    pub frechet: Option<Frechet>,
    pub kid: Option<Kid>,
    pub mind: Option<Mind>,
    pub prdc: Option<Prdc>,
    pub authenticity: Option<Authenticity>,
    /// Of the synthetic images, and of as many things to compare it with: the real ones.
    pub vendi: Option<Vendi>,
    pub vendi_real: Option<Vendi>,
    pub memorisation: Option<MemorisationReport>,
    pub texture: Option<TextureReport>,
    /// (measure, why it was not taken).
    pub skipped: Vec<(&'static str, String)>,
}

/// Reads each image once, and takes every measure that the images allow, with the defaults of its own command.
///
/// # Errors
/// As [`crate::measure::extractor::FeatureExtractor::folder`].
pub fn all_of(
    folders: &FolderExtraction,
    compared: &ComparedFolders,
    neighbours: usize,
) -> Result<AllMeasures> {
    let (a, b) = (folders.real(compared.real)?, folders.synthetic(compared.synthetic)?);
    let held_out = compared.held_out.map(|folder| folders.synthetic(folder)).transpose()?;
    let mut skipped = Vec::new();
    let (real, synthetic) = (&a.values, &b.values);
    let mut sets = vec![&a, &b];
    sets.extend(&held_out);
    let provenance = folders.provenance("all", &sets);
    let memorisation = match &held_out {
        Some(c) => {
            taken(GeneratorMeasure::Memorisation.as_str(), memorisation_report(&a, &b, c, 0), &mut skipped)
        }
        None => {
            let why = "it needs real images of other patients: --held-out DIR".to_owned();
            skipped.push((GeneratorMeasure::Memorisation.as_str(), why));
            None
        }
    };
    let texture = texture::folder::compare_folders(compared.real, compared.synthetic, folders.split);
    Ok(AllMeasures {
        n_real: a.images.len(),
        n_synthetic: b.images.len(),
        frechet: taken(folders.extractor.name().frechet().as_str(), frechet(real, synthetic), &mut skipped),
        kid: taken(GeneratorMeasure::Kid.as_str(), kid(real, synthetic, &Subsets::default()), &mut skipped),
        mind: taken(
            GeneratorMeasure::Mind.as_str(),
            mind(real, synthetic, &Directions::default()),
            &mut skipped,
        ),
        prdc: taken(GeneratorMeasure::Prdc.as_str(), prdc(real, synthetic, neighbours), &mut skipped),
        authenticity: taken(
            GeneratorMeasure::Authenticity.as_str(),
            authenticity(real, synthetic),
            &mut skipped,
        ),
        vendi: taken(GeneratorMeasure::Vendi.as_str(), vendi(synthetic, SYNTHETIC), &mut skipped),
        vendi_real: vendi(real, "real").ok(),
        texture: taken(Metric::Texture.as_str(), texture, &mut skipped),
        memorisation,
        skipped,
        provenance,
    })
}

/// The value; where there is none, the reason goes to `skipped`.
fn taken<T>(measure: &'static str, value: Result<T>, skipped: &mut Vec<(&'static str, String)>) -> Option<T> {
    value.map_err(|error| skipped.push((measure, error.to_string().replace('\n', " ")))).ok()
}

impl fmt::Display for AllMeasures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} real and {} synthetic images", self.n_real, self.n_synthetic)?;
        let mut line = |name: &str, value: f64, note: &str| {
            let text = format!("  {name:<22}  {value:>14.6}  {note}");
            writeln!(f, "{}", text.trim_end())
        };
        if let Some(found) = &self.frechet {
            line(self.frechet_label(), found.value, "lower is better")?;
        }
        if let Some(found) = &self.kid {
            let note = format!("± {:.6} (standard error); lower is better", 1e3 * found.standard_error);
            line("KID x 1000", 1e3 * found.value, &note)?;
        }
        if let Some(found) = &self.mind {
            line(Metric::Mind.label(), found.value, "lower is better")?;
        }
        if let Some(found) = &self.prdc {
            let note = format!("{} neighbours; higher is better", found.k);
            for (metric, value) in [
                (Metric::ManifoldPrecision, found.precision),
                (Metric::ManifoldRecall, found.recall),
                (Metric::Density, found.density),
                (Metric::Coverage, found.coverage),
            ] {
                line(metric.label(), value, &note)?;
            }
        }
        if let Some(found) = &self.authenticity {
            line(Metric::Authenticity.label(), found.percent, "percent; higher is better")?;
        }
        if let Some(found) = &self.vendi {
            let real = self.vendi_real.map(|real| format!("; {:.2} of the real ones", real.value));
            line(Metric::Vendi.label(), found.value, &format!("images{}", real.unwrap_or_default()))?;
        }
        if let Some(found) = &self.memorisation {
            line("memorisation", found.value, "0.5: no sign of copying; 1: every image is a copy")?;
        }
        if let Some(found) = &self.texture {
            for (octave, ratio) in found.octaves.iter().zip(found.ratios) {
                line(&format!("texture {}", octave.name), ratio, "synthetic over real power; 1: the same")?;
            }
        }
        for (measure, why) in &self.skipped {
            writeln!(f, "  {measure:<22}  {:>14}  {why}", "-")?;
        }
        self.provenance.by(f)?;
        let warnings =
            [self.frechet.as_ref().map(|found| &found.warnings), self.kid.as_ref().map(|k| &k.warnings)];
        let mut warnings: Vec<&String> = warnings.into_iter().flatten().flatten().collect();
        warnings.dedup();
        warnings.into_iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

impl AllMeasures {
    fn frechet_label(&self) -> &'static str {
        let is_fid = self.provenance.extractor == crate::vocabulary::Extractor::InceptionFid.as_str();
        if is_fid { Metric::Fid.label() } else { Metric::Frechet.label() }
    }
}
