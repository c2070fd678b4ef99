//! Every importer on data sets that the tests make themselves.

use std::path::{Path, PathBuf};

use synecho::{
    data::{check::check, import::import, phantom, prepare::prepare},
    error::Result,
    experiment::Phantom,
    manifest::{Manifest, PHANTOM_MARKER, is_phantom},
    picture::Picture,
    vocabulary::{Phase, Quality, Sex, Source, Split, View},
};

fn quiet(_: usize, _: usize) {}

fn phantom(to: &Path, patients: usize) {
    phantom::write(&Phantom { patients, size: 48, seed: 5 }, to, &quiet).unwrap();
}

fn run(format: Source, src: &Path) -> (tempfile::TempDir, Result<Manifest>) {
    let out = tempfile::tempdir().unwrap();
    let result = import(format, src, &out.path().join("data"), &quiet).map(|imported| imported.manifest);
    (out, result)
}

fn message(format: Source, src: &Path) -> String {
    let (out, result) = run(format, src);
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    // Nothing half-done is left, under whatever name.
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "{error}");
    error.to_string()
}

fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_phantom_is_imported_as_camus_and_checks_clean() {
    let src = tempfile::tempdir().unwrap();
    let root = src.path().join("phantom");
    phantom(&root, 5);
    assert!(std::fs::read_to_string(root.join(PHANTOM_MARKER)).unwrap().contains("not patients"));
    let (_out, manifest) = run(Source::Camus, &root);
    let manifest = manifest.unwrap();
    assert_eq!(Manifest::read(&manifest.root).unwrap(), manifest);
    assert_eq!(manifest.rows.len(), 20);
    assert_eq!(manifest.rows[0].name(), "patient0001_2CH_ED");
    assert_eq!(manifest.rows[19].name(), "patient0005_4CH_ES");
    for split in Split::ALL {
        assert!(manifest.of(split).count() >= 4, "{split}");
    }
    for row in &manifest.rows {
        assert!(row.ef.is_some() && row.age.is_some() && row.sex.is_some() && row.quality.is_some());
        let (x, y) = row.spacing().unwrap();
        assert_eq!(x, y);
        assert!((110.0..=205.0).contains(&(y * 48.0)));
        let image = Picture::read(&manifest.image_path(row)).unwrap();
        assert_eq!(image.height, 48);
        assert!(image.width > 48);
        // Upright: the probe is on top, so the upper corners are black and the middle column is not.
        assert_eq!((image.pixels[0], image.pixels[image.width - 1]), (0, 0));
        let middle: u32 = (4..44).map(|y| u32::from(image.pixels[y * image.width + image.width / 2])).sum();
        assert!(middle > 40 * 20, "{middle}");
        // The ventricle's cavity lies above the atrium.
        let mask = Picture::read_mask(&manifest.mask_path(row).unwrap()).unwrap();
        let mean_y = |class: u8| {
            let ys: Vec<usize> =
                (0..mask.pixels.len()).filter(|&i| mask.pixels[i] == class).map(|i| i / mask.width).collect();
            assert!(!ys.is_empty());
            ys.iter().sum::<usize>() as f64 / ys.len() as f64
        };
        assert!(mean_y(1) + 8.0 < mean_y(3));
        assert!(mean_y(2) < mean_y(3));
    }
    let summary = check(&manifest.root, &quiet).unwrap();
    assert_eq!((summary.patients, summary.images, summary.masks, summary.with_spacing), (5, 20, 20, 20));
    assert_eq!(summary.warnings, Vec::<String>::new());
    // The folder of patients itself is taken as well, and finds the split beside it.
    let (_out, inner) = run(Source::Camus, &root.join("database_nifti"));
    let inner = inner.unwrap();
    assert_eq!(inner.rows, manifest.rows);
    // However it is handed on, it stays known as a phantom.
    let prepared = tempfile::tempdir().unwrap();
    let small = prepare(&manifest, 32, prepared.path(), &quiet).unwrap();
    let (_out, copied) = run(Source::Folder, &manifest.root);
    for root in [&root, &manifest.root, &inner.root, &small.root, &copied.unwrap().root] {
        assert!(is_phantom(root), "{}", root.display());
    }
}

