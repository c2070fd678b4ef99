//! `synecho measure dice`: two folders of masks against each other.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use super::{
    ScoreSummary,
    mask_scores::{MaskPair, MaskScore, mask_scores},
    summary,
};
use crate::{
    error::{AtPath, Error, Result},
    manifest::{self, Manifest},
    picture::Picture,
    scan::nifti,
    vocabulary::{Metric, Structure, Task},
};

/// One metric of one structure over all pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StructureScore {
    pub structure: Structure,
    #[serde(serialize_with = "as_word")]
    pub metric: Metric,
    /// Mean over the pairs where it is defined; NaN (`null` in JSON) where there is none.
    pub value: f64,
    /// Sample standard deviation over them.
    pub sd: f64,
    /// How many pairs that is.
    pub n: usize,
    /// Pairs where only one of truth and prediction has the structure. For distances they are left
    /// out of the mean; for Dice they count as 0 where the prediction lacks the structure.
    pub failures: usize,
    /// `mm` or `px` of a distance; else empty.
    pub unit: &'static str,
}

/// What the command prints, as JSON or (through `Display`) as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FolderReport {
    /// `dice`: the figure in `value`.
    #[serde(serialize_with = "as_word")]
    pub metric: Metric,
    /// Mean over pairs of each pair's mean Dice of endocardium, myocardium and atrium (as MONAI's
    /// reduction `mean`: absent structures left out).
    pub value: f64,
    /// Sample standard deviation over pairs.
    pub sd: f64,
    /// Pairs behind `value`.
    pub n: usize,
    /// Pairs compared.
    pub pairs: usize,
    /// What the distances are in: `mm` where every pair's pixel size is known, else `px`.
    pub unit: &'static str,
    pub structures: Vec<StructureScore>,
    /// Masks of only one of the folders.
    pub left_out: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cases: Option<Vec<CaseScores>>,
}

fn as_word<T: fmt::Display, S: Serializer>(word: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(word)
}

/// The scores of one pair of masks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseScores {
    /// What the pair is called in both folders.
    pub name: String,
    pub scores: Vec<CaseScore>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseScore {
    pub structure: Structure,
    #[serde(serialize_with = "as_word")]
    pub metric: Metric,
    /// NaN (`null` in JSON) where undefined.
    pub value: f64,
}

/// Two masks of the same acquisition.
struct Pair {
    name: String,
    truth: MaskFile,
    prediction: MaskFile,
}

/// How masks are paired, and what of the pairs is listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairingOptions {
    /// Masks without a counterpart are left out and counted; otherwise they are an error.
    pub only_common: bool,
    /// The report lists the scores of every pair.
    pub list_cases: bool,
}

/// Compares the masks in two folders: by (patient, view, phase) where both hold a `manifest.csv`, otherwise PNG and
/// NIfTI files by name.
///
/// # Errors
/// A mask has no counterpart in the other folder (unless only common ones are asked for) or another size; a file is
/// not a mask.
pub fn compare(truth: &Path, prediction: &Path, options: PairingOptions) -> Result<FolderReport> {
    let listed = match (truth.join(manifest::FILE).is_file(), prediction.join(manifest::FILE).is_file()) {
        (true, true) => [from_manifest(truth)?, from_manifest(prediction)?],
        _ => [from_names(truth)?, from_names(prediction)?],
    };
    let (pairs, left_out) = match_up([truth, prediction], listed, options.only_common)?;
    let known = pairs.iter().all(|pair| pair.truth.spacing.is_some());
    let unit = if known { "mm" } else { "px" };

    let mut values: BTreeMap<(Metric, Structure), Vec<f64>> = BTreeMap::new();
    let mut means = Vec::with_capacity(pairs.len());
    let mut cases = Vec::new();
    for pair in &pairs {
        let (t, p) = (pair.truth.read()?, pair.prediction.read()?);
        if (t.width, t.height) != (p.width, p.height) {
            return Err(Error::input(format!(
                "{} x {} pixels, but {} has {} x {}",
                p.width,
                p.height,
                pair.truth.file.display(),
                t.width,
                t.height
            ))
            .at(&pair.prediction.file)
            .help("predict at the truth's size, or resize the prediction by nearest neighbour"));
        }
        let spacing = pair.truth.spacing.filter(|_| known).unwrap_or((1.0, 1.0));
        let masks = MaskPair { truth: &t.pixels, prediction: &p.pixels, width: t.width, spacing };
        let scores = mask_scores(&masks)?;
        let dice = scores.iter().filter(|score| score.metric == Metric::Dice);
        let of_classes = dice.filter(|score| Structure::CLASSES.contains(&score.structure));
        means.push(summary(of_classes.map(|score| score.value)).mean);
        if options.list_cases {
            let scores = scores
                .iter()
                .map(|&MaskScore { structure, metric, value }| CaseScore { structure, metric, value })
                .collect();
            cases.push(CaseScores { name: pair.name.clone(), scores });
        }
        for MaskScore { structure, metric, value } in scores {
            values.entry((metric, structure)).or_default().push(value);
        }
    }

    let mut structures = Vec::new();
    for metric in Metric::of_images(Task::Segmentation) {
        for structure in Structure::ALL {
            let of = |metric| values.get(&(metric, structure)).map(Vec::as_slice).unwrap_or_default();
            let ScoreSummary { n, mean, sd } = summary(of(metric).iter().copied());
            let unit = if metric.is_distance() { unit } else { "" };
            // Whatever the metric, the failures are those pairs of which only one has the structure.
            let failures = of(Metric::Hd).iter().filter(|value| value.is_nan()).count();
            structures.push(StructureScore { structure, metric, value: mean, sd, n, failures, unit });
        }
    }
    let ScoreSummary { n, mean, sd } = summary(means);
    Ok(FolderReport {
        metric: Metric::Dice,
        value: mean,
        sd,
        n,
        pairs: pairs.len(),
        unit,
        structures,
        left_out,
        cases: options.list_cases.then_some(cases),
    })
}

