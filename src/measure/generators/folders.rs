//! `synecho measure fid|kid|prdc|memorisation|statistics`: folders of images against each other.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    error::{Error, Result},
    measure::{
        extractor::{FeatureExtractor, FeatureOptions, ImageFeatures},
        frechet::{
            Statistics, frechet, frechet_statistics,
            resample::{Extrapolation, Halves, extrapolated, interval},
        },
        kid::{Kid, Subsets, kid},
        memorisation::{Memorisation, memorisation},
        npz,
        prdc::{Prdc, prdc},
    },
    vocabulary::{GeneratorMeasure, Metric, Split},
};

/// How the features of folders are extracted.
pub struct FolderExtraction<'a> {
    pub extractor: &'a FeatureExtractor,
    pub options: FeatureOptions<'a>,
    /// Of real images: only this split of their manifest.
    pub split: Option<Split>,
}

impl FolderExtraction<'_> {
    pub(super) fn real(&self, folder: &Path) -> Result<ImageFeatures> {
        self.extractor.folder(folder, self.split, &self.options)
    }

    pub(super) fn synthetic(&self, folder: &Path) -> Result<ImageFeatures> {
        self.extractor.folder(folder, None, &self.options)
    }

    pub(super) fn provenance(&self, metric: &'static str, sets: &[&ImageFeatures]) -> FeatureProvenance {
        FeatureProvenance {
            metric,
            extractor: self.extractor.name().as_str(),
            convention: self.extractor.convention(),
            weights: self.extractor.weights_digest().to_owned(),
            unreadable: sets.iter().flat_map(|set| &set.unreadable).map(|(file, _)| file.clone()).collect(),
        }
    }
}

/// What the features of a document depend on.
#[derive(Debug, Clone, Serialize)]
pub struct FeatureProvenance {
    pub metric: &'static str,
    pub extractor: &'static str,
    /// How images were brought to the network.
    pub convention: &'static str,
    /// BLAKE3 of the weights' file.
    pub weights: String,
    /// Images that could not be read and were left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<PathBuf>,
}

impl FeatureProvenance {
    pub(super) fn by(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "features of {}, images resized as by {}", self.extractor, self.convention)?;
        match self.unreadable.len() {
            0 => Ok(()),
            n => write!(f, "\n{n} unreadable images were left out"),
        }
    }
}

/// A Frechet distance of two folders (or saved statistics).
#[derive(Debug, Clone, Serialize)]
pub struct FrechetReport {
    #[serde(flatten)]
    pub provenance: FeatureProvenance,
    pub value: f64,
    /// Unknown of statistics that another program saved.
    pub n_real: Option<u64>,
    pub n_synthetic: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci95: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicates: Option<usize>,
    /// At synthetic images without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extrapolated: Option<f64>,
    pub warnings: Vec<String>,
}

/// What is computed with a Frechet distance.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrechetOptions {
    /// Random halves behind an interval; 0: none.
    pub replicates: usize,
    pub extrapolate: bool,
    pub seed: u64,
}

/// A set of images by its features, or by statistics that were saved before.
enum ImageSet {
    Features(ImageFeatures),
    Statistics(Statistics),
}

impl ImageSet {
    fn statistics(self, set: &str) -> Result<Statistics> {
        match self {
            Self::Features(features) => Statistics::of(&features.values, set),
            Self::Statistics(statistics) => Ok(statistics),
        }
    }
}

fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz"))
}