#[test]
fn a_phantom_is_its_seed() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, patients, seed| {
        let to = dir.path().join(name);
        phantom::write(&Phantom { patients, size: 40, seed }, &to, &quiet).unwrap();
        files(&to)
    };
    let a = make("a", 3, 1);
    assert_eq!(a.len(), 3 * 10 + 4);
    assert!(a == make("b", 3, 1), "the same seed gives the same bytes");
    let image = Path::new("database_nifti/patient0001/patient0001_2CH_ED.nii.gz");
    let of = |files: &[(PathBuf, Vec<u8>)]| files.iter().find(|(p, _)| p == image).unwrap().1.clone();
    assert!(of(&a) != of(&make("c", 3, 2)));
    assert!(of(&a) == of(&make("d", 4, 1)), "a patient does not depend on how many there are");
}

#[test]
fn the_phantoms_ejection_fraction_is_that_of_its_masks() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("phantom");
    phantom::write(&Phantom { patients: 12, size: 160, seed: 8 }, &root, &quiet).unwrap();
    let (_out, manifest) = run(Source::Camus, &root);
    let manifest = manifest.unwrap();
    for rows in manifest.rows.chunks_exact(4) {
        let area_and_length = |row: &synecho::manifest::Row| {
            let mask = Picture::read_mask(&manifest.mask_path(row).unwrap()).unwrap();
            let cavity: Vec<(f64, f64)> = (0..mask.pixels.len())
                .filter(|&i| mask.pixels[i] == 1)
                .map(|i| ((i % mask.width) as f64, (i / mask.width) as f64))
                .collect();
            let n = cavity.len() as f64;
            let (mx, my) =
                (cavity.iter().map(|p| p.0).sum::<f64>() / n, cavity.iter().map(|p| p.1).sum::<f64>() / n);
            let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
            for (x, y) in &cavity {
                xx += (x - mx).powi(2) / n;
                xy += (x - mx) * (y - my) / n;
                yy += (y - my).powi(2) / n;
            }
            // The long axis: four standard deviations along the first principal component of an ellipse.
            let first = 0.5 * (xx + yy) + (0.25 * (xx - yy).powi(2) + xy * xy).sqrt();
            (n, 4.0 * first.sqrt())
        };
        // Area-length method, biplane: V = 8/(3 pi) A1 A2 / L.
        let volume = |phase: usize| {
            let (a2, l2) = area_and_length(&rows[phase]);
            let (a4, l4) = area_and_length(&rows[2 + phase]);
            a2 * a4 / l2.min(l4)
        };
        let ef = 100.0 * (1.0 - volume(1) / volume(0));
        let said = rows[0].ef.unwrap();
        assert!((ef - said).abs() < 6.0, "{}: masks {ef:.1}, cfg {said}", rows[0].patient);
    }
}

fn write_mhd(folder: &Path, stem: &str, picture: &Picture, spacing: (f64, f64)) {
    std::fs::create_dir_all(folder).unwrap();
    let header = format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\nDimSize = {} {} 1\nElementSpacing = {} {} 1\nElementType = MET_UCHAR\nElementDataFile = {stem}.raw\n",
        picture.width, picture.height, spacing.0, spacing.1
    );
    std::fs::write(folder.join(format!("{stem}.mhd")), header).unwrap();
    std::fs::write(folder.join(format!("{stem}.raw")), &picture.pixels).unwrap();
}

fn picture(width: usize, height: usize, value: impl Fn(usize, usize) -> u8) -> Picture {
    Picture { width, height, pixels: (0..width * height).map(|i| value(i % width, i / width)).collect() }
}

