//! The hash that names a stage.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Fraction, Input, Mixture, Outside, QualityJudges, Work};
use crate::{
    experiment::{
        Augment, Budget, Classification, ExtractorSettings, Freeze, Generator, GeneratorNetworks,
        GeneratorPrompts, GeneratorQuality, GeneratorSampling, GeneratorTraining, Interpolation, Measure,
        Phantom, ReportOn, ResolvedSpec, Schedule, Segmentation, SegmentationLoss, SplitSettings,
        TrainingRecipe, TranslateUnit,
    },
    vocabulary::{
        Backbone, Convention, Extractor, GeneratorMeasure, KeptPart, Label, MaskDecoding, Mode, NoiseLevels,
        Pairing, Precision, Sampler, SegmentationNetwork, Source,
    },
};

/// 128 bits of BLAKE3 over the canonical JSON of what the output depends on.
pub(super) fn key(work: &Work, inputs: &[Input], outside: &[Outside]) -> String {
    let mut inputs: Vec<_> = inputs.iter().map(|i| (&i.role, &i.key)).collect();
    inputs.sort();
    let mut outside: Vec<_> = outside.iter().map(|o| (&o.role, &o.digest)).collect();
    outside.sort();
    let identity = json!({
        "kind": work.kind(),
        "version": work.version(),
        "params": params(work),
        "inputs": inputs,
        "outside": outside,
    });
    blake3::hash(canonical(&identity).as_bytes()).to_hex()[..32].to_owned()
}

/// The parameters that are in a stage's key, and in its record.
pub fn params(work: &Work) -> Value {
    serde_json::to_value(KeyParameters::new(work)).unwrap_or(Value::Null)
}

/// What the output of a stage depends on, beside its inputs and outside files. A parameter that only names or
/// places something, or that only a later stage needs, is omitted: changing it must not train anything again.
#[derive(Serialize)]
#[serde(tag = "work", rename_all = "kebab-case")]
enum KeyParameters<'a> {
    Phantom(&'a Phantom),
    Import {
        format: Source,
    },
    Prepare {
        image_size: usize,
        split: &'a SplitSettings,
    },
    TrainGenerator {
        settings: GeneratorTrainingKey<'a>,
        patients: Option<Fraction>,
        #[serde(skip_serializing_if = "Option::is_none")]
        quality: Option<QualityKey<'a>>,
    },
    Generate {
        settings: GeneratorSamplingKey<'a>,
        patients: Option<Fraction>,
    },
    ImportSynthetic {},
    PrepareSynthetic {
        image_size: usize,
    },
    TrainSegmentation {
        settings: SegmentationTrainingKey<'a>,
        mixture: Mixture,
    },
    TrainClassification {
        settings: ClassificationTrainingKey,
        model: Backbone,
        mixture: Mixture,
    },
    JudgeSegmentation {
        network: SegmentationNetworkKey<'a>,
    },
    JudgeClassification {
        network: ClassificationNetworkKey,
    },
    PseudoMasks {
        network: SegmentationNetworkKey<'a>,
    },
    SelectCandidates {
        network: SegmentationNetworkKey<'a>,
        candidates: usize,
    },
    MeasureTexture {},
    MeasureGenerator {
        measure: MeasureKey<'a>,
    },
    MeasureReference {
        measure: MeasureKey<'a>,
        per_class: usize,
    },
    MeasureSegmentation {
        network: SegmentationNetworkKey<'a>,
        on: ReportOn,
    },
    MeasureClassification {
        network: ClassificationNetworkKey,
        on: ReportOn,
    },
    Report {
        spec: &'a ResolvedSpec,
    },
}

