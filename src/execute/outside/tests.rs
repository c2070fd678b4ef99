use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use super::*;
use crate::{data::phantom, experiment::Phantom, picture::Picture};

fn quiet(_: usize, _: usize) {}

/// A source of each kind, with the function that digests it.
struct Outsider {
    dir: tempfile::TempDir,
    digest: fn(&Path, &Digests) -> Result<String>,
}

impl Outsider {
    fn new(make: impl FnOnce(&Path), digest: fn(&Path, &Digests) -> Result<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make(&dir.path().join("source"));
        Self { dir, digest }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Nothing is remembered: what is written within a clock's grain of being read would look the same.
    fn digest(&self) -> String {
        (self.digest)(&self.root(), &Digests::open(self.dir.path())).unwrap()
    }

    #[track_caller]
    fn same(&self, change: impl FnOnce(&Self)) {
        let before = self.digest();
        change(self);
        assert_eq!(self.digest(), before);
    }

    #[track_caller]
    fn other(&self, change: impl FnOnce(&Self)) {
        let before = self.digest();
        change(self);
        assert_ne!(self.digest(), before);
    }

    fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let changed = change(text.clone());
        assert_ne!(changed, text, "the edit of {name} changes nothing");
        fs::write(self.path(name), changed).unwrap();
    }

    fn flip_last_byte(&self, name: &str) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(self.path(name), bytes).unwrap();
    }
}

/// Puts into every folder what people and their systems leave there.
fn litter(root: &Path) {
    let mut folders = vec![root.to_owned()];
    let mut open = folders.clone();
    while let Some(folder) = open.pop() {
        let inner = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let inner: Vec<PathBuf> = inner.filter(|path| path.is_dir()).collect();
        folders.extend(inner.iter().cloned());
        open.extend(inner);
    }
    for folder in folders {
        let files =
            ["README", "README.md", "Thumbs.db", "desktop.ini", ".DS_Store", "._x", "._ch2_ed_frame_1.png"];
        let others =
            ["manifest.csv~", "flax_model.msgpack", "pytorch_model.bin", "diffusion_pytorch_model.bin"];
        for file in files.into_iter().chain(others) {
            fs::write(folder.join(file), "litter").unwrap();
        }
        fs::create_dir(folder.join("empty")).unwrap();
        fs::create_dir(folder.join("__MACOSX")).unwrap();
        fs::write(folder.join("__MACOSX/._manifest.csv"), "litter").unwrap();
        symlink(".", folder.join("loop")).unwrap();
        symlink("..", folder.join("patient9999")).unwrap();
        symlink("nowhere", folder.join("dangling.png")).unwrap();
        // Opening either would wait for ever.
        assert!(Command::new("mkfifo").arg(folder.join("pipe.png")).status().unwrap().success());
        UnixListener::bind(folder.join("socket")).unwrap();
    }
}

fn picture(file: &Path, value: u8) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    Picture { width: 4, height: 3, pixels: vec![value; 12] }.write(file).unwrap();
}

const TABLE: &str = "patient,view,phase,image,mask,split,age\n\
                     p1,2CH,ED,images/0.png,masks/0.png,train,56\n\
                     p1,2CH,ES,images/1.png,masks/1.png,train,56\n\
                     \"p,2\",4CH,ED,images/2.png,,test,\n";

fn manifest_folder() -> Outsider {
    let make = |root: &Path| {
        (0..3).for_each(|i| picture(&root.join(format!("images/{i}.png")), i));
        (0..2).for_each(|i| picture(&root.join(format!("masks/{i}.png")), i));
        fs::write(root.join("manifest.csv"), TABLE).unwrap();
    };
    Outsider::new(make, manifest_digest)
}

fn camus(root: &Path, digests: &Digests) -> Result<String> {
    source_digest(Source::Camus, root, digests)
}

fn camus_folder() -> Outsider {
    let make = |root: &Path| {
        phantom::write(&Phantom { patients: 3, size: 32, seed: 5 }, root, &quiet).unwrap();
    };
    Outsider::new(make, camus)
}