#[test]
fn the_older_release_with_its_testing_set_without_masks() {
    let src = tempfile::tempdir().unwrap();
    let image = picture(6, 4, |x, y| (x * 10 + y) as u8);
    let mask = picture(6, 4, |x, _| (x % 4) as u8);
    let train = src.path().join("training/patient0001");
    write_mhd(&train, "patient0001_2CH_ED", &image, (0.308, 0.154));
    write_mhd(&train, "patient0001_2CH_ED_gt", &mask, (0.308, 0.154));
    std::fs::write(
        train.join("Info_2CH.cfg"),
        "ED : 1\nSex : M\nAge : 60\nImageQuality : Poor\nLVef : 41.2\n",
    )
    .unwrap();
    // The testing set counts its patients from 1 again.
    write_mhd(&src.path().join("testing/patient0001"), "patient0001_2CH_ED", &image, (0.308, 0.154));
    let (_out, manifest) = run(Source::Camus, src.path());
    let manifest = manifest.unwrap();
    let [training, testing] = &manifest.rows[..] else { panic!("{:?}", manifest.rows) };
    assert_eq!((&*testing.patient, testing.mask.is_none()), ("testing-patient0001", true));
    assert_eq!(training.patient, "patient0001");
    assert_eq!((training.sex, training.age, training.ef), (Some(Sex::Male), Some(60.0), Some(41.2)));
    assert_eq!((training.quality, training.split), (Some(Quality::Poor), None));
    assert_eq!(training.spacing(), Some((0.308, 0.154)));
    assert_eq!(Picture::read(&manifest.image_path(training)).unwrap(), image);
    assert_eq!(Picture::read_mask(&manifest.mask_path(training).unwrap()).unwrap(), mask);
}