impl<'a> KeyParameters<'a> {
    fn new(work: &'a Work) -> Self {
        match work {
            Work::Phantom(phantom) => Self::Phantom(phantom),
            Work::Import { format } => Self::Import { format: *format },
            Work::Prepare { image_size, split } => Self::Prepare { image_size: *image_size, split },
            Work::TrainGenerator { settings, patients, judges } => Self::TrainGenerator {
                settings: GeneratorTrainingKey::new(settings),
                patients: *patients,
                quality: judges.as_ref().map(|judges| QualityKey::new(settings, judges)),
            },
            Work::Generate { settings, patients } => {
                Self::Generate { settings: GeneratorSamplingKey::new(settings), patients: *patients }
            }
            Work::ImportSynthetic {} => Self::ImportSynthetic {},
            Work::PrepareSynthetic { image_size } => Self::PrepareSynthetic { image_size: *image_size },
            Work::TrainSegmentation { settings, mixture } => Self::TrainSegmentation {
                settings: SegmentationTrainingKey::new(settings),
                mixture: *mixture,
            },
            Work::TrainClassification { settings, model, mixture } => Self::TrainClassification {
                settings: ClassificationTrainingKey::new(settings),
                model: *model,
                mixture: *mixture,
            },
            Work::JudgeSegmentation { settings } => {
                Self::JudgeSegmentation { network: SegmentationNetworkKey::new(settings) }
            }
            Work::JudgeClassification { settings, model } => {
                Self::JudgeClassification { network: ClassificationNetworkKey::new(settings, *model) }
            }
            Work::PseudoMasks { settings } => {
                Self::PseudoMasks { network: SegmentationNetworkKey::new(settings) }
            }
            Work::SelectCandidates { settings, candidates } => Self::SelectCandidates {
                network: SegmentationNetworkKey::new(settings),
                candidates: *candidates,
            },
            Work::MeasureTexture {} => Self::MeasureTexture {},
            Work::MeasureGenerator { measure } => {
                Self::MeasureGenerator { measure: MeasureKey::new(measure) }
            }
            Work::MeasureReference { measure, per_class } => {
                Self::MeasureReference { measure: MeasureKey::new(measure), per_class: *per_class }
            }
            Work::MeasureSegmentation { settings, on } => {
                Self::MeasureSegmentation { network: SegmentationNetworkKey::new(settings), on: *on }
            }
            Work::MeasureClassification { settings, model, on } => Self::MeasureClassification {
                network: ClassificationNetworkKey::new(settings, *model),
                on: *on,
            },
            Work::Report { spec } => Self::Report { spec },
        }
    }
}

/// As it was before images could be sampled bicubically and greys be changed by gamma and noise: trainings without
/// these are the same.
#[derive(Serialize)]
struct AugmentKey {
    enabled: bool,
    rotate: f64,
    translate: f64,
    translate_unit: TranslateUnit,
    scale: f64,
    shear: f64,
    brightness: f64,
    contrast: f64,
    nearest_images: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    interpolation: Option<Interpolation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gamma: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    noise: Option<f64>,
}

impl AugmentKey {
    fn new(augment: &Augment) -> Self {
        let &Augment {
            enabled,
            rotate,
            translate,
            translate_unit,
            scale,
            shear,
            brightness,
            contrast,
            gamma,
            noise,
            interpolation,
        } = augment;
        let some = |value: f64| (value != 0.0).then_some(value);
        Self {
            enabled,
            rotate,
            translate,
            translate_unit,
            scale,
            shear,
            brightness,
            contrast,
            nearest_images: interpolation == Interpolation::Nearest,
            interpolation: (interpolation == Interpolation::Bicubic).then_some(interpolation),
            gamma: some(gamma),
            noise: some(noise),
        }
    }
}

/// The training of a generator. Its base is an input; how its images are sampled is the next stage's.
#[derive(Serialize)]
struct GeneratorTrainingKey<'a> {
    mode: Mode,
    image_size: usize,
    networks: &'a GeneratorNetworks,
    prompts: &'a GeneratorPrompts,
    training: &'a GeneratorTraining,
    seed: u64,
    augment: AugmentKey,
}

impl<'a> GeneratorTrainingKey<'a> {
    fn new(settings: &'a Generator) -> Self {
        // Every field is named, so that a new one is put on one of the two sides.
        let Generator {
            mode,
            image_size,
            networks,
            prompts,
            training,
            seed,
            augment,
            preset: _,
            source: _,
            // In the key only with what measures it.
            quality: _,
            sampling: _,
        } = settings;
        Self {
            mode: *mode,
            image_size: *image_size,
            networks,
            prompts,
            training,
            seed: *seed,
            augment: AugmentKey::new(augment),
        }
    }
}

/// What a generator is measured by while it is trained.
#[derive(Serialize)]
struct QualityKey<'a> {
    settings: &'a GeneratorQuality,
    scheduler: Sampler,
    sampling_steps: usize,
    noise_levels: NoiseLevels,
    shift: f64,
    guidance: f64,
    negative_prompt: &'a str,
    sampling_batch: usize,
    segmentation: Option<SegmentationNetworkKey<'a>>,
    domain: ClassificationNetworkKey,
}

impl<'a> QualityKey<'a> {
    fn new(generator: &'a Generator, judges: &'a QualityJudges) -> Self {
        let sampling = &generator.sampling;
        Self {
            settings: &generator.quality,
            scheduler: sampling.scheduler,
            sampling_steps: sampling.sampling_steps,
            noise_levels: sampling.noise_levels,
            shift: sampling.shift,
            guidance: sampling.guidance,
            negative_prompt: &sampling.negative_prompt,
            sampling_batch: sampling.sampling_batch,
            segmentation: judges.segmentation.as_ref().map(SegmentationNetworkKey::new),
            domain: ClassificationNetworkKey::new(&judges.domain, Backbone::Resnet18),
        }
    }
}