/// The masks of a folder by the name that pairs them.
pub(super) type Masks = BTreeMap<String, MaskFile>;

/// A mask, and what is known of its pixel size (x, y) in mm.
pub(super) struct MaskFile {
    pub file: PathBuf,
    spacing: Option<(f64, f64)>,
}

impl MaskFile {
    /// The pixel size of a NIfTI file is in its header.
    fn of(file: PathBuf) -> Result<Self> {
        let spacing = if is_nifti(&file) { nifti::read(&file)?.spacing } else { None };
        Ok(Self { file, spacing })
    }

    pub fn read(&self) -> Result<Picture> {
        match is_nifti(&self.file) {
            true => nifti::read(&self.file)?.to_mask().map_err(|e| e.at(&self.file)),
            false => Picture::read_mask(&self.file),
        }
    }
}

/// The endings of mask files, the longest first.
const ENDINGS: [&str; 3] = [".nii.gz", ".nii", ".png"];

fn is_nifti(file: &Path) -> bool {
    stem(file).is_some_and(|(_, ending)| ending != ".png")
}

/// A mask file's name without its ending, and the ending.
pub(super) fn stem(file: &Path) -> Option<(String, &'static str)> {
    let name = file.file_name()?.to_str()?;
    // `._NAME` is what macOS writes beside a file on other systems' disks.
    let lower = name.to_ascii_lowercase();
    let ending = ENDINGS.into_iter().find(|ending| lower.ends_with(ending) && !name.starts_with("._"))?;
    Some((name[..name.len() - ending.len()].to_owned(), ending))
}

pub(super) fn from_manifest(folder: &Path) -> Result<Masks> {
    let table = Manifest::read(folder)?;
    let file = folder.join(manifest::FILE);
    let mut masks = Masks::new();
    for (line, row) in (2u64..).zip(&table.rows) {
        let Some(path) = table.mask_path(row) else { continue };
        let mask = MaskFile { file: path, spacing: row.spacing() };
        if masks.insert(row.name(), mask).is_some() {
            return Err(Error::input(format!("{} has more than one mask", row.name()))
                .at_line(&file, line)
                .help("give the folders of the mask files themselves: they are then paired by file name"));
        }
    }
    if masks.is_empty() {
        return Err(Error::input("no row has a mask")
            .at(&file)
            .help("the column `mask` names the mask files"));
    }
    Ok(masks)
}

pub(super) fn from_names(folder: &Path) -> Result<Masks> {
    let mut masks = Masks::new();
    for entry in std::fs::read_dir(folder).at_path(folder, "cannot read the folder")? {
        let path = entry.at_path(folder, "cannot read the folder")?.path();
        let Some((name, _)) = stem(&path).filter(|_| path.is_file()) else { continue };
        let mask = MaskFile::of(path)?;
        if let Some(other) = masks.insert(name, mask) {
            return Err(Error::input("another file has the same name but for its ending")
                .at(other.file)
                .help("keep one of the two"));
        }
    }
    if masks.is_empty() {
        return Err(Error::input("the folder holds no PNG or NIfTI masks").at(folder).help(
            "give two folders of masks with the same file names, or two folders with a manifest.csv each",
        ));
    }
    Ok(masks)
}