#[test]
fn faults_of_a_camus_folder_name_the_file() {
    let folder = |src: &Path| src.join("database_nifti/patient0001");
    let faulty = |spoil: &dyn Fn(&Path)| {
        let src = tempfile::tempdir().unwrap();
        let root = src.path().join("p");
        phantom(&root, 3);
        spoil(&root);
        message(Source::Camus, &root)
    };
    let image = "patient0001_4CH_ES.nii.gz";
    let mask = "patient0001_4CH_ES_gt.nii.gz";
    let text = faulty(&|root| {
        let file = folder(root).join(image);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(text.contains(image) && text.contains("not a readable NIfTI file"), "{text}");
    let text = faulty(&|root| std::fs::write(folder(root).join(image), "hello").unwrap());
    assert!(text.contains(image) && text.contains("not a readable NIfTI file"), "{text}");
    let text = faulty(&|root| std::fs::remove_file(folder(root).join(mask)).unwrap());
    assert!(text.contains(image) && text.contains("the mask patient0001_4CH_ES_gt is missing"), "{text}");
    let text = faulty(&|root| {
        std::fs::copy(folder(root).join(image), folder(root).join(mask)).unwrap();
    });
    assert!(text.contains(mask) && text.contains("class indices 0 to 3"), "{text}");
    let text = faulty(&|root| {
        write_mhd(&folder(root), "patient0001_4CH_ES_gt", &picture(9, 9, |_, _| 0), (1.0, 1.0));
        std::fs::remove_file(folder(root).join(mask)).unwrap();
    });
    assert!(text.contains("its mask 9 x 9"), "{text}");
    let text = faulty(&|root| {
        std::fs::write(folder(root).join("Info_4CH.cfg"), "Sex: F\nEF: high\n").unwrap();
    });
    assert!(text.contains("Info_4CH.cfg:2: EF: expected a number"), "{text}");
    let text = faulty(&|root| {
        let lists = root.join("database_split");
        std::fs::write(lists.join("subgroup_training.txt"), "patient0001\npatient0002\n").unwrap();
        std::fs::write(lists.join("subgroup_validation.txt"), "patient0003\n").unwrap();
        std::fs::write(lists.join("subgroup_testing.txt"), "patient0002\n").unwrap();
    });
    assert!(text.contains("subgroup_testing.txt:1: patient0002 is in two splits"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    let text = message(Source::Camus, empty.path());
    assert!(text.contains("this is not CAMUS") && text.contains("database_nifti/patient0001"), "{text}");
    assert!(
        message(Source::Camus, &empty.path().join("none")).contains("this file or folder does not exist")
    );
}

#[test]
fn a_folder_that_holds_something_is_not_written_over() {
    let src = tempfile::tempdir().unwrap();
    phantom(&src.path().join("p"), 1);
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("mine.txt"), "x").unwrap();
    let error = import(Source::Camus, &src.path().join("p"), out.path(), &quiet).unwrap_err();
    assert!(error.to_string().contains("exists and is not empty"), "{error}");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1);
    // An empty one is taken.
    let empty = tempfile::tempdir().unwrap();
    import(Source::Camus, &src.path().join("p"), empty.path(), &quiet).unwrap();
    assert!(empty.path().join("manifest.csv").is_file());
}

fn diffecho(root: &Path, split: &str, number: u32) {
    for (view, phase) in [("ch2", "ed"), ("ch2", "es"), ("ch4", "ed"), ("ch4", "es")] {
        for (what, value) in [("frame", 100), ("mask", 85)] {
            let folder = root.join(format!("{split}_{what}s"));
            std::fs::create_dir_all(&folder).unwrap();
            picture(8, 8, |x, y| if what == "mask" { (x % 4) as u8 * value } else { value + (x + y) as u8 })
                .write(&folder.join(format!("{view}_{phase}_{what}_{number}.png")))
                .unwrap();
        }
    }
}

#[test]
fn the_diffecho_layout() {
    let src = tempfile::tempdir().unwrap();
    diffecho(src.path(), "train", 100);
    diffecho(src.path(), "valid", 7);
    let (_out, manifest) = run(Source::Diffecho, src.path());
    let manifest = manifest.unwrap();
    assert_eq!(manifest.rows.len(), 8);
    let first = &manifest.rows[0];
    assert_eq!((first.name().as_str(), first.split), ("patient0007_2CH_ED", Some(Split::Val)));
    assert_eq!((manifest.rows[7].view, manifest.rows[7].phase), (View::FourChamber, Phase::Es));
    let mask = Picture::read_mask(&manifest.mask_path(first).unwrap()).unwrap();
    assert_eq!(mask, picture(8, 8, |x, _| (x % 4) as u8));
    assert!(check(&manifest.root, &quiet).unwrap().warnings.iter().any(|w| w.starts_with("LEAKAGE")));
}

#[test]
fn faults_of_a_diffecho_folder() {
    let faulty = |spoil: &dyn Fn(&Path)| {
        let src = tempfile::tempdir().unwrap();
        diffecho(src.path(), "train", 100);
        diffecho(src.path(), "valid", 7);
        spoil(src.path());
        message(Source::Diffecho, src.path())
    };
    // A mask without an atrium, saved with a grey scale of its own.
    let text = faulty(&|src| {
        picture(8, 8, |x, y| if (x, y) == (3, 2) { 128 } else { 0 })
            .write(&src.join("train_masks/ch2_ed_mask_100.png"))
            .unwrap();
    });
    assert!(text.contains("ch2_ed_mask_100.png: the mask holds grey 128 at x 3, y 2"), "{text}");
    let text = faulty(&|src| diffecho(src, "valid", 100));
    assert!(text.contains("number 100 is in two splits"), "{text}");
    let text = faulty(&|src| std::fs::remove_file(src.join("valid_masks/ch4_es_mask_7.png")).unwrap());
    assert!(text.contains("ch4_es_frame_7.png") && text.contains("is missing"), "{text}");
    let text = faulty(&|src| {
        picture(5, 5, |_, _| 0).write(&src.join("valid_masks/ch4_es_mask_7.png")).unwrap();
    });
    assert!(text.contains("the image is 8 x 8 and its mask 5 x 5"), "{text}");
    let text = faulty(&|src| {
        std::fs::rename(src.join("train_frames/ch2_ed_frame_100.png"), src.join("train_frames/a.png"))
            .unwrap();
    });
    assert!(text.contains("not of the form ch2_ed_frame_100.png"), "{text}");
    let text = faulty(&|src| std::fs::remove_dir_all(src.join("valid_frames")).unwrap());
    assert!(text.contains("valid_frames: this folder does not exist"), "{text}");
}

#[test]
fn a_manifest_folder_is_copied_whole() {
    let src = tempfile::tempdir().unwrap();
    phantom(&src.path().join("p"), 3);
    let (_first, manifest) = run(Source::Camus, &src.path().join("p"));
    let manifest = manifest.unwrap();
    let (_second, copy) = run(Source::Folder, &manifest.root);
    let copy = copy.unwrap();
    assert_eq!(copy.rows, manifest.rows);
    assert_eq!(files(&copy.root), files(&manifest.root));
}

#[cfg(not(feature = "hdf5"))]
#[test]
fn without_hdf5_the_kaggle_file_is_refused_with_a_remedy() {
    let src = tempfile::NamedTempFile::new().unwrap();
    assert!(message(Source::KaggleH5, src.path()).contains("--features hdf5"));
}

#[cfg(feature = "hdf5")]
mod kaggle {
    use super::*;

    /// 52 people of 8 x 6, of this type.
    fn write<T: hdf5_metno::H5Type>(file: &Path, frame: impl Fn(usize) -> T, mask: impl Fn(usize) -> T) {
        let h5 = hdf5_metno::File::create(file).unwrap();
        for view in ["2ch", "4ch"] {
            for phase in ["ED", "ES"] {
                for what in ["frames", "masks"] {
                    let values: Vec<T> =
                        (0..52 * 48).map(|i| if what == "masks" { mask(i) } else { frame(i) }).collect();
                    h5.new_dataset::<T>()
                        .shape((52, 6, 8, 1))
                        .create(format!("train {view} {phase} {what}").as_str())
                        .unwrap()
                        .write_raw(&values)
                        .unwrap();
                }
            }
        }
    }

    #[test]
    fn bytes_and_floats_give_the_same_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, floats) = (dir.path().join("u8.hdf5"), dir.path().join("f64.hdf5"));
        write::<u8>(&bytes, |i| (i % 256) as u8, |i| (i % 4) as u8);
        write::<f64>(&floats, |i| (i % 256) as f64 / 255.0, |i| (i % 4) as f64 * 85.0);
        let (_a, a) = run(Source::KaggleH5, &bytes);
        let (_b, b) = run(Source::KaggleH5, &floats);
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(files(&a.root), files(&b.root));
        assert_eq!(a.rows.len(), 52 * 4);
        assert_eq!(a.of(Split::Val).count(), 50 * 4);
        assert_eq!(a.of(Split::Train).map(|row| &*row.patient).next(), Some("patient0050"));
        let image = Picture::read(&a.image_path(&a.rows[4])).unwrap();
        assert_eq!((image.width, image.height, image.pixels[0]), (8, 6, 48));
    }

    #[test]
    fn faults_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.hdf5");
        write::<f32>(&file, |_| 0.5, |i| if i == 100 { 0.5 } else { 0.0 });
        let text = message(Source::KaggleH5, &file);
        assert!(text.contains("`train 2ch ED masks`: the mask holds 0.5"), "{text}");
        write::<f32>(&file, |_| 300.0, |_| 0.0);
        let text = message(Source::KaggleH5, &file);
        assert!(text.contains("`train 2ch ED frames`: grey 300"), "{text}");
        drop(hdf5_metno::File::create(&file).unwrap());
        let text = message(Source::KaggleH5, &file);
        assert!(text.contains("`train 2ch ED frames` is missing"), "{text}");
        std::fs::write(&file, "hello").unwrap();
        assert!(message(Source::KaggleH5, &file).contains("not a readable HDF5 file"));
    }
}
