//! The folder of a report: its data files, from which it can be drawn at any time, and what is drawn from them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{
    CURVES, DESCRIPTION, MEASUREMENTS, PAGE, RESOLVED, ReportInput, comparisons, figures,
    generators::GENERATORS,
    lineage,
    page::{self, PageContent},
    pdf, render, svg, tables,
};
use crate::{
    aggregate,
    atomic_file::{abandoned, write_atomically},
    error::{AtPath, Error, Result},
    results::{self, Measurement},
    vocabulary::{FigureFormat, Task},
};

/// Subfolders that hold what was drawn.
const FIGURES: &str = "figures";
const TABLES: &str = "tables";

/// Files of reports of earlier versions, which would now be taken for this one's.
const EARLIER: [&str; 2] = ["measurements.csv", "curves.csv"];

/// In every page of ours.
const MARK: &str = "Synecho report";

/// Digits of a value in the data files: more would only make them larger.
const DIGITS: usize = 7;

fn rounded(value: f64) -> f64 {
    if value.is_finite() { format!("{value:.*e}", DIGITS - 1).parse().unwrap_or(value) } else { value }
}

/// The input with values as the data files have them: what is drawn from it is drawn from the files too.
fn settled(input: &ReportInput) -> ReportInput {
    let mut input = input.clone();
    input.measurements.iter_mut().for_each(|row| row.value = rounded(row.value));
    input.curves.iter_mut().for_each(|point| point.value = rounded(point.value));
    input
}

/// The tidy table of a settled input.
fn tidy(input: &ReportInput) -> Result<Vec<Measurement>> {
    let mut rows = aggregate::measurements_table(&input.measurements)?;
    rows.iter_mut().for_each(|row| row.value = rounded(row.value));
    Ok(rows)
}

/// Writes the data files of a report into the folder `to`, which exists.
///
/// # Errors
/// A file cannot be written.
pub fn save(input: &ReportInput, to: &Path) -> Result<()> {
    let input = settled(input);
    for (name, bytes) in data_files(&input, &tidy(&input)?)? {
        let file = to.join(name);
        fs::write(&file, bytes).at_path(&file, "cannot write the report's data")?;
    }
    Ok(())
}

/// The data files by name. They are the same bytes for the same input, and for what [`read`] makes of them.
fn data_files(input: &ReportInput, rows: &[Measurement]) -> Result<[(&'static str, Vec<u8>); 5]> {
    let description = serde_json::to_string_pretty(input)
        .map_err(|e| Error::failure(format!("cannot write {DESCRIPTION}: {e}")))?;
    Ok([
        (MEASUREMENTS, results::to_csv_gz(rows)?),
        (CURVES, results::to_csv_gz(&aggregate::sorted_curves(&input.curves))?),
        (lineage::STAGES, input.lineage.to_json()?.into_bytes()),
        (RESOLVED, input.meta.resolved_toml.clone().into_bytes()),
        (DESCRIPTION, (description + "\n").into_bytes()),
    ])
}

/// Reads the data files of a report.
///
/// # Errors
/// The folder holds no report, one of a version that did not write all of them, or a damaged file.
pub fn read(folder: &Path) -> Result<ReportInput> {
    let text = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file).at_path(&file, "cannot read the report's data").map_err(|e| {
            Error::input(e.to_string()).help(format!(
                "name the folder of a report that has {DESCRIPTION}; `synecho report SPEC` makes one from the store"
            ))
        })
    };
    let json = |name: &str, e: serde_json::Error| Error::input(format!("damaged: {e}")).at(folder.join(name));
    let mut input: ReportInput =
        serde_json::from_str(&text(DESCRIPTION)?).map_err(|e| json(DESCRIPTION, e))?;
    input.meta.resolved_toml = text(RESOLVED)?;
    input.lineage = serde_json::from_str(&text(lineage::STAGES)?).map_err(|e| json(lineage::STAGES, e))?;
    input.measurements = results::read_csv_gz(&folder.join(MEASUREMENTS))?;
    input.curves = results::read_csv_gz(&folder.join(CURVES))?;
    Ok(input)
}

