//! What a generator's images are worth while it is trained: distance from real images, view, and agreement with their
//! masks, by networks that were trained on the real images of the same patients.

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
};

use tch::Tensor;

use super::{StageContext, dataset_inputs};
use crate::{
    aggregate, data,
    error::{AtPath, Result},
    experiment::{Generator, GeneratorSampling, Measure},
    generate,
    manifest::Manifest,
    measure::{
        extractor::{BATCH, DomainImages, ExtractorSource, FeatureExtractor, FeatureOptions},
        held_out::{self, Segmented},
        kid::{Subsets, kid},
    },
    plan::QualityJudges,
    progress::Progress,
    random,
    results::{self, MEASUREMENTS, Measurement},
    samples::{MaskReading, Samples},
    train::{self, diffusion::QualityScore},
    vocabulary::{Backbone, Extractor, Metric, Split, Structure},
};

/// The judges of a generator in training.
pub(super) struct QualityStage<'a> {
    context: &'a StageContext<'a>,
    /// As for the images of the finished generator, but few of them and of other seeds.
    few: Generator,
    judges: &'a QualityJudges,
    real: &'a Manifest,
    patients: Option<&'a [String]>,
    real_features: OnceCell<Tensor>,
    silent: Progress,
}

impl<'a> QualityStage<'a> {
    pub fn new(
        context: &'a StageContext<'a>,
        settings: &Generator,
        judges: &'a QualityJudges,
        real: &'a Manifest,
        patients: Option<&'a [String]>,
    ) -> Self {
        let (sampling, count) = (&settings.sampling, settings.quality.quality_images);
        let few = Generator {
            seed: random::seed(settings.seed, "quality", &[]),
            sampling: GeneratorSampling {
                per_class_images: count,
                // Data of few patients have few masks.
                per_mask: sampling.per_mask.max(count),
                candidates: 1,
                vary_masks: false,
                ..sampling.clone()
            },
            ..settings.clone()
        };
        Self {
            context,
            few,
            judges,
            real,
            patients,
            real_features: OnceCell::new(),
            silent: Progress::new(true),
        }
    }

    /// Makes images with the `pipeline` in the empty folder `work`, and measures them.
    pub fn measure(&self, pipeline: &Path, work: &Path) -> Result<Vec<QualityScore>> {
        let inputs = generate::dataset::DatasetInputs {
            progress: &self.silent,
            ..dataset_inputs(self.context, &self.few, pipeline, self.real, self.patients)
        };
        let folder = |name: &str| {
            let folder = work.join(name);
            std::fs::create_dir_all(&folder).at_path(&folder, "cannot make the folder").map(|()| folder)
        };
        let made = generate::dataset::dataset(&inputs, &folder("made")?, &folder("images")?)?;
        let mut scores = vec![self.kid(&made)?];
        let domain = &self.judges.domain;
        let mut rows = self.judged(&made, domain.recipe.image_size, &folder("view")?, |samples, out| {
            let channels = train::channels(domain).map(|c| (c.mean, c.std));
            let network = self.network(QualityJudges::DOMAIN)?;
            let network = (Backbone::Resnet18, network.as_path());
            let bar = self.silent.bar(0, "", "images");
            held_out::classification(domain, network, channels, samples, self.context.device, out, &bar)
        })?;
        if let Some(task) = &self.judges.segmentation {
            rows.extend(self.judged(&made, task.recipe.image_size, &folder("masks")?, |samples, out| {
                let network = self.network(QualityJudges::SEGMENTATION)?;
                let bar = self.silent.bar(0, "", "images");
                let samples = (samples, Segmented::Synthetic);
                held_out::segmentation(task, &network, samples, self.context.device, out, &bar)
            })?);
        }
        let summed = aggregate::judged(&rows)?;
        for (metric, structure) in [(Metric::ViewAccuracy, ""), (Metric::Dice, Structure::MEAN)] {
            let of_all = summed
                .iter()
                .find(|row| row.metric == metric && row.structure == structure && row.view.is_empty());
            scores.extend(of_all.map(|row| QualityScore { metric, structure, value: row.value }));
        }
        Ok(scores)
    }

    fn network(&self, role: &str) -> Result<PathBuf> {
        Ok(self.context.artifact(role)?.join(train::WEIGHTS))
    }

    /// What a network sees in the images, at its size.
    fn judged(
        &self,
        made: &Manifest,
        size: usize,
        out: &Path,
        judge: impl FnOnce(&Samples, &Path) -> Result<()>,
    ) -> Result<Vec<Measurement>> {
        let folder = out.join("prepared");
        std::fs::create_dir_all(&folder).at_path(&folder, "cannot make the folder")?;
        let prepared = data::prepare::prepare(made, size, &folder, &|_, _| {})?;
        let masks = prepared.rows.iter().all(|row| row.mask.is_some()).then_some(MaskReading::RIGHT);
        judge(&Samples::read(&prepared, Split::Train, None, masks)?, out)?;
        results::read_csv(&out.join(MEASUREMENTS))
    }

    /// From the training images of the generator's patients.
    fn kid(&self, made: &Manifest) -> Result<QualityScore> {
        let real = match self.real_features.get() {
            Some(features) => features,
            None => {
                let features = self.features(self.real, self.patients, Some(self.context.cache))?;
                self.real_features.get_or_init(|| features)
            }
        };
        let synthetic = self.features(made, None, None)?;
        // All synthetic images against as many subsets of real ones.
        let subsets =
            Subsets { size: Some(synthetic.size()[0].min(real.size()[0]) as usize), ..Subsets::default() };
        Ok(QualityScore { metric: Metric::Kid, structure: "", value: kid(real, &synthetic, &subsets)?.value })
    }

    fn features(&self, of: &Manifest, patients: Option<&[String]>, cache: Option<&Path>) -> Result<Tensor> {
        let domain = &self.judges.domain;
        let weights = self.network(QualityJudges::DOMAIN)?;
        let extractor = FeatureExtractor::open(&ExtractorSource {
            extractor: Extractor::Domain,
            weights: Some(&weights),
            // Inception's, which this network does not have.
            convention: Measure::default().extractor.convention,
            domain: DomainImages {
                size: domain.recipe.image_size,
                channels: train::channels(domain).map(|c| (c.mean, c.std)),
            },
            device: self.context.device,
        })?;
        let samples = Samples::read(of, Split::Train, patients, None)?;
        let files: Vec<_> = samples.rows.iter().map(|row| of.image_path(row)).collect();
        let options = FeatureOptions { batch: BATCH, skip_unreadable: false, cache, progress: &self.silent };
        Ok(extractor.features(&files, &options)?.values)
    }
}