/// The older release: a header and a file of pixels for each picture.
fn mhd_folder() -> Outsider {
    let make = |root: &Path| {
        for patient in ["patient0001", "patient0002"] {
            let folder = root.join("training").join(patient);
            fs::create_dir_all(&folder).unwrap();
            for stem in [format!("{patient}_2CH_ED"), format!("{patient}_2CH_ED_gt")] {
                let header = format!(
                    "NDims = 2\nDimSize = 4 3\nElementType = MET_UCHAR\nElementDataFile = {stem}.raw\n"
                );
                fs::write(folder.join(format!("{stem}.mhd")), header).unwrap();
                fs::write(folder.join(format!("{stem}.raw")), [1u8; 12]).unwrap();
            }
        }
    };
    Outsider::new(make, camus)
}

fn diffecho_folder() -> Outsider {
    let make = |root: &Path| {
        for (part, number) in [("train", 100), ("valid", 7)] {
            for name in ["ch2_ed", "ch4_es"] {
                picture(&root.join(format!("{part}_frames/{name}_frame_{number}.png")), 9);
                picture(&root.join(format!("{part}_masks/{name}_mask_{number}.png")), 85);
            }
        }
    };
    Outsider::new(make, |root, digests| source_digest(Source::Diffecho, root, digests))
}

/// With the weights of one part in shards, of another as a variant as well.
fn pipeline_folder() -> Outsider {
    let make = |root: &Path| {
        let write = |name: &str, text: &str| {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), text).unwrap();
        };
        let part = |library: &str, class: &str| format!("[\"{library}\", \"{class}\"]");
        write(
            "model_index.json",
            &format!(
                "{{\"_class_name\": \"StableDiffusionPipeline\", \"unet\": {}, \"text_encoder\": {}, \
                 \"tokenizer\": {}, \"scheduler\": {}, \"safety_checker\": {}, \"vae\": [null, null]}}",
                part("diffusers", "UNet2DConditionModel"),
                part("transformers", "CLIPTextModel"),
                part("transformers", "CLIPTokenizer"),
                part("diffusers", "DDIMScheduler"),
                part("stable_diffusion", "StableDiffusionSafetyChecker"),
            ),
        );
        write("synecho.json", "{\"space_to_depth\": 4}");
        write("unet/config.json", "{\"_class_name\": \"UNet2DConditionModel\"}");
        write("unet/diffusion_pytorch_model.safetensors", "weights");
        write("unet/diffusion_pytorch_model.fp16.safetensors", "half");
        write("text_encoder/config.json", "{\"architectures\": [\"CLIPTextModel\"]}");
        write(
            "text_encoder/model.safetensors.index.json",
            "{\"weight_map\": {\"a\": \"model-1.safetensors\"}}",
        );
        write("text_encoder/model-1.safetensors", "shard");
        write("tokenizer/vocab.json", "{}");
        write("tokenizer/merges.txt", "a b");
        write("scheduler/scheduler_config.json", "{\"_class_name\": \"DDIMScheduler\"}");
        write("safety_checker/config.json", "{}");
        write("v1-5-pruned.safetensors", "the same once more");
        write("training_patients.txt", "p1\n");
    };
    Outsider::new(make, pipeline_digest)
}

#[test]
fn litter_changes_no_digest() {
    let all = [manifest_folder(), camus_folder(), mhd_folder(), diffecho_folder(), pipeline_folder()];
    for (i, outsider) in all.iter().enumerate() {
        let before = outsider.digest();
        litter(&outsider.root());
        assert_eq!(outsider.digest(), before, "source {i}");
    }
}

#[test]
fn a_source_behind_links_is_the_source() {
    for outsider in [manifest_folder(), camus_folder(), mhd_folder(), diffecho_folder(), pipeline_folder()] {
        outsider.same(|o| {
            let elsewhere = o.dir.path().join("elsewhere");
            fs::rename(o.root(), &elsewhere).unwrap();
            fs::create_dir(o.root()).unwrap();
            for entry in fs::read_dir(&elsewhere).unwrap() {
                let entry = entry.unwrap();
                symlink(entry.path(), o.root().join(entry.file_name())).unwrap();
            }
        });
    }
}

