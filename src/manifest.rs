//! The one shape that data has inside Synecho: a folder with `manifest.csv` and 8-bit PNG files.
//!
//! Every importer writes it and every later stage reads only this. Images and masks are paired by
//! their row, never by sort order. Masks hold class indices.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Component, Path, PathBuf},
};

use crate::{
    error::{AtPath, Error, Result},
    text_file::read_text,
    vocabulary::{Phase, Quality, Sex, Split, View},
};

/// The manifest folder in the artifact of a stage that makes a data set.
pub const DATA: &str = "data";

/// Name of the table in a data folder.
pub const FILE: &str = "manifest.csv";

/// A file of this name beside a manifest, or at the root of a data set in CAMUS's layout, marks a phantom.
pub const PHANTOM_MARKER: &str = "PHANTOM.md";

/// Whether a data folder (as written, imported or prepared) is a phantom.
pub fn is_phantom(folder: &Path) -> bool {
    let marked = |folder: &Path| folder.join(PHANTOM_MARKER).is_file();
    // An importer takes the folder of patients as well as the root above it, which has the marker.
    marked(folder) || (folder.ends_with("database_nifti") && folder.parent().is_some_and(marked))
}

/// The patient in the name of an image, `patient0001` in `patient0001_2CH_ED`. None for `pseudo`, which names no
/// image.
pub fn patient_of(image: &str) -> Option<&str> {
    let mut parts = image.rsplitn(3, '_');
    parts.next()?;
    parts.next()?;
    parts.next()
}

/// One image, and its mask where there is one. Paths are relative to the folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub patient: String,
    pub view: View,
    pub phase: Phase,
    pub image: PathBuf,
    pub mask: Option<PathBuf>,
    pub split: Option<Split>,
    pub sex: Option<Sex>,
    /// Years.
    pub age: Option<f64>,
    pub quality: Option<Quality>,
    /// Left-ventricular ejection fraction, percent.
    pub ef: Option<f64>,
    /// Pixel width, mm.
    pub spacing_x: Option<f64>,
    /// Pixel height, mm.
    pub spacing_y: Option<f64>,
    /// For synthetic images: the generator's name.
    pub generator: Option<String>,
    pub prompt: Option<String>,
    /// For synthetic images: the mask that was the control image.
    pub source_mask: Option<String>,
    pub seed: Option<u64>,
}

impl Row {
    /// An image of which only the patient, view and phase are known.
    pub fn new(patient: impl Into<String>, view: View, phase: Phase, image: impl Into<PathBuf>) -> Self {
        Self {
            patient: patient.into(),
            view,
            phase,
            image: image.into(),
            mask: None,
            split: None,
            sex: None,
            age: None,
            quality: None,
            ef: None,
            spacing_x: None,
            spacing_y: None,
            generator: None,
            prompt: None,
            source_mask: None,
            seed: None,
        }
    }

    /// `patient0001_2CH_ED`: the name that CAMUS gives to an acquisition.
    pub fn name(&self) -> String {
        format!("{}_{}_{}", self.patient, self.view, self.phase)
    }

    /// (x, y) in mm, where both are known.
    pub fn spacing(&self) -> Option<(f64, f64)> {
        self.spacing_x.zip(self.spacing_y)
    }
}

const REQUIRED: [&str; 4] = ["patient", "view", "phase", "image"];
const OPTIONAL: [&str; 12] = [
    "mask",
    "split",
    "sex",
    "age",
    "quality",
    "ef",
    "spacing_x",
    "spacing_y",
    "generator",
    "prompt",
    "source_mask",
    "seed",
];

/// A data folder's table.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The folder that the rows' paths are relative to.
    pub root: PathBuf,
    pub rows: Vec<Row>,
}

