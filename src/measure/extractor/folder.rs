//! Which images a folder holds.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{AtPath, Error, Result},
    manifest,
    text_file::read_text,
    vocabulary::Split,
};

/// Endings of image files that pytorch-fid and clean-fid take. Only PNG and JPEG are read here; the others
/// are listed too, so that a folder that holds some is not silently measured in part.
const ENDINGS: [&str; 9] = ["png", "jpg", "jpeg", "bmp", "pgm", "ppm", "tif", "tiff", "webp"];

/// The images of a folder, sorted by path: those that its `manifest.csv` names where it has one, otherwise
/// every image file in it and in the folders below it (as clean-fid; pytorch-fid passes over folders), but
/// for hidden ones. `split` picks those of one split of the manifest.
///
/// # Errors
/// The folder cannot be read; it holds no image, or only one; `split` is asked for where no manifest has
/// that column.
pub fn images_of(folder: &Path, split: Option<Split>) -> Result<Vec<PathBuf>> {
    let table = folder.join(manifest::FILE);
    let mut images = if table.is_file() {
        listed(folder, &table, split)?
    } else {
        if split.is_some() {
            return Err(Error::input("a split needs a manifest.csv with the columns image and split")
                .at(folder)
                .help("leave the split out, or make such a folder with `synecho data import`"));
        }
        let mut images = Vec::new();
        walk(folder, &mut HashSet::new(), &mut images)?;
        images
    };
    images.sort();
    match images[..] {
        [] => Err(Error::input("the folder holds no images")
            .at(folder)
            .help("give a folder with manifest.csv, or one of PNG or JPEG files")),
        [_] => Err(Error::input("the folder holds only one image")
            .at(folder)
            .help("a set of images is compared: give two at least")),
        _ => Ok(images),
    }
}

/// What the table names. Only its columns `image` and `split` are read: `synecho sample` writes no views.
fn listed(folder: &Path, table: &Path, split: Option<Split>) -> Result<Vec<PathBuf>> {
    let text = read_text(table, "cannot read the manifest")?;
    // Line ends as the counting of lines needs them.
    let text = format!("{}\n", text.replace("\r\n", "\n"));
    let bad = |e: csv::Error| {
        let line = e.position().map_or(1, csv::Position::line);
        Error::input(format!("not a CSV table: {e}"))
            .at_line(table, line)
            .help("save it as comma-separated UTF-8 text")
    };
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(bad)?.clone();
    let column = |name: &str| header.iter().position(|h| h.trim() == name);
    let missing = |name: &str| {
        Error::input(format!("the column `{name}` is missing"))
            .at_line(table, 1)
            .help("name the image of each row in the column `image`, or take the manifest out of the folder")
    };
    let image = column("image").ok_or_else(|| missing("image"))?;
    let wanted =
        split.map(|s| column("split").map(|i| (i, s)).ok_or_else(|| missing("split"))).transpose()?;
    let mut images = Vec::new();
    let mut seen = HashSet::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(bad)? {
        let line = manifest::first_line(&record, reader.position().line());
        let cell = |i: usize| record.get(i).unwrap_or_default().trim().to_owned();
        // A spreadsheet leaves lines of commas at the end.
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if wanted.is_some_and(|(i, split)| cell(i) != split.as_str()) {
            continue;
        }
        let name = cell(image);
        if name.is_empty() {
            return Err(Error::input("the column `image` is empty")
                .at_line(table, line)
                .help("name the image, or remove the row"));
        }
        if !seen.insert(name.clone()) {
            return Err(Error::input(format!("the image {name} is listed twice"))
                .at_line(table, line)
                .help("remove one of the two rows"));
        }
        images.push(folder.join(name));
    }
    if let (true, Some(split)) = (images.is_empty(), split) {
        return Err(Error::input(format!("there are no {split} images"))
            .at(table)
            .help("the column `split` says train, val or test"));
    }
    Ok(images)
}

fn walk(folder: &Path, seen: &mut HashSet<PathBuf>, images: &mut Vec<PathBuf>) -> Result<()> {
    // A link can lead back to where it came from.
    let real = folder.canonicalize().at_path(folder, "cannot read the folder").map_err(no_folder)?;
    if !seen.insert(real) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).at_path(folder, "cannot read the folder").map_err(no_folder)? {
        let entry = entry.at_path(folder, "cannot read the folder")?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let is_image =
            path.extension().is_some_and(|e| ENDINGS.iter().any(|ending| e.eq_ignore_ascii_case(ending)));
        if path.is_dir() {
            walk(&path, seen, images)?;
        } else if is_image {
            images.push(path);
        }
    }
    Ok(())
}

fn no_folder(e: Error) -> Error {
    e.help("give a folder with manifest.csv, or one of PNG or JPEG files")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path, split: Option<Split>) -> Result<Vec<String>, String> {
        let images = images_of(folder, split).map_err(|e| e.to_string())?;
        let name = |p: &PathBuf| p.strip_prefix(folder).unwrap().display().to_string();
        Ok(images.iter().map(name).collect())
    }

    #[test]
    fn a_folder_is_walked_or_its_manifest_obeyed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let no_such = names(&folder.join("none"), None).unwrap_err();
        assert!(no_such.contains("cannot read the folder"), "{no_such}");
        assert!(names(folder, None).unwrap_err().contains("no images"));
        fs::create_dir(folder.join("deep")).unwrap();
        let touch = |name: &str| fs::write(folder.join(name), "").unwrap();
        touch("b.png");
        assert!(names(folder, None).unwrap_err().contains("only one image"));
        ["a.JPG", "deep/c.jpeg", "old.bmp", "notes.txt", ".hidden.png"].into_iter().for_each(touch);
        std::os::unix::fs::symlink(folder, folder.join("deep/loop")).unwrap();
        assert_eq!(names(folder, None).unwrap(), ["a.JPG", "b.png", "deep/c.jpeg", "old.bmp"]);
        assert!(names(folder, Some(Split::Test)).unwrap_err().contains("needs a manifest.csv"));

        let table = |text: &str| fs::write(folder.join("manifest.csv"), text).unwrap();
        table("seed,image,split\n1,b.png,test\n2,a.JPG,test\n3,deep/c.jpeg,train\n");
        assert_eq!(names(folder, None).unwrap(), ["a.JPG", "b.png", "deep/c.jpeg"]);
        assert_eq!(names(folder, Some(Split::Test)).unwrap(), ["a.JPG", "b.png"]);
        assert!(names(folder, Some(Split::Val)).unwrap_err().contains("there are no val images"));
        table("seed,file\n1,b.png\n");
        assert!(names(folder, None).unwrap_err().contains("the column `image` is missing"));
        table("image\nb.png\nb.png\n");
        assert!(names(folder, None).unwrap_err().contains("manifest.csv:3: the image b.png is listed twice"));
        table("\u{feff}image,note\r\nb.png,\"two\r\nlines\"\r\n\r\n,\r\nb.png,\r\n");
        assert!(names(folder, None).unwrap_err().contains("manifest.csv:6: the image b.png is listed twice"));
        table("\u{feff}image,note\r\nb.png,\"two\r\nlines\"\r\n\r\n,\r\na.JPG,\r\n");
        assert_eq!(names(folder, None).unwrap(), ["a.JPG", "b.png"]);
    }
}
