//! Distances between images: reads them, takes their features, measures.

use std::path::{Path, PathBuf};

use super::{DATA, Place};
use crate::{
    error::{AtPath, Result},
    experiment::Measure,
    manifest::Manifest,
    measure::{
        extractor::{BATCH, FeatureExtractor, How},
        generators::{self, Images, reference},
        networks,
    },
    picture::Picture,
    results::{self, Measurement, NearestPair},
    samples::Samples,
    train,
    vocabulary::{Extractor, GeneratorMeasure, Label, Split},
};

/// The nearest pairs of synthetic and training images.
pub(super) const NEAREST: &str = "nearest.csv";

/// Synthetic images against the training images, and against what held-out ones are to these.
pub(super) fn generator(place: &Place, measure: &Measure) -> Result<()> {
    let taking = Taking::new(place, measure)?;
    let real = place.manifest()?;
    let made = Manifest::read(place.artifact("synthetic")?.join(DATA))?;
    let training = taking.images(&real, Split::Train)?;
    let synthetic = taking.images(&made, Split::Train)?;
    let mut rows = generators::distances(measure, &training, &synthetic)?;
    if let Some(held_out) = taking.held_out(&real)? {
        let (measured, pairs) = taking.memorised(&training, &synthetic, &held_out)?;
        rows.extend(measured);
        write(&place.out.join(NEAREST), &pairs)?;
    }
    write(&place.out.join(networks::MEASUREMENTS), &rows)
}

/// The same for images that tell what the scale is: `per_class` of each view and phase.
pub(super) fn references(place: &Place, measure: &Measure, per_class: usize) -> Result<()> {
    let taking = Taking::new(place, measure)?;
    let real = place.manifest()?;
    let training = taking.images(&real, Split::Train)?;
    let held_out = taking.held_out(&real)?;
    let few = |samples: &Samples| reference::few(samples, per_class, measure.seed);
    let mut rows = Vec::new();
    let mut add = |arm: &str, mut measured: Vec<Measurement>| {
        measured.iter_mut().for_each(|row| arm.clone_into(&mut row.arm));
        rows.extend(measured);
    };

    let (first, second) = reference::halves(&training.samples, measure.seed);
    let (first, second) = (taking.chosen(&real, first)?, taking.chosen(&real, few(&second))?);
    add(reference::HALVES, generators::distances(measure, &first, &second)?);
    if let Some(held_out) = &held_out {
        add(reference::HELD_OUT, generators::distances(measure, &training, held_out)?);
    }
    let changed = [
        (reference::BLURRED, reference::blurred(&few(&training.samples))),
        (reference::NOISE, reference::noise(&few(&training.samples), measure.seed)),
    ];
    for (arm, samples) in changed {
        let images = taking.unwritten(samples, &place.checkpoints.join(arm))?;
        let mut measured = generators::distances(measure, &training, &images)?;
        if let Some(held_out) = &held_out {
            measured.extend(taking.memorised(&training, &images, held_out)?.0);
        }
        add(arm, measured);
    }
    write(&place.out.join(networks::MEASUREMENTS), &rows)
}

/// How features are taken in this stage.
struct Taking<'a> {
    place: &'a Place<'a>,
    measure: &'a Measure,
    extractor: FeatureExtractor,
}

impl<'a> Taking<'a> {
    fn new(place: &'a Place<'a>, measure: &'a Measure) -> Result<Self> {
        let (weights, device) = (place.outside("weights"), place.device);
        let extractor = match measure.extractor.name {
            Extractor::InceptionFid => {
                FeatureExtractor::inception_fid(weights, measure.extractor.convention, device)?
            }
            Extractor::Resnet50 => FeatureExtractor::resnet50(weights, device)?,
            Extractor::Domain => {
                let network = place.artifact("network")?.join(train::WEIGHTS);
                let training = measure.extractor.domain_training();
                let channels = train::channels(&training).map(|c| (c.mean, c.std));
                let classes = Label::classes(training.label).len();
                FeatureExtractor::domain(
                    Some(&network),
                    classes,
                    training.recipe.image_size,
                    channels,
                    device,
                )?
            }
        };
        Ok(Self { place, measure, extractor })
    }

    fn images(&self, manifest: &Manifest, split: Split) -> Result<Images> {
        self.chosen(manifest, Samples::read(manifest, split, None, None)?)
    }

    /// Images of `manifest`.
    fn chosen(&self, manifest: &Manifest, samples: Samples) -> Result<Images> {
        let files: Vec<PathBuf> = samples.rows.iter().map(|row| manifest.image_path(row)).collect();
        self.of_files(samples, &files)
    }

    /// Images that are in no file yet.
    fn unwritten(&self, samples: Samples, folder: &Path) -> Result<Images> {
        std::fs::create_dir_all(folder).at_path(folder, "cannot make the folder")?;
        let files: Vec<PathBuf> = (0..samples.len()).map(|i| folder.join(format!("{i:06}.png"))).collect();
        for (i, file) in files.iter().enumerate() {
            let (width, height) = (samples.size, samples.size);
            Picture { width, height, pixels: samples.image(i).to_vec() }.write(file)?;
        }
        self.of_files(samples, &files)
    }

    fn of_files(&self, samples: Samples, files: &[PathBuf]) -> Result<Images> {
        let how = How {
            batch: BATCH,
            skip_unreadable: false,
            cache: Some(self.place.cache),
            progress: self.place.progress,
        };
        Ok(Images { features: self.extractor.features(files, &how)?.values, samples })
    }

    /// Real images that no generator was trained on: of the test patients, or the validation patients where
    /// there are none. None where all patients train.
    fn held_out(&self, real: &Manifest) -> Result<Option<Images>> {
        let there = |split: &Split| real.of(*split).next().is_some();
        match [Split::Test, Split::Val].into_iter().find(there) {
            Some(split) => self.images(real, split).map(Some),
            None => Ok(None),
        }
    }

    fn memorised(
        &self,
        training: &Images,
        images: &Images,
        held_out: &Images,
    ) -> Result<(Vec<Measurement>, Vec<NearestPair>)> {
        match self.measure.generators.contains(&GeneratorMeasure::Memorisation) {
            true => generators::memorised(self.measure, training, images, held_out),
            false => Ok(Default::default()),
        }
    }
}

fn write<T: serde::Serialize + Default>(file: &Path, rows: &[T]) -> Result<()> {
    std::fs::write(file, results::to_csv(rows)?).at_path(file, "cannot write")
}