/// The Frechet distance between two folders; either may be a file of statistics (`.npz`, as pytorch-fid writes
/// them). It is called FID only in Inception's features.
///
/// # Errors
/// As [`FeatureExtractor::folder`], [`npz::read`] and [`frechet`]; an interval or extrapolation of statistics.
pub fn frechet_of(
    folders: &FolderExtraction,
    real: &Path,
    synthetic: &Path,
    options: &FrechetOptions,
) -> Result<FrechetReport> {
    let metric = folders.extractor.name().frechet().as_str();
    let set = |path: &Path, of: &dyn Fn(&Path) -> Result<ImageFeatures>| match is_npz(path) {
        true => npz::read(path).map(ImageSet::Statistics),
        false => of(path).map(ImageSet::Features),
    };
    let real = set(real, &|folder| folders.real(folder))?;
    let synthetic = set(synthetic, &|folder| folders.synthetic(folder))?;
    let (a, b) = match (real, synthetic) {
        (ImageSet::Features(a), ImageSet::Features(b)) => (a, b),
        _ if options.replicates > 0 || options.extrapolate => {
            return Err(Error::input("an interval or an extrapolation needs the images themselves")
                .help("give folders, not statistics"));
        }
        (a, b) => {
            let provenance =
                folders.provenance(metric, &[&a, &b].into_iter().filter_map(features).collect::<Vec<_>>());
            let found = frechet_statistics(&a.statistics("real")?, &b.statistics("synthetic")?)?;
            return Ok(FrechetReport {
                provenance,
                value: found.value,
                n_real: found.n_real,
                n_synthetic: found.n_synthetic,
                ci95: None,
                replicates: None,
                extrapolated: None,
                warnings: found.warnings,
            });
        }
    };
    let found = frechet(&a.values, &b.values)?;
    let seed = options.seed;
    let ci95 = match options.replicates {
        0 => None,
        replicates => {
            let halves = Halves { replicates, seed, ..Halves::default() };
            let found = interval(&a.values, &b.values, &halves)?;
            Some([found.low, found.high])
        }
    };
    let mut warnings = found.warnings;
    let extrapolated = match options.extrapolate {
        false => None,
        true => {
            let settings = Extrapolation { seed, ..Extrapolation::default() };
            let found = extrapolated(&a.values, &b.values, &settings)?;
            warnings.extend(found.warnings);
            warnings.dedup();
            Some(found.value)
        }
    };
    Ok(FrechetReport {
        provenance: folders.provenance(metric, &[&a, &b]),
        value: found.value,
        n_real: found.n_real,
        n_synthetic: found.n_synthetic,
        ci95,
        replicates: ci95.map(|_| options.replicates),
        extrapolated,
        warnings,
    })
}

fn features(set: &ImageSet) -> Option<&ImageFeatures> {
    match set {
        ImageSet::Features(features) => Some(features),
        ImageSet::Statistics(_) => None,
    }
}

/// Statistics of a folder's features, saved as pytorch-fid does; how many images are behind them.
///
/// # Errors
/// As [`FeatureExtractor::folder`]; the file cannot be written.
pub fn save_statistics(folders: &FolderExtraction, images: &Path, to: &Path) -> Result<u64> {
    let features = folders.real(images)?;
    npz::write(to, &Statistics::of(&features.values, "real")?)?;
    Ok(features.images.len() as u64)
}

/// A measure, and what its features depend on.
#[derive(Debug, Clone, Serialize)]
pub struct DistanceReport<M> {
    #[serde(flatten)]
    pub provenance: FeatureProvenance,
    #[serde(flatten)]
    pub found: M,
}

/// # Errors
/// As [`FeatureExtractor::folder`] and [`kid`].
pub fn kid_of(
    folders: &FolderExtraction,
    real: &Path,
    synthetic: &Path,
    subsets: &Subsets,
) -> Result<DistanceReport<Kid>> {
    let (a, b) = (folders.real(real)?, folders.synthetic(synthetic)?);
    Ok(DistanceReport {
        provenance: folders.provenance(GeneratorMeasure::Kid.as_str(), &[&a, &b]),
        found: kid(&a.values, &b.values, subsets)?,
    })
}

/// # Errors
/// As [`FeatureExtractor::folder`] and [`prdc`].
pub fn prdc_of(
    folders: &FolderExtraction,
    real: &Path,
    synthetic: &Path,
    k: usize,
) -> Result<DistanceReport<Prdc>> {
    let (a, b) = (folders.real(real)?, folders.synthetic(synthetic)?);
    Ok(DistanceReport {
        provenance: folders.provenance(GeneratorMeasure::Prdc.as_str(), &[&a, &b]),
        found: prdc(&a.values, &b.values, k)?,
    })
}

