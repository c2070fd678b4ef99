//! The hash that names a stage.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Fraction, Input, Mixture, Outside, Work};
use crate::{
    experiment::{
        Augment, Budget, Classification, ExtractorSettings, Freeze, Generator, GeneratorNetworks,
        GeneratorPrompts, GeneratorSampling, GeneratorTraining, Measure, Phantom, ReportOn, ResolvedSpec,
        Schedule, Segmentation, SegmentationLoss, SplitSettings, TrainingRecipe,
    },
    vocabulary::{
        Backbone, Convention, Extractor, GeneratorMeasure, Label, MaskDecoding, Mode, NoiseLevels, Pairing,
        Precision, Sampler, SegmentationNetwork, Source,
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
    Import { format: Source },
    Prepare { image_size: usize, split: &'a SplitSettings },
    TrainGenerator { settings: GeneratorTrainingKey<'a>, patients: Option<Fraction> },
    Generate { settings: GeneratorSamplingKey<'a>, patients: Option<Fraction> },
    ImportSynthetic {},
    PrepareSynthetic { image_size: usize },
    TrainSegmentation { settings: SegmentationTrainingKey<'a>, mixture: Mixture },
    TrainClassification { settings: ClassificationTrainingKey<'a>, model: Backbone, mixture: Mixture },
    JudgeSegmentation { network: SegmentationNetworkKey<'a> },
    JudgeClassification { network: ClassificationNetworkKey },
    PseudoMasks { network: SegmentationNetworkKey<'a> },
    MeasureTexture {},
    MeasureGenerator { measure: MeasureKey<'a> },
    MeasureReference { measure: MeasureKey<'a>, per_class: usize },
    MeasureSegmentation { network: SegmentationNetworkKey<'a>, on: ReportOn },
    MeasureClassification { network: ClassificationNetworkKey, on: ReportOn },
    Report { spec: &'a ResolvedSpec },
}

impl<'a> KeyParameters<'a> {
    fn new(work: &'a Work) -> Self {
        match work {
            Work::Phantom(phantom) => Self::Phantom(phantom),
            Work::Import { format } => Self::Import { format: *format },
            Work::Prepare { image_size, split } => Self::Prepare { image_size: *image_size, split },
            Work::TrainGenerator { settings, patients } => {
                Self::TrainGenerator { settings: GeneratorTrainingKey::new(settings), patients: *patients }
            }
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

/// The training of a generator. Its base is an input; how its images are sampled is the next stage's.
#[derive(Serialize)]
struct GeneratorTrainingKey<'a> {
    mode: Mode,
    image_size: usize,
    networks: &'a GeneratorNetworks,
    prompts: &'a GeneratorPrompts,
    training: &'a GeneratorTraining,
    seed: u64,
    augment: &'a Augment,
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
            sampling: _,
        } = settings;
        Self { mode: *mode, image_size: *image_size, networks, prompts, training, seed: *seed, augment }
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
    guidance: f64,
    per_class_images: usize,
    sampling_batch: usize,
    text: Option<TextSamplingKey<'a>>,
    masks: Option<MaskSamplingKey<'a>>,
}

/// What only text-guided images depend on.
#[derive(Serialize)]
struct TextSamplingKey<'a> {
    prompts: &'a GeneratorPrompts,
    negative_prompt: &'a str,
}

/// What only images from masks depend on.
#[derive(Serialize)]
struct MaskSamplingKey<'a> {
    per_mask: usize,
    vary_masks: bool,
    /// Where the masks are varied.
    augment: Option<&'a Augment>,
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
        } = settings;
        let &GeneratorSampling {
            scheduler,
            sampling_steps,
            noise_levels,
            guidance,
            ref negative_prompt,
            per_class_images,
            per_mask,
            vary_masks,
            // Of the stage that gives the finished images their masks.
            pseudo_masks: _,
            sampling_batch,
        } = sampling;
        let text = TextSamplingKey { prompts, negative_prompt };
        let masks = MaskSamplingKey { per_mask, vary_masks, augment: vary_masks.then_some(augment) };
        Self {
            mode: *mode,
            image_size: *image_size,
            seed: *seed,
            scheduler,
            sampling_steps,
            noise_levels,
            guidance,
            per_class_images,
            sampling_batch,
            text: (*mode != Mode::Unconditional).then_some(text),
            masks: (*mode == Mode::TextSegmentation).then_some(masks),
        }
    }
}

/// What the two tasks' trainings have in common.
#[derive(Serialize)]
struct RecipeKey<'a> {
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
    augment: &'a Augment,
}

impl<'a> RecipeKey<'a> {
    fn new(recipe: &'a TrainingRecipe) -> Self {
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
            augment,
        }
    }
}

/// The training of a segmentation network.
#[derive(Serialize)]
struct SegmentationTrainingKey<'a> {
    #[serde(flatten)]
    recipe: RecipeKey<'a>,
    model: SegmentationNetwork,
    loss: SegmentationLoss,
    class_weights: &'a [f64],
    channels: &'a [i64],
    pairing: Pairing,
    mask_decoding: MaskDecoding,
    nan_poisons_dice: bool,
}

impl<'a> SegmentationTrainingKey<'a> {
    fn new(settings: &'a Segmentation) -> Self {
        let Segmentation {
            recipe,
            model,
            loss,
            class_weights,
            channels,
            pairing,
            mask_decoding,
            nan_poisons_dice,
        } = settings;
        Self {
            recipe: RecipeKey::new(recipe),
            model: *model,
            loss: *loss,
            class_weights,
            channels,
            pairing: *pairing,
            mask_decoding: *mask_decoding,
            nan_poisons_dice: *nan_poisons_dice,
        }
    }
}

/// The training of a classifier, one of the task's models. Its weights are an outside file.
#[derive(Serialize)]
struct ClassificationTrainingKey<'a> {
    #[serde(flatten)]
    recipe: RecipeKey<'a>,
    label: Label,
    trainable_parameters: usize,
    freeze: Freeze,
    #[serde(skip_serializing_if = "Option::is_none")]
    synthetic_per_class: Option<usize>,
    momentum: f64,
    weight_decay: f64,
    imagenet_normalise: bool,
}

impl<'a> ClassificationTrainingKey<'a> {
    fn new(settings: &'a Classification) -> Self {
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
}

impl<'a> SegmentationNetworkKey<'a> {
    fn new(settings: &'a Segmentation) -> Self {
        Self { model: settings.model, image_size: settings.recipe.image_size, channels: &settings.channels }
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        experiment::{Freeze, GeneratorPreset, HeldOut, Preset, SplitScheme, TrainingRecipe, parse, resolve},
        plan::Mixture,
    };

    fn train(settings: Segmentation) -> Work {
        Work::TrainSegmentation { settings, mixture: Mixture::real(1.0, 0) }
    }

    fn generator() -> Box<Generator> {
        Box::new(Generator::preset(GeneratorPreset::Cpu, Mode::TextSegmentation))
    }

    fn segmentation() -> Segmentation {
        Segmentation::preset(Preset::Corrected)
    }

    fn classification() -> Classification {
        Classification::preset(Preset::Corrected)
    }

    fn spec() -> Box<ResolvedSpec> {
        let text = "[data]\nsource = \"phantom\"\n[tasks.segmentation]\n";
        Box::new(resolve(parse(text, "spec".as_ref(), &[]).unwrap()).unwrap())
    }

    /// One stage of each kind of work and its key; `covered` does not compile while a kind is missing here.
    macro_rules! pinned {
        ($( $kind:pat = $work:expr => $key:literal, )*) => {
            fn pinned() -> Vec<(Work, &'static str)> {
                vec![$( ($work, $key) ),*]
            }

            fn covered(work: &Work) {
                match work {
                    $( $kind => {} )*
                }
            }
        };
    }

    pinned! {
        Work::Phantom(_) = Work::Phantom(Phantom { patients: 10, size: 128, seed: 0 })
            => "37c3477a053b5059c92950b052e488a7",
        Work::Import { .. } = Work::Import { format: Source::Camus } => "3beaf3c5c98fe3d6d93d64f0424df978",
        Work::Prepare { .. } = Work::Prepare {
            image_size: 128,
            split: SplitSettings {
                scheme: SplitScheme::Official,
                test_from: HeldOut::Test,
                val_patients: None,
                val_fraction: None,
                test_fraction: None,
                folds: None,
                fold: None,
                seed: 0,
            },
        } => "f869adcb29fa3163ff421f94bb86059e",
        Work::TrainGenerator { .. } = Work::TrainGenerator {
            settings: generator(),
            patients: Some(Fraction { fraction: 0.5, seed: 1 }),
        } => "bddc01bbb94d5515d4ab186241e8179c",
        Work::Generate { .. } = Work::Generate { settings: generator(), patients: None }
            => "b2c43fe7e1732cf013b73e5e942c05cb",
        Work::ImportSynthetic {} = Work::ImportSynthetic {} => "c5e7721c8217672e249c89d5ee640cad",
        Work::PrepareSynthetic { .. } = Work::PrepareSynthetic { image_size: 128 }
            => "bfd03c86d03120dedbcdb7f33b6c042e",
        Work::TrainSegmentation { .. } = train(segmentation()) => "7c77b984740322a2698bef69a28a21a4",
        Work::TrainClassification { .. } = Work::TrainClassification {
            settings: classification(),
            model: Backbone::Resnet18,
            mixture: Mixture::real(1.0, 0),
        } => "4c0650d64c54906d28f658260230b915",
        Work::JudgeSegmentation { .. } = Work::JudgeSegmentation { settings: segmentation() }
            => "dd9a82a3efb95450404d0c681241d2ad",
        Work::JudgeClassification { .. } = Work::JudgeClassification {
            settings: classification(),
            model: Backbone::Resnet18,
        } => "1356e472c6dc5bd4d36b24fe378bcd86",
        Work::PseudoMasks { .. } = Work::PseudoMasks { settings: segmentation() }
            => "2e5cc51ec647be2a31ec0260996d0e16",
        Work::MeasureTexture {} = Work::MeasureTexture {} => "f6e2f4ed061732ff4ba0a9762cf2ac72",
        Work::MeasureGenerator { .. } = Work::MeasureGenerator { measure: Measure::default() }
            => "759ccbaa08e95a8eebc5c09fb5b7bbe4",
        Work::MeasureReference { .. } = Work::MeasureReference {
            measure: Measure::default(),
            per_class: 100,
        } => "e35d83b8c8bbe7b4bdcdd368c1c1ac94",
        Work::MeasureSegmentation { .. } = Work::MeasureSegmentation {
            settings: segmentation(),
            on: ReportOn::Test,
        } => "ce3d748679be5e4bcf1b512db342e8bc",
        Work::MeasureClassification { .. } = Work::MeasureClassification {
            settings: classification(),
            model: Backbone::Resnet18,
            on: ReportOn::Test,
        } => "5350396208ca2d40e02480b10b505e90",
        Work::Report { .. } = Work::Report { spec: spec() } => "5794be709ae886b9a5094cccda95bfce",
    }

    #[test]
    fn the_keys_of_stages_change_only_on_purpose() {
        let mut wrong = Vec::new();
        for (work, expected) in pinned() {
            covered(&work);
            let found = key(&work, &[], &[]);
            if found != expected {
                wrong.push(format!("{} \"{expected}\" is now \"{found}\"", params(&work)["work"]));
            }
        }
        assert!(
            wrong.is_empty(),
            "keys have changed, so every store computes these stages again:\n{}\nIf the output of the stage has \
             changed, raise its number in `Work::version`. If only the form of the key has changed, is that worth \
             training everything again? Then update the literals here, and say so in CHANGELOG.md.",
            wrong.join("\n")
        );
    }

    #[test]
    fn every_kind_of_work_has_a_key_of_its_own() {
        let keys: HashSet<&str> = pinned().into_iter().map(|(_, key)| key).collect();
        assert_eq!(keys.len(), pinned().len());
    }

    #[test]
    fn freezing_is_in_the_key() {
        let of = |trainable_parameters, freeze| {
            let settings = Classification { trainable_parameters, freeze, ..classification() };
            let model = Backbone::Resnet18;
            key(&Work::TrainClassification { settings, model, mixture: Mixture::real(1.0, 0) }, &[], &[])
        };
        let keys =
            [of(0, Freeze::Reference), of(9, Freeze::Reference), of(9, Freeze::Exact), of(8, Freeze::Exact)];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 4);
    }

    #[test]
    fn only_what_decides_the_output_is_in_the_key() {
        let base = segmentation();
        let input = |key: &str| vec![Input { role: "data".into(), key: key.into() }];
        let reference = key(&train(base.clone()), &input("a"), &[]);
        let with = |recipe: TrainingRecipe| Segmentation { recipe, ..base.clone() };
        let same = with(TrainingRecipe {
            report_on: ReportOn::Val,
            preset: Preset::PaperCode,
            ..base.recipe.clone()
        });
        assert_eq!(key(&train(same), &input("a"), &[]), reference);
        let other = with(TrainingRecipe { epochs: 7, ..base.recipe.clone() });
        assert_ne!(key(&train(other), &input("a"), &[]), reference);
        assert_ne!(key(&train(base.clone()), &input("b"), &[]), reference);
        let outside = Outside { role: "weights".into(), path: "x".into(), digest: "d".into() };
        assert_ne!(key(&train(base.clone()), &input("a"), std::slice::from_ref(&outside)), reference);
        let moved = Outside { path: "y".into(), ..outside.clone() };
        assert_eq!(key(&train(base.clone()), &[], &[outside]), key(&train(base), &[], &[moved]));
    }

    #[test]
    fn a_generator_is_trained_and_sampled_by_its_own_sections() {
        let keys = |change: &dyn Fn(&mut Generator)| {
            let mut settings = generator();
            change(&mut settings);
            [
                key(&Work::TrainGenerator { settings: settings.clone(), patients: None }, &[], &[]),
                key(&Work::Generate { settings, patients: None }, &[], &[]),
            ]
        };
        let base = keys(&|_| {});
        let changed = |change: &dyn Fn(&mut Generator)| {
            let now = keys(change);
            [now[0] != base[0], now[1] != base[1]]
        };
        assert_eq!(changed(&|g| g.preset = GeneratorPreset::Diffecho), [false, false]);
        assert_eq!(changed(&|g| g.source.base = "other".into()), [false, false]);
        assert_eq!(changed(&|g| g.networks.patch = 2), [true, false]);
        assert_eq!(changed(&|g| g.training.steps = 7), [true, false]);
        assert_eq!(changed(&|g| g.sampling.guidance = 3.0), [false, true]);
        assert_eq!(changed(&|g| g.prompts.random_tokens = true), [true, true]);
        assert_eq!(changed(&|g| g.seed = 7), [true, true]);
        assert_eq!(changed(&|g| g.sampling.per_mask = 9), [false, true]);
        assert_eq!(changed(&|g| g.sampling.pseudo_masks = true), [false, false]);
        assert_eq!(changed(&|g| g.augment.rotate = 1.0), [true, false]);
        let varied = |rotate: f64| {
            keys(&|g| {
                g.sampling.vary_masks = true;
                g.augment.rotate = rotate;
            })
        };
        assert_ne!(varied(1.0)[1], varied(2.0)[1]);
        let unconditional = |negative_prompt: &str| {
            keys(&|g| {
                g.mode = Mode::Unconditional;
                g.sampling.negative_prompt = negative_prompt.into();
            })
        };
        assert_eq!(unconditional("")[1], unconditional("blurred")[1]);
    }

    #[test]
    fn what_another_extractor_or_measure_uses_is_not_in_the_key_of_a_measure() {
        let of = |name, generators: &[GeneratorMeasure], change: &dyn Fn(&mut Measure)| {
            let mut measure = Measure { generators: generators.to_vec(), ..Measure::default() };
            measure.extractor.name = name;
            change(&mut measure);
            key(&Work::MeasureGenerator { measure }, &[], &[])
        };
        let counts = |name, generators: &[GeneratorMeasure], change: &dyn Fn(&mut Measure)| {
            of(name, generators, change) != of(name, generators, &|_| {})
        };
        let fid = [GeneratorMeasure::Fid];
        let other_convention = |m: &mut Measure| m.extractor.convention = Convention::CleanFid;
        assert!(counts(Extractor::InceptionFid, &fid, &other_convention));
        assert!(!counts(Extractor::Domain, &fid, &other_convention));
        let other_size = |m: &mut Measure| m.extractor.image_size += 8;
        assert!(counts(Extractor::Domain, &fid, &other_size));
        assert!(!counts(Extractor::InceptionFid, &fid, &other_size));
        let other_subsets = |m: &mut Measure| m.kid_subsets += 1;
        assert!(counts(Extractor::Domain, &GeneratorMeasure::DEFAULT, &other_subsets));
        assert!(!counts(Extractor::Domain, &fid, &other_subsets));
    }
}