impl Manifest {
    /// Reads and checks `root/manifest.csv`: columns, values, duplicate images, and that no patient
    /// is in two splits. Does not open the images (see [`crate::data::check`]).
    pub fn read(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let file = root.join(FILE);
        if !root.is_dir() {
            return Err(Error::input("this folder does not exist")
                .at(root)
                .help("name a folder that `synecho data import` wrote"));
        }
        let text = read_text(&file, "cannot read the manifest").map_err(|e| {
            e.help(format!(
                "a data folder has a {FILE} of UTF-8 text with the columns {}; `synecho data import` writes one",
                REQUIRED.join(",")
            ))
        })?;
        let (lines, rows): (Vec<u64>, Vec<Row>) = parse(&text, &file)?.into_iter().unzip();
        let manifest = Self { root: root.to_owned(), rows };
        manifest.check_rows(&lines, &file)?;
        Ok(manifest)
    }

    /// `lines`: where each row begins in the file.
    fn check_rows(&self, lines: &[u64], file: &Path) -> Result<()> {
        let mut images: HashMap<&Path, u64> = HashMap::new();
        let mut masks: HashMap<&Path, u64> = HashMap::new();
        let mut splits: HashMap<&str, (Option<Split>, u64)> = HashMap::new();
        for (&line, row) in lines.iter().zip(&self.rows) {
            if let Some(first) = images.insert(&row.image, line) {
                return Err(Error::input(format!(
                    "the image {} is listed twice (first on line {first})",
                    row.image.display()
                ))
                .at_line(file, line)
                .help("remove one of the two rows"));
            }
            if let Some((mask, first)) = row.mask.as_ref().and_then(|m| Some((m, masks.insert(m, line)?))) {
                return Err(Error::input(format!(
                    "the mask {} is listed twice (first on line {first})",
                    mask.display()
                ))
                .at_line(file, line)
                .help("each image has a mask of its own"));
            }
            let (split, first) = *splits.entry(&row.patient).or_insert((row.split, line));
            if split != row.split {
                let show = |s: Option<Split>| s.map_or("no split".to_owned(), |s| s.to_string());
                return Err(Error::input(format!(
                    "{} is in two splits: {} here, {} on line {first}",
                    row.patient,
                    show(row.split),
                    show(split)
                ))
                .at_line(file, line)
                .help("all images of a patient belong to one split"));
            }
        }
        Ok(())
    }

    /// Writes `manifest.csv` into the (existing) folder; optional columns that no row uses are left
    /// out, except `mask` and `split`.
    pub fn write(&self) -> Result<()> {
        let file = self.root.join(FILE);
        std::fs::write(&file, self.to_csv()).at_path(&file, "cannot write the manifest")
    }

    pub fn to_csv(&self) -> String {
        let cells: Vec<[String; 16]> = self.rows.iter().map(row_cells).collect();
        let names: Vec<&str> = REQUIRED.iter().chain(&OPTIONAL).copied().collect();
        let kept: Vec<usize> =
            (0..names.len()).filter(|&i| i < 6 || cells.iter().any(|row| !row[i].is_empty())).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        // Writing to memory cannot fail.
        let _ = writer.write_record(kept.iter().map(|&i| names[i]));
        for row in &cells {
            let _ = writer.write_record(kept.iter().map(|&i| &row[i]));
        }
        writer.into_inner().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Rows of one split.
    pub fn of(&self, split: Split) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.split == Some(split))
    }

    /// Patients in order of first appearance, with the indices of their rows.
    pub fn patients(&self) -> Vec<(&str, Vec<usize>)> {
        let mut order: Vec<(&str, Vec<usize>)> = Vec::new();
        let mut place: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, row) in self.rows.iter().enumerate() {
            let at = *place.entry(&row.patient).or_insert_with(|| {
                order.push((&row.patient, Vec::new()));
                order.len() - 1
            });
            order[at].1.push(i);
        }
        order
    }

    pub fn image_path(&self, row: &Row) -> PathBuf {
        self.root.join(&row.image)
    }

    pub fn mask_path(&self, row: &Row) -> Option<PathBuf> {
        row.mask.as_ref().map(|mask| self.root.join(mask))
    }
}