/// The images of a generator, whose networks are an input or an outside folder.
#[derive(Serialize)]
struct GeneratorSamplingKey<'a> {
    mode: Mode,
    image_size: usize,
    seed: u64,
    scheduler: Sampler,
    sampling_steps: usize,
    noise_levels: NoiseLevels,
    /// Omitted where the scheduler's own counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    shift: Option<f64>,
    guidance: f64,
    per_class_images: usize,
    sampling_batch: usize,
    text: Option<TextSamplingKey<'a>>,
    masks: Option<MaskSamplingKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inpainting: Option<(KeptPart, usize)>,
}

/// How a generator's images were sampled, as their stage's record says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RecordedSampling {
    pub scheduler: Sampler,
    pub sampling_steps: usize,
    pub noise_levels: NoiseLevels,
    #[serde(default)]
    pub shift: Option<f64>,
    pub guidance: f64,
}

impl RecordedSampling {
    /// From the parameters in a record; none if these are another stage's, or an earlier version's.
    pub fn of(params: &Value) -> Option<Self> {
        serde_json::from_value(params.get("settings")?.clone()).ok()
    }
}

/// What only text-guided images depend on.
#[derive(Serialize)]
struct TextSamplingKey<'a> {
    prompts: &'a GeneratorPrompts,
    negative_prompt: &'a str,
}

/// What only images from masks depend on.
#[derive(Serialize)]
struct MaskSamplingKey {
    per_mask: usize,
    candidates: usize,
    vary_masks: bool,
    /// Where the masks are varied.
    augment: Option<AugmentKey>,
}

impl<'a> GeneratorSamplingKey<'a> {
    fn new(settings: &'a Generator) -> Self {
        let Generator {
            mode,
            image_size,
            prompts,
            seed,
            sampling,
            augment,
            preset: _,
            source: _,
            networks: _,
            training: _,
            quality: _,
        } = settings;
        let &GeneratorSampling {
            scheduler,
            sampling_steps,
            noise_levels,
            shift,
            guidance,
            ref negative_prompt,
            per_class_images,
            per_mask,
            candidates,
            keep,
            resample,
            vary_masks,
            // Of the stage that gives the finished images their masks.
            pseudo_masks: _,
            sampling_batch,
        } = sampling;
        let text = TextSamplingKey { prompts, negative_prompt };
        let masks = MaskSamplingKey {
            per_mask,
            candidates,
            vary_masks,
            augment: vary_masks.then(|| AugmentKey::new(augment)),
        };
        Self {
            mode: *mode,
            image_size: *image_size,
            seed: *seed,
            scheduler,
            sampling_steps,
            noise_levels,
            shift: (shift > 0.0).then_some(shift),
            guidance,
            per_class_images,
            sampling_batch,
            text: matches!(mode, Mode::Text | Mode::TextSegmentation).then_some(text),
            masks: settings.takes_masks().then_some(masks),
            inpainting: (*mode == Mode::Inpaint).then_some((keep, resample)),
        }
    }
}

/// What the two tasks' trainings have in common.
#[derive(Serialize)]
struct RecipeKey {
    image_size: usize,
    epochs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<Budget>,
    batch_size: usize,
    learning_rate: f64,
    final_learning_rate: f64,
    schedule: Schedule,
    warmup_steps: usize,
    validate_every: usize,
    precision: Precision,
    shuffle: bool,
    val_loss_starts_from_train: bool,
    augment: AugmentKey,
}

impl RecipeKey {
    fn new(recipe: &TrainingRecipe) -> Self {
        let &TrainingRecipe {
            image_size,
            epochs,
            budget,
            batch_size,
            learning_rate,
            final_learning_rate,
            schedule,
            warmup_steps,
            validate_every,
            precision,
            shuffle,
            val_loss_starts_from_train,
            ref augment,
            preset: _,
            report_on: _,
        } = recipe;
        Self {
            image_size,
            epochs,
            budget,
            batch_size,
            learning_rate,
            final_learning_rate,
            schedule,
            warmup_steps,
            validate_every,
            precision,
            shuffle,
            val_loss_starts_from_train,
            augment: AugmentKey::new(augment),
        }
    }
}

/// The training of a segmentation network.
#[derive(Serialize)]
struct SegmentationTrainingKey<'a> {
    #[serde(flatten)]
    recipe: RecipeKey,
    model: SegmentationNetwork,
    loss: SegmentationLoss,
    class_weights: &'a [f64],
    channels: &'a [i64],
    pairing: Pairing,
    mask_decoding: MaskDecoding,
    nan_poisons_dice: bool,
    // Trainings without these are as they were before there were such settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    deep_supervision: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clip: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ema: Option<f64>,
}