#[test]
fn a_manifest_counts_by_its_meaning() {
    let folder = manifest_folder();
    let table = |folder: &Outsider, text: &str| fs::write(folder.path("manifest.csv"), text).unwrap();
    folder.same(|f| f.edit("manifest.csv", |text| text.replace('\n', "\r\n")));
    folder.same(|f| f.edit("manifest.csv", |text| format!("\u{feff}{text}\r\n\r\n")));
    folder.same(|f| {
        table(
            f,
            "split,notes,image,mask,phase,view,patient,age\n\
             train,blurred,./images/0.png,masks/0.png,ED,2CH,\"p1\",56.0\n\
             train,,images/./1.png,masks/1.png,ES,2CH,p1,56\n\
             test,,images/2.png,,ED,4CH,\"p,2\",\n",
        );
    });
    table(&folder, TABLE);
    // Preparing renames every file.
    folder.same(|f| {
        fs::rename(f.path("images/2.png"), f.path("2.png")).unwrap();
        f.edit("manifest.csv", |text| text.replace("images/2.png", "2.png"));
    });
    for (from, to) in [
        ("p1", "p3"),
        ("56", "57"),
        ("\"p,2\",4CH,ED,2.png,,test", "\"p,2\",4CH,ED,2.png,,val"),
        ("masks/1.png", ""),
        ("4CH", "2CH"),
    ] {
        folder.other(|f| f.edit("manifest.csv", |text| text.replace(from, to)));
    }
    table(&folder, &TABLE.replace("images/2.png", "2.png"));
    folder.other(|f| {
        f.edit("manifest.csv", |text| {
            let mut lines: Vec<&str> = text.lines().collect();
            lines.swap(1, 3);
            lines.join("\n")
        });
    });
    folder.other(|f| picture(&f.path("images/1.png"), 77));
    folder.other(|f| picture(&f.path("masks/1.png"), 3));
    folder.other(|f| fs::write(f.path(manifest::PHANTOM_MARKER), "").unwrap());
    folder.same(|f| fs::write(f.path(manifest::PHANTOM_MARKER), "in other words").unwrap());
}

#[test]
fn a_row_without_its_file_is_another_data_set() {
    let folder = manifest_folder();
    folder.other(|f| fs::remove_file(f.path("images/1.png")).unwrap());
    folder.same(|f| symlink("nowhere", f.path("images/1.png")).unwrap());
    folder.same(|f| {
        fs::remove_file(f.path("images/1.png")).unwrap();
        assert!(Command::new("mkfifo").arg(f.path("images/1.png")).status().unwrap().success());
    });
}

#[test]
fn camus_counts_as_it_is_imported() {
    let folder = camus_folder();
    let (list, info) = ("database_split/subgroup_training.txt", "database_nifti/patient0001/Info_2CH.cfg");
    folder.same(|f| f.edit(list, |text| text.replace('\n', "\r\n")));
    folder.same(|f| f.edit(info, |text| text.replace("Sex: ", "Sex : ") + "Operator: me\n"));
    folder.same(|f| f.edit(info, |text| text.replace("FrameRate: 50", "FrameRate: 51")));
    folder.same(|f| {
        fs::write(f.path("database_nifti/patient0001/patient0001_2CH_half_sequence.nii.gz"), "x").unwrap();
    });
    // The other view's file has the age too, and of two values the first counts.
    folder.same(|f| f.edit(info, |text| text.replace("Age: ", "Years: ")));
    folder.other(|f| f.edit(info, |text| format!("Age: 101\n{text}")));
    folder.other(|f| f.flip_last_byte("database_nifti/patient0002/patient0002_4CH_ES.nii.gz"));
    folder.other(|f| f.flip_last_byte("database_nifti/patient0002/patient0002_4CH_ES_gt.nii.gz"));
    folder.other(|f| fs::rename(f.path(list), f.path("database_split/subgroup_testing.txt")).unwrap());
    folder.other(|f| fs::remove_dir_all(f.path("database_nifti/patient0003")).unwrap());
    folder.other(|f| {
        let folder = f.path("database_nifti/patient0004");
        fs::rename(f.path("database_nifti/patient0002"), &folder).unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            fs::rename(folder.join(&name), folder.join(name.replace("0002", "0004"))).unwrap();
        }
    });
    folder.other(|f| fs::remove_file(f.path(manifest::PHANTOM_MARKER)).unwrap());
    // The folder of patients is the same data set.
    let inner = camus(&folder.path("database_nifti"), &Digests::open(folder.dir.path())).unwrap();
    assert_eq!(inner, folder.digest());
}

