//! Distances between images: reads the images, extracts their features, and measures.

use std::path::{Path, PathBuf};

use super::StageContext;
use crate::{
    error::{AtPath, Result},
    experiment::Measure,
    manifest::{DATA, Manifest},
    measure::{
        extractor::{BATCH, DomainImages, ExtractorSource, FeatureExtractor, FeatureOptions},
        generators::{self, Images, reference},
    },
    picture::Picture,
    results::{self, MEASUREMENTS, Measurement, NEAREST, NearestPair},
    samples::Samples,
    train,
    vocabulary::{GeneratorMeasure, Split},
};

/// Synthetic images against the training images, and against what held-out ones are to these.
pub(super) fn generator(context: &StageContext, measure: &Measure) -> Result<()> {
    let features = StageFeatures::new(context, measure)?;
    let real = context.manifest()?;
    let made = Manifest::read(context.artifact("synthetic")?.join(DATA))?;
    let training = features.images(&real, Split::Train)?;
    let synthetic = features.images(&made, Split::Train)?;
    let mut rows = generators::distances(measure, &training, &synthetic)?;
    if let Some(held_out) = features.held_out(&real)? {
        let (measured, pairs) = features.memorised(&training, &synthetic, &held_out)?;
        rows.extend(measured);
        write(&context.out.join(NEAREST), &pairs)?;
    }
    write(&context.out.join(MEASUREMENTS), &rows)
}

/// The same for images that show the scale: `per_class` of each view and phase.
pub(super) fn references(context: &StageContext, measure: &Measure, per_class: usize) -> Result<()> {
    let features = StageFeatures::new(context, measure)?;
    let real = context.manifest()?;
    let training = features.images(&real, Split::Train)?;
    let held_out = features.held_out(&real)?;
    let few = |samples: &Samples| reference::few(samples, per_class, measure.seed);
    let mut rows = Vec::new();
    let mut add = |arm: &str, mut measured: Vec<Measurement>| {
        measured.iter_mut().for_each(|row| arm.clone_into(&mut row.arm));
        rows.extend(measured);
    };

    let (first, second) = reference::halves(&training.samples, measure.seed);
    let (first, second) = (features.chosen(&real, first)?, features.chosen(&real, few(&second))?);
    add(reference::HALVES, generators::distances(measure, &first, &second)?);
    if let Some(held_out) = &held_out {
        add(reference::HELD_OUT, generators::distances(measure, &training, held_out)?);
    }
    let changed = [
        (reference::BLURRED, reference::blurred(&few(&training.samples))),
        (reference::NOISE, reference::noise(&few(&training.samples), measure.seed)),
    ];
    for (arm, samples) in changed {
        let images = features.unwritten(samples, &context.checkpoints.join(arm))?;
        let mut measured = generators::distances(measure, &training, &images)?;
        if let Some(held_out) = &held_out {
            measured.extend(features.memorised(&training, &images, held_out)?.0);
        }
        add(arm, measured);
    }
    write(&context.out.join(MEASUREMENTS), &rows)
}

/// The extractor of this stage.
struct StageFeatures<'a> {
    context: &'a StageContext<'a>,
    measure: &'a Measure,
    extractor: FeatureExtractor,
}

impl<'a> StageFeatures<'a> {
    fn new(context: &'a StageContext<'a>, measure: &'a Measure) -> Result<Self> {
        let settings = &measure.extractor;
        let training = settings.domain_training();
        // A network has no weights from outside where an earlier stage trained it.
        let weights = match context.outside("weights") {
            Some(file) => file.to_owned(),
            None => context.artifact("network")?.join(train::WEIGHTS),
        };
        let extractor = FeatureExtractor::open(&ExtractorSource {
            extractor: settings.name,
            weights: Some(&weights),
            convention: settings.convention,
            domain: DomainImages {
                size: training.recipe.image_size,
                channels: train::channels(&training).map(|c| (c.mean, c.std)),
            },
            device: context.device,
        })?;
        Ok(Self { context, measure, extractor })
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
        let options = FeatureOptions {
            batch: BATCH,
            skip_unreadable: false,
            cache: Some(self.context.cache),
            progress: self.context.progress,
        };
        Ok(Images { features: self.extractor.features(files, &options)?.values, samples })
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