impl<'a> SegmentationTrainingKey<'a> {
    fn new(settings: &'a Segmentation) -> Self {
        let Segmentation {
            recipe,
            model,
            loss,
            class_weights,
            deep_supervision,
            weight_decay,
            clip,
            ema,
            channels,
            pairing,
            mask_decoding,
            nan_poisons_dice,
            // Of the trained network's predictions.
            flip_test: _,
            largest_component: _,
        } = settings;
        let some = |value: f64| (value != 0.0).then_some(value);
        Self {
            recipe: RecipeKey::new(recipe),
            model: *model,
            loss: *loss,
            class_weights,
            channels,
            pairing: *pairing,
            mask_decoding: *mask_decoding,
            nan_poisons_dice: *nan_poisons_dice,
            deep_supervision: (*deep_supervision > 1).then_some(*deep_supervision),
            weight_decay: some(*weight_decay),
            clip: some(*clip),
            ema: some(*ema),
        }
    }
}

/// The training of a classifier, one of the task's models. Its weights are an outside file.
#[derive(Serialize)]
struct ClassificationTrainingKey {
    #[serde(flatten)]
    recipe: RecipeKey,
    label: Label,
    trainable_parameters: usize,
    freeze: Freeze,
    #[serde(skip_serializing_if = "Option::is_none")]
    synthetic_per_class: Option<usize>,
    momentum: f64,
    weight_decay: f64,
    imagenet_normalise: bool,
}

impl ClassificationTrainingKey {
    fn new(settings: &Classification) -> Self {
        let &Classification {
            ref recipe,
            label,
            trainable_parameters,
            freeze,
            synthetic_per_class,
            momentum,
            weight_decay,
            imagenet_normalise,
            models: _,
            weights: _,
        } = settings;
        Self {
            recipe: RecipeKey::new(recipe),
            label,
            trainable_parameters,
            freeze,
            synthetic_per_class: (synthetic_per_class > 0).then_some(synthetic_per_class),
            momentum,
            weight_decay,
            imagenet_normalise,
        }
    }
}

/// A trained segmentation network, as far as running it needs settings.
#[derive(Serialize)]
struct SegmentationNetworkKey<'a> {
    model: SegmentationNetwork,
    image_size: usize,
    channels: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    flip_test: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_component: Option<bool>,
}

impl<'a> SegmentationNetworkKey<'a> {
    fn new(settings: &'a Segmentation) -> Self {
        Self {
            model: settings.model,
            image_size: settings.recipe.image_size,
            channels: &settings.channels,
            flip_test: settings.flip_test.then_some(true),
            largest_component: settings.largest_component.then_some(true),
        }
    }
}

/// A trained classifier, as far as running it needs settings.
#[derive(Serialize)]
struct ClassificationNetworkKey {
    model: Backbone,
    image_size: usize,
    label: Label,
    imagenet_normalise: bool,
}

impl ClassificationNetworkKey {
    fn new(settings: &Classification, model: Backbone) -> Self {
        let &Classification { label, imagenet_normalise, .. } = settings;
        Self { model, image_size: settings.recipe.image_size, label, imagenet_normalise }
    }
}

/// A comparison of images with images.
#[derive(Serialize)]
struct MeasureKey<'a> {
    generators: &'a [GeneratorMeasure],
    neighbours: usize,
    /// Number and size of subsets, where KID is measured.
    kid: Option<[usize; 2]>,
    replicates: usize,
    seed: u64,
    extractor: ExtractorKey,
}

/// A feature extractor. Its weights are an outside file or an input.
#[derive(Serialize)]
struct ExtractorKey {
    name: Extractor,
    convention: Option<Convention>,
    image_size: Option<usize>,
}

impl<'a> MeasureKey<'a> {
    fn new(measure: &'a Measure) -> Self {
        let Measure { generators, neighbours, kid_subsets, kid_subset_size, replicates, seed, extractor } =
            measure;
        let &ExtractorSettings { name, convention, image_size, weights: _, epochs: _, learning_rate: _ } =
            extractor;
        Self {
            generators,
            neighbours: *neighbours,
            kid: generators.contains(&GeneratorMeasure::Kid).then_some([*kid_subsets, *kid_subset_size]),
            replicates: *replicates,
            seed: *seed,
            extractor: ExtractorKey {
                name,
                convention: (name == Extractor::InceptionFid).then_some(convention),
                image_size: (name == Extractor::Domain).then_some(image_size),
            },
        }
    }
}

/// JSON with sorted keys and no white space.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut names: Vec<_> = map.keys().collect();
            names.sort();
            let fields: Vec<_> = names
                .into_iter()
                .map(|name| format!("{}:{}", Value::String(name.clone()), canonical(&map[name])))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}