/// A memorisation test, and the pairs that are nearest.
#[derive(Debug, Clone, Serialize)]
pub struct MemorisationReport {
    /// [`Memorisation::effect`].
    pub value: f64,
    #[serde(flatten)]
    pub memorisation: Memorisation,
    /// Synthetic images with their nearest training images, the nearest pair first.
    pub nearest: Vec<NearestFiles>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct NearestFiles {
    pub synthetic: PathBuf,
    pub training: PathBuf,
    pub distance: f64,
}

/// # Errors
/// As [`FeatureExtractor::folder`] and [`memorisation`]; the held-out images are training images.
pub fn memorisation_of(
    folders: &FolderExtraction,
    training: &Path,
    synthetic: &Path,
    held_out: &Path,
    pairs: usize,
) -> Result<DistanceReport<MemorisationReport>> {
    let (a, b) = (folders.real(training)?, folders.synthetic(synthetic)?);
    let c = folders.synthetic(held_out)?;
    Ok(DistanceReport {
        provenance: folders.provenance(GeneratorMeasure::Memorisation.as_str(), &[&a, &b, &c]),
        found: memorisation_report(&a, &b, &c, pairs)?,
    })
}

/// The test, and the `pairs` nearest pairs.
///
/// # Errors
/// As [`memorisation`]; every held-out image is a training image, so that nothing could be nearer.
pub(super) fn memorisation_report(
    training: &ImageFeatures,
    synthetic: &ImageFeatures,
    held_out: &ImageFeatures,
    pairs: usize,
) -> Result<MemorisationReport> {
    let found = memorisation(&training.values, &synthetic.values, &held_out.values)?;
    let known = found.held_out.distances.iter().filter(|distance| **distance == 0.0).count();
    if known == held_out.images.len() {
        return Err(Error::input("every held-out image is one of the training images")
            .help("--held-out takes real images of other patients, which the generator never saw"));
    }
    let mut order: Vec<usize> = (0..found.synthetic.distances.len()).collect();
    order.sort_by(|&i, &j| found.synthetic.distances[i].total_cmp(&found.synthetic.distances[j]));
    let pair = |&i: &usize| NearestFiles {
        synthetic: synthetic.images[i].clone(),
        training: training.images[found.synthetic.indices[i]].clone(),
        distance: found.synthetic.distances[i],
    };
    let nearest = order.iter().take(pairs).map(pair).collect();
    let warnings = match known {
        0 => Vec::new(),
        n => vec![format!(
            "{n} of {} held-out images are training images too: the test sees less copying than there is",
            held_out.images.len()
        )],
    };
    Ok(MemorisationReport {
        value: found.memorisation.effect,
        memorisation: found.memorisation,
        nearest,
        warnings,
    })
}

fn warn(f: &mut fmt::Formatter<'_>, warnings: &[String]) -> fmt::Result {
    warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
}

impl fmt::Display for FrechetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.provenance.metric == Metric::Fid.as_str() {
            "FID"
        } else {
            "Fréchet distance (not FID)"
        };
        let n = |n: Option<u64>| n.map_or("an unknown number of".to_owned(), |n| n.to_string());
        let (real, synthetic) = (n(self.n_real), n(self.n_synthetic));
        write!(f, "{name}  {:.6}   {real} real, {synthetic} synthetic images", self.value)?;
        if let (Some([low, high]), Some(replicates)) = (self.ci95, self.replicates) {
            write!(f, "\n95 % interval  [{low:.6}, {high:.6}]   by {replicates} random halves")?;
        }
        if let Some(value) = self.extrapolated {
            write!(f, "\nextrapolated to synthetic images without end  {value:.6}")?;
        }
        writeln!(f)?;
        self.provenance.by(f)?;
        warn(f, &self.warnings)
    }
}

impl fmt::Display for DistanceReport<Kid> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let k = &self.found;
        write!(f, "KID  {:.8} ± {:.8} (standard error)", k.value, k.standard_error)?;
        write!(f, "   {} real, {} synthetic images", k.n_real, k.n_synthetic)?;
        writeln!(f, "\n{} subsets of {} images, seed {}", k.subsets, k.subset_size, k.seed)?;
        self.provenance.by(f)?;
        warn(f, &k.warnings)
    }
}

impl fmt::Display for DistanceReport<Prdc> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.found;
        let values = [
            (Metric::ManifoldPrecision, p.precision),
            (Metric::ManifoldRecall, p.recall),
            (Metric::Density, p.density),
            (Metric::Coverage, p.coverage),
        ];
        values.iter().try_for_each(|(name, value)| writeln!(f, "{name:<9}  {value:.6}"))?;
        writeln!(f, "{} neighbours, {} real, {} synthetic images", p.k, p.n_real, p.n_synthetic)?;
        self.provenance.by(f)
    }
}

impl fmt::Display for DistanceReport<MemorisationReport> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.found.memorisation;
        writeln!(
            f,
            "nearer to the training images than held-out ones are: {:.4} of the pairs (0.5: no sign of copying), p {:.3e}",
            m.effect, m.p
        )?;
        writeln!(
            f,
            "median distance  {:.6} synthetic ({}), {:.6} held out ({}), to {} training images",
            m.median_synthetic, m.n_synthetic, m.median_held_out, m.n_held_out, m.n_training
        )?;
        writeln!(
            f,
            "nearer than 95 in 100 held-out ones  {:.4} of the synthetic images (0.05 is expected); {} copies",
            m.share_near, m.copies
        )?;
        for pair in &self.found.nearest {
            let (made, of) = (pair.synthetic.display(), pair.training.display());
            writeln!(f, "  {:.6}  {made}  {of}", pair.distance)?;
        }
        self.provenance.by(f)?;
        warn(f, &self.found.warnings)
    }
}
