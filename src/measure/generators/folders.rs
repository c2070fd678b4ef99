//! `synecho measure fid|kid|prdc|memorisation|statistics`: folders of images against each other.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    error::{Error, Result},
    measure::{
        extractor::{FeatureExtractor, Features, How},
        frechet::{
            Statistics, frechet, frechet_statistics,
            resample::{Extrapolation, Halves, extrapolated, interval},
        },
        kid::{Kid, Subsets, kid},
        memorisation::{Memorisation, memorisation},
        npz,
        prdc::{Prdc, prdc},
    },
    vocabulary::{Extractor, Split},
};

/// What features are taken of, and how.
pub struct Taking<'a> {
    pub extractor: &'a FeatureExtractor,
    pub how: How<'a>,
    /// Real images of one split of their manifest.
    pub split: Option<Split>,
}

impl Taking<'_> {
    fn real(&self, folder: &Path) -> Result<Features> {
        self.extractor.folder(folder, self.split, &self.how)
    }

    fn synthetic(&self, folder: &Path) -> Result<Features> {
        self.extractor.folder(folder, None, &self.how)
    }

    fn taken(&self, metric: &'static str, sets: &[&Features]) -> Taken {
        Taken {
            metric,
            extractor: self.extractor.space().as_str(),
            convention: self.extractor.convention(),
            weights: self.extractor.weights_digest().to_owned(),
            unreadable: sets.iter().flat_map(|set| &set.unreadable).map(|(file, _)| file.clone()).collect(),
        }
    }
}