/// Draws a report into the folder `to` (made where it is missing): the page, `figures/` in the given formats, `tables/`
/// (Markdown, CSV, LaTeX), and the data files.
///
/// A file that is the same is not written. What an earlier report left in `figures/` and `tables/` is removed,
/// recognised by its name; other files stay. The page is written last.
///
/// # Errors
/// The folder cannot be written, or holds a page that is not a report.
pub fn draw(input: &ReportInput, formats: &[FigureFormat], to: &Path) -> Result<()> {
    let earlier = is_report(to)?;
    let input = &settled(input);
    let rows = tidy(input)?;
    let compared = comparisons::compared(input, &rows);
    let figures = figures(input, &rows, &compared);
    let tables = tables(input, &rows, &compared);
    for folder in [FIGURES, TABLES].map(|name| to.join(name)) {
        fs::create_dir_all(&folder).at_path(&folder, "cannot make the report's folder")?;
    }
    let save = |name: PathBuf, bytes: &[u8]| -> Result<PathBuf> {
        let file = to.join(name);
        if fs::read(&file).ok().as_deref() != Some(bytes) {
            write_atomically(&file, bytes)?;
        }
        Ok(file)
    };
    let drawn: Vec<(String, Vec<PathBuf>)> = figures
        .par_iter()
        .map(|figure| {
            let shown = svg::svg(&figure.scene)?;
            let mut files = Vec::new();
            for (name, scene) in figure.files() {
                for format in formats {
                    let bytes = match format {
                        FigureFormat::Svg if name == figure.name => shown.clone().into_bytes(),
                        FigureFormat::Svg => svg::svg(scene)?.into_bytes(),
                        FigureFormat::Pdf => pdf::pdf(scene)?,
                        FigureFormat::Png => render::bitmap(scene)?,
                    };
                    files.push(save(Path::new(FIGURES).join(format!("{name}.{format}")), &bytes)?);
                }
            }
            Ok((shown, files))
        })
        .collect::<Result<_>>()?;
    let (shown, kept): (Vec<String>, Vec<Vec<PathBuf>>) = drawn.into_iter().unzip();
    let mut kept: BTreeSet<PathBuf> = kept.into_iter().flatten().collect();
    for table in &tables {
        let file = |end: &str| Path::new(TABLES).join(format!("{}.{end}", table.name));
        kept.insert(save(file("md"), table.to_markdown().as_bytes())?);
        kept.insert(save(file("csv"), table.to_csv()?.as_bytes())?);
        kept.insert(save(file("tex"), table.to_latex().as_bytes())?);
    }
    for (name, bytes) in data_files(input, &rows)? {
        save(name.into(), &bytes)?;
    }
    let figures: Vec<_> = figures.iter().zip(shown).collect();
    let content =
        PageContent { input, rows: &rows, figures: &figures, formats, tables: &tables, compared: &compared };
    save(PAGE.into(), page::page(&content)?.as_bytes())?;
    if earlier {
        remove_stale(to, &kept)?;
    }
    remove_half_written(to)
}

/// Whether the folder `to` holds the report of the data files in `data`, as this program draws it.
pub fn is_current(data: &Path, formats: &[FigureFormat], to: &Path) -> bool {
    let same = |name: &str| {
        let files = (fs::read(data.join(name)), fs::read(to.join(name)));
        matches!(files, (Ok(ours), Ok(theirs)) if ours == theirs)
    };
    let page = fs::read_to_string(to.join(PAGE)).unwrap_or_default();
    page.contains(&super::drawn_by(formats))
        && [DESCRIPTION, MEASUREMENTS, CURVES, RESOLVED, lineage::STAGES].into_iter().all(same)
}

/// Removes what an earlier report left, by the names that reports give.
fn remove_stale(to: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    let mut stale = EARLIER.map(|name| to.join(name)).to_vec();
    for folder in [FIGURES, TABLES].map(|name| to.join(name)) {
        stale.extend(files(&folder)?.into_iter().filter(|file| is_drawn(file) && !kept.contains(file)));
    }
    stale.iter().try_for_each(|file| remove(file))
}

/// Removes what a run left that was killed while it drew a report. Nothing where no report lies in the folder.
///
/// # Errors
/// A folder cannot be read, or a file not removed.
pub fn remove_half_written(to: &Path) -> Result<()> {
    for folder in ["", FIGURES, TABLES].map(|name| to.join(name)).iter().filter(|folder| folder.is_dir()) {
        files(folder)?.iter().filter(|file| is_left_behind(file)).try_for_each(|file| remove(file))?;
    }
    Ok(())
}