/// `pseudo` (a network's), or the image whose mask it was.
fn is_source(text: &str) -> bool {
    let mut parts = text.rsplitn(3, '_');
    let (phase, view, patient) = (parts.next(), parts.next(), parts.next());
    let is_image = phase.is_some_and(|p| p.parse::<Phase>().is_ok())
        && view.is_some_and(|v| v.parse::<View>().is_ok())
        && patient.is_some_and(|p| !p.is_empty());
    is_image || text == "pseudo"
}

fn row_cells(row: &Row) -> [String; 16] {
    fn show<T: ToString>(value: &Option<T>) -> String {
        value.as_ref().map(T::to_string).unwrap_or_default()
    }
    [
        row.patient.clone(),
        row.view.to_string(),
        row.phase.to_string(),
        row.image.display().to_string(),
        row.mask.as_ref().map(|m| m.display().to_string()).unwrap_or_default(),
        show(&row.split),
        show(&row.sex),
        show(&row.age),
        show(&row.quality),
        show(&row.ef),
        show(&row.spacing_x),
        show(&row.spacing_y),
        show(&row.generator),
        show(&row.prompt),
        show(&row.source_mask),
        show(&row.seed),
    ]
}

/// The rows, each with the line on which it begins.
fn parse(text: &str, file: &Path) -> Result<Vec<(u64, Row)>> {
    // Line ends as the counting of lines needs them.
    let text = format!("{}\n", text.replace("\r\n", "\n"));
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(text.as_bytes());
    let bad = |e: csv::Error| {
        let line = e.position().map_or(1, csv::Position::line);
        Error::input(format!("not a CSV table: {e}"))
            .at_line(file, line)
            .help("save it as comma-separated UTF-8 text")
    };
    let header = reader.headers().map_err(bad)?.clone();
    for (separator, name) in [(";", "semicolons"), ("\t", "tabs")] {
        if header.len() == 1 && header.get(0).is_some_and(|line| line.contains(separator)) {
            return Err(Error::input(format!("the columns are separated by {name}, expected commas"))
                .at_line(file, 1)
                .help("save it as comma-separated text (CSV, in English settings)"));
        }
    }
    let mut columns: HashMap<&str, usize> = HashMap::new();
    for (i, name) in header.iter().enumerate() {
        if !REQUIRED.contains(&name) && !OPTIONAL.contains(&name) {
            // A user's own columns are welcome and ignored, but not one that is meant for ours: whose mask an
            // image was made from must not be lost to a slip.
            let meant = |known: &&str| {
                !header.iter().any(|h| h == *known)
                    && strsim::jaro_winkler(&name.to_lowercase(), known) > 0.92
            };
            if let Some(known) = REQUIRED.iter().chain(&OPTIONAL).find(|known| meant(known)) {
                return Err(Error::input(format!("unknown column `{name}`")).at_line(file, 1).help(format!(
                    "did you mean `{known}`? A column of your own needs a name less like it"
                )));
            }
            continue;
        }
        if columns.insert(name, i).is_some() {
            return Err(Error::input(format!("the column `{name}` appears twice"))
                .at_line(file, 1)
                .help("keep one of the two"));
        }
    }
    for name in REQUIRED {
        if !columns.contains_key(name) {
            return Err(Error::input(format!("the column `{name}` is missing")).at_line(file, 1).help(
                format!("the columns are {} and, where known, {}", REQUIRED.join(","), OPTIONAL.join(",")),
            ));
        }
    }
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(bad)? {
        let line = first_line(&record, reader.position().line());
        // A spreadsheet leaves lines of commas at the end.
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if record.len() != header.len() {
            return Err(Error::input(format!(
                "{} cells in a table of {} columns",
                record.len(),
                header.len()
            ))
            .at_line(file, line)
            .help("every row has every column; a cell that holds a comma stands in quotes"));
        }
        let cell = |name: &str| {
            columns.get(name).and_then(|&i| record.get(i)).map(str::trim).filter(|s| !s.is_empty())
        };
        let wrong = |name: &str, why: String| {
            Error::input(format!("column `{name}`: {why}"))
                .at_line(file, line)
                .help("correct this cell of the table")
        };
        let needed = |name: &str| cell(name).ok_or_else(|| wrong(name, "is empty".into()));
        macro_rules! optional {
            ($name:literal) => {
                match cell($name) {
                    None => None,
                    Some(text) => Some(text.parse().map_err(|e| wrong($name, format!("{e}")))?),
                }
            };
        }
        let number = |name: &str, low: f64, high: f64| -> Result<Option<f64>> {
            let Some(text) = cell(name) else { return Ok(None) };
            match text.parse::<f64>() {
                Ok(v) if (low..=high).contains(&v) => Ok(Some(v)),
                _ => Err(wrong(name, format!("expected a number from {low} to {high}, found {text:?}"))),
            }
        };
        let inside = |name: &str, path: &str| {
            if path.contains('\\') {
                let why = format!("{path} has backslashes, expected `/` between folders");
                return Err(wrong(name, why));
            }
            let path = PathBuf::from(path);
            match path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
                true => Ok(path),
                false => Err(wrong(name, format!("{} is not inside the folder", path.display()))),
            }
        };
        let row = Row {
            patient: needed("patient")?.to_owned(),
            view: needed("view")?.parse().map_err(|e| wrong("view", e))?,
            phase: needed("phase")?.parse().map_err(|e| wrong("phase", e))?,
            image: inside("image", needed("image")?)?,
            mask: cell("mask").map(|path| inside("mask", path)).transpose()?,
            split: optional!("split"),
            sex: optional!("sex"),
            age: number("age", 0.0, 130.0)?,
            quality: optional!("quality"),
            ef: number("ef", 0.0, 100.0)?,
            spacing_x: number("spacing_x", 1e-4, 100.0)?,
            spacing_y: number("spacing_y", 1e-4, 100.0)?,
            generator: cell("generator").map(str::to_owned),
            prompt: cell("prompt").map(str::to_owned),
            source_mask: match cell("source_mask") {
                Some(text) if !is_source(text) => {
                    let why =
                        format!("expected PATIENT_VIEW_PHASE, such as patient0001_2CH_ED, found {text:?}");
                    return Err(wrong("source_mask", why));
                }
                source => source.map(str::to_owned),
            },
            seed: match cell("seed") {
                None => None,
                Some(text) => Some(whole(text).ok_or_else(|| {
                    wrong("seed", format!("expected a whole number from 0, found {text:?}"))
                })?),
            },
        };
        rows.push((line, row));
    }
    if rows.is_empty() {
        return Err(Error::input("the manifest lists no images")
            .at(file)
            .help("it has a row for each image"));
    }
    Ok(rows)
}