/// The pairs, and how many masks are in only one folder.
fn match_up(folders: [&Path; 2], masks: [Masks; 2], only_common: bool) -> Result<(Vec<Pair>, usize)> {
    let [truth, mut prediction] = masks;
    let without = |of: &Masks, other: &Masks| -> Vec<String> {
        of.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
    };
    let missing = [without(&truth, &prediction), without(&prediction, &truth)];
    let left_out = missing.iter().map(Vec::len).sum();
    for (names, here, there) in [(&missing[0], folders[1], folders[0]), (&missing[1], folders[0], folders[1])]
    {
        if names.is_empty() || only_common {
            continue;
        }
        let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Err(Error::input(format!("no counterpart here for {shown}{more} of {}", there.display()))
            .at(here)
            .help("add the missing masks, or compare only the common ones with --common"));
    }
    let pairs: Vec<Pair> = truth
        .into_iter()
        .filter_map(|(name, truth)| {
            let prediction = prediction.remove(&name)?;
            Some(Pair { name, truth, prediction })
        })
        .collect();
    if pairs.is_empty() {
        return Err(Error::input(format!("no mask here has a counterpart in {}", folders[0].display()))
            .at(folders[1])
            .help("masks are paired by file name without its ending"));
    }
    Ok((pairs, left_out))
}