/// What every document of these measures says.
#[derive(Debug, Clone, Serialize)]
pub struct Taken {
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

impl Taken {
    fn by(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    pub taken: Taken,
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

/// What is asked of a Frechet distance beside its value.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrechetOptions {
    /// Random halves behind an interval; 0: none.
    pub replicates: usize,
    pub extrapolate: bool,
    pub seed: u64,
}

/// A set by its features, or by statistics that were saved before.
enum Known {
    Features(Features),
    Statistics(Statistics),
}

impl Known {
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
/// them). It is called FID in Inception's features alone.
///
/// # Errors
/// As [`FeatureExtractor::folder`], [`npz::read`] and [`frechet`]; an interval or extrapolation of statistics.
pub fn frechet_of(
    taking: &Taking,
    real: &Path,
    synthetic: &Path,
    options: &FrechetOptions,
) -> Result<FrechetReport> {
    let metric = if taking.extractor.space() == Extractor::InceptionFid { "fid" } else { "frechet" };
    let known = |path: &Path, of: &dyn Fn(&Path) -> Result<Features>| match is_npz(path) {
        true => npz::read(path).map(Known::Statistics),
        false => of(path).map(Known::Features),
    };
    let real = known(real, &|folder| taking.real(folder))?;
    let synthetic = known(synthetic, &|folder| taking.synthetic(folder))?;
    let (a, b) = match (real, synthetic) {
        (Known::Features(a), Known::Features(b)) => (a, b),
        _ if options.replicates > 0 || options.extrapolate => {
            return Err(Error::input("an interval or an extrapolation needs the images themselves")
                .help("give folders, not statistics"));
        }
        (a, b) => {
            let taken = taking.taken(metric, &[&a, &b].into_iter().filter_map(features).collect::<Vec<_>>());
            let found = frechet_statistics(&a.statistics("real")?, &b.statistics("synthetic")?)?;
            return Ok(FrechetReport {
                taken,
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
            let how = Halves { replicates, seed, ..Halves::default() };
            let found = interval(&a.values, &b.values, &how)?;
            Some([found.low, found.high])
        }
    };
    let mut warnings = found.warnings;
    let extrapolated = match options.extrapolate {
        false => None,
        true => {
            let how = Extrapolation { seed, ..Extrapolation::default() };
            let found = extrapolated(&a.values, &b.values, &how)?;
            warnings.extend(found.warnings);
            warnings.dedup();
            Some(found.value)
        }
    };
    Ok(FrechetReport {
        taken: taking.taken(metric, &[&a, &b]),
        value: found.value,
        n_real: found.n_real,
        n_synthetic: found.n_synthetic,
        ci95,
        replicates: ci95.map(|_| options.replicates),
        extrapolated,
        warnings,
    })
}

fn features(known: &Known) -> Option<&Features> {
    match known {
        Known::Features(features) => Some(features),
        Known::Statistics(_) => None,
    }
}

/// Statistics of a folder's features, saved as pytorch-fid does; how many images are behind them.
///
/// # Errors
/// As [`FeatureExtractor::folder`]; the file cannot be written.
pub fn save_statistics(taking: &Taking, images: &Path, to: &Path) -> Result<u64> {
    let features = taking.real(images)?;
    npz::write(to, &Statistics::of(&features.values, "real")?)?;
    Ok(features.images.len() as u64)
}

/// A measure with all that decides it.
#[derive(Debug, Clone, Serialize)]
pub struct Report<M> {
    #[serde(flatten)]
    pub taken: Taken,
    #[serde(flatten)]
    pub found: M,
}

/// # Errors
/// As [`FeatureExtractor::folder`] and [`kid`].
pub fn kid_of(taking: &Taking, real: &Path, synthetic: &Path, subsets: &Subsets) -> Result<Report<Kid>> {
    let (a, b) = (taking.real(real)?, taking.synthetic(synthetic)?);
    Ok(Report { taken: taking.taken("kid", &[&a, &b]), found: kid(&a.values, &b.values, subsets)? })
}

/// # Errors
/// As [`FeatureExtractor::folder`] and [`prdc`].
pub fn prdc_of(taking: &Taking, real: &Path, synthetic: &Path, k: usize) -> Result<Report<Prdc>> {
    let (a, b) = (taking.real(real)?, taking.synthetic(synthetic)?);
    Ok(Report { taken: taking.taken("prdc", &[&a, &b]), found: prdc(&a.values, &b.values, k)? })
}

/// A memorisation test, and the pairs that are nearest.
#[derive(Debug, Clone, Serialize)]
pub struct MemorisationReport {
    /// [`Memorisation::effect`].
    pub value: f64,
    #[serde(flatten)]
    pub memorisation: Memorisation,
    /// Synthetic images and the training images that they are nearest to, the nearest first.
    pub nearest: Vec<Pair>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    pub synthetic: PathBuf,
    pub training: PathBuf,
    pub distance: f64,
}

/// # Errors
/// As [`FeatureExtractor::folder`] and [`memorisation`].
pub fn memorisation_of(
    taking: &Taking,
    training: &Path,
    synthetic: &Path,
    held_out: &Path,
    pairs: usize,
) -> Result<Report<MemorisationReport>> {
    let (a, b) = (taking.real(training)?, taking.synthetic(synthetic)?);
    let c = taking.synthetic(held_out)?;
    let found = memorisation(&a.values, &b.values, &c.values)?;
    let mut order: Vec<usize> = (0..found.synthetic.distances.len()).collect();
    order.sort_by(|&i, &j| found.synthetic.distances[i].total_cmp(&found.synthetic.distances[j]));
    let pair = |&i: &usize| Pair {
        synthetic: b.images[i].clone(),
        training: a.images[found.synthetic.indices[i]].clone(),
        distance: found.synthetic.distances[i],
    };
    let nearest = order.iter().take(pairs).map(pair).collect();
    let value = found.memorisation.effect;
    Ok(Report {
        taken: taking.taken("memorisation", &[&a, &b, &c]),
        found: MemorisationReport { value, memorisation: found.memorisation, nearest },
    })
}

fn warn(f: &mut fmt::Formatter<'_>, warnings: &[String]) -> fmt::Result {
    warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
}

impl fmt::Display for FrechetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.taken.metric == "fid" { "FID" } else { "Fréchet distance (not FID)" };
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
        self.taken.by(f)?;
        warn(f, &self.warnings)
    }
}

impl fmt::Display for Report<Kid> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let k = &self.found;
        write!(f, "KID  {:.8} ± {:.8} (standard error)", k.value, k.standard_error)?;
        write!(f, "   {} real, {} synthetic images", k.n_real, k.n_synthetic)?;
        writeln!(f, "\n{} subsets of {} images, seed {}", k.subsets, k.subset_size, k.seed)?;
        self.taken.by(f)?;
        warn(f, &k.warnings)
    }
}

impl fmt::Display for Report<Prdc> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.found;
        let values = [
            ("precision", p.precision),
            ("recall", p.recall),
            ("density", p.density),
            ("coverage", p.coverage),
        ];
        values.iter().try_for_each(|(name, value)| writeln!(f, "{name:<9}  {value:.6}"))?;
        writeln!(f, "{} neighbours, {} real, {} synthetic images", p.k, p.n_real, p.n_synthetic)?;
        self.taken.by(f)
    }
}

impl fmt::Display for Report<MemorisationReport> {
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
        self.taken.by(f)
    }
}

/// How many classes a classifier's file tells apart.
///
/// # Errors
/// The file cannot be read, or holds no ResNet.
pub fn classes_of(weights: &Path) -> Result<usize> {
    let file = crate::nn::tensor_file::TensorFile::open(weights)?;
    let last = file.entries().iter().find(|entry| entry.name == "fc.weight");
    last.and_then(|entry| entry.shape.first()).map(|&n| n as usize).ok_or_else(|| {
        Error::input("fc.weight is missing: this is no ResNet")
            .at(weights)
            .help("name the weights.safetensors of a classifier that `synecho run` trained")
    })
}