/// The line on which a record begins. What csv calls its position lies before the blank lines above it.
pub(crate) fn first_line(record: &csv::StringRecord, next_line: u64) -> u64 {
    let inside: u64 = record.iter().map(|cell| cell.matches('\n').count() as u64).sum();
    next_line.saturating_sub(1 + inside)
}

/// A whole number from 0. pandas writes `1.0` in a column that has empty cells.
fn whole(text: &str) -> Option<u64> {
    /// Above it a float no longer holds every whole number.
    const EXACT: f64 = (1u64 << 53) as f64;
    let float = || text.parse().ok().filter(|v: &f64| v.fract() == 0.0 && (0.0..=EXACT).contains(v));
    text.parse().ok().or_else(|| float().map(|v| v as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_as_pandas_writes_them() {
        for (text, seed) in
            [("7", 7), ("7.0", 7), ("1e15", 1_000_000_000_000_000), ("18446744073709551615", u64::MAX)]
        {
            assert_eq!(whole(text), Some(seed), "{text}");
        }
        for bad in ["-1", "1.5", "nan", "inf", "1e19", "one", ""] {
            assert_eq!(whole(bad), None, "{bad}");
        }
    }

    fn read(text: &str) -> Result<Manifest> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        Manifest::read(dir.path())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = "patient,view,phase,image,mask,split,sex,age,spacing_x\n\
                    p1,2CH,ED,images/a.png,masks/a.png,train,F,56,0.308\n\
                    p2,4CH,ES,images/b.png,,val,,,\n";
        let manifest = read(text).unwrap();
        assert_eq!(manifest.to_csv(), text);
        assert_eq!(manifest.of(Split::Val).count(), 1);
    }

    #[test]
    fn what_spreadsheets_add_is_read() {
        let text = "patient,view,phase,image,mask,split\np1,2CH,ED,images/a.png,,train\n";
        let plain = read(text).unwrap().rows;
        for form in [
            format!("\u{feff}{text}"),
            text.replace('\n', "\r\n"),
            format!("{text},,,,,\n,,,,,\n\n"),
            text.replacen("patient,view", "patient, view", 1),
        ] {
            assert_eq!(read(&form).unwrap().rows, plain, "{form:?}");
        }
    }

    #[test]
    fn a_source_names_its_patient() {
        assert_eq!(patient_of("patient0001_2CH_ED"), Some("patient0001"));
        assert_eq!(patient_of("a_b_4CH_ES"), Some("a_b"));
        assert_eq!(patient_of("pseudo"), None);
    }

    #[test]
    fn each_fault_names_line_and_column() {
        let head = "patient,view,phase,image,split\n";
        for (text, expected) in [
            ("patient,view,image\n", ":1: the column `phase` is missing".to_owned()),
            (
                &format!("{head}p1,3CH,ED,a.png,train\n"),
                ":2: column `view`: expected one of 2CH, 4CH, found \"3CH\"".to_owned(),
            ),
            (
                &format!("{head}p1,2CH,ED,a.png,train\np1,4CH,ED,a.png,train\n"),
                ":3: the image a.png is listed twice (first on line 2)".to_owned(),
            ),
            (
                &format!("{head}p1,2CH,ED,a.png,train\np1,4CH,ED,b.png,val\n"),
                ":3: p1 is in two splits: val here, train on line 2".to_owned(),
            ),
            (
                "patient,view,phase,image,source_masks\np1,2CH,ED,a.png,p2_2CH_ED\n",
                ":1: unknown column `source_masks`".to_owned(),
            ),
            (
                "patient,view,phase,image,source_mask\np1,2CH,ED,a.png,foo\n",
                ":2: column `source_mask`: expected PATIENT_VIEW_PHASE".to_owned(),
            ),
            (
                "patient,view,phase,image,mask\np1,2CH,ED,a.png,m.png\np1,4CH,ED,b.png,m.png\n",
                ":3: the mask m.png is listed twice (first on line 2)".to_owned(),
            ),
            (&format!("{head}p1,2CH,ED,a.png\n"), ":2: 4 cells in a table of 5 columns".to_owned()),
            // Lines are those of the file, below blank and multi-line rows too.
            (
                &format!(
                    "{head}\n\np1,2CH,ED,a.png,train\n\"p\n2\",2CH,ED,b.png,train\np1,4CH,ED,a.png,train\n"
                ),
                ":7: the image a.png is listed twice (first on line 4)".to_owned(),
            ),
            (&head.replace(',', ";"), ":1: the columns are separated by semicolons".to_owned()),
            (&head.replace(',', "\t"), ":1: the columns are separated by tabs".to_owned()),
            (
                &format!("{head}p1,2CH,ED,i\\a.png,train\n"),
                ":2: column `image`: i\\a.png has backslashes".to_owned(),
            ),
            (head, "lists no images".to_owned()),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(&expected), "{message}");
        }
    }
}