#[test]
fn both_files_of_a_metaimage_count() {
    let folder = mhd_folder();
    let stem = "training/patient0001/patient0001_2CH_ED";
    folder.other(|f| f.flip_last_byte(&format!("{stem}.raw")));
    folder.other(|f| f.edit(&format!("{stem}.mhd"), |text| format!("ElementSpacing = 0.3 0.3\n{text}")));
    folder.same(|f| fs::write(f.path(&format!("{stem}.zraw")), "of no header").unwrap());
}

#[test]
fn diffechos_folders_count_by_name_and_content() {
    let folder = diffecho_folder();
    folder.other(|f| picture(&f.path("train_frames/ch2_ed_frame_100.png"), 10));
    folder.other(|f| picture(&f.path("valid_masks/ch4_es_mask_7.png"), 170));
    folder.other(|f| {
        for what in ["frame", "mask"] {
            let name = |number: u32| f.path(&format!("train_{what}s/ch2_ed_{what}_{number}.png"));
            fs::rename(name(100), name(101)).unwrap();
        }
    });
    // A mask that no image has.
    folder.same(|f| picture(&f.path("train_masks/ch2_es_mask_300.png"), 0));
}

#[test]
fn of_a_pipeline_what_loading_reads_counts() {
    let folder = pipeline_folder();
    folder.same(|f| fs::write(f.path("v1-5-pruned.safetensors"), "another").unwrap());
    folder.same(|f| fs::write(f.path("safety_checker/config.json"), "{\"a\": 1}").unwrap());
    folder.same(|f| fs::write(f.path("unet/diffusion_pytorch_model.fp16.safetensors"), "other").unwrap());
    for name in [
        "model_index.json",
        "synecho.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model-1.safetensors",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
        "training_patients.txt",
    ] {
        folder.other(|f| f.edit(name, |text| format!("{text} \n")));
    }
    // A pipeline for each class, and a network of its own.
    let classes =
        Outsider::new(|root| fs::create_dir_all(root.join("2ch_ed/unet")).unwrap(), pipeline_digest);
    classes.other(|f| {
        fs::write(f.path("2ch_ed/model_index.json"), "{\"_class_name\": \"DDPMPipeline\"}").unwrap();
    });
    let network = Outsider::new(
        |root| {
            fs::create_dir_all(root).unwrap();
            fs::write(root.join("config.json"), "{\"_class_name\": \"ControlNetModel\"}").unwrap();
        },
        pipeline_digest,
    );
    network.other(|f| fs::write(f.path("diffusion_pytorch_model.safetensors"), "weights").unwrap());
    network.same(|f| litter(&f.root()));
}

#[test]
fn a_broken_source_has_a_digest_and_the_import_says_what_is_wrong() {
    let folder = camus_folder();
    fs::remove_file(folder.path("database_nifti/patient0001/patient0001_2CH_ED_gt.nii.gz")).unwrap();
    let broken = folder.digest();
    let listed = import::source_files(Source::Camus, &folder.root()).err().unwrap().to_string();
    let to = folder.dir.path().join("imported");
    let imported = import::import(Source::Camus, &folder.root(), &to, &quiet).unwrap_err().to_string();
    assert!(listed.contains("the mask patient0001_2CH_ED_gt is missing"), "{listed}");
    assert_eq!(listed, imported);
    fs::remove_file(folder.path("database_nifti/patient0001/patient0001_2CH_ED.nii.gz")).unwrap();
    assert_ne!(folder.digest(), broken);

    let digests = Digests::open(folder.dir.path());
    for digest in [manifest_digest, camus, pipeline_digest, file_digest] {
        let missing = digest(&folder.path("none"), &digests).unwrap_err().to_string();
        assert!(missing.contains("none: this file or folder does not exist\n  help: "), "{missing}");
    }
}

#[test]
fn each_file_is_read_once() {
    let folder = manifest_folder();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let digests = Digests::open(folder.dir.path());
    let first = manifest_digest(&folder.root(), &digests).unwrap();
    digests.save();
    let remembered = fs::read_to_string(folder.dir.path().join("digests.json")).unwrap();
    assert_eq!(remembered.matches("blake3").count(), 5, "{remembered}");
    let again = manifest_digest(&folder.root(), &Digests::open(folder.dir.path())).unwrap();
    assert_eq!(again, first);
}