fn remove(file: &Path) -> Result<()> {
    // Another process that draws the same report may have been faster.
    match fs::remove_file(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at_path(file, "cannot remove"),
    }
}

/// Whether a report lies in the folder. Known before hours of work as well as after them.
///
/// # Errors
/// The path is not a folder, or its page is not a report.
pub fn is_report(to: &Path) -> Result<bool> {
    if to.exists() && !to.is_dir() {
        return Err(Error::input("is not a folder").at(to).help("name a folder for the report"));
    }
    let page = to.join(PAGE);
    match fs::read(&page) {
        Err(_) => Ok(false),
        Ok(bytes) if String::from_utf8_lossy(&bytes).contains(MARK) => Ok(true),
        Ok(_) => Err(Error::input("this page is not a Synecho report and would be overwritten")
            .at(page)
            .help("name another folder, or move the page away")),
    }
}

/// The store's key of the report in the folder, empty where it is not known. None without a report.
pub fn earlier_key(to: &Path) -> Option<String> {
    let text = fs::read_to_string(to.join(DESCRIPTION)).ok()?;
    let input: ReportInput = serde_json::from_str(&text).ok()?;
    Some(input.meta.key)
}

/// What the names of figures and tables begin with.
fn sections() -> impl Iterator<Item = &'static str> {
    Task::OF_ARMS.map(Task::as_str).into_iter().chain([GENERATORS])
}

/// Whether the file is one that a killed process left half written: `.segmentation_dice.svg.12180`.
fn is_left_behind(path: &Path) -> bool {
    let data = [PAGE, MEASUREMENTS, CURVES, DESCRIPTION, RESOLVED, lineage::STAGES];
    abandoned(path).is_some_and(|name| is_drawn(Path::new(name)) || data.contains(&name))
}

