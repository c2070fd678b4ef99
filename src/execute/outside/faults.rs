//! What is wrong with the user's files that a spec names, as far as it shows without computing: before hours of work,
//! and all of it at once.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tch::{Device, Kind};

use super::{is_manifest_folder, listed, manifest_root};
use crate::{
    aggregate::published,
    data::import::{self, AcquisitionFiles},
    error::{AtPath, Error, Result},
    experiment::{Generator, ResolvedSpec},
    generate::dataset::{check_pipelines, pipelines_in},
    measure::extractor::check_weights,
    pipeline::{Pipeline, PipelineSource},
    plain_file,
    train::diffusion::open_base_of,
    vocabulary::{Mode, Source},
};

/// Files of one data set that are listed by name.
const SHOWN: usize = 5;

/// The faults of all files that the spec names: of data sets that their pictures cannot be opened, of weights that their
/// headers do not fit the networks. Files that are missing are left to the spec's own checks.
pub fn faults(spec: &ResolvedSpec) -> Vec<Error> {
    let mut faults = Vec::new();
    let mut note = |checked: Result<()>| faults.extend(checked.err());
    let published = &spec.report.published;
    if published.is_file() {
        note(published::read(published).map(|_| ()));
    }
    if let Some(task) = &spec.tasks.classification {
        for model in &task.models {
            if let Some(file) = task.weights_of(*model).filter(|file| file.exists()) {
                note(model.check(&file));
            }
        }
    }
    if let Some(extractor) = spec.measure.as_ref().map(|measure| &measure.extractor)
        && extractor.weights.exists()
    {
        note(check_weights(extractor.name, &extractor.weights));
    }
    for (name, generator) in &spec.generators {
        if generator.mode != Mode::External {
            note(check_folders(spec, generator).map_err(|e| e.context(format!("the generator {name}"))));
        }
    }
    if let Some(root) = spec.data.root.as_deref().filter(|root| root.exists()) {
        faults.extend(match manifest_root(&spec.data) {
            Some(root) => faults_of_pictures(listed(root)),
            // Its pictures lie in one file, which takes long to read.
            None if spec.data.source == Source::KaggleH5 => Vec::new(),
            None => faults_of_pictures(import::source_files(spec.data.source, root)),
        });
    }
    for generator in spec.generators.values().filter(|generator| generator.mode == Mode::External) {
        let folder = &generator.source.folder;
        if folder.exists() {
            faults.extend(faults_of_pictures(match is_manifest_folder(folder) {
                true => listed(folder),
                false => import::source_files(Source::Folder, folder),
            }));
        }
    }
    faults
}

/// The diffusers folders that a generator samples, or starts its training from.
fn check_folders(spec: &ResolvedSpec, generator: &Generator) -> Result<()> {
    let source = &generator.source;
    let named = |path: &Path| !path.as_os_str().is_empty();
    let controlnet = Some(source.controlnet.as_path()).filter(|path| named(path));
    if named(&source.pipeline) {
        let there = source.pipeline.exists() && controlnet.is_none_or(Path::exists);
        return if there { check_pipelines(generator, &source.pipeline, controlnet) } else { Ok(()) };
    }
    // A generator's name comes before a folder's.
    let base = Path::new(&source.base);
    if !named(base) || spec.generators.contains_key(&source.base) || !base.exists() {
        return Ok(());
    }
    let folders = if generator.has_model_per_class() { pipelines_in(base) } else { vec![base.to_owned()] };
    folders.iter().try_for_each(|folder| check_base(folder, generator.mode))
}

fn check_base(folder: &Path, mode: Mode) -> Result<()> {
    open_base_of(folder, mode)?;
    let found = Pipeline::check(&PipelineSource {
        pipeline: folder,
        controlnet: None,
        scheduler: None,
        levels: None,
        shift: None,
        variant: None,
        kind: Kind::Float,
        device: Device::Cpu,
    })?;
    match found == Mode::TextSegmentation {
        false => Ok(()),
        true => Err(Error::input("the base takes masks already: it is not a text model")
            .at(folder)
            .help("start from a text model")),
    }
}

fn faults_of_pictures(listed: Result<Vec<AcquisitionFiles>>) -> Vec<Error> {
    let files: Vec<PathBuf> = match listed {
        Ok(acquisitions) => {
            acquisitions.into_iter().flat_map(|one| one.image.into_iter().chain(one.mask)).collect()
        }
        Err(error) => return vec![error],
    };
    let mut faults: Vec<Error> = files.par_iter().filter_map(|file| check_picture(file).err()).collect();
    if faults.len() > SHOWN {
        let more = faults.len() - SHOWN;
        faults.truncate(SHOWN);
        faults.push(Error::input(format!("{more} more images and masks cannot be read")).help(
            "copy the data set again; `synecho data check FOLDER` lists all that is wrong with a data folder",
        ));
    }
    faults
}

fn check_picture(file: &Path) -> Result<()> {
    let cannot = "cannot read the image";
    let opened = plain_file::open(file).and_then(|opened| opened.metadata()).at_path(file, cannot);
    let checked = opened.and_then(|metadata| match metadata.len() {
        0 => Err(Error::input("cannot read this as an image: the file is empty").at(file)),
        _ => Ok(()),
    });
    checked.map_err(|e| e.help("the data set names it: copy the file again"))
}