impl fmt::Display for FolderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |entry: &StructureScore, digits: usize| {
            if entry.n == 0 {
                return "-".to_owned();
            }
            let sd = if entry.sd.is_nan() { String::new() } else { format!(" ± {:.digits$}", entry.sd) };
            format!("{:.digits$}{sd}", entry.value)
        };
        let unit = self.unit;
        let metrics = || Metric::of_images(Task::Segmentation);
        let row = |f: &mut fmt::Formatter<'_>, structure: &str, values: Vec<String>, ends: [&str; 2]| {
            let values: String = values.iter().map(|value| format!("  {value:>15}")).collect();
            let line = format!("{structure:<9}{values}  {:>5}  {:>8}", ends[0], ends[1]);
            writeln!(f, "{}", line.trim_end())
        };
        let head = |metric: Metric| match metric.is_distance() {
            true => format!("{} ({unit})", metric.label()),
            false => metric.label().to_owned(),
        };
        row(f, "structure", metrics().map(head).collect(), ["n", "failures"])?;
        for structure in Structure::ALL {
            let entry =
                |metric| self.structures.iter().find(|e| e.structure == structure && e.metric == metric);
            // One more than a report shows: here nothing else tells two close values apart.
            let digits = |metric: Metric| if metric.is_distance() { 2 } else { metric.decimals() + 1 };
            let value = |metric| entry(metric).map_or_else(|| "-".to_owned(), |e| cell(e, digits(metric)));
            let (n, failures) = entry(Metric::Dice).map_or((0, 0), |e| (e.n, e.failures));
            let ends = [n.to_string(), failures.to_string()];
            row(f, structure.as_str(), metrics().map(value).collect(), [&ends[0], &ends[1]])?;
        }
        write!(f, "mean Dice of endo, myo, la: {:.4} over {} of {} pairs", self.value, self.n, self.pairs)?;
        match self.left_out {
            0 => Ok(()),
            n => write!(f, "\n{n} masks are in only one of the folders and were left out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 6 x 4 mask with a cavity, a wall and (unless `bare`) an atrium.
    fn mask(shift: usize, bare: bool) -> Picture {
        let mut m = Picture::new(6, 4);
        for (at, class) in [(1, 1), (2, 2), (7, 1), (8, 2), (13, 3), (19, 3)] {
            if !(bare && class == 3) {
                m.pixels[at + shift] = class;
            }
        }
        m
    }

    fn folders(pairs: &[(&str, Picture, Picture)]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (t, p) = (dir.path().join("t"), dir.path().join("p"));
        std::fs::create_dir(&t).unwrap();
        std::fs::create_dir(&p).unwrap();
        for (name, truth, prediction) in pairs {
            truth.write(&t.join(name)).unwrap();
            prediction.write(&p.join(name)).unwrap();
        }
        (dir, t, p)
    }

    #[test]
    fn pairs_by_file_name_with_failures_counted() {
        let (_dir, t, p) = folders(&[
            ("a.png", mask(0, false), mask(0, false)),
            ("b.png", mask(0, false), mask(1, true)),
            ("c.png", mask(0, true), mask(0, true)),
        ]);
        let report = compare(&t, &p, PairingOptions::default()).unwrap();
        let entry = |structure, metric| {
            report.structures.iter().find(|e| e.structure == structure && e.metric == metric).unwrap()
        };
        let la = entry(Structure::La, Metric::Dice);
        assert_eq!((la.value, la.n, la.failures), (0.5, 2, 1), "1 and 0; the third has no atrium");
        let la = entry(Structure::La, Metric::Hd);
        assert_eq!((la.value, la.n, la.failures, la.unit), (0.0, 1, 1, "px"));
        // Every wall pixel moved by one: its outline is one away.
        assert!((entry(Structure::Myo, Metric::Assd).value - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((report.n, report.pairs), (3, 3));
        assert!((report.value - (1.0 + 0.0 + 1.0) / 3.0).abs() < 1e-12);

        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["metric"], "dice");
        assert_eq!(json["n"], 3);
        assert_eq!(json["structures"][3]["structure"], "la");
        let table = report.to_string();
        assert_eq!(table.lines().count(), 6);
        assert!(table.contains("0.5000 ± 0.7071") && table.contains("HD95 (px)"), "{table}");
    }

    #[test]
    fn pairs_by_manifest_measure_in_mm() {
        let (_dir, t, p) = folders(&[("a.png", mask(0, false), mask(1, false))]);
        std::fs::rename(p.join("a.png"), p.join("other.png")).unwrap();
        let head = "patient,view,phase,image,mask";
        std::fs::write(
            t.join("manifest.csv"),
            format!("{head},spacing_x,spacing_y\np1,2CH,ED,i.png,a.png,0.5,1\n"),
        )
        .unwrap();
        std::fs::write(p.join("manifest.csv"), format!("{head}\np1,2CH,ED,i.png,other.png\n")).unwrap();
        let report = compare(&t, &p, PairingOptions::default()).unwrap();
        assert_eq!(report.unit, "mm");
        let hd = report.structures.iter().find(|e| e.metric == Metric::Hd).unwrap();
        assert_eq!((hd.value, hd.unit), (0.5, "mm"));
        assert!(hd.sd.is_nan());
        assert!(serde_json::to_string(&report).unwrap().contains("\"sd\":null"));
    }

    #[test]
    fn nifti_masks_bring_their_pixel_size() {
        let (_dir, t, p) = folders(&[("a.png", mask(0, false), mask(1, false))]);
        let packed = nifti::encode_gz(&mask(0, false), 0.5, "mask").unwrap();
        std::fs::write(t.join("a.nii.gz"), packed).unwrap();
        let error = compare(&t, &p, PairingOptions::default()).unwrap_err().to_string();
        assert!(error.contains("another file has the same name but for its ending"), "{error}");
        std::fs::remove_file(t.join("a.png")).unwrap();
        let report = compare(&t, &p, PairingOptions::default()).unwrap();
        let hd = report.structures.iter().find(|e| e.metric == Metric::Hd).unwrap();
        assert_eq!((hd.value, hd.unit, report.unit), (0.5, "mm", "mm"));
    }

    #[test]
    fn faults_name_the_files() {
        let (_dir, t, p) = folders(&[("a.png", mask(0, false), mask(0, false))]);
        mask(0, false).write(&t.join("b.png")).unwrap();
        let e = compare(&t, &p, PairingOptions::default()).unwrap_err();
        assert!(e.to_string().contains("no counterpart here for b of") && e.exit_code() == 2, "{e}");
        let e = compare(&p, &t, PairingOptions::default()).unwrap_err().to_string();
        assert!(e.contains("no counterpart here for b of"), "{e}");
        let common = PairingOptions { only_common: true, list_cases: true };
        let report = compare(&t, &p, common).unwrap();
        assert_eq!((report.pairs, report.left_out), (1, 1));
        assert!(report.to_string().ends_with("1 masks are in only one of the folders and were left out"));
        let cases = report.cases.unwrap();
        assert_eq!((cases.len(), cases[0].name.as_str()), (1, "a"));
        assert!(cases[0].scores.iter().any(|s| s.metric == Metric::Dice && s.value == 1.0));
        Picture::new(6, 5).write(&p.join("b.png")).unwrap();
        let e = compare(&t, &p, PairingOptions::default()).unwrap_err().to_string();
        assert!(e.contains("t/b.png has 6 x 4") && e.contains("p/b.png: 6 x 5"), "{e}");
        let mut grey = mask(0, false);
        grey.pixels[0] = 255;
        grey.write(&p.join("b.png")).unwrap();
        assert!(compare(&t, &p, PairingOptions::default()).unwrap_err().to_string().contains("holds 255"));
        assert!(
            compare(&t, &t.join("none"), PairingOptions::default()).unwrap_err().to_string().contains("none")
        );
        let empty = t.join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert!(
            compare(&t, &empty, PairingOptions::default())
                .unwrap_err()
                .to_string()
                .contains("holds no PNG or NIfTI masks")
        );
    }
}