/// Whether reports give a figure or table this name.
fn is_drawn(path: &Path) -> bool {
    let (Some(stem), Some(kind)) =
        (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|s| s.to_str()))
    else {
        return false;
    };
    let whole = [Task::Classification.as_str(), GENERATORS, "published", "training", "failures"];
    let ours = sections().any(|section| stem.strip_prefix(section).is_some_and(|rest| rest.starts_with('_')))
        || whole.contains(&stem);
    ours && ["svg", "pdf", "png", "md", "csv", "tex"].contains(&kind)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).at_path(dir, "cannot read the folder")?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake::{self, FakeShape};

    const ALL: &[FigureFormat] = &FigureFormat::ALL;

    fn all_files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for folder in ["", FIGURES, TABLES] {
            for file in files(&dir.join(folder)).unwrap() {
                let bytes = fs::read(&file).unwrap();
                found.push((file.strip_prefix(dir).unwrap().to_owned(), bytes));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_report_is_redrawn_from_its_own_data_files_to_the_same_bytes() {
        let mut input = fake::input(&FakeShape { arms: 3, patients: 6, epochs: 3, ..FakeShape::default() });
        input.panel[0].dice[0].1 = f64::NAN;
        let dir = tempfile::tempdir().unwrap();
        let (first, second, data) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("data"));
        draw(&input, ALL, &first).unwrap();
        draw(&read(&first).unwrap(), ALL, &second).unwrap();
        assert!(all_files(&first) == all_files(&second));
        // The data files are enough.
        fs::create_dir(&data).unwrap();
        save(&input, &data).unwrap();
        assert_eq!(files(&data).unwrap().len(), 5);
        draw(&read(&data).unwrap(), ALL, &second).unwrap();
        assert!(all_files(&first) == all_files(&second));
        for damaged in [DESCRIPTION, RESOLVED, MEASUREMENTS, CURVES, lineage::STAGES] {
            fs::remove_file(data.join(damaged)).unwrap();
            let error = read(&data).unwrap_err().to_string();
            assert!(error.contains(damaged), "{error}");
            save(&input, &data).unwrap();
        }
    }

    #[test]
    fn values_are_rounded_once() {
        assert_eq!(rounded(2.0 / 3.0), 0.666_666_7);
        assert_eq!([1.0, -1234.5, 1e-12, 0.0].map(rounded), [1.0, -1234.5, 1e-12, 0.0]);
        assert_eq!(rounded(rounded(std::f64::consts::PI * 1e-3)), rounded(std::f64::consts::PI * 1e-3));
        assert!(rounded(f64::NAN).is_nan());
    }

    #[test]
    fn only_the_formats_that_are_asked_for_are_drawn() {
        let input = fake::input(&FakeShape { arms: 2, patients: 4, epochs: 2, ..FakeShape::default() });
        let dir = tempfile::tempdir().unwrap();
        let count = |end: &str| {
            let figures = files(&dir.path().join(FIGURES)).unwrap();
            figures.iter().filter(|file| file.extension().is_some_and(|e| e == end)).count()
        };
        draw(&input, ALL, dir.path()).unwrap();
        assert!(count("png") > 0 && count("png") == count("svg"));
        draw(&input, &[FigureFormat::Svg, FigureFormat::Pdf], dir.path()).unwrap();
        assert!(count("png") == 0 && count("pdf") == count("svg"));
        let page = fs::read_to_string(dir.path().join(PAGE)).unwrap();
        assert!(page.contains(".pdf\"") && !page.contains(".png\""));
    }

    #[test]
    fn what_was_drawn_before_goes_and_what_the_user_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path();
        fs::create_dir_all(to.join(FIGURES)).unwrap();
        fs::write(to.join("figures/segmentation_old.svg"), "old").unwrap();
        for mine in ["figures/my_heart.svg", "figures/segmentation.svg", "notes.md"] {
            fs::write(to.join(mine), "mine").unwrap();
        }
        fs::write(to.join("index.html"), "old: Synecho report").unwrap();
        for old in EARLIER {
            fs::write(to.join(old), "old").unwrap();
        }
        // Half-written files: of a process that may be at it, and of one whose number is larger than any.
        let half_written = |process: u32| format!("figures/.segmentation_dice_boxes.svg.{process}");
        let (young, ended) = (half_written(std::process::id()), half_written(1 << 30));
        let mine = format!("figures/.mine.{}", 1 << 30);
        for half in [&young, &ended, &mine] {
            fs::write(to.join(half), "half").unwrap();
        }
        draw(&ReportInput::default(), ALL, to).unwrap();
        assert!(!to.join(&ended).exists() && to.join(young).exists() && to.join(mine).exists());
        // The first report in a folder, and one that is not drawn again, clear up as well.
        let new = dir.path().join("new");
        fs::create_dir_all(new.join(FIGURES)).unwrap();
        fs::write(new.join(&ended), "half").unwrap();
        draw(&ReportInput::default(), ALL, &new).unwrap();
        assert!(!new.join(&ended).exists());
        fs::write(new.join(&ended), "half").unwrap();
        remove_half_written(&new).unwrap();
        assert!(!new.join(&ended).exists());
        remove_half_written(&dir.path().join("nowhere")).unwrap();
        assert!(fs::read_to_string(to.join("index.html")).unwrap().starts_with("<!DOCTYPE html>"));
        for mine in ["figures/my_heart.svg", "figures/segmentation.svg", "notes.md"] {
            assert_eq!(fs::read_to_string(to.join(mine)).unwrap(), "mine");
        }
        assert!(!to.join("measurements.csv").exists() && !to.join("curves.csv").exists());
        assert!(!to.join("figures/segmentation_old.svg").exists());
    }

    #[test]
    fn a_folder_that_is_not_a_report_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("b");
        fs::create_dir_all(to.join(TABLES)).unwrap();
        for mine in ["tables/training.csv", "measurements.csv"] {
            fs::write(to.join(mine), "mine").unwrap();
        }
        draw(&ReportInput::default(), ALL, &to).unwrap();
        assert!(to.join("tables/training.csv").exists() && to.join("measurements.csv").exists());
        fs::write(to.join("index.html"), "my home page").unwrap();
        let error = draw(&ReportInput::default(), ALL, &to).unwrap_err();
        assert!(error.to_string().contains("index.html: this page is not a Synecho report"), "{error}");
        assert_eq!(fs::read_to_string(to.join("index.html")).unwrap(), "my home page");
        let error = draw(&ReportInput::default(), ALL, &to.join("index.html")).unwrap_err();
        assert!(error.to_string().contains("is not a folder"), "{error}");
    }
}
